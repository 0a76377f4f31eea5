"""The steps of a transaction at which a process can be stopped, and the page on which it notes the last one."""

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
    "before COMMIT",
    "after COMMIT",
    "before delete",
    "after delete",
    "before sweeping",
    "after sweeping",
    "before a request",
)
"""In the order in which a transaction that replaces a picture reaches them, and those of a sweep and a bucket."""

_LINE = struct.Struct("<4I")


@dataclass(frozen=True)
class Note:
    """What a process had done when it was killed.

    Attributes:
        step: The last one it reached.
        begun: How many transactions it has begun.
        acknowledged: The number of the last one whose commit has returned; 0 for none.
        refused: How many transactions the database has refused, because another process was in the way.
    """

    step: str
    begun: int
    acknowledged: int
    refused: int


class Board:
    """A page that a process shares with those it forks, a line for each; what is written survives the writer."""

    def __init__(self, lines: int) -> None:
        self._page = mmap.mmap(-1, max(1, lines) * _LINE.size)

    def write(self, line: int, note: Note) -> None:
        """Note what one has done."""
        values = STEPS.index(note.step), note.begun, note.acknowledged, note.refused
        _LINE.pack_into(self._page, line * _LINE.size, *values)

    def read(self, line: int) -> Note:
        """What one has noted last."""
        step, *counts = _LINE.unpack_from(self._page, line * _LINE.size)
        return Note(STEPS[step], *counts)


class Watch:
    """Is told of each step of a process, and stops the whole process at one of them.

    Args:
        board: Where to note it.
        line: Which line is the process's own.
        stop: The step to stop at, and at which time it is reached; ``None`` to go on for ever.
    """

    def __init__(self, board: Board, line: int, stop: tuple[str, int] | None) -> None:
        self._board = board
        self._line = line
        self.stop, self._left = stop or ("", 0)
        self.step = "start"
        self.begun = self.acknowledged = self.refused = 0

    def note(self) -> None:
        """Write it down."""
        self._board.write(self._line, Note(self.step, self.begun, self.acknowledged, self.refused))

    def passed(self, step: str) -> None:
        """A step is reached; where it is the one to stop at, nothing in this process goes on after it."""
        self.step = step
        self.note()
        if step == self.stop:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

    def listen(self, engine: AsyncEngine, sessions: async_sessionmaker[Any]) -> None:
        """Be told of what happens in the database."""

        @event.listens_for(engine.sync_engine, "after_cursor_execute")
        def executed(connection: object, cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("INSERT INTO user_picture"):
                self.passed("after INSERT")

        @event.listens_for(engine.sync_engine, "commit")
        def committing(connection: object) -> None:
            self.passed("before COMMIT")

        @event.listens_for(sessions.kw["sync_session_class"], "after_commit")
        def committed(session: Any) -> None:
            if not session.in_nested_transaction():
                self.passed("after COMMIT")


class WatchedStore(FaultyStore):
    """Tells a watch of every call.

    Args:
        inner: The real store.
        watch: Who is told.
        sweeping: Whether the deletions are those of a sweep.
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
    """A source in whose middle a step is reached."""

    def __init__(self, data: Source, watch: Watch) -> None:
        self._read = as_reader(data)
        self._watch = watch
        self._begun = False

    async def read(self, size: int = -1) -> bytes:
        if self._begun:
            self._watch.passed("during put")
        self._begun = True
        return await self._read(size)
