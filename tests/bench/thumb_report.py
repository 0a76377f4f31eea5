"""Results of the benchmarks of declared thumbnails, as tables in Markdown."""

from __future__ import annotations

from typing import Any

from .sheet import head, line

__all__ = ["deletion_table", "hits_table", "lag_table", "misses_table", "page_table", "peers_table"]


def page_table(found: dict[str, Any]) -> None:
    """Print the cost of a page."""
    head("500 pictures, 12 candidates each", "ms CPU")
    for name, value in found.items():
        if isinstance(value, float):
            line(name, f"{value:.1f}")


def deletion_table(found: dict[str, Any]) -> None:
    """Print the cost of deleting thumbnails compared with that of deleting only originals."""
    head("300 pictures", "ms", "ms CPU")
    for name, figures in found["ways"].items():
        line(name, f"{figures['wall_ms']:.0f}", f"{figures['cpu_ms']:.0f}")
    line("×", f"{found['times']:.2f}", "")


def hits_table(found: dict[str, Any]) -> None:
    """Print the cost of an existing file."""
    head("hit", "requests/s", "ms CPU", "p99, ms")
    for name, figures in found["servers"].items():
        line(name, f"{figures['per_second']:,.0f}", f"{figures['cpu']:.3f}", f"{figures['p99_ms']:.1f}")
    line("× static server", "", f"{found['times']:.3f}", "")


def misses_table(found: dict[str, Any]) -> None:
    """Print the cost of a missing file."""
    head("miss", "ms", "ms CPU")
    for name, figures in found["ways"].items():
        line(name, f"{figures['wall_ms']:.0f}", f"{figures['cpu_ms']:.1f}")
    line("×", f"{found['times_wall']:.2f}", f"{found['times_cpu']:.2f}")


def lag_table(found: dict[str, Any]) -> None:
    """Print the delays of the event loop."""
    head("lag, ms", "p50", "p99", "max")
    for name in ("idle", "busy"):
        line(name, *(f"{found[name][key]:.1f}" for key in ("p50", "p99", "max")))


def peers_table(found: dict[str, Any]) -> None:
    """Print the cost on each server, and the bytes at equal quality."""
    head("", "miss, ms", "ms CPU", "hit, ms", "ms CPU")
    for name, figures in found["speed"].items():
        cells = [figures.get(kind, {}).get(key) for kind in ("miss", "hit") for key in ("ms", "cpu")]
        line(name, *("–" if cell is None else f"{cell:.1f}" for cell in cells))
    scores = list(next(iter(found["quality"].values()), {}))
    head("bytes at a score of", *scores)
    for name, figures in found["quality"].items():
        line(name, *(f"{figures[score]['bytes']:,} (quality {figures[score]['quality']})" for score in scores))
