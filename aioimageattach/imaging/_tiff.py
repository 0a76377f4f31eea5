"""TIFF directories (TIFF 6.0 section 2, BigTIFF): read the EXIF orientation, and reduce files to their first image.

Only the pointer to the first directory and the chain of next directories are followed, and each offset only once. A
file with circular pointers therefore costs no more than any other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError

__all__ = ["MOST_ENTRIES", "Entry", "Page", "Tiff", "exif_orientation"]

MOST_ENTRIES: Final = 4_000
"""Largest number of entries in one directory. Encoders write a few dozen."""

_MOST_VALUES: Final = 200_000  # strips or tiles of an image
_MOST_BYTES: Final = 1_000_000  # of the other fields that describe the image; the largest palette has 393,216
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PLANAR = 273, 274, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, PROFILE = (
    322,
    323,
    324,
    325,
    338,
    339,
    34675,
)
_KEPT: Final = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, EXTRA_SAMPLES, SAMPLE_FORMAT}
    | {266, 292, 293, 317, 320, 332, 347, 529, 530, 531, 532}  # how the samples are packed, inks and colours
)
_STRIPS: Final = (STRIP_OFFSETS, STRIP_COUNTS)
_TILES: Final = (TILE_OFFSETS, TILE_COUNTS)
_WANTED: Final = _KEPT | {*_STRIPS, *_TILES, ROWS_PER_STRIP, TILE_WIDTH, TILE_HEIGHT, ORIENTATION, PROFILE}
_ORIENTATION_ALONE: Final = frozenset({ORIENTATION})
_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
"""None, CCITT, LZW, JPEG, Deflate and PackBits: the compressions that the decoder in the wheel supports."""
_NAMES: Final = {6: "old JPEG", 34712: "JPEG 2000", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL"}
_CIELAB: Final = (8, 9, 10)
_RGB, _PALETTE, _CMYK, _YCBCR = 2, 3, 5, 6
_DEPTHS: Final = {
    0: frozenset({(1, 1), (2, 1), (4, 1), (8, 1), (16, 1)}),
    1: frozenset({(1, 1), (2, 1), (4, 1), (8, 1), (16, 1)}),
    _RGB: frozenset({(8, 1), (16, 1)}),
    _PALETTE: frozenset({(1, 1), (2, 1), (4, 1), (8, 1)}),
    _CMYK: frozenset({(8, 1), (16, 1)}),
    _YCBCR: frozenset({(8, 1)}),
}
"""Bits and sample formats (1: unsigned integers) that are rendered correctly, by photometric interpretation."""
_MOST_BITS: Final = 128  # of a pixel


class Entry(NamedTuple):
    """A field of a directory, and the position of its values in the file."""

    kind: int
    values: int
    start: int
    end: int


class Page(NamedTuple):
    """The first image of a TIFF."""

    width: int
    height: int
    orientation: int
    extra_bands: int
    """Samples per pixel that are neither colours nor an alpha channel."""
    block: int
    """Size of one decompressed strip or tile, which the decoder keeps in memory, in bytes."""
    profile: bytes | None
    head: bytes
    """A directory that contains only the image. It is placed before the file, and is enough to read the header."""


class Tiff:
    """Reads the directories of a TIFF, or of EXIF, which has the same structure.

    Raises:
        UnreadableImageError: The header is missing or damaged.
    """

    def __init__(self, view: memoryview) -> None:
        self._view = view
        head = bytes(view[:16])
        self._order = "<" if head[:2] == b"II" else ">"
        self.big: bool = len(head) > 8 and head[2:4] in (b"+\0", b"\0+")
        self._next = struct.Struct(self._order + ("Q" if self.big else "I"))
        self._count = struct.Struct(self._order + ("Q" if self.big else "H"))
        self._entry = struct.Struct(self._order + ("HHQQ" if self.big else "HHII"))
        self.first: int = self._unpack(self._next, 8 if self.big else 4)

    def _unpack(self, form: struct.Struct, offset: int) -> int:
        if offset + form.size > len(self._view):
            raise _broken("directories that extend beyond its end")
        value: int = form.unpack_from(self._view, offset)[0]
        return value

    def directories(self) -> Iterator[int]:
        """Yield the offset of each directory of the chain. A circular chain ends where it would repeat."""
        seen: set[int] = set()
        offset = self.first
        if not offset:
            raise _broken("no directory")
        while offset and offset not in seen:
            seen.add(offset)
            yield offset
            offset = self._unpack(
                self._next, offset + self._count.size + self._unpack(self._count, offset) * self._entry.size
            )

    def entries(self, offset: int, wanted: frozenset[int]) -> dict[int, Entry]:
        """Return the wanted fields of the directory at an offset. Of several with the same tag, the first is used."""
        count = self._unpack(self._count, offset)
        if count > MOST_ENTRIES:
            raise ImageTooLargeError(
                f"expected at most {MOST_ENTRIES:,} entries in a TIFF directory, got {count:,}",
                limit=MOST_ENTRIES,
                actual=count,
            )
        start = offset + self._count.size
        end = start + count * self._entry.size
        if end > len(self._view):
            raise _broken("directories that extend beyond its end")
        found: dict[int, Entry] = {}
        value_size = self._next.size
        for number, (tag, kind, values, place) in enumerate(self._entry.iter_unpack(self._view[start:end])):
            if tag not in wanted:
                continue
            size = _SIZES.get(kind, 1) * values
            if size <= value_size:
                place = start + (number + 1) * self._entry.size - value_size
            found.setdefault(tag, Entry(kind, values, place, place + size))
        return found

    def integers(self, entry: Entry) -> tuple[int, ...]:
        """Return the values of an integer field."""
        code = _INTEGERS.get(entry.kind)
        if code is None or entry.end > len(self._view):
            raise _broken("a field that is truncated or not an integer")
        if entry.values > _MOST_VALUES:
            raise ImageTooLargeError(
                f"expected at most {_MOST_VALUES:,} values in a TIFF field, got {entry.values:,}",
                limit=_MOST_VALUES,
                actual=entry.values,
            )
        return struct.unpack_from(f"{self._order}{entry.values}{code}", self._view, entry.start)

    def page(self, max_profile: int) -> Page:
        """Return the first image, with a directory that describes only this image.

        Raises:
            UnreadableImageError: Parts of the image are missing, or its fields contradict each other.
            UnsupportedImageError: The file uses a variant of TIFF that would be rendered incorrectly.
            ImageTooLargeError: The file has too many entries, strips or tiles.
        """
        entries = self.entries(self.first, _WANTED)
        fields = {tag: self.integers(entries[tag]) for tag in _CHECKED if tag in entries}
        if any(not values for values in fields.values()):
            raise _broken("a field without a value")
        width, height = self._one(fields, WIDTH), self._one(fields, HEIGHT)
        samples = fields.get(SAMPLES, (1,))[0]
        extra = _extra_bands(fields, samples)
        block, locations = self._check_data(fields, width, height, samples)
        profile = entries.get(PROFILE)
        held = None
        if profile is not None and profile.end <= len(self._view) and profile.end - profile.start <= max_profile:
            held = bytes(self._view[profile.start : profile.end])
        orientation = fields.get(ORIENTATION, (1,))[0]
        head = self._head(entries, locations)
        return Page(width, height, orientation if orientation in range(1, 9) else 1, extra, block, held, head)

    @staticmethod
    def _one(fields: dict[int, tuple[int, ...]], tag: int) -> int:
        value = fields.get(tag, (0,))[0]
        if value < 1:
            raise _broken(f"a field {tag} that is missing or not positive")
        return value

    def _check_data(
        self, fields: dict[int, tuple[int, ...]], width: int, height: int, samples: int
    ) -> tuple[int, dict[int, tuple[int, ...]]]:
        """Return the size of a decompressed strip or tile in bytes, and the fields that locate the strips or tiles.

        A missing strip or tile raises an error, because the decoder would render it black.
        """
        planes = samples if fields.get(PLANAR, (1,))[0] == 2 else 1
        tiled = TILE_OFFSETS in fields
        if tiled:
            if planes > 1:
                raise _unsupported("planar tiles")
            across, down = self._one(fields, TILE_WIDTH), self._one(fields, TILE_HEIGHT)
            expected = -(-width // across) * -(-height // down)
            shape = {TILE_WIDTH: (across,), TILE_HEIGHT: (down,)}
        else:
            across, down = width, min(max(1, fields.get(ROWS_PER_STRIP, (height,))[0]), height)
            expected = -(-height // down) * planes
            shape = {ROWS_PER_STRIP: (down,)}
        where, lengths = _TILES if tiled else _STRIPS
        offsets, sizes = (fields.get(tag, ())[:expected] for tag in (where, lengths))
        if min(len(offsets), len(sizes)) < expected:
            raise _broken("missing strips or tiles")
        end = len(self._view)
        if any(start + size > end or size < 1 for start, size in zip(offsets, sizes, strict=True)):
            raise _broken("strips or tiles that extend beyond its end")
        line = -(-across * fields.get(BITS, (1,))[0] * (samples if planes == 1 else 1) // 8)
        if fields.get(COMPRESSION, (1,))[0] == 1:
            for number, size in enumerate(sizes):
                rows = down if tiled else min(down, height - number % (expected // planes) * down)
                if size < line * rows:
                    raise _broken("strips or tiles that are shorter than their pixels")
        return line * down, shape | {where: offsets, lengths: sizes}

    def _head(self, entries: dict[int, Entry], locations: dict[int, tuple[int, ...]]) -> bytes:
        """Return the beginning of a BigTIFF with one directory, to be followed by the original file."""
        order, view = self._order, self._view
        kept = {tag: entry for tag, entry in entries.items() if tag in _KEPT}
        if any(entry.end > len(view) for entry in kept.values()):
            raise _broken("a field that extends beyond its end")
        total = sum(entry.end - entry.start for entry in kept.values())
        if total > _MOST_BYTES:
            raise ImageTooLargeError(
                f"expected at most {_MOST_BYTES:,} bytes of fields in a TIFF directory, got {total:,}",
                limit=_MOST_BYTES,
                actual=total,
            )
        fields = {tag: (entry.kind, entry.values, bytes(view[entry.start : entry.end])) for tag, entry in kept.items()}
        behind = 16 + 8 + 20 * (len(fields) + len(locations)) + 8
        lengths = [len(body) for _, _, body in fields.values()] + [8 * len(numbers) for numbers in locations.values()]
        size = behind + sum(length for length in lengths if length > 8)
        for tag, numbers in locations.items():
            moved = size if tag in (STRIP_OFFSETS, TILE_OFFSETS) else 0
            body = struct.pack(f"{order}{len(numbers)}Q", *[number + moved for number in numbers])
            fields[tag] = 16, len(numbers), body
        head, rest = [struct.pack(order + "2sHHHQQ", b"II" if order == "<" else b"MM", 43, 8, 0, 16, len(fields))], []
        for tag, (kind, count, body) in sorted(fields.items()):
            head.append(struct.pack(order + "HHQ", tag, kind, count))
            if len(body) <= 8:
                head.append(body.ljust(8, b"\0"))
            else:
                head.append(struct.pack(order + "Q", behind))
                rest.append(body)
                behind += len(body)
        return b"".join([*head, bytes(8), *rest])


_CHECKED: Final = (
    WIDTH,
    HEIGHT,
    BITS,
    COMPRESSION,
    PHOTOMETRIC,
    STRIP_OFFSETS,
    ORIENTATION,
    SAMPLES,
    ROWS_PER_STRIP,
    STRIP_COUNTS,
    PLANAR,
    TILE_WIDTH,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_COUNTS,
    EXTRA_SAMPLES,
    SAMPLE_FORMAT,
)


def _extra_bands(fields: dict[int, tuple[int, ...]], samples: int) -> int:
    """Return how many samples are neither colours nor alpha; raise an error if the image would render incorrectly."""
    compression = fields.get(COMPRESSION, (1,))[0]
    if compression not in _COMPRESSIONS:
        raise _unsupported(f"the compression {_NAMES.get(compression, compression)}")
    colours = fields.get(PHOTOMETRIC, (-1,))[0]
    if colours not in _DEPTHS:
        raise _unsupported("CIELAB" if colours in _CIELAB else f"the photometric interpretation {colours}")
    depths = {*fields.get(BITS, (1,))}
    forms = {*fields.get(SAMPLE_FORMAT, (1,))}
    if len(depths) > 1 or len(forms) > 1 or (*depths, *forms) not in _DEPTHS[colours]:
        raise _unsupported(f"samples of {sorted(depths)} bits in the format {sorted(forms)}")
    if colours == _YCBCR and compression != 7:
        raise _unsupported("YCbCr without JPEG compression")
    if samples * max(8, *depths) > _MOST_BITS:
        raise _unsupported(f"{samples:,} samples of {max(depths)} bits")
    plain = {_RGB: 3, _CMYK: 4, _YCBCR: 3}.get(colours, 1)
    if samples < plain:
        raise _broken("fewer samples than colours")
    more = samples - plain
    meanings = fields.get(EXTRA_SAMPLES, (2,) if more == 1 else ())  # old encoders omit the field for an alpha channel
    return more - (1 if more and meanings[:1] and meanings[0] in (1, 2) else 0)


def _broken(what: str) -> UnreadableImageError:
    return UnreadableImageError(f"expected a valid image/tiff file, got one with {what}")


def _unsupported(what: str) -> UnsupportedImageError:
    return UnsupportedImageError(f"image/tiff with {what} is not supported", mimetype="image/tiff")


def exif_orientation(block: memoryview | bytes) -> int:
    """Return the orientation in an EXIF block, 1 to 8; 1 if it is missing or the block is damaged."""
    view = memoryview(block)
    if bytes(view[:6]) == b"Exif\0\0":
        view = view[6:]
    if bytes(view[:4]) not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        tiff = Tiff(view)
        entry = tiff.entries(tiff.first, _ORIENTATION_ALONE).get(ORIENTATION)
        values = (1,) if entry is None else tiff.integers(entry)
    except (UnreadableImageError, ImageTooLargeError):
        return 1
    return values[0] if values and values[0] in range(1, 9) else 1
