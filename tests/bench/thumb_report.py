"""Results of the benchmarks of declared thumbnails, as tables and plots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = [
    "deletion_table",
    "hits_table",
    "lag_table",
    "memory_plot",
    "memory_table",
    "misses_table",
    "page_table",
    "peers_table",
]

GREEN = "#2f855a"

Line = Callable[..., None]


def page_table(found: dict[str, Any], *, row: Line, head: Line) -> None:
    """Print the cost of a page."""
    head("500 pictures, 12 candidates each", "ms CPU")
    for name, value in found.items():
        if isinstance(value, float):
            row(name, f"{value:.1f}")


def deletion_table(found: dict[str, Any], *, row: Line, head: Line) -> None:
    """Print the cost of deleting thumbnails compared with that of deleting only originals."""
    head("300 pictures", "ms", "ms CPU")
    for name, figures in found["ways"].items():
        row(name, f"{figures['wall_ms']:.0f}", f"{figures['cpu_ms']:.0f}")
    row("×", f"{found['times']:.2f}", "")


def hits_table(found: dict[str, Any], *, row: Line, head: Line) -> None:
    """Print the cost of an existing file."""
    head("hit", "requests/s", "ms CPU", "p99, ms")
    for name, figures in found["servers"].items():
        row(name, f"{figures['per_second']:,.0f}", f"{figures['cpu']:.3f}", f"{figures['p99_ms']:.1f}")
    row("× static server", "", f"{found['times']:.3f}", "")


def misses_table(found: dict[str, Any], *, row: Line, head: Line) -> None:
    """Print the cost of a missing file."""
    head("miss", "ms", "ms CPU")
    for name, figures in found["ways"].items():
        row(name, f"{figures['wall_ms']:.0f}", f"{figures['cpu_ms']:.1f}")
    row("×", f"{found['times_wall']:.2f}", f"{found['times_cpu']:.2f}")


def lag_table(found: dict[str, Any], *, row: Line, head: Line) -> None:
    """Print the delays of the event loop."""
    head("lag, ms", "p50", "p99", "max")
    for name in ("idle", "busy"):
        row(name, *(f"{found[name][key]:.1f}" for key in ("p50", "p99", "max")))


def memory_table(found: dict[str, Any], *, row: Line, head: Line) -> None:
    """Print the memory of the server."""
    head("", "MB")
    row("second quarter", f"{found['second_quarter']:.0f}")
    row("last quarter", f"{found['last_quarter']:.0f}")


def memory_plot(figure: Any, found: dict[str, Any]) -> None:
    """Draw the memory of the server over its requests."""
    figure.set_size_inches(7, 3)
    axes = figure.subplots()
    axes.plot(*zip(*found["series"], strict=True), color=GREEN, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("requests, a fifth of them for missing files")
    axes.set_title("resident memory, MB", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def peers_table(found: dict[str, Any], *, row: Line, head: Line) -> None:
    """Print the cost on each server, and the bytes at equal quality."""
    head("", "miss, ms", "ms CPU", "hit, ms", "ms CPU")
    for name, figures in found["speed"].items():
        cells = [figures.get(kind, {}).get(key) for kind in ("miss", "hit") for key in ("ms", "cpu")]
        row(name, *("–" if cell is None else f"{cell:.1f}" for cell in cells))
    scores = list(next(iter(found["quality"].values()), {}))
    head("bytes at a score of", *scores)
    for name, figures in found["quality"].items():
        row(name, *(f"{figures[score]['bytes']:,} (quality {figures[score]['quality']})" for score in scores))
