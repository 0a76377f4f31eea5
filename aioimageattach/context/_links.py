"""The interface of the thumbnail server that image rows use to build URLs."""

from __future__ import annotations

from typing import Protocol

from ..store import Store


class ThumbnailLinks(Protocol):
    """The part of :class:`~aioimageattach.thumbnails.ThumbnailServer` from which the URLs of thumbnails are built."""

    @property
    def store(self) -> Store:
        """The store of the originals and their thumbnails."""
        ...

    @property
    def base_url(self) -> str:
        """The URL to which names are appended; it ends with a slash."""
        ...

    @property
    def is_private(self) -> bool:
        """``True`` if the server serves signed URLs only."""
        ...

    def query_of(self, picture: str) -> str:
        """Return the query of the URLs of an image's thumbnails, with its ``?``; empty if they have none."""
        ...
