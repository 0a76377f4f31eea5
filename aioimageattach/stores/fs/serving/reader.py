"""Finds files and reads them for answers: at once what is in memory, the rest in one hop to a thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ...._http.ranges import Range
from ...._threads import run_io
from ....exc import StoreUnavailableError
from ..disk import translate, translated
from .answers import Answer, Asked, file_answer
from .files import Buffers, Files, OpenFile
from .headers import Headers
from .names import Shown

__all__ = ["Reader", "Reply"]

_Filled: TypeAlias = tuple[memoryview, int]
"""A buffer, and how many bytes of it have been read."""

_Found: TypeAlias = tuple[Answer, OpenFile, _Filled | None]


@dataclass(slots=True)
class Reply:
    """An answer, with what its body is read from.

    Attributes:
        file: Open as long as this refers to it.
        first: The first block of the body, where the body begins with bytes of the file.
    """

    answer: Answer
    file: OpenFile
    first: bytes | None

    @property
    def is_complete(self) -> bool:
        """Whether the first block is the whole body."""
        pieces = self.answer.pieces
        if self.first is None:
            return not pieces
        piece = pieces[0]
        return len(pieces) == 1 and not isinstance(piece, bytes) and len(self.first) == piece[1] - piece[0]

    def let_go(self) -> None:
        """Refer to the file no more: an error that somebody looks at later shall not keep it open."""
        del self.file


class Reader:
    """Reads the files of a directory, in blocks.

    Args:
        root: The directory.
        block_size: In bytes.
        open_files: How many files stay open.
    """

    def __init__(self, root: str, block_size: int, open_files: int) -> None:
        self._root = root
        self._files = Files(root, open_files)
        self._buffers = Buffers(block_size)

    async def look(self, asked: Asked, file: Shown, cors: Headers) -> Reply:
        """Return the answer to a request for a file, its first block included.

        Raises:
            StoreFileNotFoundError: There is no such file.
            StoreError: It cannot be opened or read.
        """
        at_hand = self._files.at_hand(file)
        if at_hand is None:
            answer, opened, filled = await self._hop(asked, file, cors)
            return Reply(answer, opened, None if filled is None else self._taken(filled))
        answer = _answer(asked, file, at_hand, cors)
        first = self._first(answer)
        return Reply(answer, at_hand, None if first is None else await self.read(file, at_hand, first))

    def cut(self, pieces: Iterable[bytes | Range]) -> Iterator[bytes | Range]:
        """Iterate over the pieces of a body, the ranges in blocks."""
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                for start in range(*piece, self._buffers.size):
                    yield start, min(piece[1], start + self._buffers.size)

    async def read(self, file: Shown, opened: OpenFile, block: Range) -> bytes:
        """Read a block: at once what is in memory, the rest in one hop.

        Raises:
            StoreError: The disk fails, or the file has become shorter.
        """
        start, end = block
        buffer = self._buffers.take()
        done = opened.read_now(buffer[: end - start], start) if opened.nowait else 0
        if done < end - start:
            await run_io(self._fill, file, opened, buffer, done, start, end)
        return self._taken((buffer, end - start))

    async def _hop(self, asked: Asked, file: Shown, cors: Headers) -> _Found:
        # Futures of threads live on until they are collected, and their results with them: a file would stay open.
        found: list[_Found] = []
        try:
            await run_io(self._look, asked, file, cors, found)
            return found.pop()
        finally:
            found.clear()

    def _look(self, asked: Asked, file: Shown, cors: Headers, found: list[_Found]) -> None:
        """Do what :meth:`look` does, in a thread; the bytes are made of the buffer outside, where memory is cheaper."""
        with translated(self, self._root, file.name):
            opened = self._files.get(file)
        answer = _answer(asked, file, opened, cors)
        first = self._first(answer)
        filled = None
        if first is not None:
            filled = self._fill(file, opened, self._buffers.take(), 0, *first)
        found.append((answer, opened, filled))

    def _first(self, answer: Answer) -> Range | None:
        first = next(self.cut(answer.pieces), b"")
        return None if isinstance(first, bytes) else first

    def _fill(self, file: Shown, opened: OpenFile, buffer: memoryview, done: int, start: int, end: int) -> _Filled:
        """Read what is missing in the buffer of a range; it waits."""
        try:
            done += opened.read(buffer[done : end - start], start + done)
        except OSError as error:
            raise translate(error, repr(self), self._root, file.name) from error
        if done < end - start:
            raise StoreUnavailableError(
                f"{file.name!r} in {self._root!r} has become shorter while it was read",
                store=repr(self),
                name=file.name,
            )
        return buffer, done

    def _taken(self, filled: _Filled) -> bytes:
        buffer, count = filled
        data = bytes(buffer[:count])
        self._buffers.give_back(buffer)
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._root!r})"


def _answer(asked: Asked, file: Shown, opened: OpenFile, cors: Headers) -> Answer:
    return file_answer(asked, file, opened.version, opened.size, opened.headers, opened.whole, cors)
