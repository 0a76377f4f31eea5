"""The quality and speed of thumbnails for which the JPEG decoder shrinks the image."""

from __future__ import annotations

import io
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pyvips

from . import originals
from .measure import Sample, Timer, interleaved, ratio, save, say, summary

__all__ = ["run"]

TRIALS = ((2, 1000), (2, 1200), (2, 1333), (2, 1500), (2, 1750), (8, 300), (8, 333), (8, 400), (8, 440))
"""The decoder's shrink factors, and widths for which the kernel shrinks by factors between 2 and 1.1."""


def _thumbnail(blob: bytes, shrink: int, width: int) -> Any:
    height = int(originals.SIZE[1] * width / originals.SIZE[0] + 0.5)
    image = pyvips.Image.jpegload_buffer(blob, shrink=shrink, access="sequential", fail_on="truncated")
    return image.thumbnail_image(width, height=height, size="force")


def _cost(blob: bytes, shrink: int, width: int) -> Sample:
    with Timer() as timer:
        _thumbnail(blob, shrink, width).jpegsave_buffer(Q=80, optimize_coding=True, keep="none")
    return timer.sample


def _reference(blob: bytes, width: int, *, linear: bool) -> Any:
    """Return the whole image resized by Lanczos in floating point, in linear light or in sRGB."""
    image = pyvips.Image.jpegload_buffer(blob)
    image = image.colourspace("scrgb") if linear else image.cast("float")
    height = int(originals.SIZE[1] * width / originals.SIZE[0] + 0.5)
    image = image.resize(width / image.width, vscale=height / image.height, kernel="lanczos3")
    if linear:
        return image.colourspace("srgb")
    return image.rint().cast("uchar").copy(interpretation="srgb")


def _png(image: Any) -> io.BytesIO:
    return io.BytesIO(image.pngsave_buffer(compression=1))


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``looks``."""
    try:
        from ssimulacra2 import compute_ssimulacra2
    except ImportError as error:
        say(f"  missing: {error}")
        return
    with tempfile.TemporaryDirectory() as folder:
        blob = originals.written("mosaic", Path(folder)).read_bytes()
    rows = []
    for shrink, width in TRIALS:
        known = (shrink // 2, shrink)
        samples = interleaved({str(by): partial(_cost, blob, by, width) for by in known}, rounds, lambda _: None)
        row: dict[str, Any] = {"width": width, "shrink": shrink, "left": originals.SIZE[0] / shrink / width}
        for label, linear in (("srgb", False), ("linear", True)):
            reference = _png(_reference(blob, width, linear=linear)).getvalue()
            row[label] = {
                str(by): compute_ssimulacra2(io.BytesIO(reference), _png(_thumbnail(blob, by, width))) for by in known
            }
        row["cpu"] = {by: summary(found)["cpu_ms"] for by, found in samples.items()}
        row["saved"] = 1 - ratio(samples[str(shrink)], samples[str(shrink // 2)])
        rows.append(row)
        scores = ", ".join(f"{by}: {row['srgb'][str(by)]:.1f} ({row['linear'][str(by)]:.1f})" for by in known)
        say(f"  {width} px, {row['left']:.2f} left: score at shrink {scores}; saves {100 * row['saved']:.0f} %")
    save("looks", {"trials": rows, "rounds": rounds, "saved": statistics.median(row["saved"] for row in rows)})
