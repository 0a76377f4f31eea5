"""The interface between image rows and the server of their declared thumbnails."""

from __future__ import annotations

from typing import Protocol

from ..store import Store


class ThumbnailLinks(Protocol):
    """The parts of the URLs of declared thumbnails; :class:`~aioimageattach.thumbnails.ThumbnailServer` has them."""

    @property
    def store(self) -> Store:
        """The store of the originals and their thumbnails."""
        ...

    @property
    def base_url(self) -> str:
        """The URL that names are appended to, with a slash at its end."""
        ...

    @property
    def is_private(self) -> bool:
        """``True`` if the server serves signed URLs only."""
        ...

    def query_of(self, picture: str) -> str:
        """Return the query of the URLs of a picture's thumbnails, with its ``?``; empty if they have none."""
        ...
