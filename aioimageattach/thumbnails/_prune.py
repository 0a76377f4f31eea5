"""Find the files of thumbnails that are no longer declared."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime

from .._declared.maker import Original, thumbnail_of
from .._declared.names import DerivedName, derived_type
from .._declared.srcset import Declarations
from .._names import revision_of
from ..store import KeyedStore, ObjectInfo

__all__ = ["find_outdated"]

_LAST = "~"  # sorts after every character of a revision


async def find_outdated(
    store: KeyedStore, object_type: str, declared: Sequence[Declarations], before: datetime
) -> AsyncGenerator[tuple[Original, ObjectInfo], None]:
    """Yield the files of thumbnails whose original exists, but that no class declares any more, with the original.

    The prefixes of the originals and of the thumbnails are each listed once, in the same order.

    Args:
        store: The store to search.
        object_type: Object type of the originals.
        declared: The declarations of the classes.
        before: Files written at this time or later are skipped.
    """
    originals = _Originals(store.list_objects(f"{object_type}/"))
    async for info in store.list_objects(f"{derived_type(object_type)}/"):
        name = DerivedName.parse(revision_of(info.name) or "")
        if name is None or info.modified_at >= before:
            continue
        original = await originals.find(name)
        if original is None:
            continue  # the file is orphaned, or its name is forged: leave it to the sweep
        thumbnail = thumbnail_of(original, name, declared)
        if thumbnail is None or info.name not in {thumbnail.name_of(step) for step in thumbnail.ladder.steps}:
            yield original, info


class _Originals:
    """A listing of originals, read only as far as needed to look up thumbnails in order."""

    def __init__(self, listing: AsyncIterator[ObjectInfo]) -> None:
        self._listing = listing
        self._ahead: list[Original] = []  # originals from the last public part onwards
        self._ended = False

    async def find(self, name: DerivedName) -> Original | None:
        """Return the original for which a name was issued; ``None`` if there is none."""
        self._ahead = [one for one in self._ahead if one.revision >= name.public]
        while not self._ended and not (self._ahead and self._ahead[-1].revision > name.public + _LAST):
            info = await anext(self._listing, None)
            original = None if info is None else Original.parse(info.name)
            self._ended = info is None
            if original is not None and original.revision >= name.public:
                self._ahead.append(original)
        return next((one for one in self._ahead if name.belongs_to(one.revision)), None)
