"""The journal of one session: it records uploads and references, and determines the files that may be discarded.

It is a plain state machine that knows nothing about SQLAlchemy and calls no store. A transaction is any hashable token.
The caller reports the events. At the end of the root transaction the journal *nominates* files for removal: a
nomination is a claim, which the database confirms or refutes before anything is discarded (:mod:`.references`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

from .references import TrackedFile

__all__ = ["Journal", "Verdict"]


class _Event(enum.Enum):
    UPLOADED = enum.auto()  # the file is in the store
    NAMED = enum.auto()  # a row that references it was inserted or updated
    DROPPED = enum.auto()  # the row that referenced it was deleted, or references another file


@dataclass(slots=True)
class _Frame:
    """A transaction or savepoint that has not ended."""

    since: float = math.inf  # when the first upload began
    events: list[tuple[_Event, TrackedFile]] = field(default_factory=list)
    committed: bool = False
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The consequences of the end of a root transaction for its files.

    Args:
        uploads: Nominated for removal: files uploaded for rows that are not expected to exist.
        dropped: Nominated for removal: files whose rows were deleted or replaced.
        unresolved: Kept, because it is unknown whether the transaction was committed.
        attached: Files uploaded or adopted for rows that are expected to exist. If there are unresolved files, it is
            unknown whether these rows exist.
    """

    uploads: tuple[TrackedFile, ...] = ()
    dropped: tuple[TrackedFile, ...] = ()
    unresolved: tuple[TrackedFile, ...] = ()
    attached: tuple[TrackedFile, ...] = ()

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            self.uploads + other.uploads,
            self.dropped + other.dropped,
            self.unresolved + other.unresolved,
            self.attached + other.attached,
        )


class Journal:
    """The open transactions of one session, and the events of files in each.

    A frame is created when the first file is reported in its transaction, so a transaction without files costs nothing.
    """

    def __init__(self) -> None:
        self._frames: dict[Hashable, _Frame] = {}  # the root first, then the savepoints, outermost first
        self._files: set[TrackedFile] = set()  # of all frames
        self.claimed: set[TrackedFile] = set()
        """Files that were already in the store and that rows of the open transaction will reference."""
        self._pending_verdict = Verdict()

    def _open(self, tokens: Sequence[Hashable]) -> _Frame:
        """Return the frame of the innermost open transaction; ``tokens`` start with the root transaction.

        A session has one root transaction at a time. If frames of another root are still open, that root was
        interrupted before it could report its end; its files are part of the next verdict.
        """
        if self._frames and tokens[0] not in self._frames:
            self._pending_verdict = self.close_all()
        for token in tokens:
            if token not in self._frames:
                self._frames[token] = _Frame()
        return self._frames[tokens[-1]]

    def _record(self, tokens: Sequence[Hashable], event: _Event, file: TrackedFile) -> _Frame:
        frame = self._open(tokens)
        frame.events.append((event, file))
        self._files.add(file)
        return frame

    def uploaded(self, tokens: Sequence[Hashable], file: TrackedFile, since: float = math.inf) -> None:
        """Record that a file was put for a row that this transaction will write.

        Args:
            tokens: The open transactions, from the root to the innermost savepoint.
            file: The file.
            since: The time when the upload began, in seconds of a clock chosen by the caller.
        """
        frame = self._record(tokens, _Event.UPLOADED, file)
        frame.since = min(frame.since, since)

    def leased(self, tokens: Sequence[Hashable], since: float) -> None:
        """Record that a row references a shared file that was put at ``since``. No transaction removes such a file."""
        frame = self._open(tokens)
        frame.since = min(frame.since, since)

    def named(self, tokens: Sequence[Hashable], file: TrackedFile) -> None:
        """Record that a row that references the file was written."""
        self._record(tokens, _Event.NAMED, file)

    def dropped(self, tokens: Sequence[Hashable], file: TrackedFile) -> None:
        """Record that the row that referenced the file was deleted, or now references another file."""
        self._record(tokens, _Event.DROPPED, file)

    def sending(self, root: Hashable) -> None:
        """Record that COMMIT or PREPARE TRANSACTION is about to be sent."""
        if root in self._frames:
            self._frames[root].sent = True

    def claim(self, tokens: Sequence[Hashable], file: TrackedFile) -> None:
        """Record that a row of this transaction will reference a file that was already in the store."""
        self._open(tokens)
        self.claimed.add(file)

    def committed(self, token: Hashable) -> None:
        """Record that the session reported the commit of the transaction, or the release of the savepoint."""
        if token in self._frames:
            self._frames[token].committed = True

    def holds(self, file: TrackedFile) -> bool:
        """Return whether a row may reference the file: it was uploaded, or dropped, in the open root transaction."""
        return file in self._files

    def since(self) -> float:
        """Return when the first upload of the open transactions began; infinity if there was none."""
        return min((frame.since for frame in self._frames.values()), default=math.inf)

    def end(self, token: Hashable) -> Verdict:
        """Close a transaction or savepoint and return the verdict, which is empty for a savepoint.

        The files of a savepoint are kept until the root transaction ends, because locks are held until then. If the
        savepoint is released, all their events are kept; if it is rolled back, only the uploads, as unreferenced files.
        """
        frame = self._frames.pop(token, None)
        if frame is None:
            return Verdict()
        if not self._frames:
            pending, self._pending_verdict = self._pending_verdict, Verdict()
            verdict = pending + _verdict(frame, self.claimed)
            self._files = set()
            self.claimed = set()
            return verdict
        parent = next(reversed(self._frames.values()))
        if frame.committed:
            parent.events += frame.events
            parent.since = min(parent.since, frame.since)
        else:
            parent.events += [(event, file) for event, file in frame.events if event is _Event.UPLOADED]
        return Verdict()

    def close_all(self) -> Verdict:
        """Close everything that is still open, innermost first, and return the verdict."""
        verdict = self._pending_verdict
        self._pending_verdict = Verdict()
        for token in reversed(tuple(self._frames)):
            verdict += self.end(token)
        return verdict


def _verdict(root: _Frame, claimed: Collection[TrackedFile]) -> Verdict:
    last = {file: event for event, file in root.events}
    new = {*claimed, *(file for event, file in root.events if event is _Event.UPLOADED)}
    attached = tuple(file for file, event in last.items() if event is _Event.NAMED and file in new)
    if root.committed:
        return Verdict(
            uploads=tuple(file for file, event in last.items() if event is _Event.UPLOADED),
            dropped=tuple(file for file, event in last.items() if event is _Event.DROPPED),
            attached=attached,
        )
    if root.sent:
        return Verdict(unresolved=tuple(last), attached=attached)
    return Verdict(uploads=tuple({file: None for event, file in root.events if event is _Event.UPLOADED}))
