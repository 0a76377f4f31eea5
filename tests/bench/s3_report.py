"""Results of the S3 benchmarks as a plot and as tables in Markdown."""

from __future__ import annotations

from typing import Any

from .sheet import BLUE, GREEN, GREY, finish, head, line

__all__ = ["limits_tables", "requests_plot", "requests_tables"]

OURS = "aioimageattach"


def _label(table: dict[str, Any]) -> str:
    kib = table["size"] // 1024
    size = f"{kib} KiB" if kib < 1024 else f"{kib // 1024} MiB"
    return f"{table['operation'].upper()} {size}, {table['concurrency']}"


def requests_tables(found: dict[str, Any]) -> None:
    """Print the CPU time and rate of each client, by operation."""
    names = list(found["versions"])
    head("", *names)
    for table in found["tables"]:
        peers = table["peers"]
        cells = (
            f"{peers[name]['ratio']:.2f} ({1e3 * peers[name]['cpu_ms']:,.0f})" if name in peers else "–"
            for name in names
        )
        line(_label(table), *cells)
    line()
    head("a second", *names)
    for table in found["tables"]:
        peers = table["peers"]
        line(_label(table), *(f"{peers[name]['per_second']:,.0f}" if name in peers else "–" for name in names))


def limits_tables(found: dict[str, Any]) -> None:
    """Print memory, delays and signed URLs."""
    columns = ("bytes_before", "bytes_peak", "file_before", "file_peak")
    head("MB", *columns)
    for name, sizes in found["memory"].items():
        if sizes:
            line(name, *(f"{sizes[column]:.0f}" for column in columns))
    line()
    names = list(found["lag"][0]["peers"])
    head("lag, ms", *names)
    for table in found["lag"]:
        line(_label(table), *(f"{table['peers'][name]:.1f}" for name in names))
    line()
    head("a URL", "µs")
    for name, microseconds in found["urls"].items():
        line(name, f"{microseconds:.1f}")


def requests_plot(figure: Any, found: dict[str, Any]) -> None:
    """Draw the CPU time of one operation, with 16 concurrent ones."""
    figure.set_size_inches(11, 3.4)
    tables = [table for table in found["tables"] if table["concurrency"] == 16]
    for axes, table in zip(figure.subplots(1, len(tables), sharey=True), tables, strict=True):
        names = [name for name in reversed(list(found["versions"])) if "," not in name]
        values = [table["peers"][name]["ratio"] for name in names]
        colours = [GREEN if name == OURS else BLUE if name == "aiohttp" else GREY for name in names]
        most = 4.0
        axes.barh(names, [min(value, most) for value in values], color=colours)
        for place, value in enumerate(values):
            axes.text(min(value, most) + 0.06, place, f"{value:.2f}", va="center", fontsize=8)
        axes.set_xlim(0, most * 1.25)
        finish(axes, _label(table).partition(",")[0], "times the CPU of aiohttp")
