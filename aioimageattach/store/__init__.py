"""The interfaces of a store: by key, by the fields of a key, and by name."""

from __future__ import annotations

from .._tasks import finish
from ._keyed import KeyedStore, ObjectInfo
from ._store import Store

__all__ = ["KeyedStore", "ObjectInfo", "Store", "finish"]
