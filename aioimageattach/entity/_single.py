"""One picture per owner."""

from __future__ import annotations

from typing import Any, TypeVar

from ._image import Image
from ._imageset import BaseImageSet

__all__ = ["ImageSet", "SingleImageSet"]

I = TypeVar("I", bound=Image)  # noqa: E741


class SingleImageSet(BaseImageSet[I]):
    """The one picture of an owner, in its sizes; what ``image_attachment(...)`` gives."""

    __slots__ = ()

    @property
    def identity(self) -> dict[str, Any]:
        """Empty: an owner has one such set."""
        return {}


ImageSet = SingleImageSet
"""The name of SQLAlchemy-ImageAttach before its version 1.0."""
