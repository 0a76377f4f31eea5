"""Attach images to SQLAlchemy entities with asyncio: rows in the database, files in a store."""

from __future__ import annotations

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
    FocalPoint,
    Image,
    ImageSubset,
    MultipleImageSet,
    Placeholder,
    SingleImageSet,
    image_attachment,
)
from .exc import ContextError, ImageAttachError, ImageError, StoreError
from .imaging.limits import ImageLimits
from .imaging.recipe import Recipe
from .key import ImageKey
from .store import KeyedStore, Store
from .version import VERSION as _VERSION

__version__ = _VERSION

__all__ = [
    "ContextError",
    "FocalPoint",
    "Image",
    "ImageAttachError",
    "ImageError",
    "ImageKey",
    "ImageLimits",
    "ImageSubset",
    "KeyedStore",
    "MultipleImageSet",
    "Placeholder",
    "Recipe",
    "SingleImageSet",
    "Store",
    "StoreError",
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
