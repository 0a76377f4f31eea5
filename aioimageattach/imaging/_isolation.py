"""Worker processes that read images. Unlike a thread, a process can be terminated.

A worker processes one image at a time and is then reused. A thread starts a worker if none is idle, so there are
never more workers than image processing threads. If a worker dies, only its current image is affected.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing.spawn
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from .. import exc
from ..exc import DeclarationError, ImageError, ImageTooLargeError, ProcessingError, UnreadableImageError
from . import _wire
from ._limits import ImageLimits
from ._recipe import Recipe

__all__ = ["RESPONSE_ERRORS", "ask"]

T = TypeVar("T")

_TIMEOUT: Final = 20.0
"""Seconds to wait for a worker to start, and, after ``timeout``, for a worker to terminate itself."""

_MOST_PICTURES: Final = 200
"""Replace a worker after this many images, before its heap fragments."""

_START: Final = """
import socket
from aioimageattach.imaging import _worker
_worker.confine()
_worker.serve(socket.socket(fileno=0))
"""

_ENVIRONMENT: Final = frozenset({"HOME", "LANG", "LANGUAGE", "PATH", "TEMP", "TMP", "TMPDIR", "TZ", "VIRTUAL_ENV"})
_ENVIRONMENTS: Final = ("DYLD_", "FONTCONFIG_", "LC_", "LD_", "LIBHEIF_", "PYTHON", "VIPS_", "XDG_")
"""Environment variables that a worker inherits: exact names, and prefixes. A leak in a decoder could reveal them."""

_ERRORS: Final = {
    name: found
    for name, found in vars(exc).items()
    if isinstance(found, type) and issubclass(found, ImageError | DeclarationError | ProcessingError)
}
_FIELDS: Final = frozenset({"actual", "allowed", "limit", "mimetype"})


RESPONSE_ERRORS: Final = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Errors that reading an invalid response can raise."""


class _OutOfMemoryError(Exception):
    """The worker ran out of memory."""


class _Worker:
    """A worker process and the socket that connects to it."""

    def __init__(self) -> None:
        self.pictures = 0
        self._sock, theirs = socket.socketpair()
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        settings = {"PYTHONPATH": path, "MALLOC_ARENA_MAX": "2", "VIPS_WARNING": "1"}
        mine = {
            name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith(_ENVIRONMENTS)
        }
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [os.fsdecode(multiprocessing.spawn.get_executable()), "-P", "-c", _START],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=mine | settings,
                )
            except OSError as error:
                self._sock.close()
                raise ProcessingError(
                    f"the worker process for isolated image processing could not be started: {error}"
                ) from error

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, head: bytes, view: memoryview, limits: ImageLimits) -> tuple[Any, memoryview]:
        """Return the worker's response; raise EOFError or OSError if the worker does not respond."""
        self.pictures += 1
        self._sock.settimeout(_TIMEOUT)
        _wire.send(self._sock, head, [view])
        self._sock.settimeout(None)
        timeout = None if limits.timeout is None else limits.timeout + _TIMEOUT
        found, body = _wire.receive(self._sock, limits.max_memory, timeout)
        return json.loads(found), body

    def end(self, timeout: float) -> int:
        """Terminate the process and return its exit status, in the form of :mod:`subprocess`."""
        self._sock.close()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def disown(self) -> None:
        """Close the socket without waiting for the process, which belongs to the parent of this process."""
        self._sock.close()
        self._process.returncode = 0


class _Pool:
    """All workers, and those of them that are idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[_Worker] = set()
        self._idle: list[_Worker] = []

    def acquire(self) -> _Worker:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                return self.start()
            if worker.alive:
                return worker
            self.end(worker)

    def start(self) -> _Worker:
        worker = _Worker()
        with self._lock:
            self._all.add(worker)
        return worker

    def release(self, worker: _Worker) -> None:
        if worker.pictures >= _MOST_PICTURES:
            self.end(worker)
            return
        with self._lock:
            self._idle.append(worker)

    def end(self, worker: _Worker, *, timeout: float = 1.0) -> int:
        with self._lock:
            self._all.discard(worker)
        return worker.end(timeout)

    def close(self) -> None:
        """Terminate the idle workers. The threads that use the others terminate them."""
        while True:
            with self._lock:
                if not self._idle:
                    return
                worker = self._idle.pop()
            self.end(worker)

    def forget(self) -> None:
        """Reset the pool in a forked process, because the workers belong to its parent."""
        for worker in self._all:
            worker.disown()
        self.__init__()  # type: ignore[misc]


_pool = _Pool()
atexit.register(_pool.close)
os.register_at_fork(after_in_child=_pool.forget)


def ask(
    view: memoryview,
    limits: ImageLimits,
    read: Callable[[Any, memoryview], T],
    recipes: Sequence[Recipe] | None = None,
    *,
    preview: bool = False,
) -> T:
    """Read the header of an image, or render thumbnails of it, in a worker process.

    Args:
        view: The file.
        limits: The limits. The kernel enforces ``timeout`` and ``max_memory``.
        read: Validates and converts a response, given as its fields and the files that it describes. If it raises one
            of :data:`RESPONSE_ERRORS`, the response is rejected and the worker is terminated, because it may be
            compromised.
        recipes: Recipes of the thumbnails; ``None`` to read the header.
        preview: ``True`` to compute a preview as well.

    Returns:
        The result of ``read``.

    Raises:
        ImageError: The same errors as in a thread. If the worker died before it responded,
            :class:`~aioimageattach.exc.ImageTooLargeError` or :class:`~aioimageattach.exc.UnreadableImageError`.
        ProcessingError: The worker could not be started, sent an invalid response, or exited by itself.
        DeclarationError: A callable cannot be imported by name in another process.

    Effects: A worker that died has been reaped when this function returns or raises. The next image gets another
    worker.
    """
    try:
        head = pickle.dumps((limits, recipes, preview))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DeclarationError(
            "preprocess, postprocess: expected functions at module level, which a worker process can import by name, "
            f"because the limits have isolated=True; got one that cannot be imported ({error})"
        ) from error
    worker = _pool.acquire()
    used = worker.pictures > 0
    result = _exchange(worker, head, view, limits, read)
    if used and isinstance(result, _OutOfMemoryError):  # earlier images may have left too little memory
        result = _exchange(_pool.start(), head, view, limits, read)
    if isinstance(result, _OutOfMemoryError):
        raise ImageTooLargeError(
            f"expected an image that takes at most {limits.max_memory:,} bytes of memory (max_memory), "
            "got a larger one",
            limit=limits.max_memory,
        )
    if isinstance(result, Exception):
        raise result
    return result


def _exchange(
    worker: _Worker, head: bytes, view: memoryview, limits: ImageLimits, read: Callable[[Any, memoryview], T]
) -> T | Exception:
    """Return the result of ``read``, the error that the worker reported, or the error for its exit status."""
    try:
        found, body = worker.ask(head, view, limits)
        result = _reported_error(found) or read(found, body)
    except (EOFError, OSError) as error:
        status = _pool.end(worker)
        return _error_of_exit(-signal.SIGALRM if isinstance(error, TimeoutError) else status, limits)
    except RESPONSE_ERRORS as error:
        _pool.end(worker, timeout=0)
        return ProcessingError(f"the worker process sent an invalid response: {error!r:.200}")
    except BaseException:
        _pool.end(worker, timeout=0)
        raise
    if isinstance(result, _OutOfMemoryError):
        _pool.end(worker)
    else:
        _pool.release(worker)
    return result


def _reported_error(found: Mapping[str, Any]) -> Exception | None:
    """Return the error that a worker reported; ``None`` if it succeeded."""
    if found.get("memory"):
        return _OutOfMemoryError()
    if "error" not in found:
        return None
    error = _ERRORS[found["error"]](f"{found['text']:.2000}")
    for name, value in found["fields"].items():
        if name not in _FIELDS:
            raise ValueError(name)
        setattr(error, name, frozenset(value) if isinstance(value, list) else value)
    return error


def _error_of_exit(status: int, limits: ImageLimits) -> Exception:
    """Return the error that the exit status of a dead worker indicates."""
    if status in (-signal.SIGABRT, -signal.SIGKILL):  # GLib aborts if it is out of memory; the kernel sends SIGKILL
        return _OutOfMemoryError()
    if status == -signal.SIGALRM:
        text = f"expected an image that is processed within {limits.timeout} seconds (timeout), got a slower one"
        return ImageTooLargeError(text, limit=limits.timeout)
    if status < 0:
        text = f"expected a valid image, got one that crashed the decoder ({signal.Signals(-status).name})"
        return UnreadableImageError(text)
    return ProcessingError(f"the worker process exited unexpectedly with status {status}")
