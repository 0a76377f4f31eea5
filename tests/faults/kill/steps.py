"""The steps of a transaction at which a process can be stopped, and shared memory for the last step."""

from __future__ import annotations

import mmap
import os
import signal
import struct
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from aioimageattach.file import Source
from aioimageattach.file._source import as_reader
from tests.faults.stores import FaultyStore

STEPS = (
    "start",
    "begin",
    "before put",
    "during put",
    "after put",
    "after INSERT",
    "after UPDATE",
    "before COMMIT",
    "after COMMIT",
    "before delete",
    "after delete",
    "before sweeping",
    "after sweeping",
    "before a request",
)
"""The steps of a transaction that replaces a picture or a file, in order, and those of a sweep and a bucket."""

_LINE = struct.Struct("<4I")


@dataclass(frozen=True)
class Note:
    """The progress of a process when it was killed.

    Attributes:
        step: The last step that it reached.
        begun: The number of transactions that it has begun.
        acknowledged: The number of the last transaction whose commit has returned; 0 for none.
        refused: The number of transactions that the database has refused because of another process.
    """

    step: str
    begun: int
    acknowledged: int
    refused: int


class Board:
    """Memory shared with forked processes, one line for each; notes survive the process that wrote them."""

    def __init__(self, lines: int) -> None:
        self._page = mmap.mmap(-1, max(1, lines) * _LINE.size)

    def write(self, line: int, note: Note) -> None:
        """Write the note of a line."""
        values = STEPS.index(note.step), note.begun, note.acknowledged, note.refused
        _LINE.pack_into(self._page, line * _LINE.size, *values)

    def read(self, line: int) -> Note:
        """Return the last note of a line."""
        step, *counts = _LINE.unpack_from(self._page, line * _LINE.size)
        return Note(STEPS[step], *counts)


class Watch:
    """Records each step of a process, and stops the whole process at one of them.

    Args:
        board: The shared memory.
        line: The line of this process.
        stop: The step to stop at, and how often it must be reached; ``None`` to run forever.
    """

    def __init__(self, board: Board, line: int, stop: tuple[str, int] | None) -> None:
        self._board = board
        self._line = line
        self.stop, self._left = stop or ("", 0)
        self.step = "start"
        self.begun = self.acknowledged = self.refused = 0

    def note(self) -> None:
        """Write the note."""
        self._board.write(self._line, Note(self.step, self.begun, self.acknowledged, self.refused))

    def passed(self, step: str) -> None:
        """Record a step; if it is the one to stop at, the whole process stops."""
        self.step = step
        self.note()
        if step == self.stop:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

    def listen(self, engine: AsyncEngine, sessions: async_sessionmaker[Any]) -> None:
        """Record the events of the database."""

        @event.listens_for(engine.sync_engine, "after_cursor_execute")
        def executed(connection: object, cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("INSERT INTO user_picture"):
                self.passed("after INSERT")
            elif statement.startswith("UPDATE") and "scan=" in statement:
                self.passed("after UPDATE")

        @event.listens_for(engine.sync_engine, "commit")
        def committing(connection: object) -> None:
            self.passed("before COMMIT")

        @event.listens_for(sessions.kw["sync_session_class"], "after_commit")
        def committed(session: Any) -> None:
            if not session.in_nested_transaction():
                self.passed("after COMMIT")


class WatchedStore(FaultyStore):
    """Reports every call to a watch.

    Args:
        inner: The real store.
        watch: The watch to notify.
        sweeping: ``True`` if the deletions are those of a sweep.
    """

    def __init__(self, inner: Any, watch: Watch, *, sweeping: bool = False) -> None:
        super().__init__(inner)
        self._watch = watch
        for method, before, after in (
            ("put", "before put", "after put"),
            ("delete", "before sweeping", "after sweeping")
            if sweeping
            else ("delete", "before delete", "after delete"),
        ):
            self.at(method, self._passing(before))
            self.at(method, self._passing(after), after=True)

    def _passing(self, step: str) -> Any:
        async def action(name: str) -> None:
            self._watch.passed(step)

        return action

    async def put_object(self, name: str, data: Source, **options: Any) -> None:
        if self._watch.stop == "during put":
            data = _Halved(data, self._watch)
        await super().put_object(name, data, **options)


class _Halved:
    """A source that reports a step in its middle."""

    def __init__(self, data: Source, watch: Watch) -> None:
        self._read = as_reader(data)
        self._watch = watch
        self._begun = False

    async def read(self, size: int = -1) -> bytes:
        if self._begun:
            self._watch.passed("during put")
        self._begun = True
        return await self._read(size)
