"""Check an image against the limits and read its header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._decode import decode
from ._header import Header, Probe, check_bytes, inspect, open_view
from ._isolation import ask
from ._limits import DEFAULT_LIMITS, ImageLimits
from ._sniff import sniff
from ._vips import watched

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = ["Probe", "probe"]

_SMALL = (16, 16)


def probe(data: Buffer, limits: ImageLimits = DEFAULT_LIMITS) -> Probe:
    """Read the header of an image and check it against the limits.

    This takes a fraction of a millisecond for a file of any size, because no pixels are decoded. With
    ``ImageLimits(verify="pixels")`` or ``"complete"``, the pixels are decoded as well.

    Args:
        data: The file as bytes, a memoryview or a read-only ``mmap``. It is not copied.
        limits: Limits that the image must satisfy.

    Returns:
        The size, the MIME type and other properties of the image.

    Raises:
        UnreadableImageError: The file is not an image, or its header is damaged. With ``verify``, also if its pixels
            are damaged.
        UnsupportedImageError: The limits do not allow the type of the image, or it needs an extra.
        ImageTooLargeError: The image exceeds a limit.
        ImageTooSmallError: The width or the height is below the limits.
        ImageProportionsError: The limits do not allow the aspect ratio.
    """
    with open_view(data) as view:
        found = _read_header(view, limits)
    limits.check_original(found.width, found.height, found.mimetype)
    return found


def _read_header(view: memoryview, limits: ImageLimits) -> Probe:
    if limits.isolated:
        check_bytes(view, limits)
        return ask(view, limits, lambda found, _: _validate(found, view, limits))
    header = inspect(view, limits)
    if limits.verify != "header":
        _verify(view, header, limits)
    return header.probe


def _verify(view: memoryview, header: Header, limits: ImageLimits) -> None:
    """Decode the whole image, at the smallest size that the decoder supports."""
    with watched(header.probe.mimetype, limits.timeout) as watch:
        decode(view, header, limits, watch, needed=_SMALL).avg()


def _validate(found: Any, view: memoryview, limits: ImageLimits) -> Probe:
    """Return the probe from the response of a worker; raise ValueError, TypeError or KeyError if it is implausible."""
    checked = Probe(**found["probe"])
    numbers = checked.width, checked.height, checked.frames, checked.orientation
    if any(type(number) is not int or number < 1 for number in numbers) or type(checked.has_alpha) is not bool:
        raise TypeError(f"expected positive integers, got {numbers!r:.80}")
    limits.check_size(checked.width, checked.height)
    if checked.mimetype != sniff(view) or checked.mimetype not in limits.types:
        raise ValueError(f"expected the MIME type of the file, got {checked.mimetype!r:.80}")
    return checked
