"""Attach images to SQLAlchemy entities with asyncio: rows in the database, files in a store.

This module exports the most commonly used names. Each is imported from its module on first access, so that ``import
aioimageattach`` is fast and loads neither SQLAlchemy nor aiohttp nor libvips.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import VERSION as _VERSION

if TYPE_CHECKING:
    from ._declared import Srcset
    from ._threads import set_workers
    from .context import (
        bind_store,
        current_store,
        get_current_store,
        pop_store_context,
        push_store_context,
        set_default_store,
        store_context,
    )
    from .entity import (
        CropBox,
        FocalPoint,
        Image,
        ImageSubset,
        MultipleImageSet,
        Placeholder,
        SingleImageSet,
        ThumbnailMarks,
        image_attachment,
    )
    from .exc import ContextError, ImageAttachError, ImageError, StoreError, UsageError
    from .imaging import ImageLimits, Recipe
    from .key import ImageKey
    from .store import KeyedStore, Store
    from .stores import MemoryStore
    from .stores.fs import FileSystemStore, StaticServer
    from .stores.s3 import S3Store
    from .thumbnails import ThumbnailServer, ThumbnailWorker

__version__ = _VERSION

__all__ = [
    "ContextError",
    "CropBox",
    "FileSystemStore",
    "FocalPoint",
    "Image",
    "ImageAttachError",
    "ImageError",
    "ImageKey",
    "ImageLimits",
    "ImageSubset",
    "KeyedStore",
    "MemoryStore",
    "MultipleImageSet",
    "Placeholder",
    "Recipe",
    "S3Store",
    "SingleImageSet",
    "Srcset",
    "StaticServer",
    "Store",
    "StoreError",
    "ThumbnailMarks",
    "ThumbnailServer",
    "ThumbnailWorker",
    "UsageError",
    "__version__",
    "bind_store",
    "current_store",
    "get_current_store",
    "image_attachment",
    "pop_store_context",
    "push_store_context",
    "set_default_store",
    "set_workers",
    "store_context",
]

_MODULES = {
    "_threads": ["set_workers"],
    "context": [
        "bind_store",
        "current_store",
        "get_current_store",
        "pop_store_context",
        "push_store_context",
        "set_default_store",
        "store_context",
    ],
    "_declared": ["Srcset"],
    "entity": [
        "CropBox",
        "FocalPoint",
        "Image",
        "ImageSubset",
        "MultipleImageSet",
        "Placeholder",
        "SingleImageSet",
        "ThumbnailMarks",
        "image_attachment",
    ],
    "exc": ["ContextError", "ImageAttachError", "ImageError", "StoreError", "UsageError"],
    "imaging": ["ImageLimits", "Recipe"],
    "key": ["ImageKey"],
    "store": ["KeyedStore", "Store"],
    "stores": ["MemoryStore"],
    "stores.fs": ["FileSystemStore", "StaticServer"],
    "stores.s3": ["S3Store"],
    "thumbnails": ["ThumbnailServer", "ThumbnailWorker"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
