"""Load many offloaded values concurrently."""

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
"""Default number of values that are fetched concurrently."""


async def load_stored(
    rows: Iterable[Any], *attributes: Any, store: Store | None = None, concurrency: int = CONCURRENCY
) -> None:
    """Load the values of some attributes of many rows concurrently. Values that are already loaded are skipped.

    ::

        articles = (await session.scalars(select(Article).limit(100))).all()
        await load_stored(articles, Article.body, Article.outline)

    Args:
        rows: The objects.
        attributes: One or more attributes of their class, such as ``Article.body``. Rows without a value are skipped.
        store: The store that contains the files; ``None`` for the default of
            :meth:`~aioimageattach.offload.Stored.load`.
        concurrency: Maximum number of concurrent fetches, at least 1.

    Raises:
        DeclarationError: An attribute is not an offloaded attribute.
        NotLoadedError: The column of a row is not loaded.
        StoreError: A file could not be read; the first such error is raised.
        DamagedValueError: The content of a file is not what was stored.

    Effects: After an error or a cancellation, the values fetched so far are loaded, and no fetch continues.
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
