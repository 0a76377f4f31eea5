"""Tasks: waiting despite a cancellation, bounded concurrency, and single flight."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from aioimageattach._tasks import (
    as_completed,
    begin,
    cancel_and_wait,
    cancelled_after,
    finish,
    is_in_flight,
    map_concurrently,
    single_flight,
)
from tests.cancellations import Cancel, every_cancellation


class Counted:
    """Counts the running calls, their maximum number, and the calls that have ended."""

    def __init__(self) -> None:
        self.running = self.most = self.ended = 0
        self.go = asyncio.Event()

    async def __call__(self, number: int) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
            if number < 0:
                raise ValueError(number)
            return number * 10
        finally:
            await asyncio.sleep(0)  # cancelled work awaits during its clean-up, too
            self.running -= 1
            self.ended += 1


@every_cancellation
async def test_finish_outlasts_a_cancellation(cancel: Cancel) -> None:
    """The work completes before the cancellation is raised."""
    log: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        log.append("end")

    await cancel(lambda: finish(work()))
    assert log == ["end"]


@every_cancellation
async def test_finish_undoes_an_unwanted_result(cancel: Cancel) -> None:
    """If the work succeeds after the cancellation, its result is undone before the cancellation is raised."""
    log: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0.05)
        return "opened"

    async def undo(result: str) -> None:
        await asyncio.sleep(0.02)
        log.append(f"{result}, closed")

    await cancel(lambda: finish(work(), undo=undo))
    assert log == ["opened, closed"]


@every_cancellation
async def test_finish_of_failing_work(cancel: Cancel) -> None:
    """The cancellation replaces an error of the work; nothing is logged or undone."""

    async def work() -> None:
        await asyncio.sleep(0.05)
        raise ZeroDivisionError

    async def undo(result: None) -> None:
        raise AssertionError

    await cancel(lambda: finish(work(), undo=undo))


async def test_finish_without_a_cancellation() -> None:
    """The result, the error or the cancellation of the work itself is passed on."""

    async def work(outcome: object) -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    assert await finish(work(1)) == 1
    with pytest.raises(ZeroDivisionError):
        await finish(work(ZeroDivisionError()))
    with pytest.raises(asyncio.CancelledError):
        await finish(work(asyncio.CancelledError()))


@every_cancellation
async def test_finish_of_work_that_was_begun(cancel: Cancel) -> None:
    """``finish`` waits for work that ``begin`` has started, and returns its result or raises its error."""
    log: list[str] = []

    async def work(error: Exception | None = None) -> int:
        await asyncio.sleep(0.05)
        log.append("end")
        if error is not None:
            raise error
        return 7

    task, ended = begin(work())
    await cancel(lambda: finish(task, ended=ended))
    assert (log, task.result()) == (["end"], 7)
    task, ended = begin(work())
    assert await finish(task, ended=ended) == 7
    task, ended = begin(work(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        await finish(task, ended=ended)


async def test_an_event_ends_the_block() -> None:
    """The event ends the block without an error; a block that ends first leaves no task behind."""
    happened = asyncio.Event()
    tasks = len(asyncio.all_tasks())
    async with cancelled_after(happened.wait):
        happened.set()
        await asyncio.Event().wait()
    ended = False
    async with cancelled_after(asyncio.Event().wait):
        ended = True
    assert ended
    with pytest.raises(ZeroDivisionError):
        async with cancelled_after(asyncio.Event().wait):
            raise ZeroDivisionError
    assert len(asyncio.all_tasks()) == tasks


async def test_a_cancelled_block_raises() -> None:
    """A cancellation of the task propagates, because it is not confused with the event."""

    async def work() -> None:
        async with cancelled_after(asyncio.Event().wait):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_results_are_in_the_order_of_the_items() -> None:
    """Results have the order of the items, in whatever order the calls end."""

    async def wait(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert await map_concurrently(wait, [5, 1, 3, 0], limit=3) == [5, 1, 3, 0]
    assert await map_concurrently(wait, [], limit=3) == []


async def test_calls_are_bounded() -> None:
    """At most ``limit`` calls run at the same time."""
    calls = Counted()
    task = asyncio.create_task(map_concurrently(calls, range(7), limit=3))
    for _ in range(5):
        await asyncio.sleep(0)
    assert calls.running == 3
    calls.go.set()
    assert await task == [0, 10, 20, 30, 40, 50, 60]
    assert (calls.most, calls.ended) == (3, 7)


async def test_the_first_error_ends_the_other_calls() -> None:
    """The first error is raised after all other calls have been cancelled and have ended."""
    calls = Counted()

    async def fail_or_wait(number: int) -> int:
        if number == 2:
            raise ValueError(number)
        return await calls(number)

    with pytest.raises(ValueError, match="2"):
        await map_concurrently(fail_or_wait, range(50), limit=3)
    assert calls.running == 0
    assert calls.ended == 2


@every_cancellation
async def test_a_cancellation_ends_all_calls(cancel: Cancel) -> None:
    """When the cancelled caller continues, all calls have ended, for each kind of cancellation."""
    calls = Counted()
    await cancel(lambda: map_concurrently(calls, range(50), limit=3))
    assert (calls.running, calls.most, calls.ended) == (0, 3, 3)


async def works(calls: Counted, numbers: range | list[int]) -> AsyncIterator[Coroutine[Any, Any, int]]:
    for number in numbers:
        yield calls(number)


async def test_results_come_in_the_order_of_completion() -> None:
    """All results are yielded, with at most ``limit`` calls at the same time."""
    calls = Counted()
    calls.go.set()
    assert sorted([found async for found in as_completed(works(calls, range(7)), 3)]) == [0, 10, 20, 30, 40, 50, 60]
    assert (calls.most, calls.ended) == (3, 7)


async def test_an_iteration_that_ends_early_ends_the_calls() -> None:
    """Closing the iteration, or an error in it, cancels the running calls and waits until they have ended."""
    calls = Counted()
    calls.go.set()
    async with aclosing(as_completed(works(calls, range(50)), 3)) as results:
        await anext(results)
        calls.go.clear()
    assert calls.running == 0
    calls.go.set()
    with pytest.raises(ValueError, match="-1"):
        async for _ in as_completed(works(calls, [1, -1, 2]), 2):
            pass
    assert calls.running == 0


async def test_cancelled_tasks_have_ended() -> None:
    """An error of a task during its cancellation is not logged, and completed tasks are not affected."""
    noise: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: noise.append(context))

    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("late")

    async def succeed() -> int:
        return 7

    failing, done = asyncio.create_task(fail()), asyncio.create_task(succeed())
    await asyncio.sleep(0)
    await cancel_and_wait([failing, done])
    assert failing.done()
    assert done.result() == 7
    del failing
    gc.collect()
    assert noise == []


class Work:
    """Waits until it is released, and counts how often it was started and cancelled."""

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


async def test_concurrent_calls_share_the_work() -> None:
    """All calls during the work get its result, and a later call starts the work again."""
    work = Work()
    tasks = [asyncio.create_task(single_flight("a", work)) for _ in range(5)]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*tasks) == [1] * 5
    assert await single_flight("a", work) == 2


async def test_work_is_in_flight_until_it_ends() -> None:
    """``is_in_flight`` is true only for the key of running work."""
    work = Work()
    assert not is_in_flight("a")
    task = asyncio.create_task(single_flight("a", work))
    await asyncio.sleep(0)
    assert (is_in_flight("a"), is_in_flight("b")) == (True, False)
    work.go.set()
    await task
    assert not is_in_flight("a")


async def test_work_with_other_keys_is_not_shared() -> None:
    """Only work with the same key is shared."""
    work = Work()
    work.go.set()
    assert sorted(await asyncio.gather(single_flight("a", work), single_flight("b", work))) == [1, 2]


async def test_a_call_during_the_cancellation_of_the_work() -> None:
    """A call during the cancellation of abandoned work starts the work again, and is not cancelled with it."""
    starts, cleaning, go = 0, asyncio.Event(), asyncio.Event()

    async def work() -> int:
        nonlocal starts
        starts += 1
        try:
            await go.wait()
        except asyncio.CancelledError:
            cleaning.set()
            await asyncio.sleep(0.01)
            raise
        return starts

    leaving = asyncio.create_task(single_flight("a", work))
    await asyncio.sleep(0)
    leaving.cancel()
    await cleaning.wait()
    staying = asyncio.create_task(single_flight("a", work))
    await asyncio.wait([leaving])
    go.set()
    assert await staying == 2
    assert not is_in_flight("a")


async def test_the_work_continues_for_the_remaining_callers() -> None:
    """The work continues as long as a caller waits for it, and further callers can join."""
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


async def test_the_last_cancelled_caller_cancels_the_work() -> None:
    """Work is cancelled with its last waiting caller, which ends after it."""
    work = Work()
    tasks = [asyncio.create_task(single_flight("a", work)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (work.begun, work.cancelled) == (1, 1)
    work.go.set()
    assert await single_flight("a", work) == 2


async def test_an_error_during_the_cancellation_is_not_logged() -> None:
    """An error of the work during its cancellation is not logged; the caller raises the cancellation."""
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


async def test_an_error_is_raised_in_all_callers_and_not_kept() -> None:
    """All waiting callers get the error, and the next call runs the work again."""
    work = Work()
    work.error = ValueError("broken")
    work.go.set()
    outcomes = await asyncio.gather(*(single_flight("a", work, keep=60) for _ in range(3)), return_exceptions=True)
    assert outcomes == [work.error] * 3
    work.error = None
    assert await single_flight("a", work) == 2


async def test_a_result_is_kept_for_a_while() -> None:
    """With ``keep``, later calls get the same result until the time has passed."""
    work = Work()
    work.go.set()
    assert await single_flight("a", work, keep=0.05) == 1
    assert await single_flight("a", work, keep=0.05) == 1
    await asyncio.sleep(0.12)
    assert await single_flight("a", work, keep=0.01) == 2
    await asyncio.sleep(0.02)
