"""Search: list the files in a store, and find those that no committed row names."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from .._declared.names import DerivedName
from .._inventory import Kind, Reader, Sessions, run_with_reader
from .._inventory.database import SweepLimits, unsafe_reasons
from .._inventory.plan import Progress
from .._listings import merged
from .._names import revision_of, revision_time
from .._transaction.fence import grace_of
from ..exc import ImageAttachError, StoreError
from ..store import KeyedStore, ObjectInfo
from ._lookalikes import Lookalikes

__all__ = ["Orphan", "Search", "SweepOptions", "Tally"]

_BATCH: Final = 1000
_LEGACY_BATCH: Final = 50_000  # larger, because all rows without a revision are read for each batch of legacy names


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that no committed row names, or that was removed for that reason.

    Args:
        object_type: The object type, with which the name begins.
        name: The name in the store.
        size: The size in bytes.
        modified_at: The time when the file was put, according to the store's clock.
        removed: ``True`` if the file is removed.
        error: The error, if the file could not be removed or restored.
    """

    object_type: str
    name: str
    size: int
    modified_at: datetime
    removed: bool = False
    error: StoreError | None = None


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """The options of :func:`sweep`."""

    grace: timedelta
    delete: bool
    permanently: bool
    retention: timedelta
    max_share: float
    limit: int | None
    force: bool
    start_after: str


@dataclass(slots=True)
class Tally:
    """The counts and findings of one pass over the files of an object type."""

    old: int = 0
    orphans: int = 0
    run: int = 0  # consecutive orphans, in order of time, up to the last name
    picture: str = ""  # the revision of the last name; all declared thumbnails of an image count as one orphan
    longest: int = 0
    longest_end: str = ""
    last: str = ""  # the last name of the pass
    reasons: dict[str, bool] = field(default_factory=dict)  # not to remove files; ``True``: can be forced

    def add(self, name: str, is_orphan: bool) -> None:
        """Count a file; files are added in order of name."""
        self.old += 1
        self.orphans += is_orphan
        revision = revision_of(name)
        if revision is not None:
            derived = DerivedName.parse(revision)
            picture = revision if derived is None else derived.public
            self.run = self.run + (picture != self.picture) if is_orphan else 0
            self.picture = picture
            if self.run > self.longest:
                self.longest, self.longest_end = self.run, name


class Search:
    """A search for orphans, during one run of a sweep.

    Args:
        sessions: Factory of sessions.
        store: The store with the files.
        present: The kinds of files of each object type whose tables are in the database.
        lookalikes: The tables to which no class is mapped, but that may name files.
        options: The options of the sweep.
        progress: The progress, which counts the files.
        now: The time when the run started.
    """

    def __init__(
        self,
        sessions: Sessions,
        store: KeyedStore,
        present: Mapping[str, Sequence[Kind]],
        lookalikes: Lookalikes,
        options: SweepOptions,
        progress: Progress,
        now: datetime,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._present = present
        self._lookalikes = lookalikes
        self._options = options
        self._progress = progress
        self._now = now

    async def find_orphans(
        self, object_type: str, tally: Tally, *, removing: bool
    ) -> AsyncGenerator[list[Orphan], None]:
        """List the files of an object type, and yield the orphans in batches."""
        cutoff, prefix, start_after = self._now - self._options.grace, f"{object_type}/", self._options.start_after
        if start_after > prefix and not start_after.startswith(prefix):
            return
        batch: dict[str, ObjectInfo] = {}
        last = max(start_after, prefix)
        async with aclosing(self._candidates(prefix, last, cutoff, removing)) as files:
            async for info in files:
                last = info.name
                if not any(kind.can_have(info.name) for kind in self._present[object_type]):
                    self._progress.counts["foreign"] += not removing
                    continue
                batch[info.name] = info
                if len(batch) >= (_LEGACY_BATCH if revision_of(info.name) is None else _BATCH):
                    yield await self._select_orphans(object_type, batch, tally, removing)
                    self._advance(last, removing)
                    if removing and self.is_limit_reached():
                        return
                    batch = {}
        yield await self._select_orphans(object_type, batch, tally, removing)
        self._advance(last, removing)
        tally.last = last

    def _advance(self, name: str, removing: bool) -> None:
        """Advance the position, unless the files before it are still to be removed in a second pass."""
        if removing or not self._options.delete:
            self._progress.position = name

    async def _candidates(
        self, prefix: str, after: str, cutoff: datetime, removing: bool
    ) -> AsyncGenerator[ObjectInfo, None]:
        """Yield the files that are older than the cutoff. Names with a later time are skipped without being listed."""
        has_times = revision_time(self._store.make_revision()) is not None
        while True:
            jump = ""
            async for info in self._list(prefix, after):
                self._progress.done += not removing
                self._progress.counts["rechecked"] += removing
                revision = revision_of(info.name)
                made_at = None if revision is None else revision_time(revision)
                young = made_at is not None and made_at >= cutoff
                if young and has_times:
                    jump = f"{prefix}{info.name[len(prefix)]}{{"  # follows all names with this time or a later one
                if young or info.modified_at >= cutoff:
                    self._progress.counts["young"] += not removing
                else:
                    yield info
                if jump:
                    break
            if not jump or jump <= after:
                return
            after = jump

    async def _list(self, prefix: str, after: str) -> AsyncIterator[ObjectInfo]:
        """List the stores that are written to, so that the files below an overlay are not touched."""
        parts = self._store.parts(prefix[:-1])
        async for found in merged([part.list_objects(prefix, start_after=after) for part in parts]):
            yield max(found.values(), key=lambda info: info.modified_at)

    async def _select_orphans(
        self, object_type: str, batch: dict[str, ObjectInfo], tally: Tally, removing: bool
    ) -> list[Orphan]:
        """Return the files of a batch that no row names, and count them."""
        unnamed = await self._unnamed(object_type, set(batch), tally)
        if removing:  # a row may have moved from one table to another between the statements
            unnamed = await self._unnamed(object_type, unnamed, tally)
        for name in batch:
            tally.add(name, name in unnamed)
        orphans = [
            Orphan(object_type, info.name, info.size, info.modified_at)
            for name, info in batch.items()
            if name in unnamed
        ]
        if not removing:
            self._progress.counts["named"] += len(batch) - len(orphans)
            self._progress.counts["orphans"] += len(orphans)
            self._progress.bytes += sum(orphan.size for orphan in orphans)
        return orphans

    async def _unnamed(self, object_type: str, names: set[str], tally: Tally) -> set[str]:
        """Return the names that no row contains; record the reasons why the database may not have all rows."""
        # The commit fence refuses to prepare a transaction later than three quarters of the grace time after its first
        # upload, so older prepared transactions may name files that are old enough to be swept.
        limits = SweepLimits(prepared_before=self._now - self._options.grace / 4, max_skew=grace_of(self._sessions) / 8)

        def look_up(reader: Reader, kind: Kind) -> set[str]:
            tally.reasons |= dict.fromkeys(unsafe_reasons(reader, kind.tables, limits), False)
            return kind.named(reader, names, self._store)

        for kind in self._present[object_type]:
            if names:
                try:
                    names = names - await run_with_reader(self._sessions, kind.mapper, partial(look_up, kind=kind))
                except ImageAttachError as error:
                    tally.reasons[str(error)] = False
        if names:
            found, reasons = await self._lookalikes.named(names)
            tally.reasons |= reasons
            names = names - found
        return names

    def is_limit_reached(self) -> bool:
        """Return ``True`` if the largest number of files was removed."""
        return self._options.limit is not None and self._progress.counts["removed"] >= self._options.limit
