"""Benchmarks: ``python -m tests.bench`` runs all of them; see ``--help``. They are not tests and assert nothing."""

from __future__ import annotations
