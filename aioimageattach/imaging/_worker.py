"""The program of a worker process, which reads images for its parent under limits enforced by the kernel.

The parent does not import this module. Requests from the parent are pickled. Responses are JSON and bytes, so that a
compromised decoder cannot make the parent unpickle anything.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import pickle
import re
import resource
import signal
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any, Final, TypeAlias

from ..exc import DeclarationError, ImageAttachError, ImageError, ImageTooLargeError, ProcessingError
from ._header import inspect, memory_of
from ._limits import ImageLimits
from ._probe import probe
from ._recipe import Recipe
from ._render import render, render_with_preview
from ._vips import libvips
from ._wire import receive, send

__all__ = ["confine", "serve"]

Response: TypeAlias = tuple[dict[str, Any], list[bytes]]

_NO_MEMORY: Final = re.compile(r"(?m)^\s*\w+: (?:out of memory|insufficient memory)\b", re.IGNORECASE)
"""Messages of libvips and libjpeg about insufficient memory, after the name of the component that failed."""

_USUAL_MEMORY: Final = 60_000_000
"""Assumed memory of the process itself, in bytes, on systems without ``/proc``."""

_GRACE: Final = 0.5
"""Seconds between the time limit given to libvips and the one at which the kernel terminates the process."""

_NEW_USER, _NEW_NET = 0x1000_0000, 0x4000_0000  # sched.h


def confine() -> None:
    """Prevent this process from writing files and core dumps and, if the kernel allows it, from using the network."""
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, resource.getrlimit(kind)[1]))
    with suppress(AttributeError):  # only Linux has it
        unshare = ctypes.CDLL(None).unshare
        _ = unshare(_NEW_NET) and unshare(_NEW_NET | _NEW_USER)
    libvips().cache_set_max(0)


def serve(sock: socket.socket) -> None:
    """Respond to requests until the parent closes the socket or exits."""
    with sock:
        while True:
            try:
                head, body = receive(sock, 2**62)
            except (EOFError, ConnectionError):
                return
            found, blobs = _respond(head, body)
            del body
            with suppress(ConnectionError):
                send(sock, json.dumps(found, default=str).encode(), blobs)


def _respond(head: bytes, body: memoryview) -> Response:
    try:
        limits, recipes, preview = pickle.loads(head)
    except Exception as error:  # unpickling imports modules, which can raise anything
        failure = DeclarationError(f"the worker process could not import preprocess or postprocess: {error!r:.200}")
        return _failure(failure, is_memory=False), []
    inner = replace(limits, isolated=False, max_memory=max(1, limits.max_memory - _own_memory()))
    try:
        with _limited(limits):
            return _work(body, inner, recipes, preview=preview)
    except Exception as error:  # includes errors raised by the callables
        reported, is_from_decoder = (
            _failure(error, is_memory=_is_out_of_memory(error, inner)),
            error.__cause__ is not None,
        )
    # Some decoders report a damaged image if an allocation fails. Check this outside of the except block: the error
    # has been released here, and with it the frames that keep the decoded pixels alive.
    reported["memory"] = reported["memory"] or (is_from_decoder and _exceeds_memory(body, limits, inner))
    return reported, []


def _own_memory() -> int:
    """Return the memory that this process already uses, in bytes, as the kernel counts it for ``RLIMIT_DATA``."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[5]) * mmap.PAGESIZE
    except OSError:
        return _USUAL_MEMORY


def _work(body: memoryview, limits: ImageLimits, recipes: Sequence[Recipe] | None, *, preview: bool) -> Response:
    if recipes is None:
        return {"probe": asdict(probe(body, limits))}, []
    if preview:
        made, found = render_with_preview(body, recipes, limits)
    else:
        made, found = render(body, recipes, limits), None
    fields = [(len(one.blob), one.width, one.height, one.mimetype) for one in made]
    return {"renderings": fields, "preview": found and asdict(found)}, [one.blob for one in made]


def _is_out_of_memory(error: Exception, inner: ImageLimits) -> bool:
    """Return whether an error means too little memory: by the size in the header, or by a failed allocation."""
    if isinstance(error, ImageTooLargeError):
        return error.limit == inner.max_memory
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error.__cause__)) is not None


def _exceeds_memory(body: memoryview, limits: ImageLimits, inner: ImageLimits) -> bool:
    """Return whether decoding the image takes more memory than the kernel allows."""
    try:
        needed = memory_of(inspect(body, inner))
    except ImageError:
        return False
    return _own_memory() + needed > limits.max_memory


def _failure(error: Exception, *, is_memory: bool) -> dict[str, Any]:
    reported, fields = error, vars(error)
    if not isinstance(error, ImageAttachError):
        reported, fields = ProcessingError(f"preprocess or postprocess raised {error!r:.200}"), {}
    return {
        "memory": is_memory,
        "error": type(reported).__name__,
        "text": str(reported),
        "fields": {name: sorted(value) if isinstance(value, frozenset) else value for name, value in fields.items()},
    }


@contextmanager
def _limited(limits: ImageLimits) -> Generator[None, None, None]:
    """Make the kernel enforce ``max_memory``, and terminate the process shortly after ``timeout``."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limits.max_memory, before[1]))
    seconds = 0 if limits.timeout is None else limits.timeout + _GRACE
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_DATA, before)
