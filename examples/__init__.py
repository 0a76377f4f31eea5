"""Example programs, each in a separate folder. Start one with ``python -m examples.NAME``."""

from __future__ import annotations
