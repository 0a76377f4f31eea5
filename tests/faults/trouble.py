"""A database that fails at its k-th call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

When = Literal["before", "after", "lost"]


class Broken(Exception):
    """The error that the database raises."""


class Trouble:
    """Counts the statements and commits of an engine, and makes one of them fail.

    Args:
        number: Which one, starting with 1.
        when: An error before it is sent or after it was executed, or a lost connection. A COMMIT always loses the
            connection, because SQLAlchemy cannot raise another error there.
        kill: Breaks the given driver connection.

    Attributes:
        met: ``True`` if it has happened.
        doubtful: ``True`` if it happened to a COMMIT, whose outcome is unknown.
        late: ``True`` if it happened after the COMMIT, in the query for references.
    """

    def __init__(self, number: int, when: When, kill: Callable[[Any], None]) -> None:
        self._left = number
        self._when = when
        self._kill = kill
        self.met = False
        self.doubtful = False
        self.late = False
        self._committed = False

    def _reached(self) -> bool:
        self._left -= 1
        self.met |= self._left == 0
        self.late |= self._left == 0 and self._committed
        return self._left == 0

    def _fail(self, connection: Any) -> None:
        if self._when != "lost":
            raise Broken
        self._kill(connection.connection.driver_connection)

    def _before(self, connection: Any, *_: object) -> None:
        if self._when != "after" and self._reached():
            self._fail(connection)

    def _after(self, connection: Any, *_: object) -> None:
        if self._when == "after" and self._reached():
            self._fail(connection)

    def _commit(self, connection: Any) -> None:
        if self._reached():
            self.doubtful = True
            self._kill(connection.connection.driver_connection)
        self._committed = True

    @contextlib.contextmanager
    def at(self, engine: AsyncEngine) -> Iterator[None]:
        """Listen for the duration of the block."""
        listeners = {
            "before_cursor_execute": self._before,
            "after_cursor_execute": self._after,
            "commit": self._commit,
        }
        for name, listener in listeners.items():
            event.listen(engine.sync_engine, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                event.remove(engine.sync_engine, name, listener)
