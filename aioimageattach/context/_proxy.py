"""A store that delegates to another one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from ..file import AsyncFile, Source
from ..key import ImageKey
from ..store import Store
from ..store._keyed import KeyLevelStore


class LocalProxyStore(KeyLevelStore):
    """A store that delegates each operation to the current target, which is looked up each time.

    It compares equal to that store.

    Args:
        get_current_object: Function that returns the target.
        repr_string: Result of ``repr()``; by default, the ``repr()`` of the target.
    """

    def __init__(self, get_current_object: Callable[[], Store], repr_string: str | None = None) -> None:
        self.get_current_object = get_current_object
        self._repr = repr_string

    @property
    def needs_object_id(self) -> bool:  # type: ignore[override]
        """The value of the target."""
        return self.get_current_object().needs_object_id

    @property
    def has_signed_urls(self) -> bool:  # type: ignore[override]
        """The value of the target."""
        return self.get_current_object().has_signed_urls

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put the file of a key into the target."""
        await self.get_current_object().put(key, file, reproducible=reproducible)

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open the file of a key in the target."""
        return await self.get_current_object().get(key)

    def url_for(self, key: ImageKey) -> str:
        """Return the URL of the file of a key in the target."""
        return self.get_current_object().url_for(key)

    def download_url_for(self, key: ImageKey, filename: str) -> str:
        """Return a URL for downloading the file of a key from the target."""
        return self.get_current_object().download_url_for(key, filename)

    async def discard(self, key: ImageKey) -> None:
        """Delete the file of a key in the target."""
        await self.get_current_object().discard(key)

    async def connect(self) -> None:
        """Prepare the URLs of the target."""
        await self.get_current_object().connect()

    async def aclose(self) -> None:
        """Close the connections of the target."""
        await self.get_current_object().aclose()

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return the places of the target."""
        return self.get_current_object().location_of(object_type)

    def make_revision(self) -> str:
        """Return a new revision of the target."""
        return self.get_current_object().make_revision()

    def revision_for(self, object_type: str, *, reproducible: bool) -> str:
        """Return a new revision of the target for a file of an object type."""
        return self.get_current_object().revision_for(object_type, reproducible=reproducible)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.get_current_object(), name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LocalProxyStore):
            return other is self or self.get_current_object() == other.get_current_object()
        return self.get_current_object() == other

    def __hash__(self) -> int:
        return hash(self.get_current_object())

    def __repr__(self) -> str:
        return self._repr or repr(self.get_current_object())
