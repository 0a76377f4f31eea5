"""Find and delete the files of thumbnails that are no longer declared."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from .._declared.maker import Original, thumbnail_of
from .._declared.names import DerivedName, derived_type
from .._declared.srcset import Declarations
from .._inventory import Sessions
from ..exc import UsageError
from ..store import KeyedStore, ObjectInfo
from ._maker import ThumbnailMaker
from ._marks import drop_outdated_marks, has_marks

__all__ = ["find_outdated", "prune"]

_BATCH: Final = 1000
_LAST: Final = "~"  # sorts after every character of a revision


async def prune(
    maker: ThumbnailMaker, object_types: Iterable[str], before: datetime, *, delete: bool, sessions: Sessions | None
) -> AsyncGenerator[ObjectInfo, None]:
    """Yield the files of thumbnails that are no longer declared, and delete them on request.

    Args:
        maker: The maker with the store, and with the declarations of all classes that may have the object types.
        object_types: Object types of the originals.
        before: Files written at this time or later are skipped.
        delete: ``True`` to delete the files. Outdated marks of the row are removed first; each file is deleted before
            it is yielded.
        sessions: Factory of sessions; required to delete files if a class has marks.

    Raises:
        UsageError: A class has marks, and no sessions are given.
        StoreError: The store could not be listed, or a file could not be deleted.
        SQLAlchemyError: The marks could not be changed.
    """
    marking = [cls for cls in maker.classes if has_marks(cls)] if delete else []
    if marking and sessions is None:
        raise UsageError(
            f"sessions: expected an async_sessionmaker, got None; {marking[0].__name__} has ThumbnailMarks, and the "
            "marks must be removed from its rows before the files are deleted"
        )

    async def pruned(batch: dict[ObjectInfo, str]) -> list[ObjectInfo]:
        if delete and batch:
            if sessions is not None:
                await drop_outdated_marks(sessions, marking, maker.store, batch.values())
            for error in (await maker.store.delete_objects([info.name for info in batch])).values():
                raise error
        return list(batch)

    for object_type in object_types:
        batch: dict[ObjectInfo, str] = {}
        outdated = find_outdated(maker.store, object_type, maker.declared(object_type), before)
        async with aclosing(outdated) as found:
            async for original, info in found:
                batch[info] = original.revision
                if len(batch) >= _BATCH:
                    for one in await pruned(batch):
                        yield one
                    batch = {}
        for one in await pruned(batch):
            yield one


async def find_outdated(
    store: KeyedStore, object_type: str, declared: Sequence[Declarations], before: datetime
) -> AsyncGenerator[tuple[Original, ObjectInfo], None]:
    """Yield the files of thumbnails that are no longer declared and whose original exists, each with its original.

    The prefixes of the originals and of the thumbnails are each listed once, in the same order.

    Args:
        store: The store to search.
        object_type: Object type of the originals.
        declared: The declarations of the classes.
        before: Files written at this time or later are skipped.
    """
    originals = _Originals(store.list_objects(f"{object_type}/"))
    async for info in store.list_objects(f"{derived_type(object_type)}/"):
        name = DerivedName.of_file(info.name)
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
