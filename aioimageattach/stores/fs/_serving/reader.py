"""A reader of files: cached data on the event loop, everything else in a worker thread."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ...._http.ranges import Range
from ...._threads import run_io
from ....exc import StoreUnavailableError
from .._disk import translate, translated
from .files import OpenFile, OpenFiles
from .names import ServableFile
from .responses import RequestInfo, Response, file_response

__all__ = ["Delivery", "FileReader", "Reader"]

_KEPT_BUFFERS: Final = 16
_KEPT_CONTENT: Final = 32 * 1024
"""Largest content that is kept with an open file, in bytes; rereading it would dominate the cost of a response."""

_PRIVATE: Final[dict[str, Any]] = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}


@dataclass(slots=True)
class Delivery:
    """A response, and the open file that its body is read from.

    Attributes:
        file: ``None`` if the body needs no file, and after :meth:`release`.
        first: The first block of the file, if the body begins with one.
    """

    response: Response
    file: OpenFile | None = None
    first: bytes | None = None

    @property
    def opened(self) -> OpenFile:
        """The open file, for a body that is read from one."""
        assert self.file is not None
        return self.file

    def single_body(self) -> bytes | None:
        """Return the whole body, or ``None`` if more of the file must be read."""
        parts = self.response.body
        if not parts:
            return b""
        if len(parts) > 1:
            return None
        part = parts[0]
        if isinstance(part, bytes):
            return part
        first = self.first
        return first if first is not None and len(first) == part[1] - part[0] else None

    def release(self) -> None:
        """Drop the reference to the file, so that the traceback of an exception does not keep the file open.

        For the same reason, functions take the delivery as an argument instead of the file.
        """
        self.file = None


class FileReader(Protocol):
    """The interface of an object that finds and reads files."""

    def peek(self, request: RequestInfo, file: ServableFile) -> Delivery | None:
        """Return the result of :meth:`prepare` if it is available without waiting, or else ``None``. Does not block."""
        ...

    async def prepare(self, request: RequestInfo, file: ServableFile) -> Delivery:
        """Return the response to GET or HEAD of a file, with the first block of its body.

        Raises:
            StoreFileNotFoundError: The file does not exist.
            StoreError: The file cannot be opened or read.
        """
        ...

    def blocks(self, response: Response) -> Iterator[bytes | Range]:
        """Iterate over the parts of a body, with each range divided into blocks."""
        ...

    async def read(self, delivery: Delivery, block: Range) -> bytes:
        """Read a block.

        Raises:
            StoreError: The block cannot be read.
        """
        ...


class Reader:
    """A reader of the files of a directory, in blocks.

    Args:
        root: The directory, as an absolute path.
        block_size: The size of a block, in bytes.
        open_files: How many files may stay open.
    """

    def __init__(self, root: str, block_size: int, open_files: int) -> None:
        self._root = root
        self._block_size = block_size
        self._files = OpenFiles(root, open_files)
        self._buffers: list[memoryview] = []

    def peek(self, request: RequestInfo, file: ServableFile) -> Delivery | None:
        """Return the result of :meth:`prepare` if it needs no disk access, or else ``None``. Does not block."""
        opened = self._files.peek(file.name)
        if opened is None:
            return None
        delivery = Delivery(file_response(request, opened.info), opened)
        block = self._first_block(delivery.response)
        if block is not None:
            delivery.first = self._read_cached(opened, block)
            if delivery.first is None:
                return None
        return delivery

    def blocks(self, response: Response) -> Iterator[bytes | Range]:
        """Iterate over the parts of a body, with each range divided into blocks."""
        for part in response.body:
            if isinstance(part, bytes):
                yield part
            else:
                for start in range(*part, self._block_size):
                    yield start, min(part[1], start + self._block_size)

    async def read(self, delivery: Delivery, block: Range) -> bytes:
        """Read a block: from the page cache if all of it is cached, or else in a worker thread.

        Raises:
            StoreError: The disk failed, or the file was truncated.
        """
        data = self._read_cached(delivery.opened, block)
        if data is None:
            buffer = self._take_buffer()
            await run_io(self._fill, delivery, buffer, block)
            data = self._take_bytes(delivery.opened, buffer, block[1] - block[0])
        return data

    def _read_cached(self, file: OpenFile, block: Range) -> bytes | None:
        """Return a block if all of it is in memory. Does not block."""
        start, end = block
        if file.content is not None:
            return file.content[start:end]
        if not file.nowait:
            return None
        buffer = self._take_buffer()
        if file.read_cached(buffer[: end - start], start) == end - start:
            return self._take_bytes(file, buffer, end - start)
        self._keep_buffer(buffer)
        return None

    async def prepare(self, request: RequestInfo, file: ServableFile) -> Delivery:
        """Return the response to GET or HEAD of a file, with the first block of its body.

        Raises:
            StoreFileNotFoundError: The file does not exist.
            StoreError: The file cannot be opened or read.
        """
        # The future of a worker thread keeps its result until it is garbage-collected, which would keep the file open.
        # So the result is passed in a list.
        results: list[tuple[Delivery, memoryview | None, int]] = []
        try:
            await run_io(self._prepare, request, file, results)
            delivery, buffer, size = results.pop()
        finally:
            results.clear()
        if buffer is not None:  # create the bytes here, because allocating them is slower in a worker thread
            delivery.first = self._take_bytes(delivery.opened, buffer, size)
        return delivery

    def _prepare(
        self,
        request: RequestInfo,
        file: ServableFile,
        results: list[tuple[Delivery, memoryview | None, int]],
    ) -> None:
        with translated(self, self._root, file.name):
            opened = self._files.get(file)
        delivery = Delivery(file_response(request, opened.info), opened)
        block = self._first_block(delivery.response)
        if block is None:
            results.append((delivery, None, 0))
            return
        buffer = self._take_buffer()
        self._fill(delivery, buffer, block)
        results.append((delivery, buffer, block[1] - block[0]))

    def _first_block(self, response: Response) -> Range | None:
        part = response.body[0] if response.body else b""
        if isinstance(part, bytes):
            return None
        start, end = part
        return start, min(end, start + self._block_size)

    def _fill(self, delivery: Delivery, buffer: memoryview, block: Range) -> None:
        """Read a block. Blocks."""
        start, end = block
        name = delivery.opened.name
        try:
            done = delivery.opened.read(buffer[: end - start], start)
        except OSError as error:
            raise translate(error, repr(self), self._root, name) from error
        if done < end - start:
            raise StoreUnavailableError(
                f"{name!r} in {self._root!r} was truncated while it was read", store=repr(self), name=name
            )

    def _take_buffer(self) -> memoryview:
        """Return an unused buffer; reusing memory is cheaper than allocating it for every read.

        The buffer is page-aligned. A large ``bytearray`` starts 16 bytes after a page boundary, which makes the
        kernel's copy from the page cache up to ten times slower: each load has the same low 12 address bits as a recent
        store (4K aliasing).
        """
        try:
            return self._buffers.pop()
        except IndexError:
            return memoryview(mmap.mmap(-1, self._block_size, **_PRIVATE))

    def _take_bytes(self, file: OpenFile, buffer: memoryview, count: int) -> bytes:
        """Return the first bytes of a buffer that was filled from a file, and release the buffer."""
        data = bytes(buffer[:count])
        if count == file.info.size <= _KEPT_CONTENT:
            file.content = data
        self._keep_buffer(buffer)
        return data

    def _keep_buffer(self, buffer: memoryview) -> None:
        if len(self._buffers) < _KEPT_BUFFERS:
            self._buffers.append(buffer)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._root!r})"
