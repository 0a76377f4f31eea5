"""Whether a picture is accepted, and what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._decode import decode
from ._header import Header, Probe, check_bytes, inspect, opened
from ._isolation import ask
from ._limits import DEFAULT_LIMITS, ImageLimits
from ._sniff import sniff
from ._vips import watched

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = ["Probe", "probe"]

_SMALL = (16, 16)


def probe(data: Buffer, limits: ImageLimits = DEFAULT_LIMITS) -> Probe:
    """Read a picture's header: a fraction of a millisecond, whatever its size, and no pixel.

    With ``ImageLimits(verify="pixels")`` or ``"complete"`` the picture is decoded as well.

    Args:
        data: The file; bytes, a memoryview, a read-only ``mmap``. It is not copied.
        limits: What is accepted.

    Raises:
        UnreadableImageError: The bytes are not a picture, or the header is broken; with ``verify`` also the pixels.
        UnsupportedImageError: A kind of picture that the limits do not allow, or that needs an extra.
        ImageTooLargeError: It is beyond a limit.
        ImageTooSmallError: A side is shorter than the limits allow.
        ImageProportionsError: It has other proportions than the limits allow.
    """
    with opened(data) as view:
        found = _probed(view, limits)
    limits.check_original(found.width, found.height, found.mimetype)
    return found


def _probed(view: memoryview, limits: ImageLimits) -> Probe:
    if limits.isolated:
        check_bytes(view, limits)
        return ask(view, limits, lambda found, _: _validate(found, view, limits))
    header = inspect(view, limits)
    if limits.verify != "header":
        _verify(view, header, limits)
    return header.probe


def _verify(view: memoryview, header: Header, limits: ImageLimits) -> None:
    """Decode all of the picture, as small as the decoder can."""
    with watched(header.probe.mimetype, limits.timeout) as watch:
        decode(view, header, limits, watch, needed=_SMALL).avg()


def _validate(found: Any, view: memoryview, limits: ImageLimits) -> Probe:
    """The probe that a worker speaks of; ValueError, TypeError or KeyError where it cannot be."""
    told = Probe(**found["probe"])
    numbers = told.width, told.height, told.frames, told.orientation
    if any(type(number) is not int or number < 1 for number in numbers) or type(told.has_alpha) is not bool:
        raise TypeError("expected positive numbers")
    limits.check_size(told.width, told.height)
    if told.mimetype != sniff(view) or told.mimetype not in limits.types:
        raise ValueError("expected the type of the file")
    return told
