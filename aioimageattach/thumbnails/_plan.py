"""The base class of the plans that generate thumbnails for many images, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._inventory.plan import Plan
from ..key import ImageKey

__all__ = ["ThumbnailPlan", "Thumbnails"]


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """The new thumbnails of one image: committed rows with their files, or the files of declared thumbnails.

    If they could not be generated, ``error`` is set, and there are no keys.

    Args:
        owner: Class of the owner. For declared thumbnails, the image class.
        identity: Primary key of the owner. For declared thumbnails, that of the original's row.
        picture: Values that identify the image among those of the owner; empty if an owner has only one, for
            declared thumbnails, and if a whole transaction failed.
        keys: Keys of the new thumbnails.
        byte_size: Total size of the new thumbnails, in bytes.
        error: The error, if they could not be generated.
    """

    owner: type[Any]
    identity: tuple[Any, ...]
    picture: dict[str, Any]
    keys: tuple[ImageKey, ...] = ()
    byte_size: int = 0
    error: Exception | None = None


class ThumbnailPlan(Plan[Thumbnails]):
    """A plan that generates missing thumbnails."""

    _outcomes = ("made", "enqueued", "gone", "marked", "placeholders")

    def _count(self, looked: int, made: Sequence[Thumbnails], failures: Sequence[Thumbnails]) -> None:
        """Add the results for some images to the progress."""
        self._add_failures(failures)
        self.progress.done += looked
        self.progress.counts["made"] += sum(len(one.keys) for one in made)
        self.progress.bytes += sum(one.byte_size for one in made)
