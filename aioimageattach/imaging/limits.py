"""What pictures are accepted, checked before a pixel is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from ..exc import DeclarationError, ImageTooLargeError

__all__ = ["DEFAULT_LIMITS", "DEFAULT_TYPES", "KNOWN_TYPES", "ImageLimits"]

DEFAULT_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"})
"""The types that are accepted unless others are asked for."""

KNOWN_TYPES: Final = DEFAULT_TYPES | {"image/tiff", "image/heic", "image/svg+xml", "application/pdf"}
"""The types that can be accepted: the default ones and those on request."""

_COUNTS: Final = (
    "max_bytes",
    "max_side",
    "max_pixels",
    "max_pixels_at_once",
    "max_frames",
    "max_animated_frames",
    "max_metadata",
    "max_elements",
    "max_memory",
    "max_thumbnails",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """Limits on pictures that strangers send.

    Decoders have few limits of their own: six kilobytes can ask for ten gigabytes of memory. The defaults let through
    what cameras, telephones and scanners make, and keep one thumbnail below about a gigabyte.

    Args:
        types: The accepted types, by content; :data:`KNOWN_TYPES` says which can be. HEIC needs the extra ``heif``,
            PDF the extra ``pdf``. SVG and PDF can hold script: never serve such originals inline.
        max_bytes: Bytes of the file.
        max_side: Width and height, in pixels; also of a thumbnail.
        max_pixels: Width times height, in pixels; also of a thumbnail, and of all frames together where an animation
            is kept.
        max_pixels_at_once: Width times height, in pixels, where a picture can only be decoded as a whole: progressive
            JPEG, interlaced PNG and GIF, WebP, AVIF and HEIC, and what a vector original is painted on.
        max_frames: Frames or pages of the file.
        max_animated_frames: Frames of a thumbnail that keeps the animation.
        max_metadata: Bytes of metadata and profiles in the file, unpacked.
        max_elements: Elements of an SVG, counted as often as they are painted.
        max_thumbnails: Thumbnails of one picture, so that whoever may ask for any size cannot fill the store.
        timeout: Seconds that decoding and resizing one picture may take; ``None`` for no end. It is checked between
            strips of pixels, so that what is decoded as a whole, and the writing of AVIF, can take longer; the pixel
            limits keep these within seconds; ``isolated`` makes it a hard limit.
        isolated: Whether pictures are read in a worker process, which is ended where it does not keep ``timeout`` and
            ``max_memory``. The callables of recipes run there too: they have to be importable by their names, and find
            little of the environment.
        max_memory: Bytes of memory that a worker process may take, some 60 MB for itself included; of no meaning
            unless ``isolated``.

    Raises:
        ValueError: A limit is below 1, the timeout is not positive, or a type is not known.
        DeclarationError: A limit is of another type.
    """

    types: frozenset[str] = DEFAULT_TYPES
    max_bytes: int = 50_000_000
    max_side: int = 30_000
    max_pixels: int = 100_000_000
    max_pixels_at_once: int = 40_000_000
    max_frames: int = 1_000
    max_animated_frames: int = 100
    max_metadata: int = 10_000_000
    max_elements: int = 50_000
    max_thumbnails: int = 100
    timeout: float | None = 30.0
    isolated: bool = False
    max_memory: int = 1_000_000_000

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if type(value) is not int:
                raise DeclarationError(f"{name}: expected an int, got {value!r:.80}")
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value!r:.80}")
        if self.timeout is not None:
            if isinstance(self.timeout, bool) or not isinstance(self.timeout, int | float):
                raise DeclarationError(f"timeout: expected seconds or None, got {self.timeout!r:.80}")
            if not 0 < self.timeout < float("inf"):
                raise ValueError(f"timeout: expected a positive number of seconds or None, got {self.timeout!r:.80}")
        if not isinstance(self.isolated, bool):
            raise DeclarationError(f"isolated: expected a bool, got {self.isolated!r:.80}")
        object.__setattr__(self, "types", _checked_types(self.types))

    def allow(self, *types: str) -> ImageLimits:
        """Return a copy that accepts these types as well, such as ``"image/svg+xml"``.

        Raises:
            ValueError: A type is not one of :data:`KNOWN_TYPES`.
        """
        return replace(self, types=self.types | _checked_types(types))

    def check_size(self, width: int, height: int, *, what: str = "the picture", at_once: bool = False) -> None:
        """Raise :class:`~aioimageattach.exc.ImageTooLargeError` where the sides or the area are beyond the limits.

        Args:
            width: In pixels.
            height: In pixels.
            what: The name the error gives it.
            at_once: Whether it is decoded as a whole, so that ``max_pixels_at_once`` holds too.
        """
        if max(width, height) > self.max_side:
            raise ImageTooLargeError(
                f"{what} is {width} x {height}: no side may have more than {self.max_side:,} pixels (max_side)",
                limit=self.max_side,
                actual=max(width, height),
            )
        limit, name = self.max_pixels, "max_pixels"
        if at_once and self.max_pixels_at_once < limit:
            limit, name = self.max_pixels_at_once, "max_pixels_at_once"
        if width * height > limit:
            raise ImageTooLargeError(
                f"{what} is {width} x {height}, {width * height:,} pixels: {limit:,} are allowed ({name})",
                limit=limit,
                actual=width * height,
            )


def _checked_types(types: Iterable[str]) -> frozenset[str]:
    if isinstance(types, str):
        raise DeclarationError(f"types: expected several types, got the one text {types!r:.80}")
    found = frozenset(types)
    unknown = sorted(map(repr, found - KNOWN_TYPES))
    if unknown:
        raise ValueError(f"types: {', '.join(unknown):.200} cannot be read; known are {', '.join(sorted(KNOWN_TYPES))}")
    return found


DEFAULT_LIMITS: Final = ImageLimits()
"""The limits where none are given."""
