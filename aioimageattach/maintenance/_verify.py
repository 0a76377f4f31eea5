"""Verification: compare the files in a store with what the committed rows say about them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from sqlalchemy.exc import SQLAlchemyError

from .._inventory import FileReference, Kind, Sessions, kinds, reread
from .._inventory.identity import identify
from .._inventory.marks import MarkedKind, MarkedRow, marked_kinds, write_marks
from .._inventory.ownership import own_kinds
from .._inventory.plan import Plan, RowPlan
from ..context._current import bound_store, resolve_store
from ..exc import (
    DamagedValueError,
    DeclarationError,
    RefusedError,
)
from ..file._source import CHUNK
from ..file._spool import measure
from ..offload._fetch import stream
from ..offload._reference import Reference as ValueReference
from ..store import KeyedStore, Store
from ._marks import false_marks
from ._rebuild import rebuild

__all__ = ["Mismatch", "verify"]

Problem: TypeAlias = Literal["missing", "size", "checksum", "unreadable", "thumbnails"]
"""Missing, wrong size, wrong checksum, not readable, or marked although declared thumbnails are missing."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A committed row whose file is missing or differs from what the row says.

    Args:
        reference: The file, as the row describes it.
        problem: The problem.
        expected: The size in bytes or the SHA-256 in the row, or the number of thumbnails that it marks; ``None`` for
            other problems.
        actual: The size in bytes or the SHA-256 of the file, or the number of these thumbnails that exist; ``None`` for
            other problems.
        repaired: ``True`` if the thumbnail was rendered again; the row then names the new file. For marks, ``True`` if
            they were removed; the thumbnail server then generates the missing files on request.
        error: The error, if the file could not be read or repaired.
    """

    reference: FileReference
    problem: Problem
    expected: int | str | None = None
    actual: int | str | None = None
    repaired: bool = False
    error: Exception | None = None


class _VerifyPlan(RowPlan[Mismatch]):
    _outcomes = ("sound", "mismatched", "gone", "marked", "mismarked", "repaired")

    def __init__(
        self,
        sessions: Sessions,
        parts: tuple[Kind, ...],
        store: Store,
        *,
        deep: bool,
        repair: bool,
        concurrency: int,
        force: bool,
    ) -> None:
        super().__init__(sessions, parts, concurrency=concurrency, force=force)
        self._store = store
        self._deep = deep
        self._repair = repair

    def __repr__(self) -> str:
        return f"<Plan to verify {', '.join(kind.cls.__name__ for kind in self._kinds)} in {self._store!r}>"

    async def _run(self) -> AsyncGenerator[Mismatch, None]:
        if self._repair:
            await self._check_repair()
        async with aclosing(self._results(self._check_file)) as results:
            async for kind, mismatch in results:
                confirmed = mismatch and await self._confirm(kind, mismatch)
                if mismatch is None:
                    self.progress.counts["sound"] += 1
                elif confirmed is None:
                    self.progress.counts["gone"] += 1
                else:
                    self.progress.counts["mismatched"] += 1
                    self.progress.counts["repaired"] += confirmed.repaired
                    yield confirmed
        async with aclosing(self._check_marks()) as mismatches:
            async for mismatch in mismatches:
                self.progress.counts["mismarked"] += 1
                self.progress.counts["repaired"] += mismatch.repaired
                yield mismatch
        self._require_all_rows()

    async def _check_repair(self) -> None:
        """Refuse to repair in a store other than the application's: rows would name files that only that store has.

        Raises:
            RefusedError: The store is the destination of an unfinished migration, or belongs to another database.
        """
        if not isinstance(self._store, KeyedStore) or (await identify(self._sessions, self._kinds[0])).id is None:
            return  # this database owns no store yet
        owned = await own_kinds(self._sessions, self._kinds, self._store, claim=False)
        problems = [
            f"{one.object_type}/ in {one.store!r}: {one.conflict or 'no owner'}"
            for one in owned
            if one.conflict or one.owner is None
        ]
        if problems:
            raise RefusedError(
                f"nothing was repaired: {'; '.join(problems)}. If this is the application's store, and not the "
                "destination of an unfinished migration, run `aioimageattach own --claim`"
            )

    async def _check_marks(self) -> AsyncGenerator[Mismatch, None]:
        store = self._store
        if not isinstance(store, KeyedStore) or not store.has_certain_urls:
            return  # marks are not used there
        for kind in marked_kinds(self._kinds):
            async with aclosing(false_marks(self._sessions, kind, store)) as pages:
                async for rows, found in pages:
                    self.progress.counts["marked"] += rows
                    for row, missing in found:
                        yield await self._repair_marks(kind, row, missing)

    async def _repair_marks(self, kind: MarkedKind, row: MarkedRow, missing: set[str]) -> Mismatch:
        names = len(row.names)
        if self._repair:
            await write_marks(self._sessions, kind, row, row.without(missing))
        return Mismatch(row.reference, "thumbnails", names, names - len(missing), repaired=self._repair)

    async def _check_file(self, kind: Kind, reference: FileReference) -> tuple[Kind, Mismatch | None]:
        result = await self._try(self._compare(reference))
        if isinstance(result, Exception):
            problem: Problem = "missing" if isinstance(result, FileNotFoundError) else "unreadable"
            return kind, Mismatch(reference, problem, error=result)
        return kind, result

    async def _compare(self, reference: FileReference) -> Mismatch | None:
        if self._deep and reference.content is not None and isinstance(self._store, KeyedStore):
            return await self._compare_value(self._store, reference, reference.content)
        size, sha256 = await self._measure(reference)
        if reference.size is not None and reference.size != size:
            return Mismatch(reference, "size", reference.size, size)
        if sha256 is not None and reference.sha256 is not None and reference.sha256 != sha256:
            return Mismatch(reference, "checksum", reference.sha256, sha256)
        return None

    async def _compare_value(
        self, store: KeyedStore, reference: FileReference, content: ValueReference
    ) -> Mismatch | None:
        """Compare the checksum of an offloaded value, which is computed before compression."""
        size = (await store.head_object(content.name)).size
        if size != content.stored:
            return Mismatch(reference, "size", content.stored, size)
        self.progress.bytes += size
        try:
            async with await stream(store, content) as file:
                while await file.read(CHUNK):
                    pass
        except DamagedValueError as error:
            return Mismatch(reference, "checksum", content.sha256, error=error)
        return None

    async def _measure(self, reference: FileReference) -> tuple[int, str | None]:
        """Return the size of a file, and its SHA-256 if the file was read."""
        store, key = self._store, reference.key
        if reference.damage is not None:
            raise reference.damage
        if isinstance(store, KeyedStore) and not self._deep:
            info = await (store.head_object(reference.name_in(store)) if key is None else store.head(key))
            return info.size, None
        if key is None:
            raise DeclarationError(
                f"store: expected a KeyedStore, which can have a file named {reference.name!r}, got {store!r}"
            )
        return await measure(await store.get(key), self._count_bytes)

    def _count_bytes(self, size: int) -> None:
        self.progress.bytes += size

    async def _confirm(self, kind: Kind, mismatch: Mismatch) -> Mismatch | None:
        """Return a mismatch if the row still names the file, after a repair if one is requested and possible."""
        reference = await reread(self._sessions, kind, mismatch.reference)
        if reference is None or (reference.key, reference.name) != (mismatch.reference.key, mismatch.reference.name):
            return None
        if not self._repair or not reference.reproducible or mismatch.problem == "unreadable":
            return mismatch
        missing = mismatch.problem == "missing"
        try:
            return replace(
                mismatch, repaired=await rebuild(self._sessions, kind, reference, self._store, is_missing=missing)
            )
        except SQLAlchemyError:
            raise  # the database failed, not the thumbnail
        except Exception as error:
            return replace(mismatch, error=error)


def verify(
    sessions: Sessions,
    target: Any,
    store: Store | None = None,
    *,
    deep: bool = False,
    repair: bool = False,
    concurrency: int = 16,
    force: bool = False,
) -> Plan[Mismatch]:
    """Plan to check that each file that a committed row names exists and matches the row.

    Rows with :class:`~aioimageattach.entity.ThumbnailMarks` are also checked for declared thumbnails that are marked as
    stored and do not exist.

    Memory is bounded. Each file costs one request, or with ``deep`` one download. Declared thumbnails are listed, a
    thousand with each request. The application may read and write rows in the meantime.

    Args:
        sessions: Factory of sessions: an ``async_sessionmaker``, or an ``AsyncSession``, which is not used itself.
        target: The declarative base, or one class.
        store: The store with the files; ``None`` for the current store, or that of the sessions. The files in a store
            that is not a :class:`KeyedStore` are always read.
        deep: ``True`` to read the files and compare checksums, instead of only sizes.
        repair: ``True`` to render missing and altered thumbnails again from their originals, and to remove false marks.
            The rows of these thumbnails then reference the new files. A missing file that is rendered identically gets
            its old name instead.
        concurrency: Number of files that are checked concurrently.
        force: ``True`` to continue if the database may hide rows.

    Returns:
        The plan. It yields each mismatch as it is found. Its progress counts the files that were checked:

        - ``sound``: they match their rows;
        - ``mismatched``: they do not match their rows;
        - ``gone``: their rows were changed or deleted in the meantime.

        It also counts ``marked``, rows whose marks of stored thumbnails were checked; ``mismarked``, rows with false
        marks; and ``repaired``, mismatches that were repaired. ``bytes`` is the total size of the files that were read.

    Raises:
        DeclarationError: No class has files. From the plan, with ``repair``: there are false marks, and the sessions
            are bound to a connection.
        ContextError: No store is given, bound or current.
        ValueError: ``concurrency`` is less than 1; or ``repair`` is set and the store is not that of the sessions.
        RefusedError: From the plan: the database may hide rows, and ``force`` is not set. Or with ``repair``, the files
            in the store belong to another database, or have no owner although this database owns the files in another
            store.
        IncompleteError: From the plan, at its end: not all rows were read.
        StoreMissingError: From the plan: the bucket does not exist.
        StoreUnavailableError: From the plan: the store has not responded for many consecutive files.
        StoreError: From the plan: declared thumbnails could not be listed.

    Effects: None without ``repair``. With it, each repaired row is committed in its own transaction, and a mismatched
        file is deleted afterwards. After an error or a cancellation the other thumbnails are unchanged.
    """
    found = resolve_store(store, session=sessions)
    bound = bound_store(sessions)
    if repair and bound is not None and bound.location != found.location:
        raise ValueError(
            f"repair: expected {bound!r}, the store that is bound to the sessions, got {found!r}; the application "
            "would not find new thumbnails there. Repair in its own store, or finish the migration first"
        )
    return _VerifyPlan(sessions, kinds(target), found, deep=deep, repair=repair, concurrency=concurrency, force=force)
