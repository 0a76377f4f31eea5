"""Tools for tests: a conformance suite for stores, a store with injected faults, and a consistency check.

:mod:`aioimageattach.testing.fixtures` has the fixtures ``image_store`` and ``faulty_image_store``.
"""

from __future__ import annotations

from .consistency import assert_consistent
from .contract import AWKWARD_NAMES, INVALID_NAMES, StoreContract
from .faulty import FaultyStore, PlainFaultyStore

__all__ = [
    "AWKWARD_NAMES",
    "INVALID_NAMES",
    "FaultyStore",
    "PlainFaultyStore",
    "StoreContract",
    "assert_consistent",
]
