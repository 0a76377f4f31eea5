"""The one door to worker threads: two pools, one for files and one for pixels.

Whatever runs here has ended when the caller goes on, also when the caller is cancelled: a cancelled write never
makes a file appear after the call is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import anyio

__all__ = [
    "begin",
    "cancelled_after",
    "cores",
    "finish",
    "io_executor",
    "picture_slot",
    "run_io",
    "run_io_until",
    "run_pixels",
    "set_workers",
]

P = ParamSpec("P")
R = TypeVar("R")

_executors: dict[str, ThreadPoolExecutor] = {}
_sizes: dict[str, int] = {}
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.Semaphore] = WeakKeyDictionary()


def cores() -> int:
    """The number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover - macOS
        return os.cpu_count() or 1


def set_workers(*, io: int | None = None, pixels: int | None = None) -> None:
    """Set how many threads may read and write files, and how many may work on pixels, at the same time.

    Call it at start-up, in each process. The defaults are 32 for files and one more than the cores for pixels.

    Args:
        io: Threads for files, at least 1; ``None`` leaves it as it is.
        pixels: Threads for pixels, at least 1; ``None`` leaves it as it is.
    """
    for name, size in (("io", io), ("pixels", pixels)):
        if size is None:
            continue
        if size < 1:
            raise ValueError(f"{name}: expected at least 1 worker, got {size}")
        _sizes[name] = size
        old = _executors.pop(name, None)
        if old is not None:
            old.shutdown(wait=False)


def _executor(name: str, default: int) -> ThreadPoolExecutor:
    found = _executors.get(name)
    if found is None:
        size = _sizes.get(name, default)
        found = _executors.setdefault(name, ThreadPoolExecutor(size, thread_name_prefix=f"aioimageattach-{name}"))
    return found


def io_executor() -> ThreadPoolExecutor:
    """The pool for files."""
    return _executor("io", 32)


def picture_slot() -> anyio.Semaphore:
    """Hold it from before a picture is read until its pixels are done with.

    Two for each thread for pixels: one is worked on while the next one is read. All others wait before they take any
    memory. Whoever holds one must not wait for another.
    """
    loop = asyncio.get_running_loop()
    found = _slots.get(loop)
    if found is None:
        # asyncio.Semaphore would keep a reference to the loop, which would then never be freed
        found = _slots[loop] = anyio.Semaphore(2 * _sizes.get("pixels", cores() + 1))
    return found


os.register_at_fork(after_in_child=_executors.clear)  # a child has none of its parent's threads


async def _outlast(task: asyncio.Future[Any]) -> None:
    """Wait until the task is done, whatever cancels us."""
    with anyio.CancelScope(shield=True):
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])


def _end(task: asyncio.Future[Any]) -> asyncio.Future[None]:
    """Return a future that is done with the task; to cancel it leaves the task alone."""
    # What asyncio.wait() does for one task, for a third of what it costs.
    ended: asyncio.Future[None] = task.get_loop().create_future()

    def tell(_: asyncio.Future[Any]) -> None:
        if not ended.done():
            ended.set_result(None)

    task.add_done_callback(tell)
    return ended


def begin(work: Coroutine[Any, Any, R]) -> tuple[asyncio.Task[R], asyncio.Future[None]]:
    """Start work in a task for :func:`finish`; return it, and the future that is done when it ends."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    async def run() -> R:
        try:
            return await work
        finally:
            # The task is done when this frame has returned, and so before anybody who waits can run.
            if not ended.done():
                ended.set_result(None)

    return loop.create_task(run()), ended


async def finish(
    work: Awaitable[R],
    *,
    stop: Callable[[], object] | None = None,
    undo: Callable[[R], Awaitable[object]] | None = None,
    ended: asyncio.Future[None] | None = None,
) -> R:
    """Wait until the work has ended, whatever cancels us meanwhile; then raise the cancellation, if one came.

    Args:
        work: Awaited in a task of its own, which no cancellation reaches.
        stop: Called at a cancellation, to tell the work that it may end early.
        undo: Awaited with the result that nobody takes, where the work succeeded after all.
        ended: Given a result by the last step of the work, which wakes the caller a turn of the event loop earlier
            than a callback does; see :func:`begin`.
    """
    task = asyncio.ensure_future(work)
    try:
        await (ended or _end(task))
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        await _outlast(task)
        if not task.cancelled() and task.exception() is None and undo is not None:
            await _outlast(asyncio.ensure_future(undo(task.result())))
        raise
    return task.result()


@contextlib.asynccontextmanager
async def cancelled_after(
    event: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs
) -> AsyncGenerator[None]:
    """Cancel the block, without an error, when ``event(*args)`` ends; if the block ends first, cancel the event."""
    scope = anyio.CancelScope()

    async def cancel() -> None:
        await event(*args, **kwargs)
        scope.cancel()

    waiting = asyncio.ensure_future(cancel())
    try:
        with scope:
            yield
    finally:
        waiting.cancel()
        await asyncio.wait([waiting])


async def _run(executor: ThreadPoolExecutor, call: Callable[[], R], stop: Callable[[], object] | None = None) -> R:
    job = executor.submit(contextvars.copy_context().run, call)

    def end() -> None:
        if not job.cancel() and stop is not None:
            stop()

    return await finish(asyncio.wrap_future(job), stop=end)


async def run_io(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking call on files in a thread, and wait for its end even when cancelled."""
    return await _run(io_executor(), lambda: call(*args, **kwargs))


async def run_io_until(stop: Callable[[], object], call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """:func:`run_io` of a long call, which ``stop`` tells to end early when the caller is cancelled."""
    return await _run(io_executor(), lambda: call(*args, **kwargs), stop)


async def run_pixels(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a call that computes (pixels, compression, hashing) in a thread, and wait for its end even when cancelled."""
    return await _run(_executor("pixels", cores() + 1), lambda: call(*args, **kwargs))
