"""Transfer: copy one file from a store to another, after it was compared with its row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .._inventory import FileReference, Kind
from ..exc import InvalidKeyError, StoreFileExistsError, StoreFileMismatchError
from ..file import AsyncFile, Spool
from ..file._spool import measure
from ..store import KeyedStore, Store

__all__ = ["Copy", "Transfer", "share_files"]


@dataclass(frozen=True, slots=True)
class Copy:
    """A file of a row that has, or should have, a copy in another store.

    Args:
        reference: The file, as its row describes it.
        outcome: For :func:`migrate`, ``"copied"``, ``"present"`` if the file was already in the destination, or
            ``"missing"`` if a dry run would copy it. For :func:`retire`, ``"removed"``, or ``"safe"`` if the copy in
            the old store could be removed. ``"failed"`` for both, if there is an error.
        size: The size in bytes; 0 if it was not read.
        error: The error, if the file was not copied, or its copy was kept.
    """

    reference: FileReference
    outcome: Literal["copied", "present", "missing", "removed", "safe", "failed"]
    size: int = 0
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Facts:
    """The size of a file, and its SHA-256 if the file was read."""

    size: int
    sha256: str | None = None


class Transfer:
    """Copies files one by one.

    Args:
        source: The store with the files.
        destination: The store to which they are copied.
        deep: ``True`` to read files that are already in the destination, or that a server has copied, and compare
            checksums.
        dry_run: ``True`` to copy nothing.
    """

    def __init__(self, source: Store, destination: Store, *, deep: bool, dry_run: bool) -> None:
        self.source: Store = source
        self.destination: Store = destination
        self._deep = deep
        self.dry_run: bool = dry_run
        self._seems_present = True

    async def run(self, reference: FileReference) -> Copy:
        """Copy the file of a row, unless it is present.

        Raises:
            StoreFileNotFoundError: The source does not have the file.
            StoreFileMismatchError: The file does not match its row, or the file in the source.
            StoreError: A store failed.

        Effects: After an error or a cancellation the destination has no partial file; a copy by the server may be
            complete.
        """
        # If the last file was present, this one probably is, too, and it is cheaper to check before reading it.
        # Otherwise the put detects an existing file.
        if self._seems_present or self.dry_run:
            found = await _facts_or_none(self.destination, reference)
            if found is not None:
                return Copy(reference, "present", await self._compare(reference, found))
            self._seems_present = False
        if self.dry_run:
            size = self._expect(reference, self.source, await _facts(self.source, reference))
            return Copy(reference, "missing", size)
        try:
            return Copy(reference, "copied", await self._copy(reference))
        except StoreFileExistsError:
            self._seems_present = True
            found = await _facts_or_none(self.destination, reference)
            if found is None:
                raise
            return Copy(reference, "present", await self._compare(reference, found))

    async def check(self, reference: FileReference) -> None:
        """Compare the file in the destination with its row, and with the source if the row does not contain enough.

        Raises:
            StoreFileNotFoundError: The destination does not have the file.
            StoreFileMismatchError: The destination has another file.
        """
        await self._compare(reference, await _facts(self.destination, reference))

    async def delete_from_source(self, reference: FileReference) -> None:
        """Delete the file in the source; a missing file is not an error."""
        if reference.key is not None:
            await self.source.discard(reference.key)
        else:
            store = _keyed(self.source, reference)
            await store.delete_object(reference.name_in(store))

    async def _copy(self, reference: FileReference) -> int:
        size = await self._copy_by_server(reference)
        if size is not None:
            return size
        async with await _open(self.source, reference) as file:
            spool = await Spool.fill(file)
        self._expect(reference, self.source, _Facts(spool.size, spool.sha256))
        async with spool.open() as data:
            await _put(self.destination, reference, data)
        return spool.size

    async def _copy_by_server(self, reference: FileReference) -> int | None:
        """Copy within the server if both stores are on one; return the size, or ``None`` if the server cannot copy."""
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

    async def _compare(self, reference: FileReference, found: _Facts) -> int:
        """Compare a file in the destination with its row; return its size."""
        if self._deep and found.sha256 is None:
            found = await _read(self.destination, reference)
        self._expect(reference, self.destination, found)
        if reference.size is None or (self._deep and reference.sha256 is None):
            theirs = await (_read if self._deep else _facts)(self.source, reference)
            _require_match(reference, self.destination, found, theirs.size, theirs.sha256, "the source")
        return found.size

    def _expect(self, reference: FileReference, store: Store, found: _Facts) -> int:
        _require_match(reference, store, found, reference.size, reference.sha256, "the row")
        return found.size


def share_files(kind: Kind, source: Store, destination: Store) -> bool:
    """Return ``True`` if both stores keep the files of a kind in the same place, so that nothing can be copied."""
    return any(
        not source.location_of(one).isdisjoint(destination.location_of(one)) for one in kind.object_types or (None,)
    )


def _require_match(
    reference: FileReference, store: Store, found: _Facts, size: int | None, sha256: str | None, witness: str
) -> None:
    """Raise if a size or checksum that is known on both sides differs."""
    name = _label(reference)
    if size is not None and size != found.size:
        problem = f"expected {size:,} bytes, as in {witness}, got {found.size:,}"
    elif sha256 is not None and found.sha256 is not None and sha256 != found.sha256:
        problem = f"expected the SHA-256 {sha256}, as in {witness}, got {found.sha256}"
    else:
        return
    raise StoreFileMismatchError(f"{name} in {store!r}: {problem}", store=repr(store), name=name)


def _label(reference: FileReference) -> str:
    key = reference.key
    return reference.name or (f"{key.object_type} {key.revision or key.object_id}" if key is not None else "")


async def _facts_or_none(store: Store, reference: FileReference) -> _Facts | None:
    try:
        return await _facts(store, reference)
    except FileNotFoundError:
        return None


async def _facts(store: Store, reference: FileReference) -> _Facts:
    """Return the facts that a store reports about a file; a store that can only open files has to read it."""
    if isinstance(store, KeyedStore):
        return _Facts((await store.head_object(reference.name_in(store))).size)
    return await _read(store, reference)


async def _read(store: Store, reference: FileReference) -> _Facts:
    """Read a file to its end, without keeping its bytes."""
    return _Facts(*await measure(await _open(store, reference)))


async def _open(store: Store, reference: FileReference) -> AsyncFile:
    if reference.key is not None:
        return await store.get(reference.key)
    return await _keyed(store, reference).get_object(reference.name_in(_keyed(store, reference)))


async def _put(store: Store, reference: FileReference, data: AsyncFile) -> None:
    if reference.key is not None:
        await store.put(reference.key, data, reproducible=reference.reproducible)
        return
    keyed = _keyed(store, reference)
    await keyed.put_object(
        reference.name_in(keyed), data, mimetype=reference.mimetype, reproducible=reference.reproducible
    )


def _keyed(store: Store, reference: FileReference) -> KeyedStore:
    if not isinstance(store, KeyedStore):
        raise InvalidKeyError(
            f"store: expected a KeyedStore, which can have a file named {reference.name!r}, got {store!r}",
            name=reference.name,
        )
    return store
