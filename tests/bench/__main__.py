"""Run the benchmarks one after another, each in a new interpreter."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time

from .measure import RESULTS, machine, save, say

BENCHES = {
    "thumbnails": "one thumbnail of a 12-megapixel JPEG, by everybody",
    "looks": "how a thumbnail looks that the decoder has helped to shrink",
    "sizes": "four sizes from one decode, and from four",
    "attach": "attach and commit, against an insert and a file",
    "idle": "transactions without pictures, with and without the library",
    "owners": "the pictures of 1,000 and 4,000 owners in one transaction, against plain rows",
    "bombs": "files that are refused: how soon, and with how little memory",
    "isolation": "a worker process instead of a thread",
    "lag": "the event loop while thumbnails are made",
    "memory": "memory over two thousand thumbnails",
    "urls": "a page of fifty users with their pictures",
    "declared.page": "the elements and the JSON of 500 pictures with declared thumbnails",
    "declared.deletion": "300 pictures with 2,700 thumbnails, deleted from a bucket 20 ms away",
    "thumbserver.hits": "thumbnails that exist, beside the static server",
    "thumbserver.misses": "thumbnails that are missing, beside rendering and putting",
    "thumbserver.lag": "the event loop while missing thumbnails are made",
    "thumbserver.memory": "memory over 20,000 requests",
    "thumbpeers": "the server of thumbnails, ipx and thumbor",
    "serving.small": "files of 10 KiB over HTTP, by everybody",
    "serving.medium": "files of 100 KiB",
    "serving.large": "files of 5 MiB",
    "serving.unchanged": "versions that the client has",
    "serving.overhead": "a file of 10 KiB against the same bytes from memory, in one process",
    "serving.cold": "files that are not in memory, and the event loop meanwhile",
    "s3.small": "small objects of S3, by everybody",
    "s3.large": "large ones",
    "migration.disk": "100,000 files from a directory to another",
    "migration.s3": "20,000 files from a directory to a bucket 20 ms away",
    "maintenance.sweep": "200,000 files swept, in a directory, with PostgreSQL",
    "maintenance.verify": "190,000 rows verified, in the same",
    "backfill": "the declared thumbnails of 100,000 existing pictures, killed and continued",
    "offload": "1,000 texts of 100 KB: written, read, listed",
    "s3.limits": "memory, lag and URLs of those who speak S3",
}
# The full name selects one part of a benchmark, and the name before the dot selects all parts.
CHOICES = sorted({*BENCHES, *(name.partition(".")[0] for name in BENCHES)})


def main() -> int:
    """Run the benchmarks that the arguments name; return the number of failed ones."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="The benchmarks.")
    parser.add_argument("--only", action="append", choices=CHOICES, help="run this one; may be given several times")
    parser.add_argument("--rounds", type=int, default=15, help="of each measurement; %(default)s unless told")
    parser.add_argument("--plot", action="store_true", help="only draw what was measured, into docs/_static")
    parser.add_argument("--table", action="store_true", help="only print what was measured, as tables in Markdown")
    parser.add_argument("--list", action="store_true", help="only tell what there is")
    parser.add_argument("--here", choices=BENCHES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        for name, what in BENCHES.items():
            say(f"{name:18} {what}")
        return 0
    if options.here:
        name, _, part = options.here.partition(".")
        importlib.import_module(f"tests.bench.{name}").run(options.rounds, *([part] if part else []))
        return 0
    if options.plot or options.table:
        from . import report

        return report.run(plots=options.plot, tables=options.table)
    only = options.only or BENCHES
    return sum(_one(name, options.rounds) for name in BENCHES if name in only or name.partition(".")[0] in only)


def _one(name: str, rounds: int) -> int:
    before = machine()
    say(f"{name}: {BENCHES[name]} (load {before['load'][0]:.1f})")
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.bench", "--here", name, "--rounds", str(rounds)]
    failed = subprocess.run(command).returncode != 0
    path = RESULTS / f"{name}.json"
    if not failed and path.exists():
        found = json.loads(path.read_text("utf-8"))
        save(name, {**found, "machine": before, "load_after": machine()["load"]})
    say(f"{name}: {'failed' if failed else 'done'} after {time.monotonic() - began:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
