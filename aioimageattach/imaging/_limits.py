"""Limits on accepted images, checked before any pixels are decoded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, get_args

from ..exc import DeclarationError, ImageProportionsError, ImageTooLargeError, ImageTooSmallError

__all__ = ["DEFAULT_LIMITS", "DEFAULT_TYPES", "KNOWN_TYPES", "VECTOR_TYPES", "ImageLimits"]

DEFAULT_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"})
"""MIME types that are accepted by default."""

KNOWN_TYPES: Final = DEFAULT_TYPES | {"image/tiff", "image/heic", "image/svg+xml", "application/pdf"}
"""All MIME types that can be accepted: :data:`DEFAULT_TYPES`, and those that must be enabled explicitly."""

Verify: TypeAlias = Literal["header", "pixels", "complete"]
"""Levels of the check of an image that is attached, the most thorough one last."""

VECTOR_TYPES: Final = frozenset({"image/svg+xml", "application/pdf"})
"""MIME types of vector images, which can be rendered at any size."""

_COUNTS: Final = (
    "min_width",
    "min_height",
    "max_bytes",
    "max_side",
    "max_pixels",
    "max_frames",
    "max_animated_frames",
    "max_metadata",
    "max_elements",
    "max_memory",
    "max_thumbnails",
    "reduce_to",
)
_NUMBERS: Final = ("min_aspect", "max_aspect", "header_timeout", "timeout")
_OPTIONAL: Final = frozenset({"min_aspect", "max_aspect", "reduce_to", "timeout"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """Limits on images from untrusted sources.

    Decoders enforce few limits themselves: a file of six kilobytes can make one allocate ten gigabytes. The defaults
    accept images from current phones, cameras and scanners, and keep each decoder below one gigabyte of memory.

    Args:
        types: Accepted MIME types, detected from the content; any of :data:`KNOWN_TYPES`. HEIC requires the extra
            ``heif``, PDF the extra ``pdf``. SVG and PDF can contain scripts: never serve such originals inline.
        min_width: Smallest width of an original, in pixels as displayed. Like ``min_height``, ``min_aspect`` and
            ``max_aspect``, it is checked when an image is attached. Images that are already attached stay valid.
        min_height: Smallest height of an original, in pixels as displayed. Neither ``min_width`` nor ``min_height``
            applies to SVG and PDF, which have no pixels.
        min_aspect: Smallest ratio of width to height of an original: ``1 / 2`` rejects images that are more than
            twice as high as wide. ``None`` means no limit.
        max_aspect: Largest ratio of width to height of an original, such as ``16 / 9``; ``None`` means no limit.
        reduce_to: Longest side to which originals are reduced when they are attached, in pixels. The uploaded file is
            not kept. The reduced original is re-encoded in sRGB without metadata; HEIC becomes JPEG and TIFF becomes
            PNG. SVG, PDF, and files with several pages or frames other than GIF and WebP are stored unchanged.
            ``None`` means that all originals are stored unchanged.
        max_bytes: Largest file, in bytes.
        max_side: Largest width and largest height, in pixels; also of a thumbnail.
        max_pixels: Largest area (width times height), in pixels; also of a thumbnail, and of all frames together if
            an animation is kept.
        max_memory: Memory that decoding one image may take, in bytes. It is calculated from the header before any
            pixels are decoded: progressive JPEG, interlaced PNG, GIF, WebP, AVIF and HEIC are decoded as a whole, other
            images line by line. With ``isolated``, it is also the memory limit of the worker process, including
            about 60 MB for the process itself.
        max_frames: Largest number of frames or pages in a file.
        max_animated_frames: Largest number of frames in a thumbnail that keeps the animation.
        max_metadata: Largest size of metadata and colour profiles in a file, in bytes after decompression.
        max_elements: Largest number of elements in an SVG. An element counts once for each time it is painted.
        max_thumbnails: Largest number of thumbnails of one image, so that a client that can request any size cannot
            fill the store.
        header_timeout: CPU time that reading one header may take, in seconds.
        timeout: Time that decoding and resizing one image may take, in seconds; ``None`` means no limit. It is
            checked between strips of pixels. Images that are decoded as a whole, and AVIF encoding, can therefore
            take longer; ``isolated`` makes it a hard limit.
        verify: How thoroughly an image is checked when it is attached. ``"header"`` checks its structure and header;
            damaged pixels are only detected when the first thumbnail is rendered. ``"pixels"`` decodes the image
            once and rejects it if thumbnails cannot be rendered from it. ``"complete"`` also rejects it if any pixels
            are missing or damaged; without it, JPEG, PNG and GIF are rendered as far as they can be decoded, as
            browsers do.
        isolated: ``True`` to read images in a worker process, which is terminated if it exceeds ``timeout`` or
            ``max_memory``. The callables of recipes run there too. They must be importable by name, and see only a
            few environment variables.

    Raises:
        ValueError: A limit is below 1, a time is not positive, or a MIME type or a value of ``verify`` is unknown.
        DeclarationError: An argument has the wrong type.
    """

    types: frozenset[str] = DEFAULT_TYPES
    min_width: int = 1
    min_height: int = 1
    min_aspect: float | None = None
    max_aspect: float | None = None
    reduce_to: int | None = None
    max_bytes: int = 100_000_000
    max_side: int = 30_000
    max_pixels: int = 250_000_000
    max_memory: int = 1_000_000_000
    max_frames: int = 1_000
    max_animated_frames: int = 100
    max_metadata: int = 10_000_000
    max_elements: int = 50_000
    max_thumbnails: int = 100
    header_timeout: float = 2.0
    timeout: float | None = 30.0
    verify: Verify = "header"
    isolated: bool = False

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if type(value) is not int:
                raise DeclarationError(f"{name}: expected an int, got {value!r:.80}")
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value!r:.80}")
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise DeclarationError(f"{name}: expected a number, got {value!r:.80}")
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: expected a positive number, got {value!r:.80}")
        if (self.min_aspect or 0) > (self.max_aspect or float("inf")):
            raise ValueError(f"min_aspect: expected at most max_aspect, {self.max_aspect}, got {self.min_aspect}")
        if self.verify not in get_args(Verify):
            raise ValueError(f"verify: expected one of {', '.join(get_args(Verify))}, got {self.verify!r:.80}")
        if not isinstance(self.isolated, bool):
            raise DeclarationError(f"isolated: expected a bool, got {self.isolated!r:.80}")
        object.__setattr__(self, "types", _checked_types(self.types))

    def allow(self, *types: str) -> ImageLimits:
        """Return a copy that also accepts these MIME types, such as ``"image/svg+xml"``.

        Raises:
            ValueError: A type is not one of :data:`KNOWN_TYPES`.
        """
        return replace(self, types=self.types | _checked_types(types))

    def check_original(self, width: int, height: int, mimetype: str) -> None:
        """Raise an error if a new original is too small, or if its aspect ratio is not allowed.

        Args:
            width: Width in pixels, as displayed.
            height: Height in pixels, as displayed.
            mimetype: MIME type of the original.

        Raises:
            ImageTooSmallError: The width is below ``min_width``, or the height is below ``min_height``.
            ImageProportionsError: The aspect ratio is below ``min_aspect`` or above ``max_aspect``.
        """
        if mimetype not in VECTOR_TYPES:
            for name, least, side in (("width", self.min_width, width), ("height", self.min_height, height)):
                if side < least:
                    raise ImageTooSmallError(
                        f"expected an image with a {name} of at least {least:,} pixels (min_{name}), "
                        f"got {width} x {height}",
                        limit=least,
                        actual=side,
                    )
        aspect = width / height
        for name, limit, wrong in (
            ("min_aspect", self.min_aspect, aspect < (self.min_aspect or 0)),
            ("max_aspect", self.max_aspect, aspect > (self.max_aspect or aspect)),
        ):
            if wrong:
                raise ImageProportionsError(
                    f"expected an image whose ratio of width to height is at "
                    f"{'least' if name == 'min_aspect' else 'most'} {limit:.3g} ({name}), "
                    f"got {width} x {height}, which is {aspect:.3g}",
                    limit=limit,
                    actual=aspect,
                )

    def check_size(
        self, width: int, height: int, *, what: str = "an image", bytes_per_pixel: float | None = None
    ) -> None:
        """Raise :class:`~aioimageattach.exc.ImageTooLargeError` if a side, the area or the memory exceeds the limits.

        Args:
            width: Width in pixels.
            height: Height in pixels.
            what: Noun phrase for the image in the error message, such as ``"a thumbnail"``.
            bytes_per_pixel: Memory that decoding takes per pixel, in bytes; ``None`` if the image is not decoded.
        """
        if max(width, height) > self.max_side:
            raise ImageTooLargeError(
                f"expected {what} of at most {self.max_side:,} pixels per side (max_side), got {width} x {height}",
                limit=self.max_side,
                actual=max(width, height),
            )
        if width * height > self.max_pixels:
            raise ImageTooLargeError(
                f"expected {what} of at most {self.max_pixels:,} pixels (max_pixels), "
                f"got {width} x {height}, which is {width * height:,}",
                limit=self.max_pixels,
                actual=width * height,
            )
        memory = int(width * height * (bytes_per_pixel or 0))
        if memory > self.max_memory:
            raise ImageTooLargeError(
                f"expected {what} that takes at most {self.max_memory:,} bytes of memory to decode (max_memory), "
                f"got {width} x {height}, which takes {memory:,}",
                limit=self.max_memory,
                actual=memory,
            )


def _checked_types(types: Iterable[str]) -> frozenset[str]:
    if isinstance(types, str):
        raise DeclarationError(
            f"types: expected a collection of MIME types, got the str {types!r:.80}; pass {{{types!r:.80}}}"
        )
    found = frozenset(types)
    unknown = sorted(map(repr, found - KNOWN_TYPES))
    if unknown:
        raise ValueError(f"types: expected some of {', '.join(sorted(KNOWN_TYPES))}, got {', '.join(unknown):.200}")
    return found


DEFAULT_LIMITS: Final = ImageLimits()
"""Default limits."""
