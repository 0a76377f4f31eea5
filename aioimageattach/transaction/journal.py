"""The ledger of one session: what was uploaded, what is to be deleted, what is to be undone.

A plain state machine: it knows nothing of SQLAlchemy, and does nothing to any store. A transaction is any hashable
token; a savepoint's is begun with its parent's. The caller reports what happens, and is told at the end of each
transaction which files no committed row will name.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from ..key import ImageKey
from ..store import Store

__all__ = ["Journal", "StoredFile", "Verdict"]


@dataclass(frozen=True, slots=True, eq=False)
class StoredFile:
    """One file in one store: by its key, or, in a store of files by name, by its name."""

    store: Store
    key: ImageKey | str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredFile) and self.store is other.store and self.key == other.key

    def __hash__(self) -> int:
        return hash((id(self.store), self.key))


class _Event(enum.Enum):
    UPLOADED = enum.auto()  # the file is in the store
    NAMED = enum.auto()  # a row that names it was inserted
    DROPPED = enum.auto()  # the row that named it was deleted


@dataclass(slots=True)
class _Frame:
    """A transaction that has not ended."""

    parent: Hashable | None
    since: float = math.inf  # when the first upload began
    events: list[tuple[_Event, StoredFile]] = field(default_factory=list)
    committed: bool = False
    sent: bool = False
    rolled_back: bool = False
    shared: bool = False
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the end of a transaction means for files.

    Args:
        discard: Files that no row will ever name.
        doubtful: Files kept because nobody can say whether the transaction was committed.
    """

    discard: tuple[StoredFile, ...] = ()
    doubtful: tuple[StoredFile, ...] = ()

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(self.discard + other.discard, self.doubtful + other.doubtful)


class Journal:
    """The open transactions of one session, and what happened to files in each."""

    def __init__(self) -> None:
        self._frames: dict[Hashable, _Frame] = {}
        self._left = Verdict()

    def begin(self, token: Hashable, parent: Hashable | None = None) -> None:
        """A transaction began; with a parent, a savepoint within it.

        A session has one transaction at a time: whatever is still open when one without a parent begins was interrupted
        before it could say so, and its files are part of the next verdict.
        """
        if parent is None:
            self._left = self.settle()
        self._frames[token] = _Frame(parent)

    def uploaded(self, token: Hashable, file: StoredFile, since: float = math.inf) -> None:
        """A file was put for a row that is to be inserted in this transaction.

        Args:
            token: The transaction.
            file: The file.
            since: When that began, on a clock of the caller's.
        """
        frame = self._frames[token]
        frame.events.append((_Event.UPLOADED, file))
        frame.since = min(frame.since, since)

    def leased(self, token: Hashable, since: float) -> None:
        """A row names a file of many that was put then, on the caller's clock, and that no transaction deletes."""
        frame = self._frames[token]
        frame.since = min(frame.since, since)

    def named(self, token: Hashable, file: StoredFile) -> None:
        """A row that names the file was inserted."""
        self._frames[token].events.append((_Event.NAMED, file))

    def dropped(self, token: Hashable, file: StoredFile) -> None:
        """The row that named the file was deleted."""
        self._frames[token].events.append((_Event.DROPPED, file))

    def shared(self, token: Hashable) -> None:
        """The transaction is part of one that somebody else ends."""
        self._frames[token].shared = True

    def permanent(self, token: Hashable) -> None:
        """The database makes every statement of the transaction permanent at once."""
        self._frames[token].permanent = True

    def sending(self, token: Hashable) -> None:
        """COMMIT, or its preparation, is about to be sent."""
        self._frames[token].sent = True

    def holds(self, file: StoredFile) -> bool:
        """Whether the file is in the store and ours to name: put, or dropped, in a transaction that is still open."""
        return any(file == known for frame in self._frames.values() for _, known in frame.events)

    def since(self) -> float:
        """When the first of the uploads began that a commit would make permanent now; infinity if there are none."""
        return min((frame.since for frame in self._frames.values()), default=math.inf)

    def committed(self, token: Hashable) -> None:
        """The database said that it committed, or released the savepoint."""
        self._frames[token].committed = True

    def rolled_back(self, token: Hashable) -> None:
        """The database said that it rolled back."""
        self._frames[token].rolled_back = True

    def end(self, token: Hashable) -> Verdict:
        """A transaction is over; return what that means for its files."""
        verdict = self._close(token)
        return verdict if self._frames else self._left_over() + verdict

    def settle(self) -> Verdict:
        """Whatever is still open is over, though nobody could say so; return what that means for files."""
        verdict = self._left_over()
        for left in reversed(tuple(self._frames)):
            verdict += self._close(left)
        return verdict

    def _left_over(self) -> Verdict:
        left, self._left = self._left, Verdict()
        return left

    def _close(self, token: Hashable) -> Verdict:
        frame = self._frames.pop(token, None)
        if frame is None:
            return Verdict()
        parent = None if frame.parent is None else self._frames.get(frame.parent)
        if parent is not None:
            parent.shared |= frame.shared
            parent.permanent |= frame.permanent
            if frame.committed or frame.permanent or (frame.shared and not frame.rolled_back):
                parent.events += frame.events
                parent.since = min(parent.since, frame.since)
                return Verdict()
            return _rolled_back(frame)
        if frame.committed:
            return _doubtful(frame) if frame.shared else _committed(frame)
        if frame.sent or frame.permanent or (frame.shared and not frame.rolled_back):
            return _doubtful(frame)
        return _rolled_back(frame)


def _committed(frame: _Frame) -> Verdict:
    last = {file: event for event, file in frame.events}
    gone = tuple(file for file, event in last.items() if event is not _Event.NAMED)
    return Verdict(discard=gone)


def _rolled_back(frame: _Frame) -> Verdict:
    return Verdict(discard=tuple({file: None for event, file in frame.events if event is _Event.UPLOADED}))


def _doubtful(frame: _Frame) -> Verdict:
    return Verdict(doubtful=tuple({file: None for _, file in frame.events}))
