"""The one door to libvips: it is loaded with the first picture, and its errors end here.

libvips starts threads of its own, which a forked process does not have: fork before the first picture, or use
``spawn`` or ``forkserver``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from ..exc import DeclarationError, ImageTooLargeError, ProcessingError, UnreadableImageError

if TYPE_CHECKING:
    from pyvips import Image

__all__ = ["Image", "Picture", "Watch", "called", "header_errors", "libvips", "vips_errors", "watched"]

Picture: TypeAlias = Any
"""A ``pyvips.Image``; its stubs do not know all that libvips takes."""

_lock = threading.Lock()
_module: Any = None


def libvips() -> Any:
    """Return the module ``pyvips``, loaded once in a process."""
    global _module
    with _lock:
        if _module is None:
            logger = logging.getLogger("pyvips")
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.ERROR)  # else it tells of every operation, and warns of every odd upload
            import pyvips

            _module = pyvips
    return _module


def vips_errors() -> tuple[type[Exception], ...]:
    """Return the errors that libvips raises."""
    # pyvips decodes what the decoders say as UTF-8, and they may say bytes of the picture
    return libvips().Error, UnicodeDecodeError


@contextmanager
def header_errors(mimetype: str) -> Generator[None, None, None]:
    """Turn what libvips raises while it reads a header into an error of ours."""
    try:
        yield
    except vips_errors() as error:
        raise UnreadableImageError(f"expected {mimetype}, as its first bytes say, but its header is broken") from error


class Watch:
    """Stops the decoding of the pictures it was given, once their time is over."""

    def __init__(self) -> None:
        self.over: bool = False
        self._images: list[Any] = []
        self._held: list[object] = []

    def add(self, image: Picture) -> Picture:
        """Watch a picture that a loader has just opened."""
        self._images.append(image)
        if self.over:
            image.set_kill(True)
        return image

    def hold(self, memory: object) -> None:
        """Keep memory that a picture is read from; the picture itself does not."""
        self._held.append(memory)

    def stop(self) -> None:
        """Let all decoding end with an error now."""
        self.over = True
        for image in tuple(self._images):
            image.set_kill(True)

    def forget(self) -> None:
        """Let go of all pictures and their memory: the thread of a timer may hold this object for a moment longer."""
        self._images.clear()
        self._held.clear()


@contextmanager
def watched(mimetype: str, timeout: float | None) -> Generator[Watch, None, None]:
    """Decode and encode under a time limit, and turn what libvips raises into errors of ours.

    Args:
        mimetype: The original's type, for the error's text.
        timeout: Seconds, or ``None`` for no limit.
    """
    watch = Watch()
    clock = threading.Timer(timeout, watch.stop) if timeout is not None else None
    if clock is not None:
        clock.daemon = True
        clock.start()
    try:
        yield watch
    except vips_errors() as error:
        if watch.over:
            raise ImageTooLargeError(
                f"{mimetype}: the thumbnails were not done within {timeout} seconds", limit=timeout
            ) from error
        raise UnreadableImageError(f"expected {mimetype}, as its header says, but its pixels are broken") from error
    finally:
        if clock is not None:
            clock.cancel()
        watch.forget()


def called(label: str, hook: Callable[[Any], Any], image: Picture) -> Picture:
    """Return what a callable of the user makes of a picture, computed.

    Raises:
        DeclarationError: It returned no picture.
        ProcessingError: libvips cannot compute what it returned; what else it raises passes through.
    """
    try:
        result = hook(image)
        if not isinstance(result, libvips().Image):
            raise DeclarationError(f"{label}: expected it to return a pyvips.Image, got {result!r:.80}")
        return result.copy_memory()
    except vips_errors() as error:
        raise ProcessingError(f"{label}: libvips could not compute what it returned") from error
