"""Work that several tasks want at the same time is done once."""

from __future__ import annotations

import asyncio
import gc

import pytest

from aioimageattach._tasks import single_flight


class Work:
    """Waits until it is let go, and counts how often it was begun and cancelled."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            if self.error is not None:
                raise self.error from None
            raise
        if self.error is not None:
            raise self.error
        return self.begun


async def test_tasks_share_one_piece_of_work() -> None:
    """All that ask while it runs get the one result; who asks afterwards begins anew."""
    work = Work()
    tasks = [asyncio.create_task(single_flight("a", work)) for _ in range(5)]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*tasks) == [1] * 5
    assert await single_flight("a", work) == 2


async def test_other_work_is_done_beside_it() -> None:
    """Only what has the same key is shared."""
    work = Work()
    work.go.set()
    assert sorted(await asyncio.gather(single_flight("a", work), single_flight("b", work))) == [1, 2]


async def test_a_cancelled_task_leaves_the_work_to_the_others() -> None:
    """The work goes on as long as anybody waits, and those who come meanwhile join it."""
    work = Work()
    first, second = (asyncio.create_task(single_flight("a", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    third = asyncio.create_task(single_flight("a", work))
    await asyncio.sleep(0)
    work.go.set()
    assert (await second, await third, work.begun, work.cancelled) == (1, 1, 1, 0)


async def test_the_last_to_be_cancelled_cancels_the_work() -> None:
    """Nothing runs on that nobody waits for, and the cancelled task ends after it."""
    work = Work()
    tasks = [asyncio.create_task(single_flight("a", work)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (work.begun, work.cancelled) == (1, 1)
    work.go.set()
    assert await single_flight("a", work) == 2


async def test_an_error_on_the_way_out_is_not_left_unretrieved() -> None:
    """Work that fails while it is cancelled makes no noise; the cancellation is what is raised."""
    work = Work()
    work.error = ValueError("late")
    task = asyncio.create_task(single_flight("a", work))
    await asyncio.sleep(0)
    task.cancel()
    noise: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: noise.append(context))
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    assert noise == []


async def test_a_failure_is_everybodys_and_is_not_kept() -> None:
    """All who wait get the error; the next one tries again."""
    work = Work()
    work.error = ValueError("broken")
    work.go.set()
    outcomes = await asyncio.gather(*(single_flight("a", work, keep=60) for _ in range(3)), return_exceptions=True)
    assert outcomes == [work.error] * 3
    work.error = None
    assert await single_flight("a", work) == 2


async def test_a_result_is_kept_for_a_while() -> None:
    """With ``keep`` a later task gets the same result until the time is over."""
    work = Work()
    work.go.set()
    assert await single_flight("a", work, keep=0.05) == 1
    assert await single_flight("a", work, keep=0.05) == 1
    await asyncio.sleep(0.12)
    assert await single_flight("a", work, keep=0.01) == 2
    await asyncio.sleep(0.02)
