"""Benchmarks: ``python -m tests.bench`` runs them all; ``--help`` tells more. They are no tests, and assert nothing."""

from __future__ import annotations
