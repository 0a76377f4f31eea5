"""Rounds, medians, ratios, and a description of the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "Sample", "Timer", "interleaved", "machine", "percentile", "ratio", "save", "say", "summary"]

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True)
class Sample:
    """The CPU time of all threads of the process and the elapsed time of one run, in seconds."""

    cpu: float
    wall: float


class Timer:
    """Measures the block of a ``with`` statement."""

    sample: Sample

    def __enter__(self) -> Timer:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.sample = Sample(time.process_time() - self._cpu, time.perf_counter() - self._wall)


def interleaved(
    contenders: Mapping[str, Callable[[], Sample]], rounds: int, progress: Callable[[str], object]
) -> dict[str, list[Sample]]:
    """Run all contenders once to warm up, then in rounds, each of which begins with another contender."""
    names = list(contenders)
    for name in names:
        contenders[name]()
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(contenders[name]())
        progress(f"round {number + 1} of {rounds}")
    return samples


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the medians in milliseconds, and the minimum."""
    return {
        "cpu_ms": 1e3 * statistics.median(sample.cpu for sample in samples),
        "cpu_ms_least": 1e3 * min(sample.cpu for sample in samples),
        "wall_ms": 1e3 * statistics.median(sample.wall for sample in samples),
    }


def ratio(samples: Sequence[Sample], to: Sequence[Sample]) -> float:
    """Return the median ratio of CPU times over the rounds, so that a slow minute affects both."""
    return statistics.median(mine.cpu / theirs.cpu for mine, theirs in zip(samples, to, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def machine() -> dict[str, Any]:
    """Return a description of the machine and the versions."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [
            line.partition(":")[2].strip() for line in information.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "load": list(os.getloadavg()),
        "at": time.strftime("%Y-%m-%d"),
    }


def save(name: str, result: Mapping[str, Any]) -> None:
    """Save a result for the report."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        json.dumps(result, indent=1, default=lambda value: asdict(value)) + "\n", encoding="utf-8"
    )


def say(text: str) -> None:
    """Print the progress."""
    print(text, flush=True)
