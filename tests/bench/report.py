"""Results of the benchmarks as plots and as tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from . import offload_report, s3_report, serving_report, thumb_report
from .measure import RESULTS, say
from .sheet import BLUE, GREEN, GREY, RED, finish, head, line, memory_plot, memory_table

__all__ = ["run"]

STATIC = Path(__file__).parent.parent.parent / "docs" / "_static"
NAMES = {
    "generate_thumbnail": "generate_thumbnail()",
    "render": "render()",
    "libvips": "libvips, thumbnail_buffer",
    "libvips, shrunk": "libvips, same steps",
    "Pillow": "Pillow",
    "Wand": "Wand",
    "sharp": "sharp",
}
OURS = ("generate_thumbnail", "render")


def run(*, plots: bool, tables: bool) -> int:
    """Print and draw the available results as requested; return the number of missing results."""
    missing = 0
    for name, (table, plot) in REPORTS.items():
        path = RESULTS / f"{name}.json"
        if not path.exists():
            say(f"{name}: not measured yet")
            missing += 1
            continue
        found = json.loads(path.read_text("utf-8"))
        if tables:
            say(f"\n{name}, {found['machine']['at']}, load {found['machine']['load'][0]:.1f}\n")
            table(found)
        if plots and plot is not None:
            _draw(name, plot, found)
    return missing


def _draw(name: str, plot: Callable[[Any, dict[str, Any]], None], found: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": name, "svg.fonttype": "path", "font.size": 10, "figure.facecolor": "white"})
    from matplotlib import pyplot

    figure = pyplot.figure(layout="constrained")
    plot(figure, found)
    STATIC.mkdir(exist_ok=True)
    figure.savefig(STATIC / f"performance-{name}.svg", metadata={"Date": None})
    figure.savefig(RESULTS / f"{name}.png", dpi=100)
    pyplot.close(figure)
    say(f"docs/_static/performance-{name}.svg")


# --- thumbnails ------------------------------------------------------------------------------------------------------


def _thumbnails_table(found: dict[str, Any]) -> None:
    for name, why in found["missing"].items():
        say(f"missing: {name}: {why}")
    say(", ".join(sorted(set(found["versions"].values()))))
    for unit in ("cpu_ms", "ratio"):
        say("")
        head("to", *(f"`{NAMES[name]}`" for name in found["versions"]))
        for task in found["tasks"]:
            rows = task["contenders"]
            cells = (
                f"{rows[name][unit]:.{0 if unit == 'cpu_ms' else 2}f}" if name in rows else "–"
                for name in found["versions"]
            )
            line(f"{task['original']}: {task['width']} px {task['format']}", *cells)


def _thumbnails_plot(figure: Any, found: dict[str, Any]) -> None:
    tasks = [task for task in found["tasks"] if task["original"] == "telephone" and task["width"] != 400]
    figure.set_size_inches(11, 3.4)
    for axes, task in zip(figure.subplots(1, len(tasks), sharey=True), tasks, strict=True):
        names = [name for name in reversed(NAMES) if name in task["contenders"]]
        values = [task["contenders"][name]["cpu_ms"] for name in names]
        most = 1.25 * max(value for name, value in zip(names, values, strict=True) if name != "Wand")
        colours = [GREEN if name in OURS else BLUE if "libvips" in name else GREY for name in names]
        axes.barh([NAMES[name] for name in names], [min(value, most) for value in values], color=colours)
        for place, value in enumerate(values):
            beyond = value > most
            axes.text(
                most * 0.97 if beyond else value + most * 0.02,
                place,
                f"{value:.0f}" + (" »" if beyond else ""),
                va="center",
                ha="right" if beyond else "left",
                color="white" if beyond else "black",
                fontsize=8,
            )
        axes.set_xlim(0, most * 1.12)
        finish(axes, f"{task['width']} px {task['format'].upper()}", "ms CPU")


# --- looks -----------------------------------------------------------------------------------------------------------


def _looks_table(found: dict[str, Any]) -> None:
    head("width", "shrink", "left to Lanczos", "SSIMULACRA 2", "with half the shrink", "CPU saved")
    for row in found["trials"]:
        by, half = str(row["shrink"]), str(row["shrink"] // 2)
        score, before = (f"{row['srgb'][key]:.1f} ({row['linear'][key]:.1f})" for key in (by, half))
        line(row["width"], by, f"{row['left']:.2f} ×", score, before, f"{100 * row['saved']:.0f} %")


def _looks_plot(figure: Any, found: dict[str, Any]) -> None:
    figure.set_size_inches(8, 3.6)
    looks, saved = figure.subplots(1, 2)
    for shrink, colour in ((2, BLUE), (8, GREEN)):
        rows = sorted((row for row in found["trials"] if row["shrink"] == shrink), key=lambda row: row["left"])
        left = [row["left"] for row in rows]
        looks.plot(
            left, [row["srgb"][str(shrink)] for row in rows], "o-", color=colour, label=f"decoder shrinks by {shrink}"
        )
        half = [row["srgb"][str(shrink // 2)] for row in rows]
        looks.plot(left, half, "o--", color=colour, alpha=0.45, label=f"by {shrink // 2}")
        saved.plot(
            left, [100 * row["saved"] for row in rows], "o-", color=colour, label=f"{shrink} against {shrink // 2}"
        )
    for axes, title in ((looks, "SSIMULACRA 2, 100 is the reference"), (saved, "CPU saved, %")):
        axes.axvline(1.5, color="black", linewidth=0.8, linestyle=":")
        axes.legend(fontsize=8, frameon=False)
        finish(axes, title, "times the width that are left to Lanczos")
    saved.set_ylim(bottom=0)


# --- other benchmarks ------------------------------------------------------------------------------------------------


def _sizes_table(found: dict[str, Any]) -> None:
    names = ("one decode", "four calls", "four calls of libvips")
    head("original", *names)
    for table in found["tables"]:
        rows, times = table["contenders"], (1, table["factor"], table["libvips"])
        cells = (f"{rows[name]['cpu_ms']:.0f} ms ({more:.2f} ×)" for name, more in zip(names, times, strict=True))
        line(table["label"], *cells)


def _attach_table(found: dict[str, Any]) -> None:
    head("", "insert + file", "insert + durable file", "attach + commit")
    for table in found["tables"]:
        rows: Iterable[dict[str, float]] = table["contenders"].values()
        line(
            table["label"],
            *(f"{row['cpu_ms']:.1f} ms CPU ({row['ratio']:.2f} ×), {row['wall_ms']:.0f} ms" for row in rows),
        )


def _lag_table(found: dict[str, Any]) -> None:
    head("lag, ms", "p50", "p99", "max")
    for name, row in found["lag"].items():
        line(name, f"{row['p50']:.2f}", f"{row['p99']:.1f}", f"{row['max']:.1f}")
    say(f"\n{found['per_second']:.1f} thumbnails/s")


def _lag_plot(figure: Any, found: dict[str, Any]) -> None:
    figure.set_size_inches(6, 3.2)
    axes = figure.subplots()
    late = found["busy"]
    axes.plot(late, [100 * (1 - number / len(late)) for number in range(len(late))], color=GREEN)
    axes.axvline(20, color="black", linewidth=0.8, linestyle=":")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xticks([0, 0.5, 1, 5, 10, 20, 50], ["0", "0.5", "1", "5", "10", "20", "50"])
    axes.set_yticks([100, 10, 1, 0.1], ["100 %", "10 %", "1 %", "0.1 %"])
    finish(axes, f"ticks at least so late, {found['count']} thumbnails", "ms late")


def _bombs_table(found: dict[str, Any]) -> None:
    head("file", "bytes", "ms CPU", "MiB", "answer")
    for row in found["rows"]:
        line(row["file"], f"{row['bytes']:,}", f"{row['cpu_ms']:.1f}", f"{row['mebibytes']:.1f}", row["answer"])


def _isolation_table(found: dict[str, Any]) -> None:
    head("", "thread", "process")
    for name, row in found["work"].items():
        line(name, *(f"{cell['cpu_ms']:.2f} ms CPU, {cell['wall_ms']:.2f} ms" for cell in row.values()))
    line("three at once", *(f"{value:.0f} a second" for value in found["at_once"].values()))
    say(f"\nstart: {found['start_ms']:.0f} ms; memory: {found['own_mb']:.0f} MB")


def _urls_table(found: dict[str, Any]) -> None:
    head("page of 50 users", "")
    line("statements", found["statements"])
    line("reads of the store", found["reads"])
    line("the page, ms CPU", f"{found['page']['cpu_ms']:.1f}")
    line("find_thumbnail() and locate(), µs", f"{found['one_us']:.0f}")


def _migration_table(found: dict[str, Any]) -> None:
    head("", "rows", "were there", "s", "rows/s", "s of CPU")
    for name in ("naive", "whole", "killed", "resumed"):
        row = found[name]
        rate, cpu = f"{row['rows'] / row['seconds']:,.0f}", "" if row["cpu"] is None else f"{row['cpu']:.1f}"
        line(name, f"{row['rows']:,}", f"{row['present']:,}", f"{row['seconds']:.1f}", rate, cpu)
    say(f"\n{found['faster']:.1f} times; MB in the second quarter and the last: {found['memory']}")


def _migration_plot(figure: Any, found: dict[str, Any]) -> None:
    figure.set_size_inches(8, 3)
    rows, memory = figure.subplots(1, 2)
    names = {"naive": GREY, "whole": GREEN, "killed": BLUE, "resumed": RED}
    later = 0.0
    for name, colour in names.items():
        series = found[name]["series"]
        shift = later if name == "resumed" else 0.0
        rows.plot([shift + at for *_, at, _ in series], [row[0] for row in series], color=colour, linewidth=1.5)
        if name == "killed":
            later = series[-1][2]
        if name == "whole":
            memory.plot([row[0] for row in series], [row[3] for row in series], color=colour, linewidth=1)
    rows.legend(["a loop", "migrate()", "killed half-way", "run again"], frameon=False, fontsize=8)
    memory.set_ylim(bottom=0)
    finish(rows, "rows that are dealt with", "seconds")
    finish(memory, "resident memory, MB", "rows")


def _maintenance_table(found: dict[str, Any]) -> None:
    head("", "files", "a second", "s of CPU", "s", "a million: CPU", "MB in the second quarter", "in the last")
    for name, row in found["works"].items():
        rate, million = f"{row['count'] / row['wall']:,.0f}", f"{row['cpu'] / row['count'] * 1e6:,.0f} s"
        memory = (f"{size:.0f}" for size in row["memory"])
        line(name, f"{row['count']:,}", rate, f"{row['cpu']:.1f}", f"{row['wall']:.1f}", million, *memory)


Plot = Callable[[Any, dict[str, Any]], None]
REPORTS: dict[str, tuple[Callable[[dict[str, Any]], None], Plot | None]] = {
    "thumbnails": (_thumbnails_table, _thumbnails_plot),
    "looks": (_looks_table, _looks_plot),
    "sizes": (_sizes_table, None),
    "attach": (_attach_table, None),
    "bombs": (_bombs_table, None),
    "isolation": (_isolation_table, None),
    "lag": (_lag_table, _lag_plot),
    "memory": (memory_table, partial(memory_plot, label="thumbnails made")),
    "urls": (_urls_table, None),
    "declared.page": (thumb_report.page_table, None),
    "declared.deletion": (thumb_report.deletion_table, None),
    "thumbserver.hits": (thumb_report.hits_table, None),
    "thumbserver.misses": (thumb_report.misses_table, None),
    "thumbserver.lag": (thumb_report.lag_table, None),
    "thumbserver.memory": (memory_table, partial(memory_plot, label="requests, a fifth of them for missing files")),
    "thumbpeers": (thumb_report.peers_table, None),
    "serving.small": (serving_report.table, serving_report.plot),
    "serving.medium": (serving_report.table, serving_report.plot),
    "serving.large": (serving_report.table, serving_report.plot),
    "serving.unchanged": (serving_report.table, None),
    "serving.overhead": (serving_report.overhead_table, None),
    "serving.cold": (serving_report.cold_table, None),
    "offload": (offload_report.tables, offload_report.plot),
    "s3.small": (s3_report.requests_tables, s3_report.requests_plot),
    "s3.large": (s3_report.requests_tables, s3_report.requests_plot),
    "s3.limits": (s3_report.limits_tables, None),
    "migration.disk": (_migration_table, None),
    "migration.s3": (_migration_table, _migration_plot),
    "maintenance.sweep": (_maintenance_table, None),
    "maintenance.verify": (_maintenance_table, None),
}
