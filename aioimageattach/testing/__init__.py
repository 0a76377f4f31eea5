"""Tools for tests: a conformance suite for stores, a store with injected faults, and a consistency check.

:mod:`aioimageattach.testing.fixtures` has the fixtures ``image_store`` and ``faulty_image_store``.
"""

from __future__ import annotations

from ._consistency import assert_consistent
from ._contract import StoreContract
from ._faulty import FaultyStore

__all__ = [
    "FaultyStore",
    "StoreContract",
    "assert_consistent",
]
