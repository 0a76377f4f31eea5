"""One thumbnail of a 12-megapixel JPEG, made by all contenders."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from . import originals
from .measure import Sample, interleaved, ratio, save, say, summary
from .workers import NAMES, Failed, Missing, Worker

__all__ = ["TASKS", "run"]

TASKS = (
    ("telephone", 150, "jpeg"),
    ("telephone", 300, "jpeg"),
    ("telephone", 1200, "jpeg"),
    ("telephone", 400, "jpeg"),
    ("telephone", 300, "webp"),
    ("telephone", 300, "avif"),
    ("untagged", 150, "jpeg"),
    ("untagged", 300, "jpeg"),
    ("untagged", 1200, "jpeg"),
    ("untagged", 400, "jpeg"),
)
OURS = "render"


def _sample(worker: Worker, original: Path, width: int, file_format: str) -> Sample:
    return worker.make(original, width, file_format)[0]


def run(rounds: int) -> None:
    """Run the measurements, and save the result as ``thumbnails``."""
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        workers: dict[str, Worker] = {}
        missing: dict[str, str] = {}
        for name in NAMES:
            try:
                workers[name] = held.enter_context(Worker(name))
            except Missing as error:
                missing[name] = str(error)
                say(f"  missing: {name}: {error}")
        done = [_task(workers, folder, rounds, *task) for task in TASKS]
        versions = {name: worker.version for name, worker in workers.items()}
    save("thumbnails", {"tasks": done, "versions": versions, "missing": missing, "rounds": rounds})


def _task(
    workers: dict[str, Worker], folder: Path, rounds: int, name: str, width: int, file_format: str
) -> dict[str, Any]:
    say(f"  {name} to {width} px {file_format}")
    original = originals.written(name, folder)
    output = folder / "thumbnail"
    able, sizes = {}, {}
    for who, worker in workers.items():
        try:
            _, sizes[who] = worker.make(original, width, file_format, output)
        except Failed as error:
            say(f"    {who} cannot: {error}")
            continue
        with Image.open(output) as image:
            expected = (width, int(originals.SIZE[1] * width / originals.SIZE[0] + 0.5)), file_format.upper()
            if (image.size, image.format) != expected:
                say(f"    {who} made {image.format} {image.size}, expected {expected}")
        able[who] = partial(_sample, worker, original, width, file_format)
    samples = interleaved(able, rounds, lambda _: None)
    table = {
        who: {**summary(found), "ratio": ratio(found, samples[OURS]), "bytes": sizes[who]}
        for who, found in samples.items()
    }
    for who, row in table.items():
        say(f"    {who:20} {row['cpu_ms']:7.1f} ms CPU, {row['ratio']:5.2f} x ours, {row['bytes']:,} bytes")
    return {"original": name, "width": width, "format": file_format, "contenders": table}
