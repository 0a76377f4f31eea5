"""Worker threads: one pool for file I/O and one for image processing. No other module starts threads.

The caller continues only after its call in a worker thread has ended, even if the caller is cancelled. Therefore a file
never appears after its write was cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import anyio

from ._tasks import finish

__all__ = [
    "Limit",
    "cores",
    "io_executor",
    "picture_slot",
    "run_io",
    "run_io_until",
    "run_pixels",
    "set_workers",
]

P = ParamSpec("P")
R = TypeVar("R")

Limit: TypeAlias = anyio.Semaphore
"""A semaphore that, unlike :class:`asyncio.Semaphore`, keeps no reference to the event loop."""

_executors: dict[str, ThreadPoolExecutor] = {}
_sizes: dict[str, int] = {}
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.Semaphore] = WeakKeyDictionary()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover - macOS
        return os.cpu_count() or 1


def set_workers(*, io: int | None = None, pixels: int | None = None) -> None:
    """Set the size of the two pools of worker threads.

    Call it at start-up, in each process. Calls that are running continue in the old pool.

    Args:
        io: Number of threads that read and write files, at least 1; 32 by default. ``None`` does not change it.
        pixels: Number of threads that process images, at least 1; by default one more than the number of CPU cores.
            ``None`` does not change it.

    Raises:
        ValueError: A number is less than 1.
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
    """Return the pool for file I/O."""
    return _executor("io", 32)


def picture_slot() -> anyio.Semaphore:
    """Return the semaphore to hold from before an image is read until its processing has ended.

    It admits two images per image processing thread, so that one is read while another is processed. Other images are
    not read while they wait, and so take no memory. A task that holds the semaphore must not acquire it again.
    """
    loop = asyncio.get_running_loop()
    found = _slots.get(loop)
    if found is None:
        # asyncio.Semaphore would keep a reference to the loop, which would then never be freed
        found = _slots[loop] = anyio.Semaphore(2 * _sizes.get("pixels", cores() + 1))
    return found


os.register_at_fork(after_in_child=_executors.clear)  # a forked child does not inherit threads


async def _run(executor: ThreadPoolExecutor, call: Callable[[], R], stop: Callable[[], object] | None = None) -> R:
    job = executor.submit(contextvars.copy_context().run, call)

    def end() -> None:
        if not job.cancel() and stop is not None:
            stop()

    return await finish(asyncio.wrap_future(job), stop=end)


async def run_io(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking file operation in a worker thread; wait until it has ended, even if the caller is cancelled."""
    return await _run(io_executor(), lambda: call(*args, **kwargs))


async def run_io_until(stop: Callable[[], object], call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a long call as :func:`run_io` does; on a cancellation, call ``stop``, which should make the call end."""
    return await _run(io_executor(), lambda: call(*args, **kwargs), stop)


async def run_pixels(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a CPU-bound call (image processing, compression, hashing) in a worker thread.

    The function waits until the call has ended, even if the caller is cancelled.
    """
    return await _run(_executor("pixels", cores() + 1), lambda: call(*args, **kwargs))
