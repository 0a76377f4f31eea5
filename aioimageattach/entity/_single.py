"""Image set for attachments with one image per owner."""

from __future__ import annotations

from typing import Any, TypeVar

from ._image import Image
from ._imageset import BaseImageSet

__all__ = ["ImageSet", "SingleImageSet"]

I = TypeVar("I", bound=Image)  # noqa: E741


class SingleImageSet(BaseImageSet[I]):
    """The image of an owner and its thumbnails; the value of an ``image_attachment(...)`` attribute."""

    __slots__ = ()

    @property
    def identity(self) -> dict[str, Any]:
        """An empty dictionary, because an owner has only one such set."""
        return {}


ImageSet = SingleImageSet
"""Alias of :class:`SingleImageSet`: its name in SQLAlchemy-ImageAttach before version 1.0."""
