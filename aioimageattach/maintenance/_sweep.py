"""Sweep: find the files that no committed row names, and remove them on request.

Only a sweep covers rows that are deleted without the session's knowledge (bulk deletes, cascades, raw SQL), processes
that are killed, and commits with an unknown outcome. It lists the store, asks the database which of the names its rows
contain, and considers the others orphans if both the time in their name and the store's clock say that they are old
enough.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from .._inventory import Kind, Sessions, count, kinds
from .._inventory.derived import with_derived
from .._inventory.identity import identify, renew
from .._inventory.ownership import Owner, conflict, existing, keyed, read_owner, types_of, write_owner
from .._inventory.plan import Objection, Plan
from .._names import revision_of, revision_time
from .._transaction.fence import grace_of
from ..exc import RefusedError, StoreError
from ..store import KeyedStore, Store
from ._lookalikes import Lookalikes
from ._quarantine import delete_expired, make_sweep_id, quarantine
from ._search import Orphan, Search, SweepOptions, Tally

__all__ = ["MAX_SHARE", "RETENTION", "sweep"]

MAX_SHARE: Final = 0.1
"""Largest share of the files of one object type that a sweep removes by default."""

RETENTION: Final = timedelta(days=30)
"""How long removed files stay in quarantine by default."""

_FEW: Final = 10  # orphans: this number is never too large a share
_MANY: Final = 100  # consecutive orphans: ordinary ones appear one by one, but a copy or a lost table has many
_CLOCK_RESOLUTION: Final = timedelta(seconds=2)  # some stores report times in whole seconds


class _SweepPlan(Plan[Orphan]):
    _outcomes = ("young", "named", "foreign", "orphans", "rechecked", "removed", "unfinished", "emptied")

    def __init__(
        self, sessions: Sessions, anchor: Kind, types: dict[str, list[Kind]], store: KeyedStore, options: SweepOptions
    ) -> None:
        super().__init__()
        self._sessions = sessions
        self._anchor = anchor
        self._types = types
        self._store = store
        self._options = options

    def __repr__(self) -> str:
        return f"<Plan to sweep {', '.join(self._types)} in {self._store!r}>"

    async def _run(self) -> AsyncGenerator[Orphan, None]:
        now = datetime.now(UTC)
        self.progress.position = self._options.start_after
        self._present = {one: await existing(self._sessions, parts, self._anchor) for one, parts in self._types.items()}
        lookalikes = Lookalikes(self._sessions)
        await lookalikes.find([kind for parts in self._present.values() for kind in parts] or [self._anchor])
        search = Search(self._sessions, self._store, self._present, lookalikes, self._options, self.progress, now)
        tallies = {one: Tally() for one in self._types}
        for object_type, tally in tallies.items():
            async with aclosing(search.find_orphans(object_type, tally, removing=False)) as batches:
                async for orphans in batches:
                    for orphan in () if self._options.delete else orphans:
                        yield orphan
            self.objections += await self._object(object_type, tally)
        if not self.progress.done:
            self.warnings.append("there were no files: is it the right store?")
        if self._options.delete:
            async with aclosing(self._remove_all(search, now, tallies)) as removed:
                async for orphan in removed:
                    yield orphan
            refused = [one for one in self.objections if not (one.can_be_forced and self._options.force)]
            if refused:
                number = self.progress.counts["removed"]
                what = f"{number:,} files were" if number else "nothing was"
                raise RefusedError(f"{what} removed; refused: {'; '.join(map(str, refused))}")

    def _is_refused(self, object_type: str) -> bool:
        return any(
            one.object_type == object_type and not (one.can_be_forced and self._options.force)
            for one in self.objections
        )

    # --- refusing ----------------------------------------------------------------------------------------------------

    async def _object(self, object_type: str, tally: Tally) -> list[Objection]:
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

    def _is_too_many(self, tally: Tally) -> bool:
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

    def _recheck(self, object_type: str, tally: Tally) -> None:
        """Object to an object type if the database has changed since the orphans were counted."""
        found = [
            Objection(object_type, f"stopped: {reason}", False)
            for reason, can_be_forced in tally.reasons.items()
            if not can_be_forced
        ]
        if self._is_too_many(tally):
            reason = f"stopped: by now, {tally.orphans:,} of {tally.old:,} files are orphans, {self._share}"
            found.append(Objection(object_type, reason, True))
        self.objections += [one for one in found if one not in self.objections]

    # --- removing ----------------------------------------------------------------------------------------------------

    async def _remove_all(
        self, search: Search, now: datetime, tallies: dict[str, Tally]
    ) -> AsyncGenerator[Orphan, None]:
        """Remove the orphans of the object types that are not refused, after the rows were checked again."""
        await self._claim([one for one, tally in tallies.items() if tally.old and not self._is_refused(one)])
        accepted = [one for one in self._types if not self._is_refused(one)]
        sweep_id = make_sweep_id()
        for object_type in accepted:
            if tallies[object_type].orphans:
                tally = Tally()
                async with aclosing(search.find_orphans(object_type, tally, removing=True)) as batches:
                    async for orphans in batches:
                        self._recheck(object_type, tally)
                        if self._is_refused(object_type):
                            break
                        for orphan in await self._remove(object_type, orphans, sweep_id):
                            yield orphan
                if search.is_limit_reached():
                    self.warnings.append(f"the limit of {self._options.limit:,} files was reached")
                    return
                if self._is_refused(object_type):
                    continue
            else:
                self.progress.position = tallies[object_type].last
            cutoff = now - self._options.grace
            self.progress.counts["unfinished"] += await self._store.discard_unfinished(cutoff, f"{object_type}/")
        parts = {id(part): part for one in accepted for part in self._store.parts(one)}
        before = now - self._options.retention
        self.progress.counts["emptied"] = await delete_expired(list(parts.values()), accepted, before)

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

    async def _remove(self, object_type: str, orphans: list[Orphan], sweep_id: str) -> list[Orphan]:
        if self._options.limit is not None:
            orphans = list(islice(orphans, max(0, self._options.limit - self.progress.counts["removed"])))
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
        self.progress.counts["removed"] += sum(one.removed for one in done)
        self._add_failures([one for one in done if not one.removed])
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
) -> Plan[Orphan]:
    """Plan to find, and on request remove, the files that no committed row names.

    Memory is bounded, and the cost is proportional to the number of files that are older than the grace time. Uploads,
    other sweeps and migrations may run concurrently.

    Args:
        sessions: Factory of sessions of the database that has all rows: an ``async_sessionmaker``, or an
            ``AsyncSession``, which is not used itself: new sessions with its options are created.
        target: The declarative base, or one class, whose files are swept; files of other classes are not touched.
        store: The store; ``None`` for the current store, or that of the sessions. It must be a :class:`KeyedStore`.
        grace: Minimum age of an orphan; ``None`` for the grace time of the sessions, by default 24 hours.
        delete: ``True`` to remove the orphans; otherwise they are only reported.
        permanently: ``True`` to delete files immediately, instead of moving them to quarantine.
        retention: How long removed files stay in quarantine; older files of earlier sweeps are deleted.
        max_share: Largest share of the files of one object type that may be removed, 0 to 1. Only files older than
            ``grace`` are counted. Up to ten orphans are removed whatever their share.
        limit: Largest number of files to remove; ``None`` for no limit.
        force: ``True`` to remove files even if a table is empty, the share of orphans is larger than ``max_share``, a
            hundred consecutive files are orphans, rows of an unmapped table may reference them, or ``grace`` is shorter
            than the grace time of the sessions, which is only safe while nothing is uploaded. ``force`` applies to all
            object types that are swept, so pass ``object_types``, too.
        start_after: Start after this name, the ``progress.position`` of an earlier sweep.
        object_types: The object types to sweep; required for classes whose object type depends on the row.

    Returns:
        The plan. It yields each orphan after it was removed or could not be, or without ``delete``, when it is found.
        Its progress counts the files that were listed:

        - ``young``: their transactions may not have ended yet;
        - ``named``: rows name them;
        - ``foreign``: this library does not generate such names; these files are not touched;
        - ``orphans``: no row names them; ``bytes`` is their total size.

        It also counts ``rechecked``, files that were listed again before orphans were removed; ``removed``, orphans
        that were removed; ``unfinished``, unfinished uploads that were deleted; and ``emptied``, files of earlier
        sweeps that were deleted from quarantine.

    Raises:
        RefusedError: From the plan, at its end, with ``delete``: some object types were refused, or their sweep
            was stopped; see :attr:`Plan.objections`. Some objections cannot be forced, such as that the database
            may hide rows, or that the files belong to another database (see :func:`own`). Or the record of ownership in
            the store cannot be read.
        DeclarationError: No class has files, the store cannot be listed, or ``object_types`` is required.
        ValueError: An argument is out of range; or with ``delete`` and without ``force``, ``grace`` is shorter than the
            grace time of the sessions.
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
            f"grace: expected at least {usual}, the grace time of the sessions, because the rows of younger files may "
            f"not be committed yet, got {grace}; shorten that of the application first, with set_grace(), or use "
            "force=True while nothing is uploaded"
        )
    if not 0 <= max_share <= 1:
        raise ValueError(f"max_share: expected 0 to 1, got {max_share}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1, got {limit}")
    options = SweepOptions(grace, delete, permanently, retention, max_share, limit, force, start_after)
    types = with_derived(types_of(target, object_types), target)
    return _SweepPlan(sessions, kinds(target)[0], types, keyed(store, sessions), options)
