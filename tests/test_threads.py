"""Calls in worker threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar

import pytest

from aioimageattach import _threads
from tests.cancellations import Cancel, every_cancellation, natively


@pytest.fixture(autouse=True)
def usual_pools() -> Iterator[None]:
    yield
    _threads.set_workers(io=32, pixels=_threads.cores() + 1)


async def test_a_call_returns_and_raises() -> None:
    """The call uses the context variables of the caller, and its result or error is passed on."""
    variable: ContextVar[int] = ContextVar("variable")
    variable.set(7)
    assert await _threads.run_io(lambda a, b: (a, b, variable.get()), 1, b=2) == (1, 2, 7)
    assert await _threads.run_pixels(threading.get_ident) != threading.get_ident()
    for run in (_threads.run_io, _threads.run_pixels):
        with pytest.raises(ZeroDivisionError):
            await run(lambda: 1 // 0)


@every_cancellation
async def test_a_cancelled_call_has_ended(cancel: Cancel) -> None:
    """The thread does nothing after the cancelled caller continues."""
    log: list[str] = []

    def call() -> None:
        time.sleep(0.05)
        log.append("end")

    await cancel(lambda: _threads.run_io(call))
    assert log == ["end"]


@every_cancellation
async def test_a_long_call_is_asked_to_stop(cancel: Cancel) -> None:
    """A cancellation calls ``stop`` immediately, and the call ends by itself."""
    stop = threading.Event()
    began = time.monotonic()
    await cancel(lambda: _threads.run_io_until(stop.set, stop.wait, 10))
    assert stop.is_set()
    assert time.monotonic() - began < 5


async def test_a_cancelled_queued_call_never_runs() -> None:
    """If all threads are busy, a cancelled caller continues immediately, and ``stop`` is not called."""
    _threads.set_workers(io=1)
    release = threading.Event()
    busy = asyncio.ensure_future(_threads.run_io(release.wait, 10))
    log: list[str] = []
    await natively(lambda: _threads.run_io_until(lambda: log.append("stop"), log.append, "run"))
    assert not busy.done()
    release.set()
    assert await busy
    assert log == []


@pytest.mark.parametrize(("pool", "run"), [("io", _threads.run_io), ("pixels", _threads.run_pixels)])
async def test_the_number_of_workers(pool: str, run: Callable[..., Awaitable[None]]) -> None:
    """The pool runs as many calls concurrently as it has workers; running calls continue when the number changes."""
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
    """A number below 1 raises an error that names the pool."""
    with pytest.raises(ValueError, match=f"{pool}: expected at least 1 worker, got 0"):
        _threads.set_workers(**{pool: 0})


async def test_a_forked_child_creates_new_pools() -> None:
    """A forked child does not inherit the threads of its parent, so it creates new pools."""
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
    """In each event loop, two images per thread hold a slot; all others wait before they are read."""
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
