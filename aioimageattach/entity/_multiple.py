"""Image sets for attachments with any number of images per owner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy.orm.attributes import set_attribute

from ..exc import DeclarationError
from ._collection import Collection
from ._gallery import renumbered
from ._image import Image
from ._imageset import BaseImageSet
from ._mapping import default_of

__all__ = ["ImageSubset", "MultipleImageSet"]

I = TypeVar("I", bound=Image)  # noqa: E741


class ImageSubset(BaseImageSet[I]):
    """One of the images of an owner, with its thumbnails; returned by :meth:`MultipleImageSet.get_image_set`."""

    __slots__ = ("_identity",)

    def __init__(self, rows: Collection[I], identity: dict[str, Any]) -> None:
        super().__init__(rows)
        self._identity = identity

    @property
    def identity(self) -> dict[str, Any]:
        """The key attributes that distinguish this image from the owner's others."""
        return dict(self._identity)


class MultipleImageSet(Generic[I]):
    """All images of an owner; the value of an ``image_attachment(..., uselist=True)`` attribute.

    Its elements are image sets. It supports iteration, ``len()`` and access by key with :meth:`get_image_set`. It is a
    view and holds no data, like its elements.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Collection[I]) -> None:
        self._rows = rows

    def get_image_set(self, **key: Any) -> ImageSubset[I]:
        """Return the image set with the given key. If it is empty, you can attach an image to it.

        Args:
            key: A value for each primary key attribute that distinguishes the owner's images. Omit an attribute with
                a default, such as ``default=uuid4``, to create a new image.

                The owner's own key is accepted too, so that ``get_image_set(**image.identity_map)`` works.

        Raises:
            DeclarationError: An attribute is missing, unknown or ``None``, or is the key of another owner.
        """
        names = self._rows.attachment.discriminators
        for source, name in self._rows.attachment.pairs:
            if name in key and key[name] == self._rows.state.dict.get(source, key[name]):
                del key[name]
        for name in names:
            default = None if name in key else default_of(self._rows.attachment.image, name)
            if default is not None:
                key[name] = default()
        if key.keys() != set(names):
            raise DeclarationError(
                f"get_image_set() of {self!r}: expected {', '.join(names)}, got {', '.join(sorted(key)) or 'nothing'}"
            )
        empty = [name for name, value in key.items() if value is None]
        if empty:
            raise DeclarationError(f"get_image_set() of {self!r}: expected a value of {', '.join(empty)}, got None")
        return ImageSubset(self._rows, {name: key[name] for name in names})

    @property
    def image_sets(self) -> list[ImageSubset[I]]:
        """The attached images, sorted by key, or in the order in which ``order_by`` puts their originals.

        Raises:
            NotLoadedError: The rows are not loaded.
        """
        names = self._rows.attachment.discriminators
        return [ImageSubset(self._rows, dict(zip(names, key, strict=True))) for key in self._rows.set_keys()]

    @property
    def cover(self) -> ImageSubset[I] | None:
        """The first image; ``None`` if no image is attached.

        Raises:
            NotLoadedError: The rows are not loaded.
        """
        return next(iter(self.image_sets), None)

    async def move(self, picture: ImageSubset[I], *, to: int) -> None:
        """Move an image to another position in the order; see :meth:`reorder`.

        Args:
            picture: One of the images.
            to: Its new index; negative numbers count from the end, so that -1 makes it the last.

        Raises:
            ValueError: It is not one of the images.
            DeclarationError: The image class has no position column.
        """
        pictures = await self._locked()
        if picture not in pictures:
            raise ValueError(f"move() of {self!r}: expected one of its images, got {picture!r}")
        pictures.remove(picture)
        pictures.insert(to if to >= 0 else max(0, len(pictures) + 1 + to), picture)
        self._number(pictures)

    async def reorder(self, pictures: Iterable[ImageSubset[I]]) -> None:
        """Put the images in a new order.

        The attachment's ``order_by`` must begin with an integer column of the image class, the position. Only
        originals need a position; new images are added at the end.

        Args:
            pictures: The images in their new order. Those that are omitted follow in their old order.

        Raises:
            ValueError: An image does not belong to the owner, or occurs twice.
            DeclarationError: The image class has no position column.

        Effects: The owner is locked until the end of the transaction, and its images are loaded again. The next flush
        writes the new positions, and never gives two rows the same position.
        """
        present = await self._locked()
        chosen = list(pictures)
        for number, picture in enumerate(chosen):
            if picture not in present or picture in chosen[:number]:
                raise ValueError(f"reorder() of {self!r}: expected each of its images once, got {picture!r}")
        self._number([*chosen, *(picture for picture in present if picture not in chosen)])

    async def _locked(self) -> list[ImageSubset[I]]:
        _ = self._position
        await self._rows.lock()
        return self.image_sets

    @property
    def _position(self) -> str:
        position = self._rows.attachment.position
        if position is None:
            raise DeclarationError(
                f"expected a position column for the images of {self!r}; add a column such as "
                f"`position: Mapped[int | None]` to {self._rows.cls.__name__}, and pass image_attachment() an order_by "
                "that begins with it"
            )
        return position

    def _number(self, pictures: Sequence[ImageSubset[I]]) -> None:
        name = self._position
        originals = [original for picture in pictures if (original := picture.original) is not None]
        for row, position in zip(originals, renumbered([row.__dict__.get(name) for row in originals]), strict=True):
            if row.__dict__.get(name) != position:
                set_attribute(row, name, position)

    async def load(self) -> None:
        """Load the rows from the database, even if they are already loaded. Pending changes are kept, not flushed."""
        await self._rows.load(again=True)

    async def delete(self) -> None:
        """Delete all images. The next flush deletes the rows; the files are deleted after the commit."""
        await self._rows.load(again=True)
        await self._rows.remove([row for set_key in self._rows.unordered() for row in self._rows.members(set_key)])

    def __iter__(self) -> Iterator[ImageSubset[I]]:
        return iter(self.image_sets)

    def __len__(self) -> int:
        return len(self._rows.unordered())

    def __bool__(self) -> bool:
        return bool(self._rows.unordered())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {type(self._rows.owner).__name__}.{self._rows.name}>"
