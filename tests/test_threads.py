"""Worker threads: whatever runs in one has ended when the caller goes on."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar

import anyio
import pytest

from aioimageattach import _threads

Cancel = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]


async def natively(work: Callable[[], Awaitable[object]]) -> None:
    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def twice(work: Callable[[], Awaitable[object]]) -> None:
    task = asyncio.ensure_future(work())
    for _ in range(2):
        await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_a_scope(work: Callable[[], Awaitable[object]]) -> None:
    with anyio.move_on_after(0.01) as scope:
        await work()
    assert scope.cancelled_caught


async def by_a_timeout(work: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await work()


async def by_a_neighbour(work: Callable[[], Awaitable[object]]) -> None:
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(work())  # type: ignore[arg-type]
    assert caught.group_contains(ZeroDivisionError)


every_cancellation = pytest.mark.parametrize("cancel", [natively, twice, by_a_scope, by_a_timeout, by_a_neighbour])


@pytest.fixture(autouse=True)
def usual_pools() -> Iterator[None]:
    yield
    _threads.set_workers(io=32, pixels=_threads.cores() + 1)


async def test_a_call_returns_and_raises() -> None:
    """What the call returns or raises comes through, from another thread, with the caller's context variables."""
    variable: ContextVar[int] = ContextVar("variable")
    variable.set(7)
    assert await _threads.run_io(lambda a, b: (a, b, variable.get()), 1, b=2) == (1, 2, 7)
    assert await _threads.run_pixels(threading.get_ident) != threading.get_ident()
    for run in (_threads.run_io, _threads.run_pixels):
        with pytest.raises(ZeroDivisionError):
            await run(lambda: 1 // 0)


@every_cancellation
async def test_a_cancelled_call_has_ended(cancel: Cancel) -> None:
    """Nothing happens in the thread once the caller goes on."""
    log: list[str] = []

    def call() -> None:
        time.sleep(0.05)
        log.append("end")

    await cancel(lambda: _threads.run_io(call))
    assert log == ["end"]


@every_cancellation
async def test_a_long_call_is_told_to_stop(cancel: Cancel) -> None:
    """It learns of the cancellation at once, and ends by itself."""
    stop = threading.Event()
    began = time.monotonic()
    await cancel(lambda: _threads.run_io_until(stop.set, stop.wait, 10))
    assert stop.is_set()
    assert time.monotonic() - began < 5


async def test_a_queued_call_never_runs_when_cancelled() -> None:
    """While all threads are busy, the caller goes on at once, and nobody is told to stop."""
    _threads.set_workers(io=1)
    release = threading.Event()
    busy = asyncio.ensure_future(_threads.run_io(release.wait, 10))
    log: list[str] = []
    await natively(lambda: _threads.run_io_until(lambda: log.append("stop"), log.append, "run"))
    assert not busy.done()
    release.set()
    assert await busy
    assert log == []


@every_cancellation
async def test_finish_outlasts_a_cancellation(cancel: Cancel) -> None:
    """The work goes on to its end, then the cancellation is raised."""
    log: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        log.append("end")

    await cancel(lambda: _threads.finish(work()))
    assert log == ["end"]


@every_cancellation
async def test_finish_undoes_what_nobody_takes(cancel: Cancel) -> None:
    """The result of work that succeeded after the cancellation is handed back, and that has ended too."""
    log: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0.05)
        return "opened"

    async def undo(result: str) -> None:
        await asyncio.sleep(0.02)
        log.append(f"{result}, closed")

    await cancel(lambda: _threads.finish(work(), undo=undo))
    assert log == ["opened, closed"]


@every_cancellation
async def test_finish_of_failing_work(cancel: Cancel) -> None:
    """Its error gives way to the cancellation, silently, and there is nothing to undo."""

    async def work() -> None:
        await asyncio.sleep(0.05)
        raise ZeroDivisionError

    async def undo(result: None) -> None:
        raise AssertionError

    await cancel(lambda: _threads.finish(work(), undo=undo))


async def test_finish_without_a_cancellation() -> None:
    """What the work returns or raises comes through, and so does a cancellation of the work itself."""

    async def work(outcome: object) -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    assert await _threads.finish(work(1)) == 1
    with pytest.raises(ZeroDivisionError):
        await _threads.finish(work(ZeroDivisionError()))
    with pytest.raises(asyncio.CancelledError):
        await _threads.finish(work(asyncio.CancelledError()))


@pytest.mark.parametrize(("pool", "run"), [("io", _threads.run_io), ("pixels", _threads.run_pixels)])
async def test_the_number_of_workers(pool: str, run: Callable[..., Awaitable[None]]) -> None:
    """No more calls run at the same time than there are workers, and those under way when it changes go on."""
    running, most = 0, 0
    lock = threading.Lock()

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    before = asyncio.gather(*(run(call) for _ in range(2)))
    await asyncio.sleep(0)
    _threads.set_workers(**{pool: 2})
    await before
    most = 0
    await asyncio.gather(*(run(call) for _ in range(6)))
    assert most == 2


@pytest.mark.parametrize("pool", ["io", "pixels"])
def test_at_least_one_worker(pool: str) -> None:
    """Fewer is an error that names the pool."""
    with pytest.raises(ValueError, match=f"{pool}: expected at least 1 worker, got 0"):
        _threads.set_workers(**{pool: 0})


async def test_a_forked_child_has_pools_of_its_own() -> None:
    """The threads of the parent are not in the child, so it starts its own."""
    await _threads.run_io(time.sleep, 0)

    def fork() -> int:
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            try:
                os._exit(asyncio.run(_threads.run_io(lambda: 7)))
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert fork() == 7


async def test_pictures_wait_before_they_are_read() -> None:
    """Two pictures for each thread have a slot, in each event loop; all others wait without one."""
    slots = _threads.picture_slot()
    assert slots is _threads.picture_slot()
    most = 2 * (_threads.cores() + 1)
    inside, seen = 0, set()

    async def work() -> None:
        nonlocal inside
        async with _threads.picture_slot():
            inside += 1
            seen.add(inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(5 * most)))
    assert max(seen) == most
    assert await asyncio.to_thread(asyncio.run, other_slots()) is not slots


async def other_slots() -> asyncio.Semaphore:
    return _threads.picture_slot()


async def test_a_block_that_is_cancelled_after_an_event() -> None:
    """The event ends the block without an error; a block that ends first leaves no task."""
    happened = asyncio.Event()
    tasks = len(asyncio.all_tasks())
    async with _threads.cancelled_after(happened.wait):
        happened.set()
        await asyncio.Event().wait()
    ended = False
    async with _threads.cancelled_after(asyncio.Event().wait):
        ended = True
    assert ended
    with pytest.raises(ZeroDivisionError):
        async with _threads.cancelled_after(asyncio.Event().wait):
            raise ZeroDivisionError
    assert len(asyncio.all_tasks()) == tasks


async def test_a_block_whose_task_is_cancelled() -> None:
    """It is not mistaken for the event."""

    async def work() -> None:
        async with _threads.cancelled_after(asyncio.Event().wait):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
