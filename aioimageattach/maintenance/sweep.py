"""Files that no committed row names: found, and removed if so asked.

Nothing but a sweep covers rows that go without the session's knowing (bulk deletes, cascades, raw SQL), processes that
are killed, and commits whose outcome nobody learnt. It lists the store, asks the database which of the names rows have,
and takes the rest for orphans if they are old enough: by the time in their name and by the store's clock.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from ..context import resolve_store
from ..exc import DeclarationError, StoreError, SweepRefusedError
from ..inventory import Kind, Sessions, ask, count, kinds, named, related
from ..key import revision_of, revision_time
from ..store import KeyedStore, ObjectInfo, Store
from ..transaction.fence import grace_of
from .database import doubts

__all__ = ["MAX_SHARE", "Orphan", "SweepPlan", "SweepProgress", "sweep"]

MAX_SHARE: Final = 0.1
"""How much of the files of one object type a sweep removes at most, unless it is told otherwise."""

_BATCH: Final = 1000
_OLD_BATCH: Final = 50_000  # rows without a revision are read once for so many names without one


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that no committed row names.

    Args:
        object_type: Whose kind it is.
        name: Its name in the store.
        size: In bytes.
        modified_at: When it was put, says the store.
        removed: Whether it was removed.
        error: Why it could not be removed.
    """

    object_type: str
    name: str
    size: int
    modified_at: datetime
    removed: bool = False
    error: StoreError | None = None


@dataclass(slots=True)
class SweepProgress:
    """How far a sweep is.

    Args:
        listed: Files that were looked at.
        young: Those of them that may still be waiting for their rows.
        named: Those that rows name.
        foreign: Those whose names are none of this library's; they are left alone.
        orphans: Those that no row names.
        orphan_bytes: What these hold together.
        removed: Files that were removed.
        removed_bytes: What these held together.
        failed: Orphans that could not be removed.
        unfinished: Unfinished uploads that were removed.
        position: The last name that is dealt with; another sweep may start after it.
    """

    listed: int = 0
    young: int = 0
    named: int = 0
    foreign: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0
    failed: int = 0
    unfinished: int = 0
    position: str = ""


@dataclass(slots=True)
class _Tally:
    """What was found of one object type."""

    old: int = 0
    orphans: int = 0
    kinds: list[Kind] = field(default_factory=list)


class SweepPlan:
    """A sweep that is yet to be done: iterate over it with ``async for``, or :meth:`execute` it.

    Attributes:
        progress: How far it is; counted from nothing each time.
        objections: Why it would be refused, after a dry run.
    """

    def __init__(
        self,
        sessions: Sessions,
        prefixes: dict[str, list[Kind]],
        store: KeyedStore,
        *,
        grace: timedelta,
        delete: bool,
        max_share: float,
        force: bool,
        start_after: str,
    ) -> None:
        self._sessions = sessions
        self._prefixes = prefixes
        self._store = store
        self._grace = grace
        self._delete = delete
        self._max_share = max_share
        self._force = force
        self._start_after = start_after
        self.progress: SweepProgress = SweepProgress()
        self.objections: list[str] = []

    def __repr__(self) -> str:
        return f"<SweepPlan of {', '.join(sorted(self._prefixes))} in {self._store!r}>"

    async def execute(self, callback: Callable[[Orphan], object] | None = None) -> SweepProgress:
        """Do it; return what was done.

        Args:
            callback: Called with each orphan; awaited, if it is asynchronous.

        Raises:
            SweepRefusedError: See :func:`sweep`.
            StoreError: The store could not be listed.
        """
        async for orphan in self:
            result = None if callback is None else callback(orphan)
            if inspect.isawaitable(result):
                await result
        return self.progress

    async def __aiter__(self) -> AsyncIterator[Orphan]:
        """Yield each orphan: after it was removed, or where nothing is to be removed, as it is found."""
        now = datetime.now(UTC)
        tallies = {prefix: _Tally(kinds=parts) for prefix, parts in self._prefixes.items()}
        async with aclosing(self._look(now - self._grace, tallies)) as found:
            async for orphans in found:
                for orphan in () if self._delete else orphans:
                    yield orphan
        self.objections, final = await self._object(now, tallies)
        if not self._delete:
            return
        if self.objections and (final or not self._force):
            raise SweepRefusedError(f"nothing was removed: {'; '.join(self.objections)}")
        # The rows are asked again, right before each removal: finding orphans may have taken hours.
        async with aclosing(self._look(now - self._grace, {prefix: _Tally() for prefix in tallies})) as found:
            async for orphans in found:
                for orphan in await self._remove(orphans):
                    yield orphan
        self.progress.unfinished = await self._store.discard_unfinished(now - self._grace)

    async def _look(self, cutoff: datetime, tallies: dict[str, _Tally]) -> AsyncGenerator[list[Orphan], None]:
        """Go through the store, and yield the orphans a batch at a time."""
        self.progress = SweepProgress(position=self._start_after)
        timed = revision_time(self._store.make_revision()) is not None
        for prefix in sorted(tallies):
            if self._start_after > prefix and not self._start_after.startswith(prefix):
                continue
            batch: dict[str, ObjectInfo] = {}
            last = max(self._start_after, prefix)
            async with aclosing(_candidates(self._store, prefix, last, cutoff, self.progress, timed)) as files:
                async for info in files:
                    last = info.name
                    if not any(kind.knows(info.name) for kind in self._prefixes[prefix]):
                        self.progress.foreign += 1
                        continue
                    batch[info.name] = info
                    if len(batch) >= (_OLD_BATCH if revision_of(info.name) is None else _BATCH):
                        yield await self._judge(prefix, batch, tallies[prefix])
                        self.progress.position, batch = last, {}
            yield await self._judge(prefix, batch, tallies[prefix])
            self.progress.position = last

    async def _judge(self, prefix: str, batch: dict[str, ObjectInfo], tally: _Tally) -> list[Orphan]:
        """Return those of a batch that no row names."""
        if not batch:
            return []
        known = set[str]()
        for kind in self._prefixes[prefix]:
            known |= await named(self._sessions, kind, batch.keys() - known, self._store)
        orphans = [
            Orphan(prefix[:-1], info.name, info.size, info.modified_at)
            for name, info in batch.items()
            if name not in known
        ]
        self.progress.named += len(known)
        self.progress.orphans += len(orphans)
        self.progress.orphan_bytes += sum(orphan.size for orphan in orphans)
        tally.old += len(batch)
        tally.orphans += len(orphans)
        return orphans

    async def _object(self, now: datetime, tallies: dict[str, _Tally]) -> tuple[list[str], bool]:
        """Return why the sweep is refused, and whether force does not help."""
        asked = {kind: None for tally in tallies.values() for kind in tally.kinds}
        found: dict[str, None] = {}
        before = now - self._grace / 4  # the fence lets nobody prepare later than three quarters after the first put
        for kind in asked:
            found |= dict.fromkeys(await ask(self._sessions, partial(doubts, kind=kind, before=before)))
        if found:
            return list(found), True
        for prefix, tally in sorted(tallies.items()):
            if not tally.orphans:
                continue
            rows = sum([await count(self._sessions, kind) for kind in tally.kinds])
            if not rows:
                found[f"the database has no row for {tally.orphans:,} files of {prefix} (is it the right one?)"] = None
            elif tally.orphans > self._max_share * tally.old:
                share = f"{tally.orphans:,} of {tally.old:,} files of {prefix} are orphans"
                found[f"{share}, more than the share of {self._max_share:.0%} that it may remove (max_share)"] = None
        return list(found), False

    async def _remove(self, orphans: list[Orphan]) -> list[Orphan]:
        failed = await self._store.delete_objects([orphan.name for orphan in orphans])
        done: list[Orphan] = []
        for one in orphans:
            error = failed.get(one.name)
            done.append(Orphan(one.object_type, one.name, one.size, one.modified_at, error is None, error))
            if error is None:
                self.progress.removed += 1
                self.progress.removed_bytes += one.size
            else:
                self.progress.failed += 1
        return done


async def _candidates(
    store: KeyedStore, prefix: str, after: str, cutoff: datetime, progress: SweepProgress, timed: bool
) -> AsyncGenerator[ObjectInfo, None]:
    """Yield the files that are older than the cutoff, without listing what names alone tell to be younger."""
    while True:
        jump = ""
        async for info in store.list_objects(prefix, start_after=after):
            progress.listed += 1
            revision = revision_of(info.name)
            made_at = None if revision is None else revision_time(revision)
            if made_at is not None and made_at >= cutoff and timed:
                jump = f"{prefix}{info.name[len(prefix)]}{{"  # behind all names of this time and later
                progress.young += 1
                break
            if info.modified_at >= cutoff or (made_at is not None and made_at >= cutoff):
                progress.young += 1
                continue
            yield info
        if not jump or jump <= after:
            return
        after = jump


def sweep(
    sessions: Sessions,
    target: Any,
    store: Store | None = None,
    *,
    grace: timedelta | None = None,
    delete: bool = False,
    max_share: float = MAX_SHARE,
    force: bool = False,
    start_after: str = "",
    object_types: Iterable[str] | None = None,
) -> SweepPlan:
    """Plan to find, and if so asked remove, the files that no committed row names.

    Memory stays flat, and the cost follows the number of files that are older than the grace time. Uploads, other
    sweeps and migrations may go on meanwhile.

    Args:
        sessions: What makes sessions of the database that has all rows: a sessionmaker, or a session like those.
        target: The declarative base, or one class, whose files are looked at; those of other classes never are.
        store: Where; ``None`` for the current store, or that of the sessions. It has to be a :class:`KeyedStore`.
        grace: How old a file has to be at least; ``None`` for that of the sessions, a day.
        delete: Whether to remove what is found; otherwise it is only told.
        max_share: What share of the files of one object type, 0 to 1, may be removed.
        force: Remove also where a table is empty, the share is larger, or ``grace`` is shorter than the sessions say.
            The last is safe only while nobody uploads.
        start_after: Go on after this name, which :attr:`SweepProgress.position` of an earlier sweep tells.
        object_types: What the names begin with; needed for classes where that depends on the row.

    Returns:
        A plan: iterate over it, or await :meth:`SweepPlan.execute`.

    Raises:
        SweepRefusedError: From the plan, before anything is removed: the database is a replica, has old prepared
            transactions (these two whether forced or not), has no rows, or lacks rows for too many files.
        DeclarationError: A class or the store is not fit for it.
        ValueError: An argument is out of range.
        ContextError: No store is named anywhere.

    Effects: A file is removed only after the rows were asked for it once more. An error or a cancellation leaves the
        rest as it is; what was removed was removed.
    """
    usual = grace_of(sessions)
    grace = usual if grace is None else grace
    if grace < timedelta(0):
        raise ValueError(f"grace: expected a time that is not negative, got {grace}")
    if delete and grace < usual and not force:
        raise ValueError(
            f"grace: {grace} is shorter than {usual}, within which transactions may still be committed; set_grace() "
            "makes it shorter for them too, and force=True is safe while nobody uploads"
        )
    if not 0 <= max_share <= 1:
        raise ValueError(f"max_share: expected 0 to 1, got {max_share}")
    found = resolve_store(store, session=sessions)
    if not isinstance(found, KeyedStore):
        raise DeclarationError(f"{found!r} cannot be listed: a sweep needs a KeyedStore")
    return SweepPlan(
        sessions,
        _prefixes(target, object_types),
        found,
        grace=grace,
        delete=delete,
        max_share=max_share,
        force=force,
        start_after=start_after,
    )


def _prefixes(target: Any, object_types: Iterable[str] | None) -> dict[str, list[Kind]]:
    """What to list, and all kinds of files that may stand there: also of classes that are not looked at."""
    everything = related(target)
    chosen = set(object_types or ())
    for kind in kinds(target) if object_types is None else ():
        if kind.object_types is None:
            raise DeclarationError(
                f"{kind.cls.__name__}.object_type depends on the row: name them all with object_types=[...]"
            )
        chosen |= kind.object_types
    if not chosen:
        raise ValueError("object_types: expected one at least")
    return {
        f"{one}/": [kind for kind in everything if kind.object_types is None or one in kind.object_types]
        for one in chosen
    }
