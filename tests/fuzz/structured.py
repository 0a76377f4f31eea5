"""Generate files with a hostile structure, and check the cost of reading them.

``python -m tests.fuzz.structured [FILES] [SEED]`` generates EXIF, TIFF and ISO-BMFF that are well-formed enough to be
read: directories that point to each other, tables that claim missing data, and items that refer to themselves. Every
file must be accepted, or rejected with an error of this library, within the budgets. The last line has the counts.
"""

from __future__ import annotations

import io
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import pillow_heif
from PIL import Image

from aioimageattach.exc import ImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from aioimageattach.imaging._containers import heif_items
from aioimageattach.imaging._limits import KNOWN_TYPES

MOST_SECONDS: Final = 0.05
"""Largest CPU time for rejecting a file, or for reading the header of an accepted one."""
MOST_MEMORY: Final = 50
"""Largest memory for either, in MiB."""
GROUP: Final = 20
"""Number of files whose memory is measured together."""
LIMITS: Final = ImageLimits(types=KNOWN_TYPES)
SMALL: Final = replace(LIMITS, max_pixels=1_000_000, max_memory=40_000_000, timeout=10)
"""Limits for thumbnails, which are made of one in sixteen accepted files."""

EXTREMES: Final = (0, 1, 2, 7, 8, 255, 256, 65_535, 65_536, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
POINTERS: Final = (0x8769, 0x8825, 0xA005, 0x014A, 0x0201, 0x927C, 0x83BB, 0x8649, 0x02BC)


class Hostile(random.Random):
    """A source of random numbers for files, of which some have few wrong numbers, and others many."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.rate = self.choice((0.0, 0.01, 0.05, 0.3))

    def wrong(self) -> bool:
        return self.random() < self.rate

    def some(self, *usual: int) -> int:
        """Return a number that is typical or extreme."""
        return self.choice(EXTREMES) if self.wrong() else self.choice(usual)


def directories(source: Hostile, room: int, *, first: Sequence[tuple[int, int, int, int]] = ()) -> bytes:
    """Return a TIFF whose directories have entries that point to each other, to themselves, and beyond the file."""
    order = source.choice("<>")
    count, entry, offset = ("H", "HHII", "I")
    head, entry_size, offset_size = (8, 12, 4)
    total = source.choice((1, 2, 3, 5, 20))
    most = max(1, (room // total - 20) // entry_size)
    sizes = [min(source.choice((0, 1, 3, 3, 30, 30, 300, 3_000, most)), most) for _ in range(total)]
    sizes[0] = max(sizes[0], len(first))
    starts, at = [], head
    for size in sizes:
        starts.append(at)
        at += struct.calcsize("<" + count) + size * entry_size + offset_size
    file = bytearray(b"II*\0" if order == "<" else b"MM\0*")
    file += struct.pack(order + offset, source.some(starts[0]))
    favourite = source.choice(starts)

    def packed(tag: int, kind: int, values: int, place: int) -> bytes:
        if kind == 3 and values == 1 and order == ">":
            place = place << 16 & 0xFFFF_FFFF
        return struct.pack(order + entry, tag, kind, values, place)

    kinds = (4, 4, 3, 1, 2, 7, 13, 5, 12, 16, 0, 99)
    pool = [
        packed(
            source.choice((*POINTERS, source.randrange(65_536), 0x0112, 0)),
            source.choice(kinds),
            source.choice((1, 1, 2, 100, *EXTREMES)),
            source.choice((favourite, *starts, at, *EXTREMES)),
        )
        for _ in range(12)
    ]
    for number, size in enumerate(sizes):
        known = [packed(*one) for one in first] if number == 0 else []
        file += struct.pack(order + count, source.some(size) & 0xFFFF)
        mixed = b"".join(source.choices(pool, k=min(size, 40)))
        body = b"".join(known) + mixed * (size // max(1, min(size, 40)) + 1)
        file += body[: size * entry_size]
        following = starts[number + 1] if number + 1 < total else 0
        file += struct.pack(order + offset, source.choice(starts) if source.wrong() else following)
    return bytes(file)


def exif(source: Hostile) -> bytes:
    """Return an EXIF block, sometimes of the kind whose cost is cubic in its size."""
    if source.random() < 0.2:
        count = source.choice((3, 30, 300, 1_500))
        order = source.choice("<>")

        def entry(tag: int, place: int) -> bytes:
            return struct.pack(order + "HHII", tag, 4, 1, place)

        first = 8 + 6 + 12 * count
        second = first + 6 + 12 * count
        parts = [
            struct.pack(order + "H", count) + entry(tag, place) * count + struct.pack(order + "I", 0)
            for tag, place in ((0x8769, first), (0xA005, second), (0, 8))
        ]
        return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + b"".join(parts)
    return directories(source, source.choice((100, 1_000, 20_000, 60_000)))


@cache
def still(file_format: str) -> bytes:
    """Return a valid image of 48 x 32."""
    picture = Image.linear_gradient("L").resize((48, 32)).convert("RGBA" if file_format == "AVIF" else "RGB")
    file = io.BytesIO()
    if file_format == "HEIC":
        pillow_heif.from_pillow(picture.resize((64, 64))).save(file)
    else:
        picture.save(file, file_format)
    return file.getvalue()


def jpeg(source: Hostile) -> bytes:
    """Return a JPEG with one or several EXIF blocks."""
    data = still("JPEG")
    blocks = b""
    for _ in range(source.choice((1, 1, 1, 1, 1, 2, 10))):
        body = (b"Exif\0\0" + exif(source))[:65_533]
        blocks += b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    return data[:2] + blocks + data[2:]


def chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


@cache
def zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 1)


def png(source: Hostile) -> bytes:
    """Return a PNG with EXIF, profiles, colours and texts, some of them compressed."""
    data = still("PNG")
    chunks = chunk(b"eXIf", exif(source))
    for _ in range(source.choice((0, 1, 1, 3, 3, 3, 100))):
        name = source.choice((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"cICP", b"gAMA", b"cHRM", b"sRGB", b"fcTL", b"acTL"))
        packed = zeros(source.choice((0, 100, 100_000, 100_000, 3_000_000)))
        numbers = struct.pack(">8I", *(source.some(31_270, 45_455, 100_000) for _ in range(8)))
        chunks += chunk(
            name, source.choice((b"a\0\0" + packed, numbers, numbers[:4], bytes(source.choices(range(20), k=4))))
        )
    return data[:33] + chunks + data[33:]


def webp(source: Hostile) -> bytes:
    """Return a WebP with EXIF."""
    data = still("WEBP")
    body = exif(source)
    extra = b"VP8X\x0a\0\0\0\x08\0\0\0" + (47).to_bytes(3, "little") + (31).to_bytes(3, "little")
    extra += data[12:] + b"EXIF" + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)
    return b"RIFF" + (4 + len(extra)).to_bytes(4, "little") + b"WEBP" + extra


def tiff(source: Hostile) -> bytes:
    """Return a TIFF whose first directory more or less describes an image."""
    usual = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64}
    fields = [(tag, 4, source.some(1), source.some(value)) for tag, value in usual.items() if not source.wrong()]
    for _ in range(source.choice((0, 0, 1, 5))):
        tag = source.choice((284, 322, 323, 324, 325, 320, 338, 339, 347, 530, 34675, 274))
        fields.append((tag, source.choice((4, 3)), source.some(1), source.choice((0, 1, 2, 8, 16))))
    body = directories(source, source.choice((400, 5_000, 200_000)), first=sorted(fields))
    return body + bytes(source.choice((64, 4_096)))


def box(source: Hostile, name: bytes, *parts: bytes) -> bytes:
    """Return a box, sometimes with a wrong size."""
    body = b"".join(parts)
    if source.wrong():
        return struct.pack(">I4s", source.some(len(body) + 8), name) + body
    if source.wrong():
        return struct.pack(">I4sQ", 1, name, len(body) + 16) + body
    return struct.pack(">I4s", len(body) + 8, name) + body


@dataclass(frozen=True)
class Coded:
    """A coded image: its brand, type, size, configuration and data."""

    brand: bytes
    kind: bytes
    size: tuple[int, int]
    config: bytes
    data: bytes


@cache
def coded(file_format: str) -> Coded:
    """Return the primary image of a valid file."""
    file = still(file_format)
    brand, kind, name, size = {
        "AVIF": (b"avif", b"av01", b"av1C", (48, 32)),
        "HEIC": (b"heic", b"hvc1", b"hvcC", (64, 64)),
    }[file_format]
    at = file.find(name) - 4
    (start, end), *_ = (heif_items(memoryview(file)) or [])[0].extents
    return Coded(brand, kind, size, file[at : at + int.from_bytes(file[at : at + 4], "big")], file[start:end])


DATA: Final = 32
"""Offset of the coded data, after the boxes ``ftyp`` and ``mdat``."""


def bmff(source: Hostile) -> bytes:
    """Return an AVIF or HEIC with tables of items, properties, references, locations and samples."""
    good = coded(source.choice(("AVIF", "HEIC")))
    count = source.choice((1, 1, 2, 2, 3, 3, 4, 10, 10, 30)) if source.random() < 0.99 else 1_000
    ids = [source.some(number) & 0xFFFF for number in range(1, count + 1)]
    odd = (b"grid", b"iden", b"iovl", b"Exif", b"mime", b"tmap", good.kind)
    infos = []
    for one in ids:
        version = source.some(2) & 3
        kind = source.choice(odd) if source.random() < 0.2 else good.kind
        infos.append(box(source, b"infe", bytes((version, 0, 0, 0)), struct.pack(">HH4s", one, 0, kind), b"\0\0"))
    properties = [
        good.config,
        box(source, b"ispe", struct.pack(">III", 0, source.some(good.size[0]), source.some(good.size[1]))),
        box(source, b"pixi", b"\0\0\0\0\3\x08\x08\x08"),
        box(source, b"irot", bytes((source.randrange(4),))),
        box(source, b"clap", struct.pack(">8I", *(source.some(number) for number in (20, 1, 20, 1, 0, 1, 0, 1)))),
        box(source, b"colr", b"nclx" + bytes(source.choices(range(20), k=7))),
        box(source, b"colr", b"prof" + bytes(source.choice((0, 100, 5_000)))),
        box(source, b"auxC", b"\0\0\0\0urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"),
    ] * source.choice((1, 1, 1, 50))
    associations = b""
    for one in ids:
        mine = [1, 2, 3, *source.choices(range(1, 9), k=source.choice((0, 0, 1, 5)))]
        associations += struct.pack(">HB", one, len(mine)) + bytes(mine)
    references = []
    for _ in range(source.choice((0, 1, 1, 5, 5, 100))):
        name, to = source.choice((b"dimg", b"auxl", b"thmb")), source.choices(ids, k=source.choice((1, 2, 60)))
        body = struct.pack(f">HH{len(to)}H", source.choice(ids), source.some(len(to)) & 0xFFFF, *to)
        references.append(box(source, name, body))
    narrow = source.random() < 0.1  # extents that take no bytes in the table
    places = b""
    for one in ids:
        extents = source.some(1) & 0xFFFF
        places += struct.pack(">HHH", one, 0, 0xFFFF if narrow else extents)
        if not narrow:
            places += struct.pack(">II", source.some(DATA), source.some(len(good.data))) * min(extents, 3)
    meta = box(
        source,
        b"meta",
        bytes(4),
        box(source, b"hdlr", bytes(8), b"pict", bytes(13)),
        box(source, b"pitm", bytes(4), struct.pack(">H", source.choice(ids))),
        box(
            source,
            b"iloc",
            bytes(4),
            b"\0\0" if narrow else b"\x44\0",
            struct.pack(">H", source.some(count) & 0xFFFF),
            places,
        ),
        box(source, b"iinf", bytes(4), struct.pack(">H", source.some(count) & 0xFFFF), *infos),
        box(
            source,
            b"iprp",
            box(source, b"ipco", *properties),
            box(source, b"ipma", bytes(4), struct.pack(">I", source.some(count)), associations),
        ),
        box(source, b"iref", bytes(4), *references),
    )
    parts = [meta if source.random() < 0.7 else b"", film(source, good) if source.random() < 0.5 else b""]
    if source.random() < 0.05:
        parts *= source.choice((2, 2, 200))
    ftyp = struct.pack(">I4s4sI4s4s", 24, b"ftyp", good.brand, 0, good.brand, b"mif1")
    return ftyp + struct.pack(">I4s", 8 + len(good.data), b"mdat") + good.data + b"".join(parts)


def film(source: Hostile, good: Coded) -> bytes:
    """Return an image sequence whose tables claim many samples."""
    size = struct.pack(">HH", *(source.some(side) & 0xFFFF for side in good.size))
    entry = box(source, good.kind, bytes(24), size, bytes(50), good.config)
    claimed = source.choice((1, 2, 10, *EXTREMES))
    chunks = source.choice((b"stco", b"co64"))
    place = struct.pack(">I" if chunks == b"stco" else ">Q", source.some(DATA))
    table = box(
        source,
        b"stbl",
        box(source, b"stsd", bytes(4), struct.pack(">I", source.some(1)), entry),
        box(source, b"stsz", bytes(4), struct.pack(">II", source.some(len(good.data)), claimed)),
        box(source, b"stsc", bytes(4), struct.pack(">IIII", 1, 1, claimed, 1)),
        box(source, b"stts", bytes(4), struct.pack(">III", 1, claimed, 1)),
        box(source, chunks, bytes(4), struct.pack(">I", source.some(1)), place),
    )
    handler = box(source, b"hdlr", bytes(8), source.choice((b"pict", b"vide", b"vide", b"soun")), bytes(13))
    media = box(source, b"mdia", handler, box(source, b"minf", table))
    return box(source, b"moov", *[box(source, b"trak", media)] * source.choice((1, 1, 3, 500)))


KINDS: Final[dict[str, Callable[[Hostile], bytes]]] = {
    "EXIF in JPEG": jpeg,
    "EXIF in PNG": png,
    "EXIF in WebP": webp,
    "TIFF": tiff,
    "ISO-BMFF": bmff,
}


def peak() -> int:
    """Return the peak memory of this process, in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def forget_peak() -> int:
    """Reset the peak to the current memory, and return it."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak()


def attempt(data: bytes) -> tuple[str, float]:
    """Return whether a file is accepted, and the CPU time for that."""
    start = time.thread_time()
    try:
        probe(data, LIMITS)
        verdict = "accepted"
    except ImageError:
        verdict = "refused"
    return verdict, time.thread_time() - start


def painted(data: bytes) -> str:
    """Return whether a thumbnail of an accepted file can be made; errors that are not of this library propagate."""
    try:
        (made,) = render(data, [Recipe(width=16, height=16)], SMALL)
    except ImageError:
        return "without a thumbnail"
    assert (made.width, made.height) == (16, 16)
    return "with a thumbnail"


def run(files: int, seed: int, *, most_seconds: float = MOST_SECONDS) -> tuple[Counter[str], list[str]]:
    """Try a number of files; return the results, and the files that exceeded a budget."""
    found: Counter[str] = Counter()
    over: list[str] = []
    for data in (still("JPEG"), still("PNG"), still("WEBP"), still("AVIF"), still("HEIC")):
        attempt(data)  # loads the decoders
        painted(data)
    names = list(KINDS)
    for first in range(0, files, GROUP):
        before, accepted = forget_peak(), []
        for number in range(first, min(first + GROUP, files)):
            name = names[number % len(names)]
            data = KINDS[name](Hostile(f"{seed} {number}"))
            verdict, seconds = attempt(data)
            if seconds > most_seconds:
                seconds = min(attempt(data)[1] for _ in range(3))  # other processes may have used the CPU
            if seconds > most_seconds:
                over.append(f"{name}, file {number} of seed {seed}: {seconds * 1000:.0f} ms, {verdict}")
            found[f"{name}: {verdict}"] += 1
            found["slowest, in microseconds"] = max(found["slowest, in microseconds"], int(seconds * 1e6))
            if verdict == "accepted" and not number // len(names) % 16:
                accepted.append((name, data))
        if (
            peak() - before > MOST_MEMORY * 1024 // 5
        ):  # find out which file it is, without the memory for generating the files
            for number in range(first, min(first + GROUP, files)):
                data = KINDS[names[number % len(names)]](Hostile(f"{seed} {number}"))
                before = forget_peak()
                attempt(data)
                grown = peak() - before
                found["most memory, in KiB"] = max(found["most memory, in KiB"], grown)
                if grown > MOST_MEMORY * 1024:
                    over.append(f"{names[number % len(names)]}, file {number} of seed {seed}: {grown // 1024} MiB")
        for name, data in accepted:
            found[f"{name}: {painted(data)}"] += 1
    return found, over


def main(arguments: list[str]) -> int:
    """Try files and print the results."""
    files, seed = (int(arguments[at]) if len(arguments) > at else default for at, default in enumerate((200_000, 1)))
    found, over = run(files, seed)
    for name, count in sorted(found.items()):
        print(f"{name}: {count:,}")
    print("\n".join(over))
    print(f"{files:,} files, {len(over)} over the budgets")
    return len(over)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
