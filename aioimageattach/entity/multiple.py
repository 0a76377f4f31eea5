"""Any number of pictures per owner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from ..exc import DeclarationError
from .collection import Collection
from .image import Image
from .imageset import BaseImageSet
from .mapping import default_of

__all__ = ["ImageSubset", "MultipleImageSet"]

I = TypeVar("I", bound=Image)  # noqa: E741


class ImageSubset(BaseImageSet[I]):
    """One of the many pictures of an owner; what :meth:`MultipleImageSet.get_image_set` gives."""

    __slots__ = ("_identity",)

    def __init__(self, rows: Collection[I], identity: dict[str, Any]) -> None:
        super().__init__(rows)
        self._identity = identity

    @property
    def identity(self) -> dict[str, Any]:
        """The key attributes that tell this picture from the owner's others."""
        return dict(self._identity)


class MultipleImageSet(Generic[I]):
    """All the pictures of an owner; what ``image_attachment(..., uselist=True)`` gives.

    Its elements are image sets: it is iterated, counted and asked for one by its key. It is a view, as they are.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Collection[I]) -> None:
        self._rows = rows

    def get_image_set(self, **key: Any) -> ImageSubset[I]:
        """Return the picture of that key, attached or not: an empty one is there to attach to.

        Args:
            key: A value for each attribute of the primary key that tells the owner's pictures apart. An attribute that
                has a default, such as ``default=uuid4``, may be left out to begin a new picture.

        Raises:
            DeclarationError: One is missing, or is not such an attribute.
        """
        names = self._rows.attachment.discriminators
        for name in names:
            default = None if name in key else default_of(self._rows.attachment.image, name)
            if default is not None:
                key[name] = default()
        if key.keys() != set(names):
            unknown = ", ".join(sorted(key.keys() - set(names)))
            missing = ", ".join(name for name in names if name not in key)
            raise DeclarationError(
                f"get_image_set() of {self!r} takes {', '.join(names)}"
                + (f"; missing: {missing}" if missing else "")
                + (f"; unknown: {unknown}" if unknown else "")
            )
        empty = [name for name, value in key.items() if value is None]
        if empty:
            raise DeclarationError(f"get_image_set() of {self!r}: {', '.join(empty)} may not be None")
        return ImageSubset(self._rows, {name: key[name] for name in names})

    @property
    def image_sets(self) -> list[ImageSubset[I]]:
        """The attached pictures, in order of their keys, or as the relationship's ``order_by`` has them.

        Raises:
            NotLoadedError: The rows are not loaded.
        """
        names = self._rows.attachment.discriminators
        keys = self._rows.places()
        if not self._rows.attachment.relationship.order_by:
            keys.sort()
        return [ImageSubset(self._rows, dict(zip(names, key, strict=True))) for key in keys]

    async def load(self) -> None:
        """Load the rows from the database, also where they are loaded already; pending changes are not flushed."""
        await self._rows.load(again=True)

    async def delete(self) -> None:
        """Take all pictures away; the rows go with the next flush, the files after the commit."""
        await self._rows.load(again=True)
        await self._rows.remove([row for place in self._rows.places() for row in self._rows.members(place)])

    def __iter__(self) -> Iterator[ImageSubset[I]]:
        return iter(self.image_sets)

    def __len__(self) -> int:
        return len(self.image_sets)

    def __bool__(self) -> bool:
        return bool(self._rows.places())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {type(self._rows.owner).__name__}.{self._rows.name}>"
