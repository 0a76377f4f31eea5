"""Make a page and a picture of what the tests of faults have found: ``python -m tests.faults.scorecard FOLDER``.

The folder has what one run of the tests has found, or several: ``junit*.xml`` and ``tally*.json``; and ``NAME.json`` of
each library.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.faults.matrix import MATRIX
from tests.faults.peers.__main__ import NAMES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "scorecard.md"
PICTURE = ROOT / "docs" / "_static" / "scorecard.svg"
WORDS = {"held": "held", "swept": "swept", "leak": "left behind", "lost": "**lost**"}
COLOURS = {"held": "#2f7d5b", "swept": "#8fc1a9", "leak": "#e0b13c", "lost": "#b8423a"}

Counts = dict[str, dict[str, int]]
Cases = Counter[tuple[str, str]]


def cases(reports: Iterable[Path]) -> Cases:
    """How many cases each test had, by its name and by ``passed``, ``failed`` or ``skipped``."""
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
    """What was counted, in all of them together."""
    found: Counts = {}
    for tally in tallies:
        for name, kinds in json.loads(tally.read_text()).items():
            for kind, number in kinds.items():
                found.setdefault(name, {})[kind] = found.get(name, {}).get(kind, 0) + number
    return found


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """A table in Markdown; numbers stand to the right."""
    head = [str(cell) for cell in head]
    body = [list(row) for row in rows]
    ruler = ["--:" if body and isinstance(body[0][at], int) else ":--" for at in range(len(head))]
    text = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in body]
    return ["", *(f"| {' | '.join(row)} |" for row in [head, ruler, *text]), ""]


def total(counts: Counts, name: str) -> int:
    """The sum of all kinds."""
    return sum(counts.get(name, {}).values())


def page(counts: Counts, ran: Cases, peers: list[dict[str, Any]]) -> str:
    """The text of the page."""
    passed = {number: sum(ran[test, "passed"] for test in fault.tests) for number, fault in MATRIX.items()}
    kills = ", ".join(f"{name} {number:,}" for name, number in counts.get("kills", {}).items())
    lines = [
        "# The scorecard",
        "",
        "What was tried to make the library lose a file, and what came of it. `make soak` makes this page anew; every",
        "run of the tests does the same in small. A *dangling* row is a committed one whose file is missing or holds",
        "other bytes; an *orphan* is a file that no committed row names.",
        "",
        "```{image} ../_static/scorecard.svg",
        ":alt: How each library fares in the scenarios, and at which step processes were killed",
        "```",
        *table(
            ("what was tried", "how often", "dangling rows", "orphans after one sweep"),
            [
                ("faults of the list below, all cases of their tests", sum(passed.values()), 0, 0),
                ("processes killed", total(counts, "kills"), 0, 0),
                ("cancellations, each at another await", total(counts, "cancellations"), 0, 0),
                ("failing calls of store and database", total(counts, "failing calls"), 0, 0),
                ("random programs", total(counts, "random programs"), 0, 0),
            ],
        ),
        "The tests fail at the first dangling row, and at an orphan that a sweep does not find; this page is only",
        "made when none has failed.",
        f"The killed processes had left {total(counts, 'files of committed rows'):,} files of committed rows, each as",
        f"it had been put, and {total(counts, 'files without a row before the sweep'):,} orphans for the sweep.",
        "",
        "## Where processes were killed",
        "",
        "By SIGKILL, stopped at a step or at any moment; by the kernel at a system call of a put or a delete. The step",
        "is the last one that was reached. By database, with a directory and with a bucket:",
        f"{kills}.",
        *table(
            ("step", "processes"),
            [("a system call" if step == "SIGSYS" else step, n) for step, n in counts.get("killed", {}).items()],
        ),
        "## Faults",
        "",
        "The cases are what the tests of each fault ran through: databases, drivers, stores, ways to use a session.",
        *table(
            ("", "what happens", "tests", "cases"),
            [(number, fault.name, len(fault.tests), passed[number]) for number, fault in MATRIX.items()],
        ),
        "## The same for others",
        "",
        "Scenarios that make sense for every library of this kind, each in a process of its own, on SQLite and a",
        "directory, with sessions as the documentation of each library makes them. What goes on behind the caller is",
        "waited for. *Held*: rows and files are as they must be. *Swept*: a file was left behind, and is gone after a",
        "sweep. *Left behind*: it stays, as there is no sweep. *Lost*: a committed row has no file, or another's.",
        "The scenarios and how each library is used stand in `tests/faults/peers`.",
        *table(
            ("scenario", *(f"{peer['name']} {peer['version']}" for peer in peers)),
            [(name, *(WORDS[peer["answers"][name]] for peer in peers)) for name in peers[0]["answers"]],
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def draw(counts: Counts, peers: list[dict[str, Any]]) -> None:
    """The picture: how libraries fare, and where processes were killed."""
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
        left.bar_label(bars, [str(width) if width else "" for width in widths], label_type="center", color="white")
        start = [before + width for before, width in zip(start, widths, strict=True)]
    left.set_title(f"{max(start)} scenarios")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, frameon=False)
    killed = {("a system call" if step == "SIGSYS" else step): n for step, n in counts["killed"].items()}
    right.barh(list(killed)[::-1], list(killed.values())[::-1], color="#4a6fa5")
    right.set_title(f"{sum(killed.values()):,} processes killed, by their last step: nothing lost")
    for side in (left, right):
        side.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Read what was found, and write both, unless something has failed."""
    folder = Path(sys.argv[1])
    ran = cases(sorted(folder.glob("junit*.xml")))
    if failed := [test for test, outcome in ran if outcome == "failed"]:
        raise SystemExit(f"no scorecard, as these have failed: {', '.join(failed)}")
    counts = counted(sorted(folder.glob("tally*.json")))
    peers = [json.loads((folder / f"{name}.json").read_text()) for name in NAMES]
    PAGE.write_text(page(counts, ran, peers))
    draw(counts, peers)


if __name__ == "__main__":
    main()
