"""Results of the benchmark of offloaded texts, as a plot and as tables in Markdown."""

from __future__ import annotations

from typing import Any

from .sheet import BLUE, GREEN, GREY, bars, finish, head, line

__all__ = ["plot", "tables"]

TITLES = {"write": "written in one transaction", "read": "read, rows and texts", "list": "listed, rows alone"}
LABELS = {
    "TEXT": "TEXT column",
    "TEXT, deferred": "TEXT column, deferred",
    "bucket": "bucket",
    "bucket, zstd": "bucket, zstd",
    "bucket, loop": "bucket, a loop of load()",
    "directory": "directory",
    "stored": "stored_text()",
}


def tables(found: dict[str, Any]) -> None:
    """Print the time, rate and CPU time of each way."""
    for what, title in TITLES.items():
        head(title, "s", "a second", "s of CPU")
        for name, one in found[what].items():
            seconds = one["wall_ms"] / 1e3
            line(LABELS[name], f"{seconds:.3g}", f"{one['per_second']:,.0f}", f"{one['cpu_ms'] / 1e3:.2g}")
        line()
    line(f"load_stored() is {found['faster']:.1f} times as fast as the loop")


def plot(figure: Any, found: dict[str, Any]) -> None:
    """Draw the total time in seconds."""
    figure.set_size_inches(11, 2.8)
    for axes, (what, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
        names = [*reversed(found[what])]
        values = [found[what][name]["wall_ms"] / 1e3 for name in names]
        colours = [GREY if "TEXT" in name else BLUE if "loop" in name else GREEN for name in names]
        bars(axes, [LABELS[name] for name in names], values, colours, "{:.2g}".format)
        finish(axes, f"{found['count']:,} texts {title}", "seconds")
