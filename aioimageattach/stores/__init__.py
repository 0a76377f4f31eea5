"""Stores: in memory, and combined from other stores. Directories are in ``stores.fs``, buckets in ``stores.s3``."""

from __future__ import annotations

from ._memory import MemoryStore
from ._mirror import MirrorStore
from ._overlay import OverlayStore
from ._routing import RoutingStore
from ._split import SplitStore

__all__ = [
    "MemoryStore",
    "MirrorStore",
    "OverlayStore",
    "RoutingStore",
    "SplitStore",
]
