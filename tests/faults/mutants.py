"""Plant faults in a copy of the package, one at a time, and show which tests detect them.

``python -m tests.faults.mutants [NAME ...]`` prints a row of Markdown for each fault. It takes about a minute for each,
and needs all three databases.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = "tests/faults/database"
PROGRAMS = [f"{FOLDER}/test_oracle.py::test_the_database_is_the_oracle[{one}-1]" for one in ("aiosqlite", "asyncpg")]
HOOKS = "_transaction/hooks.py"
JOURNAL = "_transaction/journal.py"
REFERENCES = "_transaction/references.py"
FLUSH = "entity/_flush.py"
REPLACEMENT = "entity/_replacement.py"


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        name: A description.
        path: The module, within the package.
        old: The code that is replaced; it occurs once.
        new: The code that replaces it.
        tests: The tests for it; the random programs are also run with each fault.
    """

    name: str
    path: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "files are removed without a query of the database",
        HOOKS,
        "files = await unreferenced(verdict.uploads, verdict.dropped)",
        "files = [*verdict.uploads, *verdict.dropped]",
        "test_swallowed_errors.py::test_postgresql_answers_commit_with_rollback",
    ),
    Mutant(
        "if the database cannot be queried, all files count as unreferenced",
        REFERENCES,
        "            continue\n        for file in kept:",
        "            kept = set()\n        for file in kept:",
        "test_hidden_endings.py::test_the_database_is_down_when_it_is_asked"
        " test_hidden_endings.py::test_the_database_does_not_answer_when_it_is_asked",
    ),
    Mutant(
        "only the class that no longer references a file is queried",
        "entity/_references.py",
        "for mapper in (self.mapper, *self.mapper.registry.mappers):",
        "for mapper in (self.mapper,):",
        "test_files_that_change_hands.py::test_image_rows_copied_into_the_table_of_another_class",
    ),
    Mutant(
        "a COMMIT without a response counts as a rollback",
        JOURNAL,
        "    if root.sent:\n",
        "    if False:\n",
        "../test_outcomes.py::test_the_reply_is_lost",
    ),
    Mutant(
        "the image set is locked before its owner",
        HOOKS,
        "    lock(session, [owner for plan in plans for owner in plan.owners])\n    for handler in _active(session):\n"
        "        handler.read_rows(session)\n",
        "    for handler in _active(session):\n        handler.read_rows(session)\n"
        "    lock(session, [owner for plan in plans for owner in plan.owners])\n",
        "test_locks.py::test_one_picture_is_replaced_by_many test_locks.py::test_replaced_deleted_and_given_thumbnails",
    ),
    Mutant(
        "the owners of images and the rows of values are locked in separate steps",
        HOOKS,
        "    lock(session, [owner for plan in plans for owner in plan.owners])\n",
        "    for owner in [owner for plan in plans for owner in plan.owners]:\n"
        "        lock_owners(connection_of(session, owner.mapper, owner.state), [owner], ())\n",
        "test_locks.py::test_owners_of_pictures_and_of_values_are_locked_in_one_order",
    ),
    Mutant(
        "owners are locked without the other rows that the flush changes",
        HOOKS,
        "        lock_owners(connection, some, others)\n",
        "        lock_owners(connection, some, ())\n",
        "test_locks.py::test_owners_are_locked_with_the_other_rows_of_their_table",
    ),
    Mutant(
        "a replaced file is removed in the flush",
        HOOKS,
        "        journal.dropped(tokens, file)\n",
        "        await_(discard_all([file]))\n",
        "test_locks.py::test_no_file_is_removed_while_locks_are_held",
    ),
    Mutant(
        "the files of a savepoint that is rolled back are deleted before the end of the transaction",
        JOURNAL,
        "            parent.events += [(event, file) for event, file in frame.events if event is _Event.UPLOADED]\n",
        "            return _verdict(frame)\n",
        "test_locks.py::test_no_file_is_removed_while_locks_are_held",
    ),
    Mutant(
        "a savepoint that is rolled back keeps its deletions",
        JOURNAL,
        "        if frame.committed:\n            parent.events += frame.events\n",
        "        if True:\n            parent.events += frame.events\n",
        "../test_endings.py",
    ),
    Mutant(
        "a row that moves in the flush counts as a member of its old set",
        REPLACEMENT,
        "if entity is not None and (_has_moved(attachment, row) or loaded_sets.has_removed(attachment, one, row)):",
        "if False:",
        "test_rows_that_move.py",
    ),
    Mutant(
        "bulk statements are not checked",
        FLUSH,
        "    of_table = _tables.get(statement.table)\n",
        "    return\n    of_table = _tables.get(statement.table)\n",
        "test_rows_without_files.py::test_written_by_an_insert_of_the_class",
    ),
    Mutant(
        "changed columns are not checked",
        FLUSH,
        "    if now is None or now == before or _same_file(session, row, before, now):\n",
        "    if True:\n",
        "test_columns_that_name_files.py",
    ),
    Mutant(
        "copies of a prepared row share one file",
        FLUSH,
        "        if attached.attempted:",
        "        if False:",
        "../test_copies.py::test_a_new_owner_is_copied ../test_copies.py::test_a_copy_comes_later",
    ),
    Mutant(
        "a file that is being adopted can be removed",
        HOOKS,
        "    files = [file for file in files if not any(file in journal.claimed for journal in _claiming)]\n",
        "",
        "test_files_that_change_hands.py::test_adopted_while_another_transaction_deletes"
        " test_files_that_change_hands.py::test_adopted_and_flushed_while_another_transaction_deletes",
    ),
]


def planted(mutant: Mutant, folder: Path) -> None:
    """Copy the package and the tests, and plant the fault in the copy."""
    for name in ("aioimageattach", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / "aioimageattach" / mutant.path
    code = path.read_text()
    if code.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.path} has the code of {mutant.name!r} {code.count(mutant.old)} times")
    path.write_text(code.replace(mutant.old, mutant.new))


def first_failure(folder: Path, *files: str) -> str:
    """Run tests until one fails; return its name without its parameters, or an empty string."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", *files],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].rpartition("/")[2].partition("[")[0] if failed else ""


def main() -> None:
    """Plant all faults, or those whose names begin as an argument does."""
    chosen = [one for one in MUTANTS if any(one.name.startswith(start) for start in sys.argv[1:] or [""])]
    print("| planted fault | found by the test | found by the random programs |", "| :-- | :-- | :-- |", sep="\n")  # noqa: T201
    survived = 0
    for mutant in chosen:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            planted(mutant, folder)
            by_test = first_failure(folder, *(f"{FOLDER}/{test}" for test in mutant.tests.split()))
            by_program = first_failure(folder, *PROGRAMS)
            survived += not (by_test or by_program)
            cells = mutant.name, f"`{by_test}`" if by_test else "**no**", "yes" if by_program else "no"
            print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201
    raise SystemExit(f"{survived} faults were not found" if survived else 0)


if __name__ == "__main__":
    main()
