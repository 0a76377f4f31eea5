"""Stores: in memory, and combined from other stores. Directories are in ``stores.fs``, buckets in ``stores.s3``."""

from __future__ import annotations

from .memory import MemoryStore
from .mirror import MirrorStore, PlainMirrorStore
from .overlay import DELETED_MARK_MIMETYPE, OverlayStore, PlainOverlayStore
from .routing import PlainRoutingStore, RoutingStore
from .split import SplitStore

__all__ = [
    "DELETED_MARK_MIMETYPE",
    "MemoryStore",
    "MirrorStore",
    "OverlayStore",
    "PlainMirrorStore",
    "PlainOverlayStore",
    "PlainRoutingStore",
    "RoutingStore",
    "SplitStore",
]
