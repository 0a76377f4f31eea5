"""AVIF and HEIC (ISO 23008-12, MIAF): extract the primary image, and read what determines its decoding cost.

Files from phones contain previews, depth maps, gain maps, image sequences and metadata besides the image. The decoder
gets a new file with only the primary item, its tiles and its alpha channel. An image sequence without a primary item
becomes a still image of its first frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ..exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from ._av1 import sequence_colours
from ._colour import Colours
from ._containers import Item, Part, Piece, boxes, first_boxes, items_of

__all__ = ["Still", "still"]

_MOST_ITEMS: Final = 4_096  # phones with 200 megapixels write 800
_MOST_REFERENCES: Final = 20_000
_ALPHA: Final = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
_HEAD: Final = 200  # bytes of a coded image that are searched for its sequence header
_TURNS: Final = (b"irot", b"imir", b"clap")
_METADATA: Final = (b"Exif", b"mime", b"uri ")
_CODED: Final = {b"av01": b"av1C", b"hvc1": b"hvcC"}
_KEPT: Final = frozenset({b"ispe", b"pixi", b"av1C", b"hvcC", b"colr", b"auxC", b"irot", b"imir", b"clap", b"pasp"})


@dataclass(frozen=True, slots=True)
class Still:
    """The primary image.

    Args:
        pieces: The new file, as bytes and ranges of the old file.
        width: Width in pixels, as displayed.
        height: Height in pixels, as displayed.
        coded: Width and height before cropping and rotation.
        frames: Number of frames of the image sequence; 1 for a still image.
        metadata: Size of EXIF, XMP and other metadata, in bytes.
        bits: Bits per sample.
        is_grey: ``True`` if the image is monochrome.
        has_alpha: ``True`` if it has an alpha channel.
        alpha_full_range: ``True`` if the alpha channel uses the full range of values, from 0 to the highest.
        colours: Colours as code points.
        profile: ICC profile.
    """

    pieces: tuple[Piece, ...]
    width: int
    height: int
    coded: tuple[int, int]
    frames: int
    metadata: int
    bits: int
    is_grey: bool
    has_alpha: bool
    alpha_full_range: bool
    colours: Colours | None
    profile: bytes | None


@dataclass(slots=True)
class _File:
    """The tables of the file."""

    view: memoryview
    mimetype: str
    brand: bytes
    primary: int = 0
    items: dict[int, Item] = field(default_factory=dict)
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    associated: dict[int, list[int]] = field(default_factory=dict)
    tiles: dict[int, list[int]] = field(default_factory=dict)
    auxiliary: list[tuple[int, int]] = field(default_factory=list)

    def property_of(self, number: int, kind: bytes) -> bytes | None:
        """Return the content of an item's first property of a kind; ``None`` if it has none."""
        return next(
            (
                body
                for index in self.associated.get(number, ())
                for name, body in self.properties[index : index + 1]
                if name == kind
            ),
            None,
        )

    def broken(self, what: str) -> UnreadableImageError:
        return UnreadableImageError(f"expected a valid {self.mimetype} file, got one with {what}")


def still(view: memoryview, mimetype: str) -> Still:
    """Return the primary image of a file.

    Raises:
        UnreadableImageError: There is no primary image, or the tables are contradictory or point beyond the file.
        UnsupportedImageError: The image is derived from other items in a way that is not supported.
        ImageTooLargeError: The file has too many items.
    """
    top = first_boxes(view, Part(b"", 0, 0, len(view)))
    file = _File(view, mimetype, bytes(view[8:12]))
    try:
        frames = _read_sequence(file, top.get(b"moov"))
        if not _read_items(file, top.get(b"meta")) and not file.items:
            raise file.broken("no image")
        return _Picture(file).still(max(frames, 1))
    except (IndexError, struct.error) as error:
        raise file.broken("damaged tables") from error


def _unpack(form: str, view: memoryview, offset: int, end: int) -> tuple[int, ...]:
    if offset + struct.calcsize(form) > end:
        raise IndexError
    return struct.unpack_from(form, view, offset)


def _read_items(file: _File, meta: Part | None) -> bool:
    """Read the tables of items. Return whether there is a primary item."""
    view = file.view
    tables = first_boxes(view, meta, 4)
    pitm = tables.get(b"pitm")
    if pitm is None:
        return False
    (primary,) = _unpack(">I" if view[pitm.body] else ">H", view, pitm.body + 4, pitm.end)
    items = items_of(view, tables)
    if items is None:
        raise file.broken("damaged tables")
    if len(items) > _MOST_ITEMS:
        raise ImageTooLargeError(
            f"expected at most {_MOST_ITEMS:,} items in the file, got {len(items):,}",
            limit=_MOST_ITEMS,
            actual=len(items),
        )
    file.primary = primary
    file.items = {item.number: item for item in items}
    if primary not in file.items:
        raise file.broken("a missing primary item")
    file.properties, file.associated = [], {}
    iprp = first_boxes(view, tables.get(b"iprp"))
    _read_properties(file, iprp.get(b"ipco"), iprp.get(b"ipma"))
    _read_references(file, tables.get(b"iref"))
    return True


def _read_properties(file: _File, ipco: Part | None, ipma: Part | None) -> None:
    if ipco is None or ipma is None:
        raise file.broken("no properties of its images")
    view = file.view
    for number, box in enumerate(boxes(view, ipco.body, ipco.end)):
        if number == _MOST_ITEMS:
            raise ImageTooLargeError(
                f"expected at most {_MOST_ITEMS:,} properties in the file, got more", limit=_MOST_ITEMS
            )
        kept = box.name in _KEPT
        file.properties.append((box.name, bytes(view[box.body : box.end]) if kept else b""))
    version, wide = view[ipma.body], view[ipma.body + 3] & 1
    (count,) = _unpack(">I", view, ipma.body + 4, ipma.end)
    at, left = ipma.body + 8, _MOST_REFERENCES
    for _ in range(count):
        number, many = _unpack(">IB" if version else ">HB", view, at, ipma.end)
        at += 5 if version else 3
        left -= many + 1
        if left < 0:
            raise ImageTooLargeError(
                f"expected at most {_MOST_REFERENCES:,} associated properties, got more", limit=_MOST_REFERENCES
            )
        indexes = _unpack(f">{many}{'H' if wide else 'B'}", view, at, ipma.end)
        at += many * (2 if wide else 1)
        mask = 0x7FFF if wide else 0x7F
        file.associated.setdefault(number, [(index & mask) - 1 for index in indexes if index & mask])


def _read_references(file: _File, iref: Part | None) -> None:
    if iref is None:
        return
    view, form = file.view, "I" if file.view[iref.body] else "H"
    size, left = struct.calcsize(form), _MOST_REFERENCES
    for box in boxes(view, iref.body + 4, iref.end):
        source, many = _unpack(f">{form}H", view, box.body, box.end)
        left -= many + 1
        if left < 0:
            raise ImageTooLargeError(
                f"expected at most {_MOST_REFERENCES:,} references in the file, got more", limit=_MOST_REFERENCES
            )
        targets = _unpack(f">{many}{form}", view, box.body + size + 2, box.end)
        if box.name == b"dimg":
            file.tiles.setdefault(source, list(targets))
        elif box.name == b"auxl":
            file.auxiliary.extend((source, target) for target in targets)


def _read_sequence(file: _File, moov: Part | None) -> int:
    """Add the first frame of the first image sequence as an item, and return the number of frames."""
    view = file.view
    if moov is None:
        return 0
    for trak in boxes(view, moov.body, moov.end):
        media = first_boxes(view, first_boxes(view, trak).get(b"mdia")) if trak.name == b"trak" else {}
        hdlr, stbl = media.get(b"hdlr"), first_boxes(view, media.get(b"minf")).get(b"stbl")
        if hdlr is None or stbl is None or bytes(view[hdlr.body + 8 : hdlr.body + 12]) not in (b"pict", b"vide"):
            continue
        return _read_track(file, stbl)
    return 0


def _read_track(file: _File, stbl: Part) -> int:
    view = file.view
    tables = first_boxes(view, stbl)
    stsd, stsz = tables.get(b"stsd"), tables.get(b"stsz")
    places = tables.get(b"stco") or tables.get(b"co64")
    if stsd is None or stsz is None or places is None:
        return 0
    size, frames = _unpack(">II", view, stsz.body + 4, stsz.end)
    if not size:
        (size,) = _unpack(">I", view, stsz.body + 12, stsz.end)
    (start,) = _unpack(">I" if places.name == b"stco" else ">Q", view, places.body + 8, places.end)
    entry = next(boxes(view, stsd.body + 8, stsd.end), None)
    if entry is None or entry.name not in _CODED or start + size > len(view):
        return frames
    width, height = _unpack(">HH", view, entry.body + 24, entry.end)
    file.primary = 1
    file.items = {1: Item(1, entry.name, b"", ((start, start + size),))}
    file.properties = [(b"ispe", struct.pack(">III", 0, width, height))]
    file.properties += [
        (box.name, bytes(view[box.body : box.end]))
        for box in boxes(view, entry.body + 78, entry.end)
        if box.name in _KEPT
    ]
    file.associated = {1: list(range(len(file.properties)))}
    return frames


class _Picture:
    """The primary image, with its tiles and its alpha channel."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._primary = file.primary
        alpha = next(
            (
                source
                for source, target in file.auxiliary
                if target == file.primary != source
                and source in file.items
                and (file.property_of(source, b"auxC") or b"")[4:] in _ALPHA
            ),
            None,
        )
        self._alpha = alpha
        self._needed: dict[int, None] = {}
        for number in (file.primary, *(() if alpha is None else (alpha,))):
            self._need(number)

    def _need(self, number: int) -> None:
        """Add an item and its tiles. The decoder itself checks that coded images are not larger than declared."""
        file = self._file
        kind = file.items[number].kind
        self._needed[number] = None
        if kind in _CODED:
            return
        if kind not in (b"grid", b"iden"):
            raise UnsupportedImageError(
                f"{file.mimetype}: expected a primary item of type av01, hvc1, grid or iden, got {kind!r}",
                mimetype=file.mimetype,
            )
        tiles = file.tiles.get(number, [])
        if not tiles or (kind == b"iden" and len(tiles) > 1):
            raise file.broken("missing tiles")
        width, height = self.size(number)
        across, down = self.size(tiles[0])
        left = (width + across) * (height + down)
        for tile in tiles:
            if tile not in file.items or file.items[tile].kind not in _CODED:
                raise file.broken("missing tiles")
            across, down = self.size(tile)
            left -= across * down
            if left < 0:
                raise file.broken("tiles that are larger than the image")
            self._needed[tile] = None

    def size(self, number: int) -> tuple[int, int]:
        """Return the width and height of an item, before rotation."""
        body = self._file.property_of(number, b"ispe")
        if body is None or len(body) < 12:
            raise self._file.broken("an image without a size")
        width, height = struct.unpack_from(">II", body, 4)
        if not width or not height:
            raise self._file.broken("an image without a size")
        return width, height

    def still(self, frames: int) -> Still:
        file = self._file
        width, height = self._displayed_size()
        first = next(number for number in self._needed if file.items[number].kind in _CODED)
        kind = file.items[first].kind
        config = file.property_of(first, _CODED[kind]) or b""
        bits, is_grey = _av1_depth(config) if kind == b"av01" else _hevc_depth(config)
        colours, profile = self._colours((self._primary, first))
        colours = colours or self._coded_colours(first)
        alpha_full = True
        if self._alpha is not None:
            coded = next(number for number in (self._alpha, *file.tiles.get(self._alpha, ())) if number in self._needed)
            alpha_colours, _ = self._colours((self._alpha, coded))
            alpha_colours = alpha_colours or self._coded_colours(coded)
            alpha_full = alpha_colours is None or alpha_colours.full_range
        return Still(
            tuple(self._pieces()),
            width,
            height,
            self.size(self._primary),
            frames,
            sum(end - start for item in file.items.values() if item.kind in _METADATA for start, end in item.extents),
            bits,
            is_grey,
            self._alpha is not None,
            alpha_full,
            colours,
            profile,
        )

    def _displayed_size(self) -> tuple[int, int]:
        """Return the size after cropping and rotation, in the order in which the properties are associated."""
        file = self._file
        width, height = self.size(self._primary)
        for index in file.associated.get(self._primary, ()):
            for name, body in file.properties[index : index + 1]:
                if name == b"irot" and body and body[0] & 1:
                    width, height = height, width
                elif name == b"clap":
                    width, height = _cropped(width, height, body)
                    if not (width and height):
                        raise file.broken("a clean aperture that is empty or outside of the image")
        return width, height

    def _colours(self, numbers: tuple[int, ...]) -> tuple[Colours | None, bytes | None]:
        file = self._file
        found, profile = None, None
        for number in numbers:
            for index in file.associated.get(number, ()):
                for name, body in file.properties[index : index + 1]:
                    if name != b"colr":
                        continue
                    if body[:4] == b"nclx" and len(body) >= 11 and found is None:
                        primaries, transfer = struct.unpack_from(">HH", body, 4)
                        found = Colours(primaries, transfer, bool(body[10] & 0x80))
                    elif body[:4] in (b"prof", b"rICC") and profile is None:
                        profile = body[4:]
        return found, profile

    def _coded_colours(self, number: int) -> Colours | None:
        """Return the colours stated in the coded image itself."""
        file = self._file
        config, (start, end) = file.property_of(number, b"av1C"), (*file.items[number].extents, (0, 0))[0]
        return None if config is None else sequence_colours(config, bytes(file.view[start:end][:_HEAD]))

    def _associated(self, number: int) -> list[int]:
        """Return the properties of an item in the new file. An alpha channel gets the image's rotation and crop."""
        file = self._file
        found = [
            index
            for index in file.associated.get(number, ())
            if index < len(file.properties) and file.properties[index][0] in _KEPT
        ]
        if number != self._alpha:
            return found
        return [index for index in found if file.properties[index][0] not in _TURNS] + [
            index for index in self._associated(self._primary) if file.properties[index][0] in _TURNS
        ]

    def _pieces(self) -> Iterator[Piece]:
        """Yield the new file: the ranges of the old file that contain the image, and the tables that locate them."""
        file = self._file
        indexes = sorted({index for number in self._needed for index in self._associated(number)})
        renumbered = {index: new for new, index in enumerate(indexes, 1)}
        ranges = [extent for number in self._needed for extent in file.items[number].extents]
        ftyp = _box(b"ftyp", file.brand, b"\0\0\0\0", file.brand, b"mif1miaf")
        head = ftyp + struct.pack(">I4s", 8 + sum(end - start for start, end in ranges), b"mdat")
        yield head
        yield from ranges
        yield self._meta(renumbered, len(head))

    def _meta(self, renumbered: dict[int, int], start: int) -> bytes:
        file = self._file
        infos, places, associations = [], [], []
        for number in self._needed:
            item = file.items[number]
            infos.append(_box(b"infe", b"\3\0\0\0", struct.pack(">IH4s", number, 0, item.kind), b"\0"))
            extents = []
            for first, end in item.extents:
                extents.append(struct.pack(">II", start, end - first))
                start += end - first
            places.append(struct.pack(">IHHH", number, 0, 0, len(extents)) + b"".join(extents))
            mine = [renumbered[index] for index in self._associated(number)]
            associations.append(struct.pack(f">IB{len(mine)}H", number, len(mine), *(0x8000 | one for one in mine)))
        references = [
            _box(b"dimg", struct.pack(f">IH{len(tiles)}I", number, len(tiles), *tiles))
            for number, tiles in file.tiles.items()
            if number in self._needed
        ]
        if self._alpha is not None:
            references.append(_box(b"auxl", struct.pack(">IHI", self._alpha, 1, self._primary)))
        properties = [_box(*file.properties[index]) for index in renumbered]
        count = struct.pack(">I", len(self._needed))
        return _box(
            b"meta",
            b"\0\0\0\0",
            _box(b"hdlr", bytes(8), b"pict", bytes(13)),
            _box(b"pitm", b"\1\0\0\0", struct.pack(">I", self._primary)),
            _box(b"iloc", b"\2\0\0\0\x44\0", count, *places),
            _box(b"iinf", b"\1\0\0\0", count, *infos),
            _box(b"iref", b"\1\0\0\0", *references) if references else b"",
            _box(b"iprp", _box(b"ipco", *properties), _box(b"ipma", b"\1\0\0\1", count, *associations)),
        )


def _cropped(width: int, height: int, body: bytes) -> tuple[int, int]:
    """Return the size of a clean aperture (ISO 14496-12); 0 for a side that is invalid or outside of the image."""
    found = []
    for side, at in ((width, 0), (height, 8)):
        count, by = struct.unpack_from(">II", body, at)
        far, over = struct.unpack_from(">iI", body, at + 16)
        wanted = count // by if by else 0
        inside = over and abs(far) * 2 <= (side - wanted + 1) * over  # each half is rounded
        found.append(wanted if inside else 0)
    return found[0], found[1]


def _box(name: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, parts)), name) + b"".join(parts)


def _av1_depth(config: bytes) -> tuple[int, bool]:
    """Return the bits per sample, and whether the image is monochrome (AV1-ISOBMFF 2.3)."""
    flags = config[2]
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8, bool(flags & 0x10)


def _hevc_depth(config: bytes) -> tuple[int, bool]:
    """Return the bits per sample, and whether the image is monochrome (ISO 14496-15 8.3.2)."""
    return (config[17] & 7) + 8, config[16] & 3 == 0
