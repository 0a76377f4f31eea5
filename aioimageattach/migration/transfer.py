"""One file on its way from a store to another, checked before anything is put."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..exc import InvalidKeyError, StoreFileExistsError, StoreFileMismatchError, StoreFileNotFoundError
from ..file import AsyncFile, Spool, measure
from ..inventory import Kind, Reference
from ..store import KeyedStore, Store

__all__ = ["Outcome", "Transfer", "share_a_place"]

Outcome: TypeAlias = Literal["copied", "present", "missing"]
"""``"copied"``, ``"present"`` where the file was there already, ``"missing"`` where a dry run would copy it."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of the bytes of a file; ``sha256`` where they were read."""

    size: int
    sha256: str | None = None


class Transfer:
    """Copies files one by one.

    Args:
        source: Where they are.
        destination: Where they are to be.
        deep: Whether files that are there already, and those a server has copied, are read and compared.
        dry_run: Whether nothing is to be copied.
    """

    def __init__(self, source: Store, destination: Store, *, deep: bool, dry_run: bool) -> None:
        self.source: Store = source
        self.destination: Store = destination
        self._deep = deep
        self.dry_run: bool = dry_run
        self._seems_present = True

    async def run(self, reference: Reference) -> tuple[Outcome, int]:
        """Copy the file of a row, unless it is there.

        Returns:
            What was done, and the file's size in bytes.

        Raises:
            StoreFileNotFoundError: The source does not have it.
            StoreFileMismatchError: It is not the file that the row, or the source, tells of.
            StoreError: A store could not do it.

        Effects: On an error or a cancellation nothing was put, or what was put is gone again; what a server copied may
        be there as a whole.
        """
        # Where the last file was there this one may be too: then it is cheaper to ask first. Otherwise the put asks.
        if self._seems_present or self.dry_run:
            found = await _look(self.destination, reference)
            if found is not None:
                return "present", await self._compare(reference, found)
            self._seems_present = False
        if self.dry_run:
            return "missing", self._expect(reference, self.source, await _facts(self.source, reference))
        try:
            return "copied", await self._copy(reference)
        except StoreFileExistsError:
            self._seems_present = True
            found = await _look(self.destination, reference)
            if found is None:
                raise
            return "present", await self._compare(reference, found)

    async def check(self, reference: Reference) -> None:
        """Compare the file in the destination with its row, and with the one in the source if the row knows too little.

        Raises:
            StoreFileNotFoundError: The destination does not have it.
            StoreFileMismatchError: It is another one.
        """
        await self._compare(reference, await _facts(self.destination, reference))

    async def remove_source(self, reference: Reference) -> None:
        """Delete the file in the source; a missing one is not an error."""
        if reference.key is not None:
            await self.source.discard(reference.key)
        else:
            store = _keyed(self.source, reference)
            await store.delete_object(reference.name_in(store))

    async def _copy(self, reference: Reference) -> int:
        size = await self._copy_within(reference)
        if size is not None:
            return size
        async with await _open(self.source, reference) as file:
            spool = await Spool.fill(file)
        self._expect(reference, self.source, _Facts(spool.size, spool.sha256))
        async with spool.open() as data:
            await _put(self.destination, reference, data)
        return spool.size

    async def _copy_within(self, reference: Reference) -> int | None:
        """Let the server copy, if source and destination are the same one; return the size if it did."""
        source, destination = self.source, self.destination
        if not isinstance(source, KeyedStore) or not isinstance(destination, KeyedStore):
            return None
        name = reference.name_in(destination)
        copied = await destination.copy_from(
            source,
            reference.name_in(source),
            name,
            mimetype=reference.mimetype,
            reproducible=reference.reproducible,
        )
        if not copied:
            return None
        try:
            return await self._compare(reference, await _facts(destination, reference))
        except StoreFileMismatchError:
            await destination.delete_object(name)
            raise

    async def _compare(self, reference: Reference, found: _Facts) -> int:
        """Return the size of a file that is in the destination, if it is the right one."""
        if self._deep and found.sha256 is None:
            found = await _read(self.destination, reference)
        self._expect(reference, self.destination, found)
        if reference.size is None or (self._deep and reference.sha256 is None):
            theirs = await (_read if self._deep else _facts)(self.source, reference)
            _differ(reference, self.destination, found, theirs.size, theirs.sha256, "the source")
        return found.size

    def _expect(self, reference: Reference, store: Store, found: _Facts) -> int:
        _differ(reference, store, found, reference.size, reference.sha256, "the row")
        return found.size


def share_a_place(kind: Kind, source: Store, destination: Store) -> bool:
    """Whether both stores keep files of a kind in one place, so that a copy would find its own source."""
    return any(
        not source.location_of(one).isdisjoint(destination.location_of(one)) for one in kind.object_types or (None,)
    )


def _differ(
    reference: Reference, store: Store, found: _Facts, size: int | None, sha256: str | None, witness: str
) -> None:
    """Raise if something that both know is not the same."""
    name = _name(reference)
    if size is not None and size != found.size:
        problem = f"has {found.size:,} bytes, {witness} says {size:,}"
    elif sha256 is not None and found.sha256 is not None and sha256 != found.sha256:
        problem = f"has the fingerprint {found.sha256}, {witness} says {sha256}"
    else:
        return
    raise StoreFileMismatchError(f"{name} in {store!r} {problem}", store=repr(store), name=name)


def _name(reference: Reference) -> str:
    key = reference.key
    return reference.name or (f"{key.object_type} {key.revision or key.object_id}" if key is not None else "")


async def _look(store: Store, reference: Reference) -> _Facts | None:
    try:
        return await _facts(store, reference)
    except StoreFileNotFoundError:
        return None


async def _facts(store: Store, reference: Reference) -> _Facts:
    """What a store says of a file; one that can only open files has to read it."""
    if isinstance(store, KeyedStore):
        return _Facts((await store.head_object(reference.name_in(store))).size)
    return await _read(store, reference)


async def _read(store: Store, reference: Reference) -> _Facts:
    """Read a file to its end, and keep nothing of it."""
    return _Facts(*await measure(await _open(store, reference)))


async def _open(store: Store, reference: Reference) -> AsyncFile:
    if reference.key is not None:
        return await store.get(reference.key)
    return await _keyed(store, reference).get_object(reference.name_in(_keyed(store, reference)))


async def _put(store: Store, reference: Reference, data: AsyncFile) -> None:
    if reference.key is not None:
        await store.put(reference.key, data, reproducible=reference.reproducible)
        return
    keyed = _keyed(store, reference)
    await keyed.put_object(
        reference.name_in(keyed), data, mimetype=reference.mimetype, reproducible=reference.reproducible
    )


def _keyed(store: Store, reference: Reference) -> KeyedStore:
    if not isinstance(store, KeyedStore):
        raise InvalidKeyError(f"{store!r} keeps no files by name, such as {reference.name!r}", name=reference.name)
    return store
