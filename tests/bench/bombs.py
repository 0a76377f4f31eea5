"""Decompression bombs: the time and memory until they are rejected."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from aioimageattach.exc import ImageError
from aioimageattach.imaging import ImageLimits, probe
from aioimageattach.imaging._limits import KNOWN_TYPES
from tests import photos
from tests.imaging.test_bmff import claiming
from tests.imaging.test_guard import BOMBS, cubic, with_exif
from tests.imaging.test_svg import nested, svg
from tests.imaging.test_tiff import chain

from .measure import save, say

__all__ = ["run"]

LIMITS = ImageLimits(types=KNOWN_TYPES)
MEBIBYTE = 1024


def _drawing(body: str) -> Callable[[], bytes]:
    return lambda: svg(body)


FILES: dict[str, Callable[[], bytes]] = {name: make for name, (make, _) in BOMBS.items()} | {
    "JPEG, 49 MB of data without a marker": lambda: photos.progressive()[:-2] + b"\xff\x00" * 24_500_000,
    "JPEG, 49 MB of nothing but fill bytes": lambda: photos.progressive()[:-2] + b"\xff" * 49_000_000,
    "JPEG, EXIF that points to itself": lambda: with_exif(cubic(1_500), "JPEG"),
    "PNG, EXIF that points to itself": lambda: with_exif(cubic(3_000), "PNG"),
    "TIFF of 200 directories of 3,000 entries": lambda: chain(200, 3_000),
    "TIFF of a directory of 25,000 entries": lambda: chain(1, 25_000),
    "AVIF that claims 18,000,000 samples": lambda: claiming(18_000_000),
    "SVG whose elements use each other": lambda: nested("use"),
    "SVG of patterns in patterns": lambda: nested("pattern"),
    "SVG of 49,000 elements, which are allowed": _drawing('<rect width="5" height="5"/>' * 49_000),
    "SVG of 60,000 elements": _drawing('<rect width="5" height="5"/>' * 60_000),
    "SVG of 600,000 elements": _drawing("<g/>" * 600_000),
    "SVG, 300 deep": _drawing("<g>" * 300 + "</g>" * 300),
    "SVG, a rule of 2,000 references for 20,000 elements": _drawing(
        "<style>.a{fill:" + "url(#x)" * 2_000 + "}</style>" + "<g class='a'/>" * 20_000
    ),
    "SVG, a megabyte that is no style sheet": _drawing(f"<style>{'a' * 1_000_001}</style>"),
    "SVG, billion laughs": lambda: svg(
        "&i;", head='<!DOCTYPE svg [<!ENTITY a "laugh">' + '<!ENTITY b "&a;&a;&a;&a;">' * 8 + "]>"
    ),
    "SVG that includes another file": _drawing('<xi:include href="file:///etc/passwd"/>'),
    "PDF, 200 inches a side": lambda: photos.pdf(1, 40_000, 40_000),
}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _one(data: bytes) -> tuple[float, float, str]:
    """Return the CPU time in milliseconds, the peak memory in MiB, and the error."""
    Path("/proc/self/clear_refs").write_text("5")
    before, answer = _status("VmRSS"), "accepted"
    began = time.process_time()
    try:
        probe(data, LIMITS)
    except ImageError as error:
        answer = str(error)
    passed = 1000 * (time.process_time() - began)
    return passed, max(0, _status("VmHWM") - before) / MEBIBYTE, answer


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``bombs``."""
    for name in photos.NAMES:
        probe(photos.photo(name))
    _one(photos.SVG), _one(photos.pdf())
    rows = []
    for name, make in FILES.items():
        data = make()
        found = [_one(data) for _ in range(rounds)]
        passed, most = statistics.median(row[0] for row in found), max(row[1] for row in found)
        rows.append({"file": name, "bytes": len(data), "answer": found[0][2], "cpu_ms": passed, "mebibytes": most})
        say(f"  {name:52} {len(data):>11,} {passed:7.1f} ms {most:6.1f} MiB  {found[0][2][:70]}")
    save("bombs", {"rows": rows})
