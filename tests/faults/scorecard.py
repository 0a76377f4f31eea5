"""Write a page and draw a chart of the results of the fault tests: ``python -m tests.faults.scorecard FOLDER``.

The folder contains the results of one or several runs of the tests: ``junit*.xml`` and ``tally*.json``, where those
named ``once`` are from a run as in CI; ``NAME.json`` of each library; and ``mutants.md``, printed by
:mod:`tests.faults.mutants`.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import sqlalchemy

from tests.databases import MAIN_DRIVERS, Servers
from tests.faults.kill.steps import STEPS
from tests.faults.matrix import MATRIX
from tests.faults.peers.__main__ import NAMES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "scorecard.md"
PICTURE = ROOT / "docs" / "_static" / "scorecard.svg"
WORDS = {"held": "held", "swept": "swept", "leak": "left behind", "lost": "**lost**"}
COLOURS = {"held": "#2f7d5b", "swept": "#8fc1a9", "leak": "#e0b13c", "lost": "#b8423a"}

INK = {"held": "white", "swept": "black", "leak": "black", "lost": "white"}
NAMED = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}

MISSED = """\
## Faults that this page missed

Until November 2026, this page counted F01 to F58, with no dangling row. F59 to F82 were missing, because they had not
been tested. Ordinary application code then showed that most of them lost committed images. Examples are a statement
that failed after the flush on PostgreSQL and was ignored, a savepoint of the connection, a bulk deletion that
SQLAlchemy evaluates in Python, a cached owner that is merged, and a gallery whose photos move by one place.

These faults had a common cause: the library deleted files when SQLAlchemy's events reported that the rows were deleted,
and did not query the database. The tests had not found this for three reasons:

- The random programs compared the result with a model of the session's state. The model and the library made the same
  mistake. The programs of `tests/faults/database/oracle.py` have no such model: they read the committed rows from the
  database, and open each file.
- The tests caused each fault of the list from outside: a lost connection, a killed process, a store that fails. The
  application itself caused none of them, for example with an ignored exception, a hook, a trigger, or raw SQL.
- The tests themselves were not tested. Now faults are planted in the code, as the table below shows.
"""

PLANTED = """\
## Planted faults

Each fault was planted in a copy of the package. The table names the first test that fails. The last column tells
whether twenty of the random programs, ten on SQLite and ten on PostgreSQL, find the fault as well. `python -m
tests.faults.mutants` repeats this.
"""

LIMITS = """\
## Limits of the tests

The tests do not cover:

- A row that one transaction copies with `INSERT ... SELECT` or `UPDATE`, if another transaction deletes the original
  before the first one ends. On PostgreSQL, the query that protects files cannot see the copy. Lock the source row
  (`with_for_update(read=True)`) in the transaction that copies it.
- References outside of mapped tables: in an unmapped table, in another database, in the source of a view.
- A file that one process adopts at the moment when another process removes it.
- Databases and drivers other than those named above.
"""

Counts = dict[str, dict[str, int]]
Cases = Counter[tuple[str, str]]
TRIED = {
    "kills": "processes killed",
    "cancellations": "cancellations, each at a different await",
    "failing calls": "failing calls of store and database",
    "random programs": "random programs",
    "clients that left": "clients that disconnected, and servers that were stopped",
}


def cases(reports: Iterable[Path]) -> Cases:
    """Return the number of cases of each test by ``passed``, ``failed`` or ``skipped``."""
    found: Cases = Counter()
    for case in (case for report in reports for case in ElementTree.parse(report).iter("testcase")):
        path = f"{case.get('classname', '').replace('.', '/')}.py"
        name = case.get("name", "").partition("[")[0]
        outcome = "passed"
        if case.find("skipped") is not None:
            outcome = "skipped"
        elif len([child for child in case if child.tag in ("failure", "error")]):
            outcome = "failed"
        found[f"{path}::{name}", outcome] += 1
    return found


def counted(tallies: Iterable[Path]) -> Counts:
    """Return the sums of all counters."""
    found: Counts = {}
    for tally in tallies:
        for name, kinds in json.loads(tally.read_text()).items():
            for kind, number in kinds.items():
                found.setdefault(name, {})[kind] = found.get(name, {}).get(kind, 0) + number
    return found


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """Return a table in Markdown with numbers aligned right."""
    head = [str(cell) for cell in head]
    body = [list(row) for row in rows]
    ruler = ["--:" if body and isinstance(body[0][at], int) else ":--" for at in range(len(head))]
    text = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in body]
    return ["", *(f"| {' | '.join(row)} |" for row in [head, ruler, *text]), ""]


def killed(counts: Counts) -> dict[str, int]:
    """Return the number of processes killed at each step, in the order of the steps."""
    found = counts["killed"]
    steps = {"begun" if step == "begin" else step: found[step] for step in STEPS if step in found}
    return {**steps, "at a system call": found["SIGSYS"]} if "SIGSYS" in found else steps


def total(counts: Counts, name: str) -> int:
    """Return the sum of all kinds."""
    return sum(counts.get(name, {}).values())


def proven(ran: Cases) -> dict[int, int]:
    """Return the number of cases of each fault."""
    return {number: sum(ran[test, "passed"] for test in fault.tests) for number, fault in MATRIX.items()}


def distinct(ran: Cases) -> int:
    """Return the number of distinct cases, because some belong to several faults."""
    return sum(ran[test, "passed"] for test in {test for fault in MATRIX.values() for test in fault.tests})


async def servers() -> list[str]:
    """Return the databases with their versions."""
    told = [f"{NAMED['sqlite']} {sqlite3.sqlite_version}"]
    with tempfile.TemporaryDirectory() as folder, closing(Servers()) as reached:
        for name in ("postgresql", "mariadb"):
            database = reached.database(MAIN_DRIVERS[name], Path(folder))
            async with database.reader.connect() as connection:
                version = connection.dialect.server_version_info or ()
            told.append(f"{NAMED[name]} {'.'.join(str(part) for part in version if isinstance(part, int))}")
            await database.aclose()
    return told


def circumstances(reports: Iterable[Path]) -> str:
    """Return when, for how long and on which machine the tests were run."""
    suites = [suite for report in reports for suite in ElementTree.parse(report).iter("testsuite")]
    day = min(datetime.fromisoformat(suite.attrib["timestamp"]) for suite in suites)
    minutes = round(sum(float(suite.attrib["time"]) for suite in suites) / 60)
    return (
        f"Run on {day:%-d %B %Y} in {minutes} minutes, on {os.cpu_count()} cores"
        f" ({platform.machine()}, {platform.system()}): Python {platform.python_version()},"
        f" SQLAlchemy {sqlalchemy.__version__}, {', '.join(asyncio.run(servers()))},"
        " and ministack as S3 server."
    )


def page(
    counts: Counts,
    once: Counts,
    ran: Cases,
    ran_once: Cases,
    when: str,
    peers: list[dict[str, Any]],
    planted: list[str],
) -> str:
    """Return the text of the page."""
    passed = proven(ran)
    kills = ", ".join(f"{NAMED[name]} {number:,}" for name, number in counts.get("kills", {}).items())
    for found in (counts, once):
        found["clients that left"] = {**found.get("clients that left", {}), **found.get("servers told to end", {})}
    lines = [
        "# The scorecard",
        "",
        "This page lists the attempts to make the library lose a file, and their results. `make soak` generates it;",
        "each run of the tests repeats the attempts in smaller numbers. A *dangling* row is a committed row whose",
        "file is missing or altered; an *orphan* is a file that no committed row references.",
        "",
        when,
        "",
        "```{image} ../_static/scorecard.svg",
        ":alt: The results of each library in the scenarios, and the steps at which processes were killed",
        "```",
        *table(
            ("attempts", "number", "in each run of CI", "dangling rows", "orphans after one sweep"),
            [
                ("faults in the list below, all cases", distinct(ran), distinct(ran_once), 0, 0),
                *((title, total(counts, name), total(once, name), 0, 0) for name, title in TRIED.items()),
            ],
        ),
        "The tests fail at the first dangling row, and at any orphan that a sweep does not find. This page is only",
        "generated if all tests have passed.",
        f"After the kills, {total(counts, 'files of committed rows'):,} files of committed rows were read back with",
        f"their original content, and the sweep found {total(counts, 'files without a row before the sweep'):,}",
        "orphans.",
        "",
        "## Where processes were killed",
        "",
        "Processes were killed with SIGKILL, at a step or at a random moment, or by the kernel at a system call of a",
        "put or a delete. The table shows the last step that was reached. Killed processes by database:",
        f"{kills}. The stores were directories and buckets.",
        *table(
            ("step", "processes"),
            killed(counts).items(),
        ),
        "## Faults",
        "",
        "A case is one combination of database, driver, store and use of the session with which a test ran.",
        *table(
            ("", "fault", "tests", "cases"),
            [
                (f"F{number:02}", fault.name, len(fault.tests), passed[number] or fault.reason)
                for number, fault in MATRIX.items()
            ],
        ),
        *MISSED.splitlines(),
        "",
        *PLANTED.splitlines(),
        "",
        *planted,
        "",
        *LIMITS.splitlines(),
        "",
        "## Other libraries",
        "",
        "These scenarios apply to every library for attaching files. Each runs in a separate process, on SQLite and a",
        "directory, with sessions as in the documentation of each library, and waits for background work to end.",
        "*Held*: rows and files are consistent. *Swept*: a file was orphaned, and a sweep deleted it. *Left behind*: a",
        "file is orphaned, and the library has no sweep. *Lost*: a committed row has no file, or the file of another",
        "row. `tests/faults/peers` contains the scenarios and the code for each library.",
        *table(
            ("scenario", *(f"{peer['name']} {peer['version']}" for peer in peers)),
            [(name, *(WORDS[peer["answers"][name]] for peer in peers)) for name in peers[0]["answers"]],
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def draw(counts: Counts, peers: list[dict[str, Any]]) -> None:
    """Draw the chart: results of libraries, and where processes were killed."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "scorecard", "font.size": 9, "svg.fonttype": "none"})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    names = [peer["name"] for peer in peers][::-1]
    start = [0] * len(names)
    for outcome, colour in COLOURS.items():
        widths = [Counter(peer["answers"].values())[outcome] for peer in peers][::-1]
        label = WORDS[outcome].strip("*")
        bars = left.barh(names, widths, left=start, color=colour, label=label)
        left.bar_label(bars, [str(width) if width else "" for width in widths], label_type="center", color=INK[outcome])
        start = [before + width for before, width in zip(start, widths, strict=True)]
    left.set_title(f"{max(start)} scenarios, {len(peers)} libraries")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, frameon=False)
    steps = killed(counts)
    bars = right.barh(list(steps)[::-1], list(steps.values())[::-1], color="#4a6fa5")
    right.bar_label(bars, padding=2)
    right.set_title(f"{sum(steps.values()):,} killed processes: nothing lost")
    for side in (left, right):
        side.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Read the results and write both files, unless a test has failed."""
    folder = Path(sys.argv[1])
    reports = sorted(folder.glob("junit*.xml"))
    ran = cases(reports)
    if failed := [test for test, outcome in ran if outcome == "failed"]:
        raise SystemExit(f"no scorecard, as these have failed: {', '.join(failed)}")
    if missing := [number for number, passed in proven(ran).items() if not passed and not MATRIX[number].reason]:
        raise SystemExit(f"no scorecard, as no test has run for {', '.join(f'F{number:02}' for number in missing)}")
    counts = counted(sorted(folder.glob("tally*.json")))
    peers = [json.loads((folder / f"{name}.json").read_text()) for name in NAMES]
    once = counted([folder / "tally-once.json"]), cases([folder / "junit-once.xml"])
    planted = (folder / "mutants.md").read_text().splitlines()
    PAGE.write_text(page(counts, once[0], ran, once[1], circumstances(reports), peers, planted))
    draw(counts, peers)


if __name__ == "__main__":
    main()
