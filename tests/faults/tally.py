"""Counters of the fault tests, from which the scorecard is made."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path


class Tally:
    """Counters by name and kind."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, number: int = 1, **of: str) -> None:
        """Count an event; ``of`` is at most one word for its kind."""
        [kind] = of.values() or [""]
        self._counts[name, kind] += number

    def save(self, path: Path) -> None:
        """Write all counters as JSON: numbers by kind by name."""
        found: dict[str, dict[str, int]] = {}
        for (name, kind), number in sorted(self._counts.items()):
            found.setdefault(name, {})[kind] = number
        path.write_text(json.dumps(found, indent=2))
