"""Whether the files that committed rows name are there, and are what the rows say."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from .._tasks import as_completed
from ..context import bound_store, resolve_store
from ..exc import (
    DamagedValueError,
    DeclarationError,
    ImageAttachError,
    OwnershipError,
    StoreFileNotFoundError,
)
from ..file import CHUNK, measure
from ..inventory import Kind, Reference, Sessions, kinds, reread
from ..inventory.ownership import identify, own_kinds
from ..inventory.plan import RowPlan
from ..offload.fetch import stream
from ..offload.reference import Reference as StoredReference
from ..store import KeyedStore, Store
from .rebuild import rebuild

__all__ = ["Mismatch", "Problem", "VerifyPlan", "VerifyProgress", "verify"]

Problem: TypeAlias = Literal["missing", "size", "checksum", "unreadable"]
"""There is no file; it has another size, or another fingerprint, than its row says; the store could not tell."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A committed row whose file is not what the row says.

    Args:
        reference: The row.
        problem: What is wrong.
        expected: What the row says: a size in bytes, or a fingerprint; ``None`` where that is not the matter.
        actual: What the file has instead.
        repaired: Whether the file was made again; then the row names a new one.
        error: Why it could not be read, or not be repaired.
    """

    reference: Reference
    problem: Problem
    expected: int | str | None = None
    actual: int | str | None = None
    repaired: bool = False
    error: Exception | None = None


@dataclass(slots=True)
class VerifyProgress:
    """How far a verification is.

    Args:
        total: How many rows there were at the start; ``None`` before.
        done: Files that were looked at: the sum of the following three.
        sound: Those that are what their rows say.
        flawed: Those that are not, repaired or not.
        gone: Those whose rows were changed or deleted meanwhile.
        repaired: Mismatched ones that were made again.
        bytes: Number of bytes that were read.
        missed: Rows that the database counts but did not give; the run is then not a success.
    """

    total: int | None = None
    done: int = 0
    sound: int = 0
    flawed: int = 0
    gone: int = 0
    repaired: int = 0
    bytes: int = 0
    missed: int = 0


class VerifyPlan(RowPlan[Mismatch, VerifyProgress]):
    """A verification that is yet to be done: iterate over it with ``async for``, or :meth:`execute` it.

    Attributes:
        progress: What was done so far; reset at each start.
        objections: Reasons why rows may be hidden, with ``force=True``.
        warnings: After a run, reasons to doubt that everything was verified.
    """

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
        self.progress = VerifyProgress()

    def __repr__(self) -> str:
        return f"<VerifyPlan of {', '.join(kind.cls.__name__ for kind in self._kinds)} in {self._store!r}>"

    async def __aiter__(self) -> AsyncGenerator[Mismatch, None]:
        """Yield each mismatch as it is found; leaving the loop stops what is in progress."""
        self.warnings.clear()
        if self._repair:
            await self._check_repair()
        self.progress: VerifyProgress = VerifyProgress(total=await self._count())
        async with aclosing(as_completed(self._each(self._look), self._concurrency)) as looks:
            async for kind, mismatch in looks:
                self.progress.done += 1
                found = mismatch and await self._again(kind, mismatch)
                if mismatch is None:
                    self.progress.sound += 1
                elif found is None:
                    self.progress.gone += 1
                else:
                    self.progress.flawed += 1
                    self.progress.repaired += found.repaired
                    yield found
        self._end()

    async def _check_repair(self) -> None:
        """Refuse to repair in a store other than the application's, whose row would name a file that only it has.

        Raises:
            OwnershipError: It is the destination of a migration that has not ended, or another database's.
        """
        if not isinstance(self._store, KeyedStore) or (await identify(self._sessions, self._kinds[0])).id is None:
            return  # this database has owned no store yet
        owned = await own_kinds(self._sessions, self._kinds, self._store, claim=False)
        problems = [
            f"{one.object_type}/ in {one.store!r}: {one.conflict or 'no owner'}"
            for one in owned
            if one.conflict or one.owner is None
        ]
        if problems:
            raise OwnershipError(
                f"nothing was repaired: {'; '.join(problems)}. If this is the application's store, and not the "
                "destination of a move that goes on, run `aioimageattach own --claim`"
            )

    async def _look(self, kind: Kind, reference: Reference) -> tuple[Kind, Mismatch | None]:
        try:
            return kind, await self._compare(reference)
        except StoreFileNotFoundError as error:
            return kind, Mismatch(reference, "missing", error=error)
        except (ImageAttachError, OSError) as error:
            return kind, Mismatch(reference, "unreadable", error=error)

    async def _compare(self, reference: Reference) -> Mismatch | None:
        if self._deep and reference.content is not None and isinstance(self._store, KeyedStore):
            return await self._read_through(self._store, reference, reference.content)
        size, digest = await self._measure(reference)
        if reference.size is not None and reference.size != size:
            return Mismatch(reference, "size", reference.size, size)
        if digest is not None and reference.sha256 is not None and reference.sha256 != digest:
            return Mismatch(reference, "checksum", reference.sha256, digest)
        return None

    async def _read_through(self, store: KeyedStore, reference: Reference, content: StoredReference) -> Mismatch | None:
        """Compare an offloaded value with its fingerprint, which is that of its bytes before they were compressed."""
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

    async def _measure(self, reference: Reference) -> tuple[int, str | None]:
        """Return the size of a file, and its fingerprint if it was read."""
        store, key = self._store, reference.key
        if reference.damage is not None:
            raise reference.damage
        if isinstance(store, KeyedStore) and not self._deep:
            info = await (store.head_object(reference.name_in(store)) if key is None else store.head(key))
            return info.size, None
        if key is not None:
            file = await store.get(key)
        elif isinstance(store, KeyedStore):
            file = await store.get_object(reference.name_in(store))
        else:
            raise DeclarationError(f"{store!r} has no names, and {reference.name!r} is one: it takes a KeyedStore")
        return await measure(file, self._read)

    def _read(self, size: int) -> None:
        self.progress.bytes += size

    async def _again(self, kind: Kind, mismatch: Mismatch) -> Mismatch | None:
        """Return a flaw if the row still names that file, repaired if asked and possible."""
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
        except (ImageAttachError, OSError) as error:
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
) -> VerifyPlan:
    """Plan to look at each file that committed rows name: is it there, and is it what the row says?

    Memory stays flat; each file costs one request, or with ``deep`` its bytes. Rows may come, change and go meanwhile.

    Args:
        sessions: What makes sessions: a sessionmaker, or a session like those.
        target: The declarative base, or one class.
        store: Where the files are; ``None`` for the current store, or that of the sessions. One that is no
            :class:`KeyedStore` can only be read, whether ``deep`` or not.
        deep: Whether to read the files and compare fingerprints, not only sizes.
        repair: Whether to make flawed thumbnails again from their originals; their rows then name new files.
        concurrency: How many files are looked at at once.

    Returns:
        A plan: iterate over it, or await :meth:`VerifyPlan.execute`.

    Raises:
        DeclarationError: No class has files.
        ContextError: No store is named anywhere.
        ValueError: ``concurrency`` is less than 1; or it is to repair in another store than that of the sessions.
        OwnershipError: From the plan, with ``repair``: the store's files have no owner, although this database owns
            those of another one, or belong to another database.
        UnsafeDatabaseError: From the plan: the database may hide rows, and ``force`` is not set.
        IncompleteError: From the plan, at its end: not all rows were read.

    Effects: None without ``repair``. With it, each repaired thumbnail is committed on its own, and its flawed file
        removed after; an error or a cancellation leaves the others as they are.
    """
    found = resolve_store(store, session=sessions)
    bound = bound_store(sessions)
    if repair and bound is not None and bound.location != found.location:
        raise ValueError(
            f"repair: the application's store is {bound!r}, and thumbnails that are made again in {found!r} would be "
            "missing there: repair in the application's store, or if it is a move that goes on, finish the migration"
        )
    return VerifyPlan(sessions, kinds(target), found, deep=deep, repair=repair, concurrency=concurrency, force=force)
