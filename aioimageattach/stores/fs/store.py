"""Stores in a directory."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from functools import partial
from itertools import islice

from ..._threads import finish
from ...exc import StoreError
from ...file import CHUNK, Source, as_blocks, as_reader
from ...key import ImageKey
from ...store import KeyedStore, Location, ObjectInfo
from .disk import hop, hop_until, open_by, translated
from .listing import info, unfinished, walk
from .paths import check_path, legacy_name, url
from .reader import DiskFile
from .tree import Tree, place_of
from .writer import Writer

__all__ = ["BaseFileSystemStore", "FileSystemStore"]

_BATCH = 1000
_RESOLVED = 3  # parts of a place whose directory exists


class BaseFileSystemStore(KeyedStore):
    """What the stores in a directory have in common; they differ in how they make URLs.

    Nothing outside of the directory is ever read or written, whatever links stand in it. The directory is made at the
    first put if the one it stands in is there.

    Args:
        path: The directory. Other programs may read it, and only this library should write to it.
        fsync: Whether a put returns only when the file survives a power loss. Without it the machine may lose files of
            committed rows; for tests and for what can be made again.
        file_mode: The permissions of files, whatever the umask.
        dir_mode: The permissions of the directories it makes, whatever the umask.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fsync: bool = True, file_mode: int = 0o644, dir_mode: int = 0o755
    ) -> None:
        self.path: str = os.fspath(path).rstrip("/") or "/"
        self._fsync = fsync
        self._file_mode = file_mode
        self._tree = Tree(self.path, dir_mode=dir_mode)
        self._place = place_of(self.path)

    @property
    @abstractmethod
    def base_url(self) -> str:
        """What the names are appended to for URLs, with a slash at its end."""

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
            data: Bytes and sync files are written in one hop to a thread, others in one a mebibyte.
            mimetype: Not kept: a server tells it from the name.
            reproducible: Not kept.

        Raises:
            StoreFileExistsError: The name is taken, or a file stands where a directory is needed.
            InvalidKeyError: No file may have that name; nothing was read.
            StoreUnavailableError: The disk is full or fails, or there are no descriptors left.
            StorePermissionError: The process may not write there.

        Effects: On return the file is there, whole and on disk (see ``fsync``). On an error or a cancellation nothing
        stands under the name and nothing will, and directories made for it are gone if nothing else is in them.
        """
        writer = Writer(self, self._tree, check_path(name), fsync=self._fsync, file_mode=self._file_mode)
        try:
            await self._write(writer, data)
        except BaseException:
            await finish(hop(writer.discard))
            raise

    async def _write(self, writer: Writer, data: Source) -> None:
        stop = writer.stopped.set
        blocks = as_blocks(data)
        if blocks is not None:
            await hop_until(stop, writer.finish, blocks)
            return
        read = as_reader(data)
        pieces: list[bytes] = []
        waiting = 0
        while piece := await read(CHUNK):
            pieces.append(piece)
            waiting += len(piece)
            if waiting >= CHUNK:
                await hop_until(stop, writer.write, pieces)
                pieces, waiting = [], 0
        await hop_until(stop, writer.finish, pieces)

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> DiskFile:
        """Open a file, or the bytes from ``start`` up to but not including ``end`` of it; the caller closes it.

        Args:
            name: The name.
            start: In bytes; at or beyond the file's end there is nothing to read.
            end: In bytes; ``None`` or beyond the file's end means its end.

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
        """Return a file's size and time of change.

        Raises:
            StoreFileNotFoundError: There is no regular file of that name.
            InvalidKeyError: No file may have that name.
        """
        return await hop(self._head, check_path(name))

    async def delete_object(self, name: str) -> None:
        """Delete a file, and the directories that become empty; one that is not there is no error."""
        await hop(self._delete, check_path(name))

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        """Delete many files, a thousand in a hop; return the error of each that could not be deleted."""
        failed: dict[str, StoreError] = {}
        rest = iter(names)
        while batch := list(islice(rest, _BATCH)):
            failed |= await hop(self._delete_each, batch)
        return failed

    async def move_objects(self, names: Mapping[str, str]) -> dict[str, StoreError]:
        """Rename many files, a thousand in a hop; return the error of each that could not be renamed."""
        failed: dict[str, StoreError] = {}
        rest = iter(names.items())
        while batch := list(islice(rest, _BATCH)):
            failed |= await hop(self._move_each, batch)
        return failed

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the files whose names begin with ``prefix``, in order of name.

        It holds the names of one directory at each level in memory, skips directories that are out of the question,
        and takes one hop a thousand files.

        Args:
            prefix: Compared by character, so ``"a"`` finds ``"ab"`` too; empty for all.
            start_after: Only names after this one, which need not exist.
        """
        found = walk(self._tree, prefix, start_after)

        def take() -> list[ObjectInfo]:
            with translated(self, self.path, prefix):
                return list(islice(found, _BATCH))

        while batch := await hop(take):
            for one in batch:
                yield one

    async def discard_unfinished(self, before: datetime, prefix: str = "") -> int:
        """Remove what killed puts have left where the file system cannot keep a file without a name."""
        return await hop(self._discard_unfinished, before, prefix)

    def url_of(self, name: str) -> str:
        """Return the URL of a name by calculation alone."""
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
    """Keeps files in a directory, for development and for one machine; a web server shows them under ``base_url``.

    Nothing outside of the directory is ever read or written, whatever links stand in it. The directory is made at the
    first put if the one it stands in is there.

    Args:
        path: The directory. Other programs may read it, and only this library should write to it.
        base_url: What the names are appended to for URLs, with or without a slash at its end.
        fsync: Whether a put returns only when the file survives a power loss. Without it the machine may lose files of
            committed rows; for tests and for what can be made again.
        file_mode: The permissions of files, whatever the umask.
        dir_mode: The permissions of the directories it makes, whatever the umask.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        base_url: str,
        *,
        fsync: bool = True,
        file_mode: int = 0o644,
        dir_mode: int = 0o755,
    ) -> None:
        super().__init__(path, fsync=fsync, file_mode=file_mode, dir_mode=dir_mode)
        self._base_url = base_url if base_url.endswith("/") else f"{base_url}/"

    @property
    def base_url(self) -> str:
        """What the names are appended to for URLs, with a slash at its end."""
        return self._base_url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {self.base_url!r})"
