"""The number of repetitions: few in normal runs, many with ``make soak``."""

from __future__ import annotations

import os

ROUNDS = int(os.environ.get("AIOIMAGEATTACH_ROUNDS", "1"))
"""Factor for the number of repetitions."""
