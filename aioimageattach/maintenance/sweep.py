"""Files that no committed row names: found, and removed if so asked.

Nothing but a sweep covers rows that go without the session's knowing (bulk deletes, cascades, raw SQL), processes that
are killed, and commits whose outcome nobody learnt. It lists the store, asks the database which of the names rows have,
and takes the rest for orphans if they are old enough: by the time in their name and by the store's clock.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy.orm import Session

from .._plans import carry_out
from ..context import resolve_store
from ..exc import DeclarationError, StoreError, SweepRefusedError
from ..inventory import Kind, Sessions, ask, count, kinds, related
from ..key import revision_of, revision_time
from ..store import KeyedStore, ObjectInfo, Store
from ..transaction.fence import grace_of
from .database import doubts

__all__ = ["MAX_SHARE", "Orphan", "SweepPlan", "SweepProgress", "sweep"]

MAX_SHARE: Final = 0.1
"""How much of the files of one object type a sweep removes at most, unless it is told otherwise."""

_BATCH: Final = 1000
_MAX_LATEST: Final = (
    100  # orphans come one by one; so many in a row, and the newest ones, are those of another database
)
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
    latest: int = 0  # orphans since the last file that a row names, in order of time


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
        self._doubts: dict[str, None] = {}
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
        await carry_out(self.__aiter__(), callback)
        return self.progress

    async def __aiter__(self) -> AsyncGenerator[Orphan, None]:
        """Yield each orphan: after it was removed, or where nothing is to be removed, as it is found."""
        now = datetime.now(UTC)
        self._doubts = {}
        counted = {prefix: _Tally() for prefix in self._prefixes}
        async with aclosing(self._look(now, counted, removing=False)) as found:
            async for orphans in found:
                for orphan in () if self._delete else orphans:
                    yield orphan
        self.objections = list(self._doubts) or await self._object(counted)
        if not self._delete:
            return
        if self.objections and (self._doubts or not self._force):
            raise SweepRefusedError(f"nothing was removed: {'; '.join(self.objections)}")
        # The rows are asked again, right before each removal: finding orphans may have taken hours.
        tallies = {prefix: _Tally() for prefix in self._prefixes}
        async with aclosing(self._look(now, tallies, removing=True)) as found:
            async for orphans in found:
                self._check_again(counted, tallies)
                for orphan in await self._remove(orphans):
                    yield orphan
        self.progress.unfinished = await self._store.discard_unfinished(now - self._grace)

    async def _look(self, now: datetime, tallies: dict[str, _Tally], removing: bool) -> AsyncGenerator[list[Orphan]]:
        """Go through the store, and yield the orphans a batch at a time."""
        cutoff = now - self._grace
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
                        yield await self._judge(now, prefix, batch, tallies[prefix], removing)
                        self._pass(last, removing)
                        batch = {}
            yield await self._judge(now, prefix, batch, tallies[prefix], removing)
            self._pass(last, removing)

    def _pass(self, name: str, removing: bool) -> None:
        """What is only counted, to be removed later, is not dealt with."""
        if removing or not self._delete:
            self.progress.position = name

    async def _judge(
        self, now: datetime, prefix: str, batch: dict[str, ObjectInfo], tally: _Tally, removing: bool
    ) -> list[Orphan]:
        """Return those of a batch that no row names."""
        unnamed = await self._unnamed(now, prefix, set(batch))
        if removing:  # a row may have gone from one table to another between the questions
            unnamed = await self._unnamed(now, prefix, unnamed)
        orphans = [
            Orphan(prefix[:-1], info.name, info.size, info.modified_at)
            for name, info in batch.items()
            if name in unnamed
        ]
        self.progress.named += len(batch) - len(orphans)
        self.progress.orphans += len(orphans)
        self.progress.orphan_bytes += sum(orphan.size for orphan in orphans)
        tally.old += len(batch)
        tally.orphans += len(orphans)
        for name in batch:
            if revision_of(name) is not None:
                tally.latest = tally.latest + 1 if name in unnamed else 0
        return orphans

    async def _unnamed(self, now: datetime, prefix: str, names: set[str]) -> set[str]:
        """Return those of some names that no row has; note why the database may not know of all rows."""
        before = now - self._grace / 4  # the fence lets nobody prepare later than three quarters after the first put

        def question(session: Session, kind: Kind) -> set[str]:
            found = doubts(session, kind, before=before, margin=grace_of(self._sessions) / 8)
            self._doubts |= dict.fromkeys(found)
            return kind.named(session, names, self._store)

        for kind in self._prefixes[prefix]:
            if names:
                names = names - await ask(self._sessions, partial(question, kind=kind))
        return names

    async def _object(self, tallies: dict[str, _Tally]) -> list[str]:
        """Return why the sweep is refused if it is not forced."""
        found: list[str] = []
        for prefix, tally in sorted(tallies.items()):
            if not tally.orphans:
                continue
            rows = sum([await count(self._sessions, kind) for kind in self._prefixes[prefix]])
            if not rows:
                found.append(f"the database has no row for {tally.orphans:,} files of {prefix} (is it the right one?)")
            elif tally.orphans > self._max_share * tally.old:
                share = f"{tally.orphans:,} of {tally.old:,} files of {prefix} are orphans"
                found.append(f"{share}, more than the share of {self._max_share:.0%} that it may remove (max_share)")
            elif tally.latest >= _MAX_LATEST:
                newest = f"the newest {tally.latest:,} of the files of {prefix} that are old enough are all orphans"
                found.append(f"{newest} (is the database a copy, or was it restored from an older one?)")
        return found

    def _check_again(self, counted: dict[str, _Tally], tallies: dict[str, _Tally]) -> None:
        """Stop where the database is not any more what it was when the orphans were counted."""
        problems = list(self._doubts)
        if not self._force:
            problems += [
                f"{tallies[prefix].orphans:,} of {tally.old:,} files of {prefix} are orphans meanwhile, and there were "
                f"{tally.orphans:,}, of which it may remove the share of {self._max_share:.0%} (max_share)"
                for prefix, tally in sorted(counted.items())
                if tallies[prefix].orphans > self._max_share * tally.old
            ]
        if problems:
            raise SweepRefusedError(f"it stopped, {self.progress.removed:,} removed before: {'; '.join(problems)}")

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
        force: Remove also where a table is empty, the share is larger, all of the newest files are orphans, or
            ``grace`` is shorter than the sessions say. The last is safe only while nobody uploads.
        start_after: Go on after this name, which :attr:`SweepProgress.position` of an earlier sweep tells.
        object_types: What the names begin with; needed for classes where that depends on the row.

    Returns:
        A plan: iterate over it, or await :meth:`SweepPlan.execute`.

    Raises:
        SweepRefusedError: From the plan, before anything is removed, or in the middle if things have changed by then:
            the database cannot be believed (see :func:`~aioimageattach.maintenance.database.doubts`), whether forced or
            not; a table has no rows, or there are no rows for too many files, or for all of the newest ones.
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
