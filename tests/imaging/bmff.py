"""AVIF and HEIC files assembled from images coded by other programs (ISO 14496-12, ISO 23008-12)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aioimageattach.imaging._containers import heif_items


def box(name: bytes, *parts: bytes) -> bytes:
    """Return a box with the given contents."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def ispe(width: int, height: int) -> bytes:
    """Return the property of an image's size."""
    return box(b"ispe", bytes(4), struct.pack(">II", width, height))


def nclx(primaries: int, transfer: int, matrix: int, *, full: bool = True) -> bytes:
    """Return the property of colours as code points."""
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, 0x80 * full))


ALPHA = box(b"auxC", bytes(4), b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")
QUARTER_TURN = box(b"irot", b"\1")


@dataclass
class Entry:
    """An item with its data and its properties."""

    number: int
    kind: bytes
    data: bytes
    properties: list[bytes] = field(default_factory=list)


def parsed(file: bytes) -> list[Entry]:
    """Return the items of a file written by another program, each with its decoder property only."""
    view = memoryview(file)
    name = b"av1C" if b"av1C" in file else b"hvcC"
    at, found = 0, []
    for item in heif_items(view) or []:
        data = b"".join(bytes(view[start:end]) for start, end in item.extents)
        at = max(file.find(name, at) - 4, 0)
        config = file[at : at + int.from_bytes(file[at : at + 4], "big")]
        at += 8
        found.append(Entry(item.number, item.kind, data, [config]))
    return found


def built(
    items: Sequence[Entry],
    *,
    primary: int = 1,
    references: Sequence[tuple[bytes, int, Sequence[int]]] = (),
    brand: bytes = b"avif",
    behind: bytes = b"",
    **changed: Any,
) -> bytes:
    """Return a file with the given items; ``changed`` replaces or removes boxes of ``meta`` by name."""
    properties = list(dict.fromkeys(one for item in items for one in item.properties))
    associations = b""
    for item in items:
        associations += struct.pack(">HB", item.number, len(item.properties))
        essential = (0x80 * (one[4:8] in (b"av1C", b"hvcC", b"irot", b"clap")) for one in item.properties)
        associations += bytes(
            bit | 1 + properties.index(one) for bit, one in zip(essential, item.properties, strict=True)
        )
    head = box(b"ftyp", brand, bytes(4), brand, b"mif1")
    at, places = len(head) + 8, b""
    for item in items:
        places += struct.pack(">HHHII", item.number, 0, 1, at, len(item.data))
        at += len(item.data)
    infos = [box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", item.number, 0, item.kind), b"\0") for item in items]
    count = struct.pack(">H", len(items))
    boxes = {
        "hdlr": box(b"hdlr", bytes(8), b"pict", bytes(13)),
        "pitm": box(b"pitm", bytes(4), struct.pack(">H", primary)),
        "iloc": box(b"iloc", bytes(4), b"\x44\0", count, places),
        "iinf": box(b"iinf", bytes(4), count, *infos),
        "iprp": box(
            b"iprp",
            box(b"ipco", *properties),
            box(b"ipma", bytes(4), struct.pack(">I", len(items)), associations),
        ),
        "iref": box(
            b"iref",
            bytes(4),
            *[box(name, struct.pack(f">HH{len(to)}H", source, len(to), *to)) for name, source, to in references],
        ),
    } | changed
    return head + box(b"mdat", *[item.data for item in items]) + box(b"meta", bytes(4), *boxes.values()) + behind


def film(
    size: tuple[int, int],
    kind: bytes,
    config: bytes,
    place: int,
    length: int,
    *,
    frames: int = 2,
    handler: bytes = b"pict",
    wide: bool = False,
) -> bytes:
    """Return the tables of an image sequence whose first sample is at the given offset.

    All samples have the same length; with ``wide``, each has its own, and offsets have 64 bits.
    """
    entry = box(kind, bytes(24), struct.pack(">HH", *size), bytes(50), config)
    lengths = (
        struct.pack(f">II{frames}I", 0, frames, *[length] * frames) if wide else struct.pack(">II", length, frames)
    )
    places = struct.pack(">IQ" if wide else ">II", 1, place)
    table = box(
        b"stbl",
        box(b"stsd", bytes(4), struct.pack(">I", 1), entry),
        box(b"stsz", bytes(4), lengths),
        box(b"co64" if wide else b"stco", bytes(4), places),
    )
    media = box(b"mdia", box(b"hdlr", bytes(8), handler, bytes(13)), box(b"minf", table))
    return box(b"moov", box(b"mvhd", bytes(100)), box(b"trak", media))
