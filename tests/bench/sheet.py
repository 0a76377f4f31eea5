"""The lines, colours and axes that the reports share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .measure import say

__all__ = ["BLUE", "GREEN", "GREY", "RED", "bars", "finish", "head", "line", "memory_plot", "memory_table"]

GREEN, GREY, BLUE, RED = "#2f855a", "#8a94a3", "#2b6cb0", "#b5523b"


def line(*cells: object) -> None:
    """Print a row of a table."""
    say("| " + " | ".join(str(cell) for cell in cells) + " |")


def head(*cells: str) -> None:
    """Print the first row of a table."""
    line(*cells)
    line("---", *("---:" for _ in cells[1:]))


def finish(axes: Any, title: str, label: str = "") -> None:
    """Add a title and the label of the x-axis, and remove the frame."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def bars(
    axes: Any, names: Sequence[str], values: Sequence[float], colours: Sequence[str], text: Callable[[float], str]
) -> None:
    """Draw horizontal bars with their values."""
    axes.barh(names, values, color=colours)
    most = max(values)
    for place, value in enumerate(values):
        axes.text(value + 0.02 * most, place, text(value), va="center", fontsize=8)
    axes.set_xlim(0, most * 1.2)


def memory_table(found: dict[str, Any]) -> None:
    """Print the memory in the second and the last quarter."""
    head("", "MB")
    line("second quarter", f"{found['second_quarter']:.0f}")
    line("last quarter", f"{found['last_quarter']:.0f}")


def memory_plot(figure: Any, found: dict[str, Any], *, label: str) -> None:
    """Draw the memory over the steps that the label names."""
    figure.set_size_inches(7, 3)
    axes = figure.subplots()
    axes.plot(*zip(*found["series"], strict=True), color=GREEN, linewidth=1)
    axes.set_ylim(bottom=0)
    finish(axes, "resident memory, MB", label)
