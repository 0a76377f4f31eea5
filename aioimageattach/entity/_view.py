"""The synchronous part of an image set: the original and its thumbnails, read from loaded rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from ..exc import NoOriginalError
from ..store import Store
from ._collection import Collection, newest
from ._image import Image
from ._markup import DeclaredThumbnails

__all__ = ["ImageView"]

I = TypeVar("I", bound=Image)  # noqa: E741


class ImageView(DeclaredThumbnails, ABC, Generic[I]):
    """The part of an image set that reads loaded rows. It does no query and no I/O, so templates can use it."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Collection[I]) -> None:
        self._rows = rows

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """The key attributes that distinguish this set from others of the same owner."""

    @property
    def _set_key(self) -> tuple[Any, ...]:
        return tuple(self.identity.values())

    @property
    def images(self) -> list[I]:
        """The original and its thumbnails."""
        return self._rows.members(self._set_key)

    @property
    def original(self) -> I | None:
        """The original; ``None`` if none is attached. The newest one, if concurrent transactions left several."""
        return newest(self.images)

    def require_original(self) -> I:
        """Return the original.

        Raises:
            NoOriginalError: No original is attached.
        """
        original = self.original
        if original is None:
            raise NoOriginalError(f"{self!r} has no original; attach one with from_file() or from_blob()")
        return original

    def locate(self, store: Store | None = None, *, download: str | None = None) -> str:
        """Return the URL of the original; see :meth:`Image.locate`.

        Raises:
            NoOriginalError: No original is attached.
        """
        return self.require_original().locate(store, download=download)

    def _shown(self) -> tuple[type[Any], Any]:
        return self._rows.cls, self.original

    @property
    def width(self) -> int:
        """Width of the original in pixels."""
        return self.require_original().width

    @property
    def height(self) -> int:
        """Height of the original in pixels."""
        return self.require_original().height

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the original in pixels."""
        return self.require_original().size

    @property
    def mimetype(self) -> str:
        """MIME type of the original."""
        return self.require_original().mimetype

    def __iter__(self) -> Iterator[I]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __bool__(self) -> bool:
        return self.original is not None

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        same = self._rows.owner is other._rows.owner and self._rows.name == other._rows.name
        return same and self.identity == other.identity

    def __hash__(self) -> int:
        return hash((id(self._rows.owner), self._rows.name))

    def __html__(self) -> str:
        """Return an ``<img>`` element of the original, for templates; empty if none is attached."""
        original = self.original
        return "" if original is None else original.__html__()

    def __repr__(self) -> str:
        key = "".join(f" {name}={value!r}" for name, value in self.identity.items())
        return f"<{type(self).__name__} {type(self._rows.owner).__name__}.{self._rows.name}{key}>"
