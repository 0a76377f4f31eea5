"""Finding the files that no committed row names, and removing them on request.

Only a sweep covers rows that are deleted without the session's knowledge (bulk deletes, cascades, raw SQL), processes
that are killed, and commits with an unknown outcome. It lists the store, asks the database which of the names rows
have, and takes the others for orphans if they are old enough, by the time in their name and by the store's clock.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final

from .._transaction.fence import grace_of
from ..exc import ImageAttachError, StoreError, SweepRefusedError
from ..inventory import Kind, Reader, Sessions, ask, count, kinds
from ..inventory.database import Waiting, unsafe_reasons
from ..inventory.ownership import (
    Identity,
    Owner,
    conflict,
    existing,
    identify,
    keyed,
    read_owner,
    renew,
    types_of,
    write_owner,
)
from ..inventory.plan import Plan
from ..key import revision_of, revision_time
from ..store import KeyedStore, ObjectInfo, Store, merged
from .lookalikes import Lookalikes
from .quarantine import empty, make_sweep_id, quarantine

__all__ = ["MAX_SHARE", "RETENTION", "Objection", "Orphan", "SweepPlan", "SweepProgress", "sweep"]

MAX_SHARE: Final = 0.1
"""Largest share of the files of one object type that a sweep removes by default."""

RETENTION: Final = timedelta(days=30)
"""How long removed files stay in quarantine by default."""

_BATCH: Final = 1000
_FEW: Final = 10  # orphans that are never too large a share
_MANY: Final = 100  # orphans come one by one; so many in a row are the files of another database, or of a lost one
_OLD_BATCH: Final = 50_000  # rows without a revision are read once for so many names without one
_CLOCK: Final = timedelta(seconds=2)  # some stores tell times in whole seconds


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that no committed row names.

    Args:
        object_type: The first part of its name.
        name: Its name in the store.
        size: In bytes.
        modified_at: When it was put, according to the store's clock.
        removed: Whether it was removed.
        error: Why it could not be removed.
    """

    object_type: str
    name: str
    size: int
    modified_at: datetime
    removed: bool = False
    error: StoreError | None = None


@dataclass(frozen=True, slots=True)
class Objection:
    """A reason not to remove the files of an object type.

    Args:
        object_type: The first part of their names.
        reason: What does not look right.
        can_be_forced: Whether ``force=True`` removes them nevertheless.
    """

    object_type: str
    reason: str
    can_be_forced: bool

    def __str__(self) -> str:
        return f"{self.object_type}/: {self.reason}"


@dataclass(slots=True)
class SweepProgress:
    """The progress of a sweep.

    Args:
        listed: Files that were listed.
        young: Those of them that may still be waiting for their rows.
        named: Those that rows name.
        foreign: Those whose names this library would not give; they are left alone.
        orphans: Those that no row names.
        orphan_bytes: Their total size.
        rechecked: Files that were listed again, right before orphans are removed.
        removed: Files that were removed.
        removed_bytes: Their total size.
        failed: Orphans that could not be removed.
        unfinished: Unfinished uploads that were removed.
        emptied: Files of earlier sweeps that were deleted for good, after their time in quarantine.
        position: The last name that is dealt with; another sweep may start after it.
    """

    listed: int = 0
    young: int = 0
    named: int = 0
    foreign: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    rechecked: int = 0
    removed: int = 0
    removed_bytes: int = 0
    failed: int = 0
    unfinished: int = 0
    emptied: int = 0
    position: str = ""


@dataclass(slots=True)
class _Tally:
    """What was found of one object type."""

    old: int = 0
    orphans: int = 0
    run: int = 0  # orphans since the last file that a row names, in order of time
    last: str = ""  # the last name that was looked at
    longest: int = 0
    longest_end: str = ""
    problems: dict[str, None] = field(default_factory=dict)  # that cannot be forced
    doubts: dict[str, None] = field(default_factory=dict)  # that can

    def note(self, name: str, orphaned: bool) -> None:
        self.old += 1
        self.orphans += orphaned
        if revision_of(name) is not None:
            self.run = self.run + 1 if orphaned else 0
            if self.run > self.longest:
                self.longest, self.longest_end = self.run, name


class SweepPlan(Plan[Orphan, SweepProgress]):
    """A sweep that is yet to be done: iterate over it with ``async for``, or :meth:`execute` it.

    Attributes:
        progress: What was done so far; reset at each start.
        objections: The reasons why object types were refused, or after a dry run, would be.
        warnings: After a run, reasons to doubt that it did what was wanted.
        id: After a run that removed files, identifies it for :func:`~aioimageattach.maintenance.undo`.
    """

    def __init__(
        self,
        sessions: Sessions,
        anchor: Kind,
        types: dict[str, list[Kind]],
        store: KeyedStore,
        *,
        grace: timedelta,
        delete: bool,
        permanently: bool,
        retention: timedelta,
        max_share: float,
        limit: int | None,
        force: bool,
        start_after: str,
    ) -> None:
        super().__init__()
        self._sessions = sessions
        self._anchor = anchor
        self._types = types
        self._store = store
        self._grace = grace
        self._delete = delete
        self._permanently = permanently
        self._retention = retention
        self._max_share = max_share
        self._limit = limit
        self._force = force
        self._start_after = start_after
        self._lookalikes = Lookalikes(sessions)
        self.progress = SweepProgress()
        self.objections: list[Objection] = []
        self.id: str | None = None

    def __repr__(self) -> str:
        return f"<SweepPlan of {', '.join(self._types)} in {self._store!r}>"

    async def __aiter__(self) -> AsyncGenerator[Orphan, None]:
        """Yield each orphan: after it was removed, or without ``delete``, when it is found.

        Raises:
            SweepRefusedError: At the end, if some object types were refused; the others were swept.
        """
        now = datetime.now(UTC)
        self.warnings.clear()
        self.objections.clear()
        self.id = None
        self.progress: SweepProgress = SweepProgress(position=self._start_after)
        self._present = {one: await existing(self._sessions, parts, self._anchor) for one, parts in self._types.items()}
        await self._lookalikes.find([kind for parts in self._present.values() for kind in parts] or [self._anchor])
        counted = {one: _Tally() for one in self._types}
        for object_type, tally in counted.items():
            async with aclosing(self._look(now, object_type, tally, removing=False)) as found:
                async for orphans in found:
                    for orphan in () if self._delete else orphans:
                        yield orphan
            self.objections += await self._object(object_type, tally)
        if not self.progress.listed:
            self.warnings.append("there were no files: is it the right store?")
        if self._delete:
            async with aclosing(self._removing(now, counted)) as removed:
                async for orphan in removed:
                    yield orphan
            refused = [one for one in self.objections if not (one.can_be_forced and self._force)]
            if refused:
                what = f"{self.progress.removed:,} files were" if self.progress.removed else "nothing was"
                raise SweepRefusedError(f"{what} removed; refused: {'; '.join(map(str, refused))}")

    def _is_refused(self, object_type: str) -> bool:
        return any(
            one.object_type == object_type and not (one.can_be_forced and self._force) for one in self.objections
        )

    async def _removing(self, now: datetime, counted: dict[str, _Tally]) -> AsyncGenerator[Orphan, None]:
        """Remove the orphans of the types without objections. Rows are asked for them again: hours may have passed."""
        claimed = [one for one, tally in counted.items() if tally.old and not self._is_refused(one)]
        if claimed:
            identity = await renew(self._sessions, self._anchor)
            for object_type in claimed:
                await self._claim(object_type, identity)
        accepted = [one for one in self._types if not self._is_refused(one)]
        sweep_id = make_sweep_id()
        for object_type in accepted:
            if counted[object_type].orphans:
                tally = _Tally()
                async with aclosing(self._look(now, object_type, tally, removing=True)) as found:
                    async for orphans in found:
                        self._check_again(object_type, tally)
                        if self._is_refused(object_type):
                            break
                        for orphan in await self._remove(object_type, orphans, sweep_id):
                            yield orphan
                if self._is_full():
                    self.warnings.append(f"the limit of {self._limit:,} files was reached")
                    return
                if self._is_refused(object_type):
                    continue
            else:
                self.progress.position = counted[object_type].last
            self.progress.unfinished += await self._store.discard_unfinished(now - self._grace, f"{object_type}/")
        parts = {id(part): part for one in accepted for part in self._store.parts(one)}
        self.progress.emptied = await empty(list(parts.values()), accepted, now - self._retention)

    def _is_full(self) -> bool:
        return self._limit is not None and self.progress.removed >= self._limit

    # --- looking -----------------------------------------------------------------------------------------------------

    async def _look(
        self, now: datetime, object_type: str, tally: _Tally, *, removing: bool
    ) -> AsyncGenerator[list[Orphan], None]:
        """Go through the files of an object type, and yield the orphans a batch at a time."""
        cutoff, prefix = now - self._grace, f"{object_type}/"
        if self._start_after > prefix and not self._start_after.startswith(prefix):
            return
        batch: dict[str, ObjectInfo] = {}
        last = max(self._start_after, prefix)
        async with aclosing(self._candidates(prefix, last, cutoff, removing)) as files:
            async for info in files:
                last = info.name
                if not any(kind.knows(info.name) for kind in self._present[object_type]):
                    self.progress.foreign += not removing
                    continue
                batch[info.name] = info
                if len(batch) >= (_OLD_BATCH if revision_of(info.name) is None else _BATCH):
                    yield await self._judge(now, object_type, batch, tally, removing)
                    self._pass(last, removing)
                    if removing and self._is_full():
                        return
                    batch = {}
        yield await self._judge(now, object_type, batch, tally, removing)
        self._pass(last, removing)
        tally.last = last

    def _pass(self, name: str, removing: bool) -> None:
        """Files that are only counted, to be removed later, are not dealt with yet."""
        if removing or not self._delete:
            self.progress.position = name

    async def _candidates(
        self, prefix: str, after: str, cutoff: datetime, removing: bool
    ) -> AsyncGenerator[ObjectInfo, None]:
        """Yield the files that are older than the cutoff, without listing those whose names tell that they are not."""
        timed = revision_time(self._store.make_revision()) is not None
        while True:
            jump = ""
            async for info in self._list(prefix, after):
                self.progress.listed += not removing
                self.progress.rechecked += removing
                revision = revision_of(info.name)
                made_at = None if revision is None else revision_time(revision)
                young = made_at is not None and made_at >= cutoff
                if young and timed:
                    jump = f"{prefix}{info.name[len(prefix)]}{{"  # behind all names of this time and later
                if young or info.modified_at >= cutoff:
                    self.progress.young += not removing
                else:
                    yield info
                if jump:
                    break
            if not jump or jump <= after:
                return
            after = jump

    async def _list(self, prefix: str, after: str) -> AsyncIterator[ObjectInfo]:
        """List the stores that are written to: the files below an overlay are not its own."""
        parts = self._store.parts(prefix[:-1])
        async for found in merged([part.list_objects(prefix, start_after=after) for part in parts]):
            yield max(found.values(), key=lambda info: info.modified_at)

    async def _judge(
        self, now: datetime, object_type: str, batch: dict[str, ObjectInfo], tally: _Tally, removing: bool
    ) -> list[Orphan]:
        """Return those of a batch that no row names."""
        unnamed = await self._unnamed(now, object_type, set(batch), tally)
        if removing:  # a row may have moved from one table to another between the statements
            unnamed = await self._unnamed(now, object_type, unnamed, tally)
        for name in batch:
            tally.note(name, name in unnamed)
        orphans = [
            Orphan(object_type, info.name, info.size, info.modified_at)
            for name, info in batch.items()
            if name in unnamed
        ]
        if not removing:
            self.progress.named += len(batch) - len(orphans)
            self.progress.orphans += len(orphans)
            self.progress.orphan_bytes += sum(orphan.size for orphan in orphans)
        return orphans

    async def _unnamed(self, now: datetime, object_type: str, names: set[str], tally: _Tally) -> set[str]:
        """Return those of some names that no row has; note why the database may not know of all rows."""
        margin = grace_of(self._sessions) / 8
        # the fence lets nobody prepare later than three quarters after the first put
        waiting = Waiting(before=now - self._grace / 4, margin=margin)

        def question(reader: Reader, kind: Kind) -> set[str]:
            tally.problems |= dict.fromkeys(unsafe_reasons(reader, kind.tables, waiting))
            return kind.named(reader, names, self._store)

        for kind in self._present[object_type]:
            if names:
                try:
                    names = names - await ask(self._sessions, kind.mapper, partial(question, kind=kind))
                except ImageAttachError as error:
                    tally.problems[str(error)] = None
        if names:
            found, problems, doubts = await self._lookalikes.named(names)
            tally.problems |= dict.fromkeys(problems)
            tally.doubts |= dict.fromkeys(doubts)
            names = names - found
        return names

    # --- refusing ----------------------------------------------------------------------------------------------------

    async def _object(self, object_type: str, tally: _Tally) -> list[Objection]:
        """Return the objections to removing the orphans of an object type."""
        found = [Objection(object_type, problem, False) for problem in tally.problems]
        found += [Objection(object_type, problem, False) for problem in await self._ownership(object_type)]
        found += [Objection(object_type, doubt, True) for doubt in tally.doubts]
        if not tally.orphans:
            return found
        reason = None
        if not sum([await count(self._sessions, kind) for kind in self._present[object_type]]):
            reason = f"the database has no row for {tally.orphans:,} files (is it the right one?)"
        elif tally.longest >= _MANY:
            revision = revision_of(tally.longest_end) or ""
            moment = revision_time(revision)
            until = "" if moment is None else f", the last of {moment:%Y-%m-%d %H:%M} UTC,"
            reason = (
                f"{tally.longest:,} files in a row{until} are orphans (is the database a copy, was it restored from an "
                "older one, or were so many rows deleted at once?)"
            )
        elif self._is_too_many(tally):
            reason = (
                f"{tally.orphans:,} of {tally.old:,} files are orphans, more than the share of {self._max_share:.0%} "
                "that may be removed (max_share)"
            )
        return found if reason is None else [*found, Objection(object_type, reason, True)]

    def _is_too_many(self, tally: _Tally) -> bool:
        return tally.orphans > max(_FEW, self._max_share * tally.old)

    async def _ownership(self, object_type: str) -> list[str]:
        """Return why files belong to another database, or the store's clock is wrong."""
        found: list[str] = []
        columns = {kind.place for kind in self._present[object_type]}
        for part in self._store.parts(object_type):
            owner = await read_owner(part, object_type)
            if owner is not None:
                problem = conflict(owner, await identify(self._sessions, self._anchor), columns)
                found += [] if problem is None else [f"the files in {part!r} are not this database's: {problem}"]
                found += [] if self._delete else self._late_clock(part, owner)  # else a new record will tell
        return found

    def _late_clock(self, part: KeyedStore, owner: Owner) -> list[str]:
        """Files whose names tell no time look older than they are in a store whose clock is behind."""
        behind = owner.written_at - owner.stored_at
        if behind <= max(grace_of(self._sessions) / 8, _CLOCK):
            return []
        return [f"the clock of {part!r} is {behind} behind: set it right"]

    async def _claim(self, object_type: str, identity: Identity) -> None:
        columns = {kind.place for kind in self._present[object_type]}
        for part in self._store.parts(object_type):
            owner = await write_owner(part, object_type, identity, columns)
            self.objections += [Objection(object_type, reason, False) for reason in self._late_clock(part, owner)]

    def _check_again(self, object_type: str, tally: _Tally) -> None:
        """Object to an object type if the database has changed since the orphans were counted."""
        problems = [Objection(object_type, f"stopped: {one}", False) for one in tally.problems]
        if self._is_too_many(tally):
            reason = (
                f"stopped: by now {tally.orphans:,} of {tally.old:,} files are orphans, more than the share of "
                f"{self._max_share:.0%} that may be removed (max_share)"
            )
            problems.append(Objection(object_type, reason, True))
        self.objections += [one for one in problems if one not in self.objections]

    # --- removing ----------------------------------------------------------------------------------------------------

    async def _remove(self, object_type: str, orphans: list[Orphan], sweep_id: str) -> list[Orphan]:
        if self._limit is not None:
            orphans = list(islice(orphans, max(0, self._limit - self.progress.removed)))
        names = [orphan.name for orphan in orphans]
        if not names:
            return []
        if self._permanently:
            failed: dict[str, StoreError] = {}
            for part in self._store.parts(object_type):
                failed |= await part.delete_objects(names)
        else:
            self.id = sweep_id
            failed = await quarantine(self._store, object_type, names, sweep_id)
        done = [replace(one, removed=one.name not in failed, error=failed.get(one.name)) for one in orphans]
        self.progress.removed += sum(one.removed for one in done)
        self.progress.removed_bytes += sum(one.size for one in done if one.removed)
        self.progress.failed += len(failed)
        return done


def sweep(
    sessions: Sessions,
    target: Any,
    store: Store | None = None,
    *,
    grace: timedelta | None = None,
    delete: bool = False,
    permanently: bool = False,
    retention: timedelta = RETENTION,
    max_share: float = MAX_SHARE,
    limit: int | None = None,
    force: bool = False,
    start_after: str = "",
    object_types: Iterable[str] | None = None,
) -> SweepPlan:
    """Plan to find, and on request remove, the files that no committed row names.

    Memory stays flat, and the cost follows the number of files that are older than the grace time. Uploads, other
    sweeps and migrations may run meanwhile.

    Args:
        sessions: Makes sessions of the database that has all rows: a sessionmaker, or a session like those.
        target: The declarative base, or one class, whose files are looked at; those of other classes never are.
        store: The store; ``None`` for the current store, or that of the sessions. It must be a :class:`KeyedStore`.
        grace: Minimum age of an orphan; ``None`` for that of the sessions, 24 hours.
        delete: Whether to remove what is found; otherwise it is only reported.
        permanently: Whether to delete files immediately, instead of moving them to quarantine.
        retention: How long removed files stay in quarantine; those of earlier sweeps are deleted after this time.
        max_share: Largest share of the files of one object type, 0 to 1, that may be removed. Up to ten files may be
            removed in any case.
        limit: Largest number of files to remove; ``None`` for no limit.
        force: Whether to remove files nevertheless if a table is empty, the share is larger, a hundred files in a row
            are orphans, or ``grace`` is shorter than the sessions say. The last is safe only while nobody uploads. Name
            the object type in question: ``force`` is about all that are swept.
        start_after: Start after this name, the :attr:`SweepProgress.position` of an earlier sweep.
        object_types: The first parts of the files' names; needed for classes with object types that depend on the row.

    Returns:
        A plan: iterate over it, or await :meth:`SweepPlan.execute`.

    Raises:
        SweepRefusedError: From the plan, at its end: some object types were refused, and nothing of those was removed.
            The database cannot be believed (see :mod:`aioimageattach.inventory.database`), or the files belong to
            another one (see :func:`own`), whether forced or not; or one of the cases of ``force``.
        OwnershipError: From the plan: the record of ownership in the store cannot be read.
        DeclarationError: A class or the store is not fit for it.
        ValueError: An argument is out of range.
        ContextError: No store is named anywhere.

    Effects: A file is removed only after the rows were asked for it once more. :func:`undo` restores those in
        quarantine. The store records which database its files belong to. An error or a cancellation leaves the other
        orphans where they are.
    """
    usual = grace_of(sessions)
    grace = usual if grace is None else grace
    for label, value in (("grace", grace), ("retention", retention)):
        if value < timedelta(0):
            raise ValueError(f"{label}: expected a time that is not negative, got {value}")
    if delete and grace < usual and not force:
        raise ValueError(
            f"grace: {grace} is shorter than {usual}, within which transactions may still be committed; set_grace() "
            "makes it shorter for them too, and force=True is safe while nobody uploads"
        )
    if not 0 <= max_share <= 1:
        raise ValueError(f"max_share: expected 0 to 1, got {max_share}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1, got {limit}")
    return SweepPlan(
        sessions,
        kinds(target)[0],
        types_of(target, object_types),
        keyed(store, sessions),
        grace=grace,
        delete=delete,
        permanently=permanently,
        retention=retention,
        max_share=max_share,
        limit=limit,
        force=force,
        start_after=start_after,
    )
