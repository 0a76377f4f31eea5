"""Stores that keep files in a directory."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from datetime import datetime
from functools import partial
from itertools import islice

from ..._batches import batched
from ..._tasks import finish
from ..._telemetry import GET, PUT
from ...exc import StoreError
from ...file import Source
from ...file._source import CHUNK, as_reader
from ...file._spool import as_blocks
from ...key import ImageKey
from ...store import KeyedStore, ObjectInfo
from ._disk import open_by, run_in_thread, run_in_thread_until, translated
from ._listing import info, unfinished, walk
from ._paths import absolute_path, check_path, legacy_name, url
from ._reader import DiskFile
from ._tree import Tree, place_of
from ._writer import Writer

__all__ = ["BaseFileSystemStore", "FileSystemStore"]

_BATCH = 1000
_RESOLVED = 3  # length of the tuple of place_of() if the directory exists


class BaseFileSystemStore(KeyedStore):
    """Base class of the stores in a directory; subclasses differ in how they build URLs.

    Symbolic links inside the directory are never followed, so nothing outside of it is read or written. The first put
    creates the directory if its parent exists. New files and directories get the owner and group of the directory, if
    the process is permitted to set them. Each feature that the file system lacks is logged once.

    Args:
        path: The directory. Other programs may read it, but only this library should write to it. A relative path is
            resolved when the store is created.
        fsync: ``True`` if a put flushes the file to disk before it returns, so that it survives a power loss. If
            ``False``, a power loss may destroy files of committed rows; use this only for tests and for files that can
            be created again.
        file_mode: The permissions of files, regardless of the umask; ``None`` leaves them to the umask and the file
            system.
        dir_mode: The permissions of new directories, regardless of the umask; ``None`` as for ``file_mode``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fsync: bool = True,
        file_mode: int | None = 0o644,
        dir_mode: int | None = 0o755,
    ) -> None:
        self.path: str = absolute_path(path)
        self._fsync = fsync
        self._file_mode = file_mode
        self._tree = Tree(self.path, dir_mode=dir_mode, fsync=fsync)
        self._place = place_of(self.path)

    @property
    @abstractmethod
    def base_url(self) -> str:
        """The URL that names are appended to, with a trailing slash."""

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return the device and inode of the directory, which are determined when the store is created.

        Until the directory exists, they are those of its nearest existing ancestor, followed by the rest of the path.
        """
        if len(self._place) > _RESOLVED:
            self._place = place_of(self.path)
        return frozenset({self._place})

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Create a file atomically; never overwrite an existing one.

        Args:
            name: The name; each path segment has at most 255 bytes.
            data: The content. Bytes and synchronous files are written in a single call in a worker thread, other
                sources in one call per MiB.
            mimetype: Ignored; servers derive the MIME type from the name.
            reproducible: Ignored.

        Raises:
            StoreFileExistsError: The name is taken, or a file exists where a directory is needed.
            InvalidKeyError: The name is invalid; nothing was read.
            StoreUnavailableError: The disk is full or fails, or the process has too many open files.
            StorePermissionError: The process is not permitted to write to the directory.

        Effects: On return, the file is complete and on disk (see ``fsync``). After an error or a cancellation, no file
        has the name and none will appear later; empty directories that were created for it are removed.
        """
        writer = Writer(self, self._tree, check_path(name), fsync=self._fsync, file_mode=self._file_mode)
        with PUT(store="directory"):
            try:
                await self._write(writer, data)
            except BaseException:
                await finish(run_in_thread(writer.discard))
                raise

    async def _write(self, writer: Writer, data: Source) -> None:
        stop = writer.stopped.set
        blocks = as_blocks(data)
        if blocks is not None:
            await run_in_thread_until(stop, writer.finish, blocks)
            return
        read = as_reader(data)
        pieces: list[bytes] = []
        waiting = 0
        while piece := await read(CHUNK):
            pieces.append(piece)
            waiting += len(piece)
            if waiting >= CHUNK:
                await run_in_thread_until(stop, writer.write, pieces)
                pieces, waiting = [], 0
        await run_in_thread_until(stop, writer.finish, pieces)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> DiskFile:
        """Open a file, or its bytes from ``start`` up to but not including ``end``; the caller closes it.

        Args:
            name: The name.
            start: Offset of the first byte. If it is beyond the end of the file, there is nothing to read.
            end: Offset just past the last byte; ``None``, or an offset beyond the end of the file, means its end.

        Raises:
            StoreFileNotFoundError: No regular file has that name.
            InvalidKeyError: The name is invalid.
            ValueError: ``start`` is negative or greater than ``end``.
        """
        check_path(name)
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"expected 0 <= start <= end, got start={start} and end={end}")
        errors = partial(translated, self, self.path, name)
        size = 0

        def opener(path: str, flags: int) -> int:
            nonlocal size
            fd, size = self._tree.open_file(name)
            return fd

        with GET(store="directory"), errors():
            file = await open_by(opener)
        return DiskFile(file, min(start, size), size if end is None else min(end, size), errors)

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and modification time.

        Raises:
            StoreFileNotFoundError: No regular file has that name.
            InvalidKeyError: The name is invalid.
        """
        return await run_in_thread(self._head, check_path(name))

    async def delete_object(self, name: str) -> None:
        """Delete a file and the directories that become empty; do nothing if the file does not exist."""
        await run_in_thread(self._delete, check_path(name))

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files, 1,000 per call in a worker thread; return the errors of those not deleted, by name."""
        failed: dict[str, StoreError] = {}
        for batch in batched(names, _BATCH):
            failed |= await run_in_thread(self._delete_each, batch)
        return failed

    async def move_objects(self, names: Mapping[str, str]) -> dict[str, StoreError]:
        """Rename many files, 1,000 per call in a worker thread; return the errors of those not renamed, by old name."""
        failed: dict[str, StoreError] = {}
        for batch in batched(names.items(), _BATCH):
            failed |= await run_in_thread(self._move_each, batch)
        return failed

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files whose names start with ``prefix``, in order of name.

        At most one directory per level is held in memory, and directories that cannot contain matching names are
        skipped. Each call in a worker thread returns up to 1,000 files.

        Args:
            prefix: Compared by character, so ``"a"`` also matches ``"ab"``; empty matches all names.
            start_after: Return only names after this one; it need not exist.
        """
        found = walk(self._tree, prefix, start_after)

        def take() -> list[ObjectInfo]:
            with translated(self, self.path, prefix):
                return list(islice(found, _BATCH))

        while batch := await run_in_thread(take):
            for one in batch:
                yield one

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Remove the unfinished files that killed processes left behind; return their number.

        Such files exist only on file systems that do not support unnamed files (``O_TMPFILE``).

        Args:
            before: Remove only files that were last written before this time.
            prefix: Remove only files below this prefix.
        """
        return await run_in_thread(self._discard_unfinished, before, prefix)

    def url_of(self, name: str) -> str:
        """Return the URL of a file, without I/O."""
        return url(self.base_url, check_path(name))

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name that SQLAlchemy-ImageAttach gave to the file of a key."""
        return legacy_name(key)

    def _head(self, name: str) -> ObjectInfo:
        with translated(self, self.path, name), self._tree.holding(name) as (_, _, status):
            return info(name, status)

    def _discard_unfinished(self, before: datetime, prefix: str) -> int:
        with translated(self, self.path, prefix):
            names = list(unfinished(self._tree, before, prefix))
            for name in names:
                self._tree.delete(name)
        return len(names)

    def _delete(self, name: str) -> None:
        with translated(self, self.path, name):
            self._tree.delete(name)

    def _move_each(self, names: list[tuple[str, str]]) -> dict[str, StoreError]:
        failed: dict[str, StoreError] = {}
        for old, new in names:
            try:
                check_path(new)
                with translated(self, self.path, old):
                    self._tree.move(check_path(old), new)
            except StoreError as error:
                failed[old] = error
        return failed

    def _delete_each(self, names: list[str]) -> dict[str, StoreError]:
        failed: dict[str, StoreError] = {}
        for name in names:
            try:
                self._delete(check_path(name))
            except StoreError as error:
                failed[name] = error
        return failed


class FileSystemStore(BaseFileSystemStore):
    """A store that keeps files in a directory, which a web server publishes at ``base_url``.

    It suits development and deployments on a single machine.

    Symbolic links inside the directory are never followed, so nothing outside of it is read or written. The first put
    creates the directory if its parent exists. New files and directories get the owner and group of the directory, if
    the process is permitted to set them. Each feature that the file system lacks is logged once.

    Args:
        path: The directory. Other programs may read it, but only this library should write to it. A relative path is
            resolved when the store is created.
        base_url: The URL that names are appended to, with or without a trailing slash.
        fsync: ``True`` if a put flushes the file to disk before it returns, so that it survives a power loss. If
            ``False``, a power loss may destroy files of committed rows; use this only for tests and for files that can
            be created again.
        file_mode: The permissions of files, regardless of the umask; ``None`` leaves them to the umask and the file
            system.
        dir_mode: The permissions of new directories, regardless of the umask; ``None`` as for ``file_mode``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        base_url: str,
        *,
        fsync: bool = True,
        file_mode: int | None = 0o644,
        dir_mode: int | None = 0o755,
    ) -> None:
        super().__init__(path, fsync=fsync, file_mode=file_mode, dir_mode=dir_mode)
        self._base_url = base_url if base_url.endswith("/") else f"{base_url}/"

    @property
    def base_url(self) -> str:
        """The URL that names are appended to, with a trailing slash."""
        return self._base_url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {self.base_url!r})"
