"""A gallery of photographs: FastAPI, SQLite and a directory. ``python -m examples.gallery`` starts it."""

from __future__ import annotations
