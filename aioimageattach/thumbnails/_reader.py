"""Read thumbnail files from any store, for a server."""

from __future__ import annotations

from collections.abc import Iterator

from .._http.ranges import Range
from .._names import revision_time
from ..store import KeyedStore
from ..stores._routing import RoutingStore
from ..stores.fs._serving.names import ServableFile
from ..stores.fs._serving.reader import Delivery, Reader
from ..stores.fs._serving.responses import FileInfo, RequestInfo, Response, file_response
from ..stores.fs._store import BaseFileSystemStore

__all__ = ["StoreReader"]

_TIME_CHARS = 10


class StoreReader:
    """Reads files from a directory in blocks, like the static server, and files from other stores as a whole.

    Args:
        store: The store to read from.
        block_size: Size of each read from a directory, in bytes.
        open_files: Number of files of a directory that are kept open.
    """

    def __init__(self, store: KeyedStore, block_size: int, open_files: int) -> None:
        self._store = store
        self._block_size = block_size
        self._open_files = open_files
        self._disks: dict[str, Reader] = {}

    def directory_of(self, file: ServableFile) -> str | None:
        """Return the directory that contains a file; ``None`` if its store is not a directory."""
        store: KeyedStore = self._store
        while isinstance(store, RoutingStore):
            store = store.store_of(file.object_type)
        return store.path if isinstance(store, BaseFileSystemStore) else None

    def peek(self, request: RequestInfo, file: ServableFile) -> Delivery | None:
        """Return the same as :meth:`prepare` if the file is in a directory and already open; else ``None``.

        Does not block.
        """
        path = self.directory_of(file)
        return None if path is None else self._disk(path).peek(request, file)

    async def prepare(self, request: RequestInfo, file: ServableFile) -> Delivery:
        """Return the response to a GET or HEAD request for a file, with the first block of its body.

        Raises:
            StoreFileNotFoundError: The file does not exist.
            StoreError: The file cannot be opened or read.
        """
        path = self.directory_of(file)
        if path is not None:
            return await self._disk(path).prepare(request, file)
        async with await self._store.get_object(file.name) as found:
            blob = await found.read()
        return self.respond(request, file, blob)

    def respond(self, request: RequestInfo, file: ServableFile, blob: bytes) -> Delivery:
        """Return the response for a file whose content is known."""
        response = file_response(request, FileInfo(file, len(blob), "", _modified(file)))
        parts = [part if isinstance(part, bytes) else blob[part[0] : part[1]] for part in response.body]
        response.body = [b"".join(parts)] if parts else []
        return Delivery(response)

    def blocks(self, response: Response) -> Iterator[bytes | Range]:
        """Iterate over the parts of a response body that is read from a directory."""
        return next(iter(self._disks.values())).blocks(response)

    async def read(self, delivery: Delivery, block: Range) -> bytes:
        """Read a block of a file in a directory."""
        return await next(iter(self._disks.values())).read(delivery, block)

    def _disk(self, path: str) -> Reader:
        if path not in self._disks:
            self._disks[path] = Reader(path, self._block_size, self._open_files)
        return self._disks[path]


def _modified(file: ServableFile) -> int:
    """Return the upload time of the original, from the file name, so that it is the same for every store."""
    stem = file.filename.partition(".")[0]
    moment = revision_time(stem[:_TIME_CHARS].ljust(26, "0"))
    return 0 if moment is None else int(moment.timestamp())
