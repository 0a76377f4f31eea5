"""The only module that loads libvips, with the first image, and that converts its errors.

libvips starts threads, which do not exist in a forked process. Fork before the first image, or use ``spawn`` or
``forkserver``.
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

__all__ = ["Image", "Picture", "Watch", "call_hook", "header_errors", "libvips", "vips_errors", "watched"]

Picture: TypeAlias = Any
"""A ``pyvips.Image``. It is typed as ``Any`` because the stubs of pyvips are incomplete."""

_lock = threading.Lock()
_module: Any = None


def libvips() -> Any:
    """Return the module ``pyvips``, which is imported once per process."""
    global _module
    with _lock:
        if _module is None:
            logger = logging.getLogger("pyvips")
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.ERROR)  # otherwise it logs every operation and every unusual upload
            import pyvips

            _module = pyvips
    return _module


def vips_errors() -> tuple[type[Exception], ...]:
    """Return the errors that libvips raises."""
    # pyvips decodes error messages as UTF-8, but a decoder's message can contain bytes of the image
    return libvips().Error, UnicodeDecodeError


@contextmanager
def header_errors(mimetype: str) -> Generator[None, None, None]:
    """Convert libvips errors while reading a header to :class:`~aioimageattach.exc.UnreadableImageError`."""
    try:
        yield
    except vips_errors() as error:
        raise UnreadableImageError(f"expected a valid {mimetype} file, got one with a damaged header") from error


class Watch:
    """Stops the decoding of the registered images when their time is over."""

    def __init__(self) -> None:
        self.over: bool = False
        self._images: list[Any] = []
        self._held: list[object] = []

    def add(self, image: Picture) -> Picture:
        """Register an image that a loader has just opened, and return it."""
        self._images.append(image)
        if self.over:
            image.set_kill(True)
        return image

    def hold(self, memory: object) -> None:
        """Keep a reference to the memory from which an image is read, because the image itself does not."""
        self._held.append(memory)

    def stop(self) -> None:
        """Make all decoding fail immediately."""
        self.over = True
        for image in tuple(self._images):
            image.set_kill(True)

    def forget(self) -> None:
        """Release all images and their memory. The timer thread can keep this object itself alive a little longer."""
        self._images.clear()
        self._held.clear()


@contextmanager
def watched(mimetype: str, timeout: float | None) -> Generator[Watch, None, None]:
    """Decode and encode under a time limit, and convert libvips errors to errors of this library.

    Args:
        mimetype: MIME type of the original, for error messages.
        timeout: Time limit in seconds; ``None`` means no limit.

    Raises:
        ImageTooLargeError: The time limit was exceeded.
        UnreadableImageError: libvips could not decode the image.
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
                f"expected an image that is processed within {timeout} seconds (timeout), got a slower one",
                limit=timeout,
            ) from error
        raise UnreadableImageError(f"expected a valid {mimetype} file, got one with damaged pixels") from error
    finally:
        if clock is not None:
            clock.cancel()
        watch.forget()


def call_hook(label: str, hook: Callable[[Any], Any], image: Picture) -> Picture:
    """Call a user's callable with an image, and return the computed result.

    Errors that the callable raises itself propagate, unless they are libvips errors.

    Raises:
        DeclarationError: The callable did not return an image.
        ProcessingError: libvips could not compute the result.
    """
    try:
        result = hook(image)
        if not isinstance(result, libvips().Image):
            raise DeclarationError(f"{label}: expected a callable that returns a pyvips.Image, got {result!r:.80}")
        return result.copy_memory()
    except vips_errors() as error:
        raise ProcessingError(f"{label}: libvips could not compute the returned image") from error
