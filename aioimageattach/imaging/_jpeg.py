"""The structure of a JPEG: its frame, scans, orientation and profile."""

from __future__ import annotations

from typing import Final

from ..exc import ImageTooLargeError
from ._containers import JPEG_DATA, jpeg_parts
from ._limits import ImageLimits
from ._structure import STREAMED, Clock, Metadata, Pieces, Structure, damaged
from ._tiff import exif_orientation

__all__ = ["examine_jpeg"]

_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SCAN: Final = 100_000  # minimum cost of a scan, in pixels, however small the image is
_PASSES: Final = 4  # limit for the cost of all scans, as a multiple of max_pixels: about ten seconds
_MOST_SCANS: Final = 1_000  # encoders write a few dozen at most


class _Frame:
    """The frame header of a JPEG."""

    def __init__(self, view: memoryview, marker: int, body: int, limits: ImageLimits) -> None:
        self.height, self.width = (int.from_bytes(view[at : at + 2], "big") for at in (body + 1, body + 3))
        self.bands, self.is_whole = view[body + 5], marker in _PROGRESSIVE
        factors = [view[at] for at in range(body + 7, body + 6 + 3 * self.bands, 3) if at < len(view)]
        areas = [(factor >> 4) * (factor & 15) for factor in factors]
        self.coefficients = 2 * sum(areas) / max([1, *areas])
        self.scans_allowed = min(_PASSES * limits.max_pixels // max(self.width * self.height, _SCAN), _MOST_SCANS)

    def bytes_per_pixel(self) -> float:
        return STREAMED + (self.coefficients if self.is_whole else 0)


def examine_jpeg(view: memoryview, limits: ImageLimits, clock: Clock) -> Structure:
    """Analyse the structure of a JPEG; see :func:`._guard.examine`."""
    metadata = Metadata(limits)
    pieces = Pieces()
    frame: _Frame | None = None
    orientation, scans, profile = 1, 0, dict[int, bytes]()
    for part in jpeg_parts(view):
        marker, content = part.name[0], view[part.body : part.end]
        if part.name == JPEG_DATA:
            clock.check()
        elif marker in _FRAMES and frame is None:
            if len(content) < 6:
                break
            frame = _Frame(view, marker, part.body, limits)
            limits.check_size(frame.width, frame.height, bytes_per_pixel=frame.bytes_per_pixel())
        elif marker == 0xDA:
            if frame is None or part.body >= len(view):
                break
            scans += 1
            if scans == 1:
                pieces.keep(part.start, part.end)
                pieces.end_head()
                if not frame.is_whole and view[part.body] < frame.bands:
                    frame.is_whole = True  # bands in separate scans: also kept in memory as a whole
                    limits.check_size(frame.width, frame.height, bytes_per_pixel=frame.bytes_per_pixel())
                if not frame.is_whole:
                    pieces.keep(part.end, len(view))
                    break
                continue
            if scans > frame.scans_allowed:
                raise ImageTooLargeError(
                    f"expected a JPEG of at most {frame.scans_allowed:,} scans, got more", limit=frame.scans_allowed
                )
        elif marker == 0xE1 and bytes(content[:6]) == b"Exif\0\0":
            metadata.add(len(content))
            orientation = exif_orientation(content) if orientation == 1 else orientation
            continue
        elif marker == 0xE2 and bytes(content[:12]) == b"ICC_PROFILE\0":
            metadata.add(len(content))
            profile.setdefault(view[part.body + 12] if len(content) > 14 else 0, bytes(content[14:]))
            continue
        elif 0xE0 <= marker <= 0xEF or marker == 0xFE:
            metadata.add(len(content))
            if not _is_needed(marker, content):
                continue
        pieces.keep(part.start, part.end)
    if not scans or frame is None:
        raise damaged("image/jpeg")
    return Structure(
        pieces.all(),
        pieces.head,
        frame.bytes_per_pixel(),
        orientation=orientation,
        profile=b"".join(profile[number] for number in sorted(profile)) or None,
    )


def _is_needed(marker: int, content: memoryview) -> bool:
    """Return whether a segment defines how samples are converted to colours."""
    head = bytes(content[:5])
    return (marker == 0xE0 and head == b"JFIF\0") or (marker == 0xEE and head == b"Adobe")
