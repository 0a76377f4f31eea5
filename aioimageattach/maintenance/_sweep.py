"""Sweep: find the files that no committed row names, and remove them on request.

Only a sweep covers rows that are deleted without the session's knowledge (bulk deletes, cascades, raw SQL), processes
that are killed, and commits with an unknown outcome. It lists the store, asks the database which of the names its rows
contain, and considers the others orphans if both the time in their name and the store's clock say that they are old
enough.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final

from .._declared.names import DerivedName
from .._inventory import Kind, Reader, Sessions, count, kinds, run_with_reader
from .._inventory.database import SweepLimits, unsafe_reasons
from .._inventory.derived import with_derived
from .._inventory.ownership import (
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
from .._inventory.plan import Plan
from .._listings import merged
from .._names import revision_of, revision_time
from .._transaction.fence import grace_of
from ..exc import ImageAttachError, StoreError, SweepRefusedError
from ..store import KeyedStore, ObjectInfo, Store
from ._lookalikes import Lookalikes
from ._quarantine import delete_expired, make_sweep_id, quarantine

__all__ = ["MAX_SHARE", "RETENTION", "Objection", "Orphan", "SweepPlan", "SweepProgress", "sweep"]

MAX_SHARE: Final = 0.1
"""Largest share of the files of one object type that a sweep removes by default."""

RETENTION: Final = timedelta(days=30)
"""How long removed files stay in quarantine by default."""

_BATCH: Final = 1000
_LEGACY_BATCH: Final = 50_000  # larger, because all rows without a revision are read for each batch of legacy names
_FEW: Final = 10  # orphans, which are never too large a share
_MANY: Final = 100  # consecutive orphans: ordinary ones appear one by one, but a copy or a lost table has many
_CLOCK_RESOLUTION: Final = timedelta(seconds=2)  # some stores report times in whole seconds


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that no committed row names.

    Args:
        object_type: The object type, with which the name begins.
        name: The name in the store.
        size: The size in bytes.
        modified_at: When the file was put, according to the store's clock.
        removed: ``True`` if the file was removed.
        error: Why the file could not be removed.
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
        object_type: The object type.
        reason: What is wrong.
        can_be_forced: ``True`` if ``force=True`` removes the files nevertheless.
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
        young: Listed files whose transactions may not have ended yet.
        named: Listed files that rows name.
        foreign: Listed files with names that this library does not generate; they are not touched.
        orphans: Listed files that no row names.
        orphan_bytes: Total size of the orphans.
        rechecked: Files that were listed again, immediately before orphans are removed.
        removed: Orphans that were removed.
        removed_bytes: Total size of the removed orphans.
        failed: Orphans that could not be removed.
        unfinished: Unfinished uploads that were deleted.
        emptied: Files of earlier sweeps that were deleted from quarantine.
        position: The last name that was processed; another sweep can start after it.
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


@dataclass(frozen=True, slots=True)
class _Options:
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
class _Tally:
    """The counts and findings of one pass over the files of an object type."""

    old: int = 0
    orphans: int = 0
    run: int = 0  # consecutive orphans, in order of time, up to the last name
    picture: str = ""  # the revision of the last name; all declared thumbnails of a picture count as one orphan
    longest: int = 0
    longest_end: str = ""
    last: str = ""  # the last name of the pass
    reasons: dict[str, bool] = field(default_factory=dict)  # not to remove files, and whether each can be forced

    def add(self, name: str, is_orphan: bool) -> None:
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


class SweepPlan(Plan[Orphan, SweepProgress]):
    """A sweep that has not started yet.

    It yields each orphan after it was removed or could not be, or without ``delete``, when it is found. At its end it
    raises :exc:`~aioimageattach.exc.SweepRefusedError` if some object types were refused; the others were swept.

    Attributes:
        progress: Counts of the current run, or of the last one; reset when a run starts.
        objections: Why object types were refused, or after a dry run, would be refused.
        warnings: Reasons to doubt that the last run did what was wanted.
        id: Identifies the last run for :func:`~aioimageattach.maintenance.undo`; ``None`` if it quarantined no files.
    """

    def __init__(
        self, sessions: Sessions, anchor: Kind, types: dict[str, list[Kind]], store: KeyedStore, options: _Options
    ) -> None:
        super().__init__(SweepProgress)
        self._sessions = sessions
        self._anchor = anchor
        self._types = types
        self._store = store
        self._options = options
        self._lookalikes = Lookalikes(sessions)
        self.objections: list[Objection] = []
        self.id: str | None = None

    def __repr__(self) -> str:
        return f"<SweepPlan of {', '.join(self._types)} in {self._store!r}>"

    async def _run(self) -> AsyncGenerator[Orphan, None]:
        now = datetime.now(UTC)
        self.objections.clear()
        self.id = None
        self.progress.position = self._options.start_after
        self._present = {one: await existing(self._sessions, parts, self._anchor) for one, parts in self._types.items()}
        await self._lookalikes.find([kind for parts in self._present.values() for kind in parts] or [self._anchor])
        tallies = {one: _Tally() for one in self._types}
        for object_type, tally in tallies.items():
            async with aclosing(self._find_orphans(now, object_type, tally, removing=False)) as batches:
                async for orphans in batches:
                    for orphan in () if self._options.delete else orphans:
                        yield orphan
            self.objections += await self._object(object_type, tally)
        if not self.progress.listed:
            self.warnings.append("there were no files: is it the right store?")
        if self._options.delete:
            async with aclosing(self._remove_all(now, tallies)) as removed:
                async for orphan in removed:
                    yield orphan
            refused = [one for one in self.objections if not (one.can_be_forced and self._options.force)]
            if refused:
                what = f"{self.progress.removed:,} files were" if self.progress.removed else "nothing was"
                raise SweepRefusedError(f"{what} removed; refused: {'; '.join(map(str, refused))}")

    def _is_refused(self, object_type: str) -> bool:
        return any(
            one.object_type == object_type and not (one.can_be_forced and self._options.force)
            for one in self.objections
        )

    # --- finding orphans ---------------------------------------------------------------------------------------------

    async def _find_orphans(
        self, now: datetime, object_type: str, tally: _Tally, *, removing: bool
    ) -> AsyncGenerator[list[Orphan], None]:
        """List the files of an object type, and yield the orphans in batches."""
        cutoff, prefix, start_after = now - self._options.grace, f"{object_type}/", self._options.start_after
        if start_after > prefix and not start_after.startswith(prefix):
            return
        batch: dict[str, ObjectInfo] = {}
        last = max(start_after, prefix)
        async with aclosing(self._candidates(prefix, last, cutoff, removing)) as files:
            async for info in files:
                last = info.name
                if not any(kind.can_have(info.name) for kind in self._present[object_type]):
                    self.progress.foreign += not removing
                    continue
                batch[info.name] = info
                if len(batch) >= (_LEGACY_BATCH if revision_of(info.name) is None else _BATCH):
                    yield await self._select_orphans(now, object_type, batch, tally, removing)
                    self._advance(last, removing)
                    if removing and self._is_limit_reached():
                        return
                    batch = {}
        yield await self._select_orphans(now, object_type, batch, tally, removing)
        self._advance(last, removing)
        tally.last = last

    def _advance(self, name: str, removing: bool) -> None:
        """Move the position, unless the files before it are yet to be removed in a second pass."""
        if removing or not self._options.delete:
            self.progress.position = name

    async def _candidates(
        self, prefix: str, after: str, cutoff: datetime, removing: bool
    ) -> AsyncGenerator[ObjectInfo, None]:
        """Yield the files that are older than the cutoff. Names with a later time are skipped without being listed."""
        has_times = revision_time(self._store.make_revision()) is not None
        while True:
            jump = ""
            async for info in self._list(prefix, after):
                self.progress.listed += not removing
                self.progress.rechecked += removing
                revision = revision_of(info.name)
                made_at = None if revision is None else revision_time(revision)
                young = made_at is not None and made_at >= cutoff
                if young and has_times:
                    jump = f"{prefix}{info.name[len(prefix)]}{{"  # follows all names with this time or a later one
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
        """List the stores that are written to, so that the files below an overlay are not touched."""
        parts = self._store.parts(prefix[:-1])
        async for found in merged([part.list_objects(prefix, start_after=after) for part in parts]):
            yield max(found.values(), key=lambda info: info.modified_at)

    async def _select_orphans(
        self, now: datetime, object_type: str, batch: dict[str, ObjectInfo], tally: _Tally, removing: bool
    ) -> list[Orphan]:
        """Return the files of a batch that no row names, and count them."""
        unnamed = await self._unnamed(now, object_type, set(batch), tally)
        if removing:  # a row may have moved from one table to another between the statements
            unnamed = await self._unnamed(now, object_type, unnamed, tally)
        for name in batch:
            tally.add(name, name in unnamed)
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
        """Return those of some names that no row contains; record why the database may not know all rows."""
        # The commit fence refuses to prepare a transaction later than three quarters of the grace time after its first
        # upload, so older prepared transactions may name files that are old enough to be swept.
        limits = SweepLimits(prepared_before=now - self._options.grace / 4, max_skew=grace_of(self._sessions) / 8)

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

    # --- refusing ----------------------------------------------------------------------------------------------------

    async def _object(self, object_type: str, tally: _Tally) -> list[Objection]:
        """Return the objections to removing the orphans of an object type, after they were counted."""
        found = [Objection(object_type, reason, can_be_forced) for reason, can_be_forced in tally.reasons.items()]
        found += [Objection(object_type, reason, False) for reason in await self._check_owner(object_type)]
        if not tally.orphans:
            return found
        reason = None
        if not sum([await count(self._sessions, kind) for kind in self._present[object_type]]):
            reason = f"the database has no row for {tally.orphans:,} files (is it the right one?)"
        elif tally.longest >= _MANY:
            moment = revision_time(revision_of(tally.longest_end) or "")
            until = "" if moment is None else f", the last of {moment:%Y-%m-%d %H:%M} UTC,"
            reason = (
                f"{tally.longest:,} consecutive files{until} are orphans (is the database a copy, was it restored from "
                "a backup, or were that many rows deleted together?)"
            )
        elif self._is_too_many(tally):
            reason = f"{tally.orphans:,} of {tally.old:,} files are orphans, {self._share}"
        return found if reason is None else [*found, Objection(object_type, reason, True)]

    @property
    def _share(self) -> str:
        return f"more than the share of {self._options.max_share:.0%} that may be removed (max_share)"

    def _is_too_many(self, tally: _Tally) -> bool:
        return tally.orphans > max(_FEW, self._options.max_share * tally.old)

    async def _check_owner(self, object_type: str) -> list[str]:
        """Return why files belong to another database, or why the store's clock is wrong."""
        found: list[str] = []
        columns = {kind.place for kind in self._present[object_type]}
        for part in self._store.parts(object_type):
            owner = await read_owner(part, object_type)
            if owner is not None:
                reason = conflict(owner, await identify(self._sessions, self._anchor), columns)
                found += [] if reason is None else [f"the files in {part!r} belong to another database: {reason}"]
                if not self._options.delete:  # otherwise the clock is checked with a new record
                    found += self._check_clock(part, owner)
        return found

    def _check_clock(self, part: KeyedStore, owner: Owner) -> list[str]:
        """Return why a store's clock is wrong: if it is behind, files whose names contain no time look too old."""
        behind = owner.written_at - owner.stored_at
        if behind <= max(grace_of(self._sessions) / 8, _CLOCK_RESOLUTION):
            return []
        return [f"the clock of {part!r} is {behind} behind: set it"]

    def _recheck(self, object_type: str, tally: _Tally) -> None:
        """Object to an object type if the database has changed since the orphans were counted."""
        found = [
            Objection(object_type, f"stopped: {reason}", False)
            for reason, can_be_forced in tally.reasons.items()
            if not can_be_forced
        ]
        if self._is_too_many(tally):
            reason = f"stopped: meanwhile {tally.orphans:,} of {tally.old:,} files are orphans, {self._share}"
            found.append(Objection(object_type, reason, True))
        self.objections += [one for one in found if one not in self.objections]

    # --- removing ----------------------------------------------------------------------------------------------------

    async def _remove_all(self, now: datetime, tallies: dict[str, _Tally]) -> AsyncGenerator[Orphan, None]:
        """Remove the orphans of the object types that are not refused, after the rows were checked again."""
        await self._claim([one for one, tally in tallies.items() if tally.old and not self._is_refused(one)])
        accepted = [one for one in self._types if not self._is_refused(one)]
        sweep_id = make_sweep_id()
        for object_type in accepted:
            if tallies[object_type].orphans:
                tally = _Tally()
                async with aclosing(self._find_orphans(now, object_type, tally, removing=True)) as batches:
                    async for orphans in batches:
                        self._recheck(object_type, tally)
                        if self._is_refused(object_type):
                            break
                        for orphan in await self._remove(object_type, orphans, sweep_id):
                            yield orphan
                if self._is_limit_reached():
                    self.warnings.append(f"the limit of {self._options.limit:,} files was reached")
                    return
                if self._is_refused(object_type):
                    continue
            else:
                self.progress.position = tallies[object_type].last
            cutoff = now - self._options.grace
            self.progress.unfinished += await self._store.discard_unfinished(cutoff, f"{object_type}/")
        parts = {id(part): part for one in accepted for part in self._store.parts(one)}
        self.progress.emptied = await delete_expired(list(parts.values()), accepted, now - self._options.retention)

    async def _claim(self, object_types: list[str]) -> None:
        """Record that the files belong to this database; object if the clock of a store is wrong."""
        if not object_types:
            return
        identity = await renew(self._sessions, self._anchor)
        for object_type in object_types:
            columns = {kind.place for kind in self._present[object_type]}
            for part in self._store.parts(object_type):
                owner = await write_owner(part, object_type, identity, columns)
                self.objections += [Objection(object_type, reason, False) for reason in self._check_clock(part, owner)]

    def _is_limit_reached(self) -> bool:
        return self._options.limit is not None and self.progress.removed >= self._options.limit

    async def _remove(self, object_type: str, orphans: list[Orphan], sweep_id: str) -> list[Orphan]:
        if self._options.limit is not None:
            orphans = list(islice(orphans, max(0, self._options.limit - self.progress.removed)))
        names = [orphan.name for orphan in orphans]
        if not names:
            return []
        if self._options.permanently:
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

    Memory is bounded, and the cost is proportional to the number of files that are older than the grace time. Uploads,
    other sweeps and migrations may run concurrently.

    Args:
        sessions: Makes sessions of the database that has all rows: an ``async_sessionmaker``, or an ``AsyncSession``,
            which itself is not used.
        target: The declarative base, or one class, whose files are swept; files of other classes are not touched.
        store: The store; ``None`` for the current store, or that of the sessions. It must be a :class:`KeyedStore`.
        grace: Minimum age of an orphan; ``None`` for the grace time of the sessions, by default 24 hours.
        delete: ``True`` to remove the orphans; otherwise they are only reported.
        permanently: ``True`` to delete files immediately, instead of moving them to quarantine.
        retention: How long removed files stay in quarantine; older files of earlier sweeps are deleted.
        max_share: Largest share of the files of one object type that may be removed, 0 to 1. Up to ten files may be
            removed in any case.
        limit: Largest number of files to remove; ``None`` for no limit.
        force: ``True`` to remove files even if a table is empty, the share is larger, a hundred consecutive files are
            orphans, or ``grace`` is shorter than the grace time of the sessions. The last is only safe while nothing is
            uploaded. It applies to all object types that are swept, so name the object type, too.
        start_after: Start after this name, the :attr:`SweepProgress.position` of an earlier sweep.
        object_types: The object types to sweep; required for classes whose object type depends on the row.

    Returns:
        The plan: iterate over it, or await :meth:`SweepPlan.execute`.

    Raises:
        SweepRefusedError: From the plan, at its end: some object types were refused, and none of their files were
            removed. The database may hide rows (see :mod:`aioimageattach._inventory.database`), or the files belong to
            another database (see :func:`own`), whether forced or not; or one of the cases of ``force``.
        OwnershipError: From the plan: the record of ownership in the store cannot be read.
        DeclarationError: No class has files, the store cannot be listed, or ``object_types`` is required.
        ValueError: An argument is out of range.
        ContextError: No store is given, bound or current.

    Effects: The rows are checked again immediately before a file is removed. :func:`undo` restores quarantined files.
        The store records to which database its files belong. After an error or a cancellation, the remaining orphans
        are unchanged.
    """
    usual = grace_of(sessions)
    grace = usual if grace is None else grace
    for label, value in (("grace", grace), ("retention", retention)):
        if value < timedelta(0):
            raise ValueError(f"{label}: expected a duration that is not negative, got {value}")
    if delete and grace < usual and not force:
        raise ValueError(
            f"grace: expected at least {usual}, within which transactions may still be committed, got {grace}; shorten "
            "the time for transactions, too, with set_grace(), or use force=True while nothing is uploaded"
        )
    if not 0 <= max_share <= 1:
        raise ValueError(f"max_share: expected 0 to 1, got {max_share}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1, got {limit}")
    options = _Options(grace, delete, permanently, retention, max_share, limit, force, start_after)
    types = with_derived(types_of(target, object_types), target)
    return SweepPlan(sessions, kinds(target)[0], types, keyed(store, sessions), options)
