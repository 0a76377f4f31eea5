"""Loading many offloaded values at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy.orm import QueryableAttribute

from .._tasks import map_concurrently
from ..exc import DeclarationError
from ..store import Store
from ._values import Stored

__all__ = ["CONCURRENCY", "load_stored"]

CONCURRENCY: Final = 32
"""How many values are on their way at once, unless the call says otherwise."""


async def load_stored(
    rows: Iterable[Any], *attributes: Any, store: Store | None = None, concurrency: int = CONCURRENCY
) -> None:
    """Load the values of some attributes of many rows, concurrently; those that are there are not fetched again.

    ::

        articles = (await session.scalars(select(Article).limit(100))).all()
        await load_stored(articles, Article.body, Article.outline)

    Args:
        rows: The objects.
        attributes: One or several of their class, as ``Article.body``; rows without a value are passed over.
        store: Where the files are; ``None`` for what :meth:`~aioimageattach.offload.Stored.load` would take.
        concurrency: How many are fetched at once, at least 1.

    Raises:
        DeclarationError: There is no such attribute, or it is not offloaded.
        ValueNotLoadedError: The column of a row is not loaded.
        StoreError: A file could not be read; the first such error.
        DamagedValueError: A file is not what was stored.

    Effects: On an error or a cancellation the values that were there by then are loaded, and nothing goes on.
    """
    if not attributes:
        raise DeclarationError("expected the attributes to load, such as Article.body")
    if concurrency < 1:
        raise DeclarationError(f"concurrency: expected at least 1, got {concurrency!r}")
    keys = [_key(attribute) for attribute in attributes]
    handles = [handle for row in rows for key in keys if (handle := _handle(row, key)) is not None]
    missing = {id(handle): handle for handle in handles if not handle.loaded}
    await map_concurrently(lambda handle: handle.load(store), list(missing.values()), limit=concurrency)


def _key(attribute: Any) -> str:
    if not isinstance(attribute, QueryableAttribute):
        raise DeclarationError(f"expected an attribute such as Article.body, got {attribute!r}")
    return attribute.key


def _handle(row: Any, key: str) -> Stored[Any] | None:
    handle = getattr(row, key)
    if handle is None or isinstance(handle, Stored):
        return handle
    raise DeclarationError(f"{type(row).__name__}.{key} is not offloaded: it is a {type(handle).__name__}")
