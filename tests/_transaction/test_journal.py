"""The journal of a session as a state machine, without a database, a session or a call to a store."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy.engine import Connection

from aioimageattach._transaction.journal import Journal, Verdict
from aioimageattach._transaction.references import Database, Referrer, TrackedFile
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore

STORE = MemoryStore()


class Nobody(Referrer):
    """Rows that reference no files."""

    def referenced(self, connection: Connection, files: Sequence[TrackedFile]) -> Collection[TrackedFile]:
        """Return no files."""
        return ()


REFERRER = Nobody(Database(None, cast("Any", None)), cast("Any", None))


def file(store: MemoryStore = STORE) -> TrackedFile:
    """Return a file that is equal to no other."""
    return TrackedFile(store, ImageKey("picture", 1, 2, 3, "image/png", make_revision()), REFERRER)


def test_files_are_equal_by_place_and_key() -> None:
    """A key in two stores is two files; in two store objects of one directory it is one file."""
    here = file()
    assert here == TrackedFile(STORE, here.key, REFERRER)
    assert hash(here) == hash(TrackedFile(STORE, here.key, REFERRER))
    assert here != TrackedFile(MemoryStore(), here.key, REFERRER)
    assert here != here.key
    one, other = (FileSystemStore("media", "/media/") for _ in range(2))
    assert TrackedFile(one, here.key, REFERRER) == TrackedFile(other, here.key, REFERRER)


def test_verdicts_add_up() -> None:
    """The verdicts of two transactions can be added."""
    one, two, three = file(), file(), file()
    total = Verdict((one,), (), (two,)) + Verdict((), (three,))
    assert total == Verdict(uploads=(one,), dropped=(three,), unresolved=(two,))


def test_the_end_of_a_transaction_without_files() -> None:
    """Transactions without files, and those of flushes, leave nothing behind."""
    journal = Journal()
    journal.sending("root")
    journal.committed("root")
    assert journal.end("root") == Verdict()


def test_the_first_upload_that_a_commit_would_keep() -> None:
    """Uploads in savepoints count while the savepoint is open and after its release."""
    journal = Journal()
    assert journal.since() == math.inf
    journal.uploaded(["root"], file(), 5.0)
    journal.uploaded(["root", "one"], file(), 3.0)
    journal.uploaded(["root", "one", "two"], file(), 2.0)
    assert journal.since() == 2.0
    journal.end("two")
    assert journal.since() == 3.0
    journal.committed("one")
    journal.end("one")
    assert journal.since() == 3.0
    journal.end("root")
    assert journal.since() == math.inf


# --- how a transaction ends ------------------------------------------------------------------------------------------


def replaced() -> tuple[Journal, dict[str, TrackedFile]]:
    """A journal of a transaction that replaced a file, and put another that no row referenced."""
    files = {"replaced": file(), "new": file(), "unnamed": file()}
    journal = Journal()
    journal.uploaded(["root"], files["new"])
    journal.uploaded(["root"], files["unnamed"])
    journal.named(["root"], files["new"])
    journal.dropped(["root"], files["replaced"])
    return journal, files


@pytest.mark.parametrize("sent", [True, False])
def test_a_commit_nominates_replaced_files(sent: bool) -> None:
    """The replaced file and the unused upload are nominated; the new file is not queried."""
    journal, files = replaced()
    if sent:
        journal.sending("root")
    journal.committed("root")
    expected = Verdict(uploads=(files["unnamed"],), dropped=(files["replaced"],), attached=(files["new"],))
    assert journal.end("root") == expected
    assert not any(journal.holds(known) for known in files.values())


def test_a_rollback_nominates_uploads() -> None:
    """Both a reported rollback and a closed session nominate the uploads, and the replaced file is not queried."""
    journal, files = replaced()
    assert journal.end("root") == Verdict(uploads=(files["new"], files["unnamed"]))


def test_a_commit_without_a_reply_nominates_nothing() -> None:
    """The rows may exist or may still appear, so every file is kept."""
    journal, files = replaced()
    journal.sending("root")
    verdict = journal.end("root")
    assert verdict.uploads == verdict.dropped == ()
    assert set(verdict.unresolved) == set(files.values())
    assert verdict.attached == (files["new"],)


def test_files_are_attached_once() -> None:
    """Files uploaded or adopted for a row are attached, but not other files of rows that have changed."""
    journal = Journal()
    uploaded, adopted, moved, undone, deleted = (file() for _ in range(5))
    journal.uploaded(["root"], uploaded)
    journal.claim(["root"], adopted)
    for known in (uploaded, adopted, moved, uploaded):
        journal.named(["root"], known)
    for known in (undone, deleted):
        journal.uploaded(["root", "savepoint"], known)
        journal.named(["root", "savepoint"], known)
    journal.end("savepoint")
    journal.named(["root"], deleted)
    journal.dropped(["root"], deleted)
    journal.committed("root")
    verdict = journal.end("root")
    assert verdict.attached == (uploaded, adopted)
    assert verdict.uploads == (undone,)


def test_a_shared_file_is_never_nominated_and_counts_for_the_age() -> None:
    """A shared file is in no verdict, and its age counts in savepoints as well."""
    journal = Journal()
    journal.leased(["root", "savepoint"], 5.0)
    assert journal.since() == 5.0
    journal.committed("savepoint")
    assert journal.end("savepoint") == Verdict()
    assert journal.since() == 5.0
    assert journal.end("root") == Verdict()


def test_a_file_dropped_and_named_again_stays() -> None:
    """The last event of a file counts: a row deleted and inserted again in one transaction keeps its file."""
    journal, old = Journal(), file()
    journal.dropped(["root"], old)
    assert journal.holds(old)
    journal.named(["root"], old)
    journal.committed("root")
    assert journal.end("root") == Verdict()


def test_a_file_uploaded_and_dropped_is_nominated() -> None:
    """A file attached and replaced in one transaction is nominated, because no committed row references it."""
    journal, brief = Journal(), file()
    journal.uploaded(["root"], brief)
    journal.named(["root"], brief)
    journal.dropped(["root"], brief)
    journal.committed("root")
    assert journal.end("root") == Verdict(dropped=(brief,))


# --- savepoints ------------------------------------------------------------------------------------------------------


def nested() -> tuple[Journal, TrackedFile, TrackedFile]:
    """A journal whose savepoint replaced a file."""
    journal, old, new = Journal(), file(), file()
    tokens = ["root", "savepoint"]
    journal.uploaded(tokens, new)
    journal.named(tokens, new)
    journal.dropped(tokens, old)
    return journal, old, new


def test_a_savepoint_rolled_back() -> None:
    """The deletions of the savepoint are discarded, and its uploads are kept until the root transaction ends."""
    for committed in (True, False):
        journal, _, new = nested()
        assert journal.end("savepoint") == Verdict()
        if committed:
            journal.committed("root")
        assert journal.end("root") == Verdict(uploads=(new,))


def test_a_savepoint_released() -> None:
    """A released savepoint nominates nothing; the end of the root transaction decides."""
    journal, old, new = nested()
    journal.committed("savepoint")
    assert journal.end("savepoint") == Verdict()
    assert journal.holds(old)
    assert journal.holds(new)
    journal.committed("root")
    assert journal.end("root") == Verdict(dropped=(old,), attached=(new,))

    journal, _, new = nested()
    journal.committed("savepoint")
    journal.end("savepoint")
    assert journal.end("root") == Verdict(uploads=(new,))


# --- what was interrupted --------------------------------------------------------------------------------------------


def test_an_interrupted_transaction_ends_when_the_next_one_does() -> None:
    """A cancelled session never reports the end of its transaction; the next verdict contains its files."""
    journal, _, new = nested()
    outside = file()
    journal.uploaded(["root"], outside)
    journal.named(["next"], later := file())
    assert not journal.holds(new)
    assert journal.holds(later)
    assert set(journal.end("next").uploads) == {new, outside}
    journal.named(["third"], later)
    assert journal.end("third") == Verdict()


def test_an_interrupted_transaction_is_settled_if_none_comes_after_it() -> None:
    """``close_all`` includes the savepoints; a later end of the transaction has no effect."""
    journal = Journal()
    journal.uploaded(["root"], old := file())
    journal.uploaded(["root", "savepoint"], new := file())
    assert set(journal.close_all().uploads) == {old, new}
    assert journal.end("root") == journal.close_all() == Verdict()


def test_an_interrupted_commit_is_unresolved() -> None:
    """A COMMIT that was sent may have taken effect, although no end was reported."""
    journal, files = replaced()
    journal.sending("root")
    journal.named(["next"], file())
    assert set(journal.end("next").unresolved) == set(files.values())


# --- against a naive model -------------------------------------------------------------------------------------------


class Sessions(RuleBasedStateMachine):
    """A simplified session, journal, store and database: sets of files, copied for each savepoint.

    ``rows`` contains the files that committed rows reference, ``views`` those that the open transaction and its
    savepoints see. Sometimes the database does not do what the session reports; it is queried before a file is deleted.
    """

    @initialize(count=st.integers(0, 3))
    def fill(self, count: int) -> None:
        """Insert committed rows with their files."""
        self.journal = Journal()
        self.rows = {file() for _ in range(count)}
        self.files = set(self.rows)
        self.kept: set[TrackedFile] = set()
        self.views: list[set[TrackedFile]] = []
        self.tokens: list[int] = []
        self.count = 0

    def is_open(self) -> bool:
        return bool(self.views)

    def is_nested(self) -> bool:
        return len(self.views) > 1

    def _begin(self, view: Iterable[TrackedFile]) -> None:
        self.count += 1
        self.tokens.append(self.count)
        self.views.append(set(view))

    def _end(self) -> Verdict:
        self.views.pop()
        verdict = self.journal.end(self.tokens.pop())
        nominated = {*verdict.uploads, *verdict.dropped}
        self.kept |= {*verdict.unresolved, *(nominated & self.rows)}
        self.files -= nominated - self.rows  # the query to the database
        return verdict

    @precondition(lambda self: not self.is_open())
    @rule()
    def begin(self) -> None:
        """Begin a transaction."""
        self._begin(self.rows)

    @precondition(lambda self: 0 < len(self.views) < 4)
    @rule()
    def savepoint(self) -> None:
        """Begin a savepoint."""
        self._begin(self.views[-1])

    @precondition(is_open)
    @rule(inserted=st.booleans())
    def upload(self, inserted: bool) -> None:
        """Put a file, with or without a row."""
        new = file()
        self.files.add(new)
        self.journal.uploaded(self.tokens, new)
        if inserted:
            self.journal.named(self.tokens, new)
            self.views[-1].add(new)

    @precondition(lambda self: self.is_open() and self.views[-1])
    @rule(data=st.data(), again=st.booleans(), matched=st.booleans())
    def delete(self, data: st.DataObject, again: bool, matched: bool) -> None:
        """Delete a row, and perhaps insert it again; sometimes the DELETE matches no row."""
        old = data.draw(st.sampled_from(sorted(self.views[-1], key=lambda known: cast("Any", known.key).revision)))
        self.journal.dropped(self.tokens, old)
        assert self.journal.holds(old)
        if matched:
            self.views[-1].discard(old)
        if again:
            self.journal.named(self.tokens, old)
            self.views[-1].add(old)

    @precondition(is_nested)
    @rule()
    def release(self) -> None:
        """Release the savepoint."""
        view = self.views[-1]
        self.journal.committed(self.tokens[-1])
        assert self._end() == Verdict()
        self.views[-1] = view

    @precondition(is_nested)
    @rule()
    def roll_back_to_savepoint(self) -> None:
        """Roll back the savepoint; no store is called, because the root transaction may hold locks."""
        assert self._end() == Verdict()

    @precondition(lambda self: len(self.views) == 1)
    @rule(done=st.sampled_from([True, True, True, False]))
    def commit(self, done: bool) -> None:
        """Commit the transaction; sometimes the database rolls back without an error."""
        self.journal.sending(self.tokens[-1])
        self.journal.committed(self.tokens[-1])
        if done:
            self.rows = set(self.views[-1])
        self.kept |= self.views[-1] - self.rows
        self._end()
        self._check_no_orphans()

    @precondition(lambda self: len(self.views) == 1)
    @rule(outcome=st.booleans())
    def lose_the_reply(self, outcome: bool) -> None:
        """Send COMMIT without a reply: the database may still commit after the query."""
        self.journal.sending(self.tokens[-1])
        view = set(self.views[-1])
        verdict = self._end()
        assert not verdict.uploads
        assert not verdict.dropped
        if outcome:
            self.rows = view

    @precondition(lambda self: len(self.views) == 1)
    @rule(done=st.sampled_from([True, True, True, False]))
    def give_up(self, done: bool) -> None:
        """Roll back or close the transaction; sometimes it was committed."""
        if not done:
            self.kept |= self.rows - self.views[-1]
            self.rows = set(self.views[-1])
        self._end()
        self._check_no_orphans()

    @precondition(is_open)
    @rule()
    def interrupt(self) -> None:
        """Lose the connection: the session reports no end, and the next transaction begins."""
        self.views.clear()
        self.tokens.clear()
        self._begin(self.rows)
        self.upload(inserted=False)
        self._end()
        self._check_no_orphans()

    def _check_no_orphans(self) -> None:
        self.kept &= self.files
        self.kept -= self.rows
        assert self.files - self.kept <= self.rows

    @invariant()
    def no_row_is_without_its_file(self) -> None:
        """Every row has its file, both committed rows and those that the open transaction sees."""
        assert self.rows <= self.files
        for view in self.views:
            assert view <= self.files


Sessions.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSessions = Sessions.TestCase
