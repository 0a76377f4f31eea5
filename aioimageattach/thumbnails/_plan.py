"""The base class of the plans that generate thumbnails for many pictures, and their results."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .._inventory.plan import Plan
from ..key import ImageKey

__all__ = ["ThumbnailFailure", "ThumbnailPlan", "ThumbnailProgress", "Thumbnails"]

_FAILURES_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """The new thumbnails of one picture: committed rows with their files, or the files of declared thumbnails.

    Args:
        owner: Class of the owner. For declared thumbnails, the image class.
        identity: Primary key of the owner. For declared thumbnails, that of the original's row.
        picture: Values that identify the picture among those of the owner; empty if an owner has only one, and for
            declared thumbnails.
        keys: Keys of the new thumbnails.
        byte_size: Total size of the new thumbnails, in bytes.
    """

    owner: type[Any]
    identity: tuple[Any, ...]
    picture: dict[str, Any]
    keys: tuple[ImageKey, ...]
    byte_size: int


@dataclass(frozen=True, slots=True)
class ThumbnailFailure:
    """A picture whose thumbnails could not be generated.

    Args:
        owner: As for :class:`Thumbnails`.
        identity: As for :class:`Thumbnails`.
        picture: As for :class:`Thumbnails`; also empty if the whole transaction failed.
        error: The reason.
    """

    owner: type[Any]
    identity: tuple[Any, ...]
    picture: dict[str, Any]
    error: Exception


@dataclass(slots=True)
class ThumbnailProgress:
    """Progress of a plan.

    Args:
        total: Number of pictures when the plan started; ``None`` before that.
        done: Number of pictures processed so far.
        made: Number of thumbnails generated.
        bytes: Total size of these thumbnails, in bytes.
        failed: Number of failures.
        enqueued: Number of pictures that were passed to workers.
        gone: Number of pictures whose original was deleted in the meantime, or is missing; see
            :func:`~aioimageattach.maintenance.verify`.
        marked: Number of rows that were marked.
        position: All originals up to this one are done; pass it as ``start_after`` to continue there.
    """

    total: int | None = None
    done: int = 0
    made: int = 0
    bytes: int = 0
    failed: int = 0
    enqueued: int = 0
    gone: int = 0
    marked: int = 0
    position: str = ""


class ThumbnailPlan(Plan[Thumbnails, ThumbnailProgress], ABC):
    """Plan that generates missing thumbnails, returned by :func:`generate` and :func:`backfill`.

    The plan does nothing until you iterate over it or await :meth:`execute`.

    Attributes:
        progress: The current progress.
        failures: The pictures whose thumbnails could not be generated; at most 10,000 of them.
    """

    def __init__(self) -> None:
        super().__init__(ThumbnailProgress)
        self.failures: list[ThumbnailFailure] = []

    def _count(self, looked: int, made: Sequence[Thumbnails], failures: Sequence[ThumbnailFailure]) -> None:
        """Add the results for some pictures to the progress."""
        self.failures += failures[: _FAILURES_KEPT - len(self.failures)]
        self.progress.done += looked
        self.progress.failed += len(failures)
        self.progress.made += sum(len(one.keys) for one in made)
        self.progress.bytes += sum(one.byte_size for one in made)
