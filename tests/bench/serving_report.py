"""Results of the benchmark of serving, as tables and plots."""

from __future__ import annotations

from typing import Any

from .sheet import BLUE, GREEN, GREY, bars, finish, head, line

__all__ = ["cold_table", "overhead_table", "plot", "table"]

FIGURES = {"per_second": "requests a second", "cpu": "ms CPU a request"}


def table(found: dict[str, Any]) -> None:
    """Print the requests per second of each server, the CPU time per request, and the delays."""
    head("", "requests/s", "× Starlette", "CPU s per 1,000", "× nginx", "p99, ms")
    for name, figures in found["servers"].items():
        to_nginx = figures["times_nginx_cpu"]
        line(
            name,
            f"{figures['per_second']:,.0f}",
            f"{figures['times_starlette']:.1f}",
            f"{figures['cpu']:.3f}",
            "–" if to_nginx is None else f"{to_nginx:.1f}",
            f"{figures['p99_ms']:.2f}",
        )


def cold_table(found: dict[str, Any]) -> None:
    """Print the delays of the event loop."""
    head("", "files/s", "CPU s per 1,000", "not in memory", "lag p50, ms", "p99", "max", "p99 with nothing to do")
    for name, figures in found["servers"].items():
        lag = (f"{figures['lag'][key]:.2f}" for key in ("p50", "p99", "max"))
        share, idle = f"{100 * figures['cold']:.0f} %", f"{figures['idle']['p99']:.2f}"
        line(name, f"{figures['per_second']:,.0f}", f"{figures['cpu']:.3f}", share, *lag, idle)


def overhead_table(found: dict[str, Any]) -> None:
    """Print the cost of serving a file compared with sending the same bytes from memory."""
    head("", "file, µs CPU", "from memory", "more", "×")
    line("10 KiB, uvicorn", *(f"{found[key]:.1f}" for key in ("file", "memory", "more")), f"{found['times']:.2f}")


def plot(figure: Any, found: dict[str, Any]) -> None:
    """Draw the requests per second of each server, and its CPU time per request."""
    figure.set_size_inches(10, 0.9 + 0.27 * len(found["servers"]))
    names = list(reversed(found["servers"]))
    colours = [GREEN if name.startswith("ours") else BLUE if name in ("nginx", "Caddy") else GREY for name in names]
    for axes, (key, title) in zip(figure.subplots(1, len(FIGURES), sharey=True), FIGURES.items(), strict=True):
        # seconds per 1,000 requests are milliseconds per request
        values = [found["servers"][name][key] for name in names]
        bars(axes, names, values, colours, "{:,.0f}".format if key == "per_second" else "{:.3g}".format)
        finish(axes, title)
