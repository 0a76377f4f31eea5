"""The ledger of a session, as a plain state machine: no database, no session, no store that does anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.memory import MemoryStore
from aioimageattach.transaction.journal import Journal, StoredFile, Verdict

STORE = MemoryStore()


def file(store: MemoryStore = STORE) -> StoredFile:
    """A file that no other is equal to."""
    return StoredFile(store, ImageKey("picture", 1, 2, 3, "image/png", make_revision()))


def test_files_are_equal_by_store_and_key() -> None:
    """One key in two stores is two files, though the stores hold the same."""
    here = file()
    assert here == StoredFile(STORE, here.key)
    assert hash(here) == hash(StoredFile(STORE, here.key))
    assert here != StoredFile(MemoryStore(), here.key)
    assert here != here.key


def test_verdicts_add_up() -> None:
    """What two ends mean is what they mean together."""
    one, two, three = file(), file(), file()
    total = Verdict((one,), (two,)) + Verdict((three,))
    assert total == Verdict(discard=(one, three), doubtful=(two,))


def test_an_end_that_was_not_begun_means_nothing() -> None:
    """The flushes' own transactions end too, and have no files."""
    assert Journal().end("never begun") == Verdict()


def test_the_first_upload_that_a_commit_would_keep() -> None:
    """Uploads of savepoints count as long as they are open, and after they are released."""
    journal = Journal()
    assert journal.since() == math.inf
    journal.begin("root")
    journal.uploaded("root", file(), 5.0)
    journal.begin("one", "root")
    journal.uploaded("one", file(), 3.0)
    journal.begin("two", "one")
    journal.uploaded("two", file(), 2.0)
    assert journal.since() == 2.0
    journal.rolled_back("two")
    journal.end("two")
    assert journal.since() == 3.0
    journal.committed("one")
    journal.end("one")
    assert journal.since() == 3.0
    journal.end("root")
    assert journal.since() == math.inf


# --- how a transaction ends ------------------------------------------------------------------------------------------

Step = Callable[[Journal], None]


def steps(*names: str) -> Step:
    """Report these to the journal, of the transaction ``"root"``."""

    def report(journal: Journal) -> None:
        for name in names:
            getattr(journal, name)("root")

    return report


CERTAIN = {
    "committed": (steps("sending", "committed"), {"replaced", "unnamed"}),
    "committed by a driver that never sends": (steps("committed"), {"replaced", "unnamed"}),
    "rolled back": (steps("rolled_back"), {"new", "unnamed"}),
    "closed": (steps(), {"new", "unnamed"}),
    "shared and rolled back": (steps("shared", "rolled_back"), {"new", "unnamed"}),
    "permanent and committed": (steps("permanent", "sending", "committed"), {"replaced", "unnamed"}),
}
DOUBTFUL = {
    "COMMIT sent, no reply": steps("sending"),
    "COMMIT sent, no reply, then rolled back": steps("sending", "rolled_back"),
    "shared and committed": steps("shared", "sending", "committed"),
    "shared and closed": steps("shared"),
    "permanent and rolled back": steps("permanent", "rolled_back"),
    "permanent and closed": steps("permanent"),
}


def replaced() -> tuple[Journal, dict[str, StoredFile]]:
    """A journal of a transaction that replaced a file by another, and put a third that no row ever named."""
    files = {"replaced": file(), "new": file(), "unnamed": file()}
    journal = Journal()
    journal.begin("root")
    journal.uploaded("root", files["new"])
    journal.uploaded("root", files["unnamed"])
    journal.named("root", files["new"])
    journal.dropped("root", files["replaced"])
    return journal, files


@pytest.mark.parametrize(("report", "gone"), CERTAIN.values(), ids=CERTAIN)
def test_an_end_that_is_certain(report: Step, gone: set[str]) -> None:
    """A commit removes what was replaced, anything else what was uploaded; a file no row named goes in both."""
    journal, files = replaced()
    report(journal)
    verdict = journal.end("root")
    assert set(verdict.discard) == {files[name] for name in gone}
    assert verdict.doubtful == ()
    assert not any(journal.holds(known) for known in files.values())


@pytest.mark.parametrize("report", DOUBTFUL.values(), ids=DOUBTFUL)
def test_an_end_that_nobody_can_tell(report: Step) -> None:
    """Where the rows may be there and may not, every file is kept."""
    journal, files = replaced()
    report(journal)
    verdict = journal.end("root")
    assert verdict.discard == ()
    assert set(verdict.doubtful) == set(files.values())


def test_a_shared_file_is_never_deleted_and_counts_for_the_age() -> None:
    """What others may name, too, is in no verdict; the transaction is as old as it is, in a savepoint as well."""
    journal = Journal()
    journal.begin("root")
    journal.begin("savepoint", "root")
    journal.leased("savepoint", 5.0)
    assert journal.since() == 5.0
    journal.committed("savepoint")
    assert journal.end("savepoint") == Verdict()
    assert journal.since() == 5.0
    assert journal.end("root") == Verdict()


def test_a_file_dropped_and_named_again_stays() -> None:
    """The last word of a file counts: deleted and inserted again in one transaction is kept."""
    journal, old = Journal(), file()
    journal.begin("root")
    journal.dropped("root", old)
    assert journal.holds(old)
    journal.named("root", old)
    journal.committed("root")
    assert journal.end("root") == Verdict()


def test_a_file_uploaded_and_dropped_goes_with_the_commit() -> None:
    """Attached and replaced again in one transaction: its file is not of any committed row."""
    journal, brief = Journal(), file()
    journal.begin("root")
    journal.uploaded("root", brief)
    journal.named("root", brief)
    journal.dropped("root", brief)
    journal.committed("root")
    assert journal.end("root") == Verdict(discard=(brief,))


# --- savepoints ------------------------------------------------------------------------------------------------------


def nested() -> tuple[Journal, StoredFile, StoredFile]:
    """A journal whose savepoint replaced a file by another."""
    journal, old, new = Journal(), file(), file()
    journal.begin("root")
    journal.begin("savepoint", "root")
    journal.uploaded("savepoint", new)
    journal.named("savepoint", new)
    journal.dropped("savepoint", old)
    return journal, old, new


@pytest.mark.parametrize("told", [True, False])
def test_a_savepoint_rolled_back(told: bool) -> None:
    """Its uploads go at once, its deletions are forgotten, whether it was told or merely closed."""
    journal, old, new = nested()
    if told:
        journal.rolled_back("savepoint")
    assert journal.end("savepoint") == Verdict(discard=(new,))
    assert not journal.holds(old)
    journal.committed("root")
    assert journal.end("root") == Verdict()


def test_a_savepoint_released() -> None:
    """Nothing is decided; its parent's end decides."""
    for told, gone in (("committed", 0), ("rolled_back", 1)):
        journal, *files = nested()
        journal.committed("savepoint")
        assert journal.end("savepoint") == Verdict()
        assert all(journal.holds(known) for known in files)
        getattr(journal, told)("root")
        assert journal.end("root") == Verdict(discard=(files[gone],))


@pytest.mark.parametrize("mark", ["shared", "permanent"])
def test_what_a_savepoint_learns_holds_for_its_parent(mark: str) -> None:
    """That somebody else ends it, or that all of it is permanent, is true of the whole transaction."""
    journal, old, new = nested()
    getattr(journal, mark)("savepoint")
    assert journal.end("savepoint") == Verdict()
    assert set(journal.end("root").doubtful) == {old, new}


def test_a_shared_savepoint_rolled_back_is_certain() -> None:
    """The database said so, whoever ends the rest."""
    journal, _, new = nested()
    journal.shared("savepoint")
    journal.rolled_back("savepoint")
    assert journal.end("savepoint") == Verdict(discard=(new,))


def test_a_permanent_savepoint_rolled_back_is_not() -> None:
    """Its rows stay, so its files do."""
    journal, old, new = nested()
    journal.permanent("savepoint")
    journal.rolled_back("savepoint")
    assert journal.end("savepoint") == Verdict()
    assert set(journal.end("root").doubtful) == {old, new}


# --- what was interrupted --------------------------------------------------------------------------------------------


def test_an_interrupted_transaction_ends_when_the_next_one_does() -> None:
    """Cancelled while it closed, it never said that it ended; the next one's end tells what became of its files."""
    journal, _, new = nested()
    outside = file()
    journal.uploaded("root", outside)
    journal.begin("next")
    assert not journal.holds(new)
    journal.begin("its savepoint", "next")
    assert journal.end("its savepoint") == Verdict()
    assert set(journal.end("next").discard) == {new, outside}
    journal.begin("third")
    assert journal.end("third") == Verdict()


def test_an_interrupted_transaction_is_settled_where_none_comes_after_it() -> None:
    """With the savepoints in it; its own end, should it come yet, means nothing more."""
    journal = Journal()
    journal.begin("root")
    journal.uploaded("root", old := file())
    journal.begin("savepoint", "root")
    journal.uploaded("savepoint", new := file())
    assert set(journal.settle().discard) == {old, new}
    assert journal.end("root") == journal.settle() == Verdict()


def test_an_interrupted_commit_is_doubtful() -> None:
    """What was sent may have arrived, also where nobody heard the end."""
    journal, files = replaced()
    journal.sending("root")
    journal.begin("next")
    assert set(journal.end("next").doubtful) == set(files.values())


# --- against a naive model -------------------------------------------------------------------------------------------


class Sessions(RuleBasedStateMachine):
    """A session, its journal, a store and a database of the simplest kind: sets of files, copied at each savepoint.

    ``rows`` is what committed rows name, ``views`` what the open transaction and its savepoints see.
    """

    @initialize(count=st.integers(0, 3))
    def fill(self, count: int) -> None:
        """Some rows are committed, with their files."""
        self.journal = Journal()
        self.rows = {file() for _ in range(count)}
        self.files = set(self.rows)
        self.kept: set[StoredFile] = set()
        self.views: list[set[StoredFile]] = []
        self.tokens: list[int] = []
        self.count = 0
        self.shared = self.permanent = self.sent = False

    def is_open(self) -> bool:
        return bool(self.views)

    def is_nested(self) -> bool:
        return len(self.views) > 1

    def _begin(self, view: Iterable[StoredFile]) -> None:
        parent = self.tokens[-1] if self.tokens else None
        self.count += 1
        self.tokens.append(self.count)
        self.views.append(set(view))
        self.journal.begin(self.count, parent)

    def _end(self) -> Verdict:
        self.views.pop()
        verdict = self.journal.end(self.tokens.pop())
        self.files -= set(verdict.discard)
        self.kept |= set(verdict.doubtful)
        return verdict

    @precondition(lambda self: not self.is_open())
    @rule(shared=st.sampled_from([False, False, False, True]), permanent=st.sampled_from([False, False, False, True]))
    def begin(self, shared: bool, permanent: bool) -> None:
        """A transaction begins; at times it is another's, or every statement of it is permanent."""
        self._begin(self.rows)
        self.shared, self.permanent, self.sent = shared, permanent, False
        if shared:
            self.journal.shared(self.tokens[-1])
        if permanent:
            self.journal.permanent(self.tokens[-1])

    @precondition(lambda self: 0 < len(self.views) < 4)
    @rule()
    def savepoint(self) -> None:
        """A savepoint begins; what the connection is like, it learns as well."""
        self._begin(self.views[-1])
        if self.shared:
            self.journal.shared(self.tokens[-1])
        if self.permanent:
            self.journal.permanent(self.tokens[-1])

    @precondition(is_open)
    @rule(inserted=st.booleans())
    def upload(self, inserted: bool) -> None:
        """A file is put, and its row inserted, or not."""
        new = file()
        self.files.add(new)
        self.journal.uploaded(self.tokens[-1], new)
        if inserted:
            self.journal.named(self.tokens[-1], new)
            self._write(lambda rows: rows.add(new))

    @precondition(lambda self: self.is_open() and self.views[-1])
    @rule(data=st.data(), again=st.booleans())
    def delete(self, data: st.DataObject, again: bool) -> None:
        """A row is deleted, and inserted again, or not."""
        old = data.draw(st.sampled_from(sorted(self.views[-1], key=lambda known: known.key.revision or "")))
        self.journal.dropped(self.tokens[-1], old)
        assert self.journal.holds(old)
        self._write(lambda rows: rows.discard(old))
        if again:
            self.journal.named(self.tokens[-1], old)
            self._write(lambda rows: rows.add(old))

    def _write(self, change: Callable[[set[StoredFile]], None]) -> None:
        change(self.views[-1])
        if self.permanent:
            for rows in (*self.views, self.rows):
                change(rows)

    @precondition(is_nested)
    @rule()
    def release(self) -> None:
        """The savepoint is released."""
        view = self.views[-1]
        self.journal.committed(self.tokens[-1])
        assert self._end() == Verdict()
        self.views[-1] = view

    @precondition(is_nested)
    @rule(told=st.booleans())
    def roll_back_to_savepoint(self, told: bool) -> None:
        """The savepoint is rolled back, or closed: an untold one of another's transaction is left as it is."""
        view = self.views[-1]
        if told:
            self.journal.rolled_back(self.tokens[-1])
        self._end()
        if self.permanent:
            self.views[-1] = view

    @precondition(lambda self: len(self.views) == 1)
    @rule(outcome=st.booleans())
    def commit(self, outcome: bool) -> None:
        """The transaction is committed; if it is another's, that one decides."""
        self.journal.sending(self.tokens[-1])
        self.journal.committed(self.tokens[-1])
        if outcome or not self.shared:
            self.rows = set(self.views[-1])
        certain = not self.shared
        self._end()
        self._check_no_orphans(certain)

    @precondition(lambda self: len(self.views) == 1)
    @rule(outcome=st.booleans(), told=st.booleans())
    def lose_the_reply(self, outcome: bool, told: bool) -> None:
        """COMMIT was sent, and nobody knows."""
        self.journal.sending(self.tokens[-1])
        if told:
            self.journal.rolled_back(self.tokens[-1])
        if outcome:
            self.rows = set(self.views[-1])
        assert not self._end().discard

    @precondition(lambda self: len(self.views) == 1)
    @rule(told=st.booleans(), outcome=st.booleans())
    def give_up(self, told: bool, outcome: bool) -> None:
        """The transaction is rolled back, or closed: of another's, that one decides."""
        if told:
            self.journal.rolled_back(self.tokens[-1])
        elif self.shared and outcome:
            self.rows = set(self.views[-1])
        certain = not self.permanent and (told or not self.shared)
        self._end()
        self._check_no_orphans(certain)

    @precondition(is_open)
    @rule()
    def interrupt(self) -> None:
        """The session never hears of the end: the connection is lost, and the next transaction begins."""
        keep = self.shared or self.permanent
        rows = set(self.rows)
        self.views.clear()
        self.tokens.clear()
        self._begin(rows)
        self.shared = self.permanent = False
        self._end()
        self._check_no_orphans(not keep)

    def _check_no_orphans(self, certain: bool) -> None:
        self.kept &= self.files
        self.kept -= self.rows
        if certain:
            assert self.files - self.kept <= self.rows

    @invariant()
    def no_row_is_without_its_file(self) -> None:
        """Neither of what is committed nor of what is seen in the open transaction is anything missing."""
        assert self.rows <= self.files
        for view in self.views:
            assert view <= self.files


Sessions.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSessions = Sessions.TestCase
