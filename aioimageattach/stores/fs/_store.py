"""Stores in a directory."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from functools import partial
from itertools import islice

from ..._tasks import finish
from ...exc import StoreError
from ...file import CHUNK, Source, as_blocks, as_reader
from ...key import ImageKey
from ...store import KeyedStore, Location, ObjectInfo
from ._disk import open_by, run_in_thread, run_in_thread_until, translated
from ._listing import info, unfinished, walk
from ._paths import absolute_path, check_path, legacy_name, url
from ._reader import DiskFile
from ._tree import Tree, place_of
from ._writer import Writer

__all__ = ["BaseFileSystemStore", "FileSystemStore"]

_BATCH = 1000
_RESOLVED = 3  # parts of a place whose directory exists


class BaseFileSystemStore(KeyedStore):
    """Base class of the stores in a directory, which differ in how they make URLs.

    Nothing outside of the directory is ever read or written, whatever symbolic links it contains. The first put creates
    the directory if its parent exists. New files and directories get the directory's owner and group, as far as the
    process may set them. The log reports once what the directory's file system does not support.

    Args:
        path: The directory. Other programs may read it, and only this library should write to it. A relative path is
            resolved when the store is created.
        fsync: Whether a put returns only when the file survives a power loss. Without it, files of committed rows may
            be lost; use that for tests, and for files that can be made again.
        file_mode: The permissions of files, whatever the umask; ``None`` leaves them to the umask and the file system.
        dir_mode: The permissions of new directories, whatever the umask; ``None`` as for ``file_mode``.
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
        self._tree = Tree(self.path, dir_mode=dir_mode)
        self._place = place_of(self.path)

    @property
    @abstractmethod
    def base_url(self) -> str:
        """The URL that names are appended to, with a slash at its end."""

    def location_of(self, object_type: str | None = None) -> Location:
        """Return the directory's device and inode, which are determined when the store is created.

        As long as the directory does not exist, they are those of the nearest one above that does, with the rest of the
        path.
        """
        if len(self._place) > _RESOLVED:
            self._place = place_of(self.path)
        return frozenset({self._place})

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        """Put a file whole or not at all, under a name that no file has yet.

        Args:
            name: The name; each segment has at most 255 bytes.
            data: The content. Bytes and synchronous files are written in one call in a thread, others in one per MiB.
            mimetype: Not kept; a server derives it from the name.
            reproducible: Not kept.

        Raises:
            StoreFileExistsError: The name is taken, or there is a file where a directory is needed.
            InvalidKeyError: No file may have that name; nothing was read.
            StoreUnavailableError: The disk is full or fails, or there are no descriptors left.
            StorePermissionError: The process may not write there.

        Effects: On return the file exists, whole and on the disk (see ``fsync``). On an error or a cancellation no file
        has the name, and none will appear later; directories that were made for it are removed if they are empty.
        """
        writer = Writer(self, self._tree, check_path(name), fsync=self._fsync, file_mode=self._file_mode)
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
        """Open a file, or the bytes from ``start`` up to but not including ``end`` of it; the caller closes it.

        Args:
            name: The name.
            start: In bytes. From the file's end on, there is nothing to read.
            end: In bytes; ``None``, or a number beyond the file's end, means its end.

        Raises:
            StoreFileNotFoundError: There is no regular file of that name.
            InvalidKeyError: No file may have that name.
            ValueError: ``start`` is negative or beyond ``end``.
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

        with errors():
            file = await open_by(opener)
        return DiskFile(file, min(start, size), size if end is None else min(end, size), errors)

    async def head_object(self, name: str) -> ObjectInfo:
        """Return a file's size and modification time.

        Raises:
            StoreFileNotFoundError: There is no regular file of that name.
            InvalidKeyError: No file may have that name.
        """
        return await run_in_thread(self._head, check_path(name))

    async def delete_object(self, name: str) -> None:
        """Delete a file, and the directories that become empty; do nothing if the file does not exist."""
        await run_in_thread(self._delete, check_path(name))

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files, a thousand per call in a thread; return the error of each that could not be deleted."""
        failed: dict[str, StoreError] = {}
        rest = iter(names)
        while batch := list(islice(rest, _BATCH)):
            failed |= await run_in_thread(self._delete_each, batch)
        return failed

    async def move_objects(self, names: Mapping[str, str]) -> dict[str, StoreError]:
        """Rename many files, a thousand per call in a thread; return the error of each that could not be renamed."""
        failed: dict[str, StoreError] = {}
        rest = iter(names.items())
        while batch := list(islice(rest, _BATCH)):
            failed |= await run_in_thread(self._move_each, batch)
        return failed

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files whose names start with ``prefix``, in the order of their names.

        The names of one directory per level are held in memory. Directories that cannot contain such names are not
        read. A thousand files take one call in a thread.

        Args:
            prefix: Compared by character, so ``"a"`` finds ``"ab"`` too; empty for all files.
            start_after: Only names that sort after this one, which need not exist.
        """
        found = walk(self._tree, prefix, start_after)

        def take() -> list[ObjectInfo]:
            with translated(self, self.path, prefix):
                return list(islice(found, _BATCH))

        while batch := await run_in_thread(take):
            for one in batch:
                yield one

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Remove the unfinished files of killed puts, on a file system that cannot keep a file without a name."""
        return await run_in_thread(self._discard_unfinished, before, prefix)

    def url_of(self, name: str) -> str:
        """Return the URL of a name, without I/O."""
        return url(self.base_url, check_path(name))

    def legacy_name(self, key: ImageKey) -> str:
        """Return the name that SQLAlchemy-ImageAttach gave the file of a key."""
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
    """Keeps files in a directory, for development and for one machine; a web server serves them below ``base_url``.

    Nothing outside of the directory is ever read or written, whatever symbolic links it contains. The first put creates
    the directory if its parent exists. New files and directories get the directory's owner and group, as far as the
    process may set them. The log reports once what the directory's file system does not support.

    Args:
        path: The directory. Other programs may read it, and only this library should write to it. A relative path is
            resolved when the store is created.
        base_url: The URL that names are appended to, with or without a slash at its end.
        fsync: Whether a put returns only when the file survives a power loss. Without it, files of committed rows may
            be lost; use that for tests, and for files that can be made again.
        file_mode: The permissions of files, whatever the umask; ``None`` leaves them to the umask and the file system.
        dir_mode: The permissions of new directories, whatever the umask; ``None`` as for ``file_mode``.
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
        """The URL that names are appended to, with a slash at its end."""
        return self._base_url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {self.base_url!r})"
