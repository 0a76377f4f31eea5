"""How much is to be tried: little in every run of the tests, much where somebody has the time (``make soak``)."""

from __future__ import annotations

import os

ROUNDS = int(os.environ.get("AIOIMAGEATTACH_ROUNDS", "1"))
"""How many times as much as usually."""
