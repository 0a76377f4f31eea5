"""Programs to learn from: each is a folder of its own, started with ``python -m examples.NAME``."""

from __future__ import annotations
