"""What was measured of serving, as tables and as a plot."""

from __future__ import annotations

from typing import Any

from .measure import say

__all__ = ["plot", "table"]

GREEN, GREY, BLUE = "#2f855a", "#8a94a3", "#2b6cb0"
SIZES = ("10 KiB", "100 KiB", "5 MiB")


def _row(*cells: object) -> None:
    say("| " + " | ".join(str(cell) for cell in cells) + " |")


def table(found: dict[str, Any]) -> None:
    """Print requests a second, in brackets the seconds of the processor for 1,000 of them, and what came late."""
    _row("requests/s (CPU s per 1,000), p99", *SIZES)
    _row("---", *("---:" for _ in SIZES))
    for name, sizes in found["servers"].items():
        cells = (
            f"{row['per_second']:,.0f} ({row['cpu']:.3f}), {row['p99_ms']:.1f} ms"
            for row in map(sizes.get, SIZES)
            if row
        )
        _row(name, *cells)
    say("")
    for name, sizes in found["servers"].items():
        if "304" in sizes:
            _row(name, "304", f"{sizes['304']['per_second']:,.0f} ({sizes['304']['cpu']:.3f})")
    say("")
    _row("cold", "files/s", "CPU s per 1,000", "lag p50, ms", "p99", "max")
    for name, row in found["cold"].items():
        lag = (f"{row['lag'][key]:.2f}" for key in ("p50", "p99", "max"))
        _row(name, f"{row['per_second']:,.0f}", f"{row['cpu']:.3f}", *lag)


def plot(figure: Any, found: dict[str, Any]) -> None:
    """Draw the seconds of the processor that each server needs, for each size."""
    figure.set_size_inches(11, 3.6)
    names = list(reversed(found["servers"]))
    for axes, size in zip(figure.subplots(1, len(SIZES), sharey=True), SIZES, strict=True):
        values = [found["servers"][name][size]["cpu"] for name in names]  # seconds for 1,000 are milliseconds for one
        colours = [GREEN if name.startswith("ours") else BLUE if name in ("nginx", "Caddy") else GREY for name in names]
        axes.barh(names, values, color=colours)
        most = max(values)
        for place, value in enumerate(values):
            axes.text(value + most * 0.02, place, f"{value:.3g}", va="center", fontsize=8)
        axes.set_xlim(0, most * 1.2)
        axes.set_title(size, fontsize=10)
        axes.set_xlabel("ms CPU a request")
        axes.spines[["top", "right"]].set_visible(False)
