"""The structure of an image: the parts of the file that a decoder needs, and the memory that decoding takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from ..exc import ImageTooLargeError, UnreadableImageError
from ._containers import Piece
from ._limits import ImageLimits

__all__ = ["STREAMED", "Clock", "Metadata", "Pieces", "Structure", "assemble", "check_frames", "damaged"]

STREAMED: Final = 0.5
"""Memory per pixel of an image that is decoded line by line, in bytes."""

_LEAST_PART: Final = 1_000  # bytes that a decoder keeps for each part, however small the part is


@dataclass(frozen=True, slots=True)
class Structure:
    """The result of analysing the structure of an image.

    Args:
        pieces: The parts of the file that the decoder needs; ``None`` for the whole file.
        head: Number of pieces that are enough to read the header.
        bytes_per_pixel: Memory that decoding takes per pixel of the image, in bytes.
        frames: Number of frames of an animation, or of pages.
        size: Width and height, in pixels as displayed; ``None`` if the structure does not contain them.
        orientation: EXIF orientation, 1 to 8.
        profile: ICC profile, either embedded or created from other colour information in the file.
        extra_bands: Number of bands that are neither colours nor an alpha channel.
        bits: Bits per sample of HEIC.
        has_alpha: ``True`` if HEIC has an alpha channel.
        is_narrow: ``True`` if black and white of a grey image are 16 and 235 (ITU-R BT.601).
        is_alpha_narrow: The same for its alpha channel.
    """

    pieces: tuple[Piece, ...] | None = None
    head: int | None = None
    bytes_per_pixel: float = STREAMED
    frames: int = 1
    size: tuple[int, int] | None = None
    orientation: int = 1
    profile: bytes | None = None
    extra_bands: int = 0
    bits: int = 8
    has_alpha: bool = False
    is_narrow: bool = False
    is_alpha_narrow: bool = False


class Clock:
    """Limits the CPU time that reading a header takes."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.thread_time() + seconds

    def check(self) -> None:
        """Raise :class:`~aioimageattach.exc.ImageTooLargeError` if the time is over."""
        if time.thread_time() > self._end:
            raise ImageTooLargeError(
                f"expected a header that takes at most {self._seconds} seconds to read (header_timeout), "
                "got a slower one",
                limit=self._seconds,
            )


def assemble(view: memoryview, structure: Structure, *, header: bool = False) -> memoryview | bytes:
    """Return the file for the decoder: a part of the view itself, or a smaller copy.

    Args:
        view: The file.
        structure: The result of :func:`examine`.
        header: ``True`` if only the header will be read.
    """
    if structure.pieces is None:
        return view
    pieces = structure.pieces[: structure.head] if header else structure.pieces
    end = 0
    for piece in pieces:
        if isinstance(piece, bytes) or piece[0] != end:
            break
        end = piece[1]
    else:
        return view[:end]  # only data after the image is left out, so no copy is needed
    return b"".join([piece if isinstance(piece, bytes) else view[piece[0] : piece[1]] for piece in pieces])


def damaged(mimetype: str) -> UnreadableImageError:
    """Return the error for a file whose structure is damaged."""
    return UnreadableImageError(f"expected a valid {mimetype} file, got one with a damaged structure")


class Metadata:
    """Counts bytes of metadata against the limit."""

    def __init__(self, limits: ImageLimits) -> None:
        self.left = self._limit = limits.max_metadata

    def add(self, size: int) -> None:
        """Count a part; raise :class:`~aioimageattach.exc.ImageTooLargeError` if the limit is exceeded."""
        self.left -= max(size, _LEAST_PART)
        if self.left < 0:
            raise ImageTooLargeError(
                f"expected at most {self._limit:,} bytes of metadata (max_metadata), got more", limit=self._limit
            )


class Pieces:
    """Collects ranges of the file, joining adjacent ones."""

    def __init__(self) -> None:
        self.found: list[Piece] = []
        self.head: int | None = None

    def keep(self, start: int, end: int) -> None:
        """Add a range of the file."""
        last = self.found[-1] if self.found else b""
        if len(self.found) != self.head and isinstance(last, tuple) and last[1] == start:
            self.found[-1] = last[0], end
        else:
            self.found.append((start, end))

    def end_head(self) -> None:
        """Mark the end of the header: it consists of the ranges kept so far."""
        if self.head is None:
            self.head = len(self.found)

    def all(self) -> tuple[Piece, ...]:
        """Return the ranges."""
        return tuple(self.found)


def check_frames(frames: int, limits: ImageLimits) -> None:
    """Raise :class:`~aioimageattach.exc.ImageTooLargeError` if there are more than ``max_frames`` frames or pages."""
    if frames > limits.max_frames:
        raise ImageTooLargeError(
            f"expected at most {limits.max_frames:,} frames or pages (max_frames), got more", limit=limits.max_frames
        )
