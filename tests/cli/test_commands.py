"""Verify, sweep, migrate and thumbnails: what they do, say and return."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from aioimageattach.context import bind_store
from aioimageattach.key import ImageKey, file_name, make_revision
from tests.cli import models
from tests.cli.conftest import USERS, Run, documents, files
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.stores.s3.conftest import BUCKET, REGION

BASE = "tests.cli.models:Base"
MEDIA = "tests.cli.models:media"
PICTURE = "tests.cli.models:User.picture"
OLD = 1_500_000_000.0


def last(result: Result) -> str:
    """The line that says how it ended."""
    return result.stderr.splitlines()[-1]


def of_user(folder: Path, number: int) -> str:
    """The name of the file of a user's picture."""
    with closing(sqlite3.connect(folder / models.DATABASE)) as connection:
        query = "SELECT revision FROM user_picture WHERE user_id = ? AND original"
        [revision] = connection.execute(query, [number]).fetchone()
    [name] = [name for name in files(folder / models.MEDIA) if revision in name]
    return name


def lost(folder: Path) -> str:
    """Take the file of the third user away; return its name."""
    name = of_user(folder, 3)
    (folder / models.MEDIA / name).unlink()
    return name


def orphan(folder: Path) -> str:
    """Add an old file that no row names."""
    name = file_name(ImageKey("user-picture", None, 90, 60, "image/jpeg", make_revision(OLD)))
    path = folder / models.MEDIA / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left behind")
    os.utime(path, (OLD, OLD))
    return name


# --- verify ----------------------------------------------------------------------------------------------------------


def test_verify_says_that_all_is_well(run: Run, filled: Path) -> None:
    """Nothing is found, the end is told, the code is 0."""
    done = run("verify", BASE, "-s", MEDIA)
    assert (done.exit_code, done.stdout) == (0, "")
    assert last(done).startswith("verify: 7 of 7, ")
    assert last(done).endswith(", 7 sound")


def test_verify_finds_what_is_missing_or_changed(run: Run, filled: Path) -> None:
    """A line for each, and the code 1."""
    name = lost(filled)
    (filled / models.MEDIA / of_user(filled, 7)).write_bytes(b"x")
    done = run("verify", BASE, "-s", MEDIA)
    assert done.exit_code == 1
    found = sorted(done.stdout.splitlines())
    assert found[0].startswith("missing UserPicture 3, 90, 60: there is no file")
    assert name in found[0]
    assert found[1].startswith(f"size UserPicture 7, 90, 60: expected {len(models.SMALL)}, got 1")


def test_verify_makes_thumbnails_again(run: Run, filled: Path) -> None:
    """With --repair; what was repaired is named with --verbose alone, and is no reason for another code."""
    assert run("thumbnails", PICTURE, "-s", MEDIA, "-w", "30").exit_code == 0
    thumbnails = [name for name in files(filled / models.MEDIA) if ".30x20." in name]
    for name in thumbnails[:2]:
        (filled / models.MEDIA / name).unlink()
    done = run("verify", BASE, "-s", MEDIA)
    assert (done.exit_code, len(done.stdout.splitlines())) == (1, 2)
    (filled / models.MEDIA / thumbnails[2]).write_bytes(b"x")
    done = run("verify", BASE, "-s", MEDIA, "--repair", "--concurrency", "1")
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    for name in [name for name in files(filled / models.MEDIA) if ".30x20." in name][:2]:
        (filled / models.MEDIA / name).unlink()
    done = run("verify", BASE, "-s", MEDIA, "--repair", "--deep", "-v")
    assert (done.exit_code, [line[:9] for line in done.stdout.splitlines()]) == (0, ["repaired "] * 2), done.output
    done = run("verify", BASE, "-s", MEDIA)
    assert (done.exit_code, done.stdout) == (0, "")


# --- sweep -----------------------------------------------------------------------------------------------------------


def test_sweep_tells_and_removes(run: Run, filled: Path) -> None:
    """Without --delete nothing goes; with it the orphan goes, and nothing else."""
    before = files(filled / models.MEDIA)
    name = orphan(filled)
    done = run("sweep", BASE, "-s", MEDIA)
    assert (done.exit_code, done.stdout) == (1, f"orphan {name}\n")
    assert name in files(filled / models.MEDIA)
    done = run("sweep", BASE, "-s", MEDIA, "--delete", "-v")
    assert (done.exit_code, done.stdout) == (0, f"removed {name}\n"), done.output
    assert "1 removed, removed 11 B" in done.stderr
    assert "In quarantine; " in last(done)
    orphan(filled)
    done = run("sweep", BASE, "-s", MEDIA, "--delete", "--permanently")
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert files(filled / models.MEDIA) == before


def test_a_sweep_is_undone(run: Run, filled: Path) -> None:
    """By its identifier, or the last one; what cannot be restored is named."""
    names = []
    ids = []
    for _ in range(2):
        names.append(orphan(filled))
        done = run("sweep", BASE, "-s", MEDIA, "--delete", "--json")
        ids += [document["sweep"] for document in documents(done) if document["event"] == "quarantine"]
    assert not {*names} & {*files(filled / models.MEDIA)}
    done = run("undo", BASE, "-s", MEDIA, "--list")
    assert [line[:29] for line in done.stdout.splitlines()] == [f"{one} of" for one in ids]
    done = run("undo", BASE, "-s", MEDIA, ids[0], "-v")
    assert (done.exit_code, done.stdout) == (0, f"restored {names[0]}\n"), done.output
    path = filled / models.MEDIA / names[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"another one")
    done = run("undo", BASE, "-s", MEDIA)
    assert (done.exit_code, done.stdout.startswith(f"failed {names[1]}: ")) == (1, True), done.output
    path.unlink()
    assert run("undo", BASE, "-s", MEDIA).exit_code == 0
    assert {*names} <= {*files(filled / models.MEDIA)}
    done = run("undo", BASE, "-s", MEDIA)
    assert (done.exit_code, last(done)) == (4, "Warning: there was nothing to restore")


def test_the_owner_of_files(run: Run, filled: Path) -> None:
    """Nobody at first, then the database that has swept; another database is refused until it is transferred."""
    done = run("own", BASE, "-s", MEDIA)
    assert (done.exit_code, ": no owner" in done.stdout) == (0, True)
    assert run("own", BASE, "-s", MEDIA, "--claim").stdout.count(": now owned by the sqlite database ") == 3
    done = run("own", BASE, "-s", MEDIA)
    assert (done.exit_code, done.stdout.count(": owned by the sqlite database ")) == (0, 3)
    copy = filled / "copy.sqlite"
    copy.write_bytes((filled / models.DATABASE).read_bytes())
    name = orphan(filled)
    for command in ("own", "sweep"):
        more = ["--delete"] if command == "sweep" else []
        done = run(command, BASE, "-s", MEDIA, "-d", f"sqlite:///{copy}", *more)
        assert done.exit_code == (3 if command == "sweep" else 1), done.output
        assert "copy.sqlite', a copy of it" in done.output
    assert name in files(filled / models.MEDIA)
    done = run("migrate", BASE, f"file://{filled}/new", MEDIA, "-d", f"sqlite:///{copy}")
    assert (done.exit_code, "nothing was copied: " in done.stderr) == (3, True), done.output
    assert run("own", BASE, "-s", MEDIA, "-d", f"sqlite:///{copy}", "--transfer").exit_code == 0
    assert run("sweep", BASE, "-s", MEDIA, "-d", f"sqlite:///{copy}", "--delete").exit_code == 0
    assert run("sweep", BASE, "-s", MEDIA, "--delete").exit_code == 3


def test_what_may_not_have_done_everything_has_a_code_of_its_own(run: Run, filled: Path) -> None:
    """No rows, no files, and a first migration that finds everything in its place."""
    with closing(sqlite3.connect(filled / models.DATABASE)) as connection, connection:
        connection.execute("CREATE TABLE kept AS SELECT * FROM user_picture")
        connection.execute("DELETE FROM user_picture")
    done = run("verify", BASE, "-s", MEDIA)
    assert (done.exit_code, last(done)[:27]) == (4, "Warning: there were no rows"), done.output
    done = run("migrate", BASE, MEDIA, f"file://{filled}/new")
    assert (done.exit_code, last(done)[:27]) == (4, "Warning: there were no rows"), done.output
    with closing(sqlite3.connect(filled / models.DATABASE)) as connection, connection:
        connection.execute("INSERT INTO user_picture SELECT * FROM kept")
        connection.execute("DROP TABLE kept")
    done = run("sweep", BASE, "-s", f"file://{filled}/new")
    assert (done.exit_code, last(done)[:28]) == (4, "Warning: there were no files"), done.output
    shutil.copytree(filled / models.MEDIA, filled / "other")
    done = run("migrate", BASE, MEDIA, f"file://{filled}/other")
    assert (done.exit_code, last(done)[:23]) == (4, "Warning: every file was"), done.output
    assert run("migrate", BASE, MEDIA, f"file://{filled}/other").exit_code == 0


def test_sweep_refuses_what_looks_wrong(run: Run, filled: Path) -> None:
    """The library's reasons are said, and the code is 3."""
    names = {orphan(filled) for _ in range(11)}
    done = run("sweep", BASE, "-s", MEDIA)
    assert (done.exit_code, "--delete would be refused: user-picture/: " in done.stderr) == (1, True), done.output
    done = run("sweep", BASE, "-s", MEDIA, "--delete")
    assert (done.exit_code, "Error: nothing was removed; refused: " in done.stderr) == (3, True), done.output
    assert names < {*files(filled / models.MEDIA)}
    done = run("sweep", BASE, "-s", MEDIA, "--delete", "--force", "--object-type", "user-picture", "--limit", "4")
    assert (done.exit_code, "Warning: the limit of 4 files was reached" in done.stderr) == (1, True), done.output
    assert len(names & {*files(filled / models.MEDIA)}) == 7


def test_sweep_names_what_it_could_not_remove(run: Run, filled: Path) -> None:
    """The file, why, and the code 1."""
    name = orphan(filled)
    folder = (filled / models.MEDIA / name).parent
    done = run("sweep", BASE, "-s", "tests.cli.models:undeletable", "--delete", "--max-share", "1")
    assert (done.exit_code, done.stdout) == (1, f"failed {name}: read only\n"), done.output
    assert folder.exists()


def test_sweep_takes_another_grace(run: Run, filled: Path) -> None:
    """One that is too short is a wrong argument."""
    done = run("sweep", BASE, "-s", MEDIA, "--delete", "--grace", "0.5")
    assert (done.exit_code, "grace: 0:30:00 is shorter than" in done.stderr) == (2, True), done.output


# --- migrate ---------------------------------------------------------------------------------------------------------


def test_migrate_copies_and_goes_on(run: Run, filled: Path) -> None:
    """All files are in the other store; a second run copies none."""
    target = f"file://{filled}/new"
    done = run("migrate", BASE, MEDIA, target)
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"{USERS} copied, {len(models.SMALL) * USERS / 1000:.3g} kB" in last(done)
    assert files(filled / "new") == files(filled / models.MEDIA)
    done = run("migrate", BASE, MEDIA, target, "--deep", "-v")
    assert [line.partition(" ")[0] for line in done.stdout.splitlines()] == ["present"] * USERS
    assert last(done).endswith(", 7 present")


def test_migrate_into_a_bucket(run: Run, filled: Path, gate: Gate) -> None:
    """By its URL, with the keys of the environment."""
    url = f"s3://{BUCKET}/live?region={REGION}&endpoint_url={gate.url}"
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    done = run("migrate", BASE, MEDIA, url, **keys)
    assert (done.exit_code, f"{USERS} copied" in last(done)) == (0, True), done.output
    done = run("verify", BASE, "-s", url, "--deep", **keys)
    assert (done.exit_code, f"{USERS} sound" in last(done)) == (0, True), done.output


def test_migrate_tells_what_it_would_copy(run: Run, filled: Path) -> None:
    """A dry run names the files, and copies none."""
    done = run("migrate", BASE, MEDIA, f"file://{filled}/new", "--dry-run")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, USERS)
    assert "would copy UserPicture 1, 90, 60" in done.stdout.splitlines()
    assert files(filled / "new") == []


def test_migrate_names_what_failed(run: Run, filled: Path) -> None:
    """The others are copied, and the code is 1."""
    name = lost(filled)
    done = run("migrate", BASE, MEDIA, f"file://{filled}/new")
    assert done.exit_code == 1
    assert done.stdout.startswith("failed UserPicture 3, 90, 60: ")
    assert name in done.stdout
    assert len(files(filled / "new")) == USERS - 1


def test_migrate_refuses_one_store_twice(run: Run, filled: Path) -> None:
    """That is a wrong argument."""
    store = "tests.cli.models:memory"
    done = run("migrate", BASE, store, store)
    assert (done.exit_code, "Error: destination: expected " in done.stderr) == (2, True), done.output


# --- thumbnails ------------------------------------------------------------------------------------------------------


def test_thumbnails_makes_what_is_missing(run: Run, filled: Path) -> None:
    """Each size of each picture, once."""
    arguments = ["thumbnails", PICTURE, "-s", MEDIA, "-w", "30", "-w", "45", "--height", "20", "-v"]
    done = run(*arguments)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "made User 1: 30x20, 45x30"), done.output
    assert "14 made" in last(done)
    assert len(files(filled / models.MEDIA)) == USERS * 3
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (0, "")


def test_thumbnails_fills_boxes(run: Run, filled: Path) -> None:
    """Pairs of sides with a fit, in another format."""
    done = run("thumbnails", PICTURE, "-s", MEDIA, "-w", "20", "--height", "20", "--fit", "cover", "--format", "webp")
    assert done.exit_code == 0, done.output
    assert len([name for name in files(filled / models.MEDIA) if name.endswith(".20x20.webp")]) == USERS


def test_thumbnails_enlarges_nothing_on_request(run: Run, filled: Path) -> None:
    """Sizes beyond the original's become its own; boxes shrink, and keep what they are told to."""
    done = run("thumbnails", PICTURE, "-s", MEDIA, "-w", "500", "-w", "900", "--no-enlarge")
    assert (done.exit_code, f"{USERS} made" in last(done)) == (0, True), done.output
    box = ["-w", "900", "--height", "900", "--fit", "cover", "--gravity", "north", "--no-enlarge"]
    done = run("thumbnails", PICTURE, "-s", MEDIA, *box)
    assert (done.exit_code, f"{USERS} made" in last(done)) == (0, True), done.output
    assert len([name for name in files(filled / models.MEDIA) if ".60x60." in name]) == USERS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a size"),
        (["-w", "20", "--gravity", "north"], "--gravity needs --fit cover"),
        (["-w", "20", "--fit", "cover"], "as many --height as --width"),
        (["--height", "20", "--fit", "cover"], "as many --height as --width"),
    ],
)
def test_thumbnails_wants_sizes(arguments: list[str], message: str, run: Run, filled: Path) -> None:
    """What is missing is said."""
    done = run("thumbnails", PICTURE, "-s", MEDIA, *arguments)
    assert (done.exit_code, message in done.stderr) == (2, True), done.output


def test_thumbnails_names_what_failed(run: Run, filled: Path) -> None:
    """The picture and why; the code is 1, and the others are made."""
    lost(filled)
    done = run("thumbnails", PICTURE, "-s", MEDIA, "-w", "30")
    assert (done.exit_code, done.stdout.startswith("failed User 3: there is no file")) == (1, True), done.output
    assert last(done).endswith("1 failed")


# --- offloaded columns ------------------------------------------------------------------------------------------------


async def write_note() -> None:
    """Add a row whose text is in the store."""
    sessions = await models.sessions()
    bind_store(sessions, models.media())
    async with sessions.begin() as session:
        session.add(models.Note(id=1, body="long " * 200))
    await sessions.kw["bind"].dispose()


def test_offloaded_columns_are_files_as_well(run: Run, filled: Path) -> None:
    """Migrate copies them, verify compares them, and sweep removes those that no row names."""
    asyncio.run(write_note())
    [name] = [name for name in files(filled / models.MEDIA) if name.startswith("note.body/")]
    done = run("migrate", BASE, MEDIA, f"file://{filled}/new", "-v")
    assert (done.exit_code, "copied Note 1 (note.body)" in done.stdout.splitlines()) == (0, True), done.output
    assert files(filled / "new") == files(filled / models.MEDIA)
    assert f", {USERS + 1} sound, " in last(run("verify", BASE, "-s", MEDIA, "--deep"))
    (filled / models.MEDIA / name).write_bytes(b"x")
    done = run("verify", BASE, "-s", MEDIA)
    assert (done.exit_code, done.stdout.startswith("size Note 1 (note.body): expected ")) == (1, True), done.output
    with closing(sqlite3.connect(filled / models.DATABASE)) as connection, connection:
        connection.execute("DELETE FROM note")
    done = run("sweep", BASE, "-s", MEDIA, "--grace", "0", "--force", "--delete", "-v")
    assert (done.exit_code, done.stdout) == (0, f"removed {name}\n"), done.output
    assert len(files(filled / models.MEDIA)) == USERS


# --- being stopped ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("store", "number"), [("interrupting", signal.SIGINT), ("terminating", signal.SIGTERM)])
def test_a_signal_stops_it_and_another_run_goes_on(store: str, number: int, run: Run, filled: Path) -> None:
    """It says how to go on, leaves nothing half-done, and its code tells the signal."""
    before = signal.getsignal(number)
    done = run("migrate", BASE, MEDIA, f"tests.cli.models:{store}", "--concurrency", "2")
    assert done.exit_code == 128 + number
    assert last(done) == "Stopped. What was copied stays; run the same command again to go on."
    assert signal.getsignal(number) is before
    copied = files(filled / "new")
    assert 1 <= len(copied) < USERS
    assert all((filled / "new" / name).read_bytes() == models.SMALL for name in copied)
    done = run("migrate", BASE, MEDIA, f"file://{filled}/new")
    assert (done.exit_code, f"{len(copied)} present" in last(done)) == (0, True)


# --- where nobody watches --------------------------------------------------------------------------------------------


def test_a_log_gets_lines(run: Run, filled: Path) -> None:
    """Now and then one says how far it is and how long it takes still."""
    done = run("migrate", BASE, MEDIA, "tests.cli.models:slow", "--concurrency", "1", "--every", "0.12")
    lines = [line for line in done.stderr.splitlines() if " left" in line]
    assert (done.exit_code, bool(lines)) == (0, True), done.stderr
    assert re.fullmatch(r"migrate: \d of 7, \d+/s, 0:00:0\d left, \d copied, [\d.]+ kB", lines[-1]), lines


def test_a_log_gets_lines_also_where_the_end_is_not_known(run: Run, filled: Path) -> None:
    """A sweep does not know how much there is to list."""
    done = run("sweep", BASE, "-s", "tests.cli.models:listing", "--every", "0.05")
    assert re.search(r"^sweep: \d+, \d+/s$", done.stderr, re.MULTILINE), done.stderr
    found = documents(run("sweep", BASE, "-s", "tests.cli.models:listing", "--every", "0.05", "--json"))
    assert {one["event"] for one in found} == {"progress", "end"}


# --- for programs ----------------------------------------------------------------------------------------------------


def test_json_is_one_document_a_line(run: Run, filled: Path) -> None:
    """Findings and the end, with all that is known of them; nothing on the standard error."""
    name = lost(filled)
    done = run("verify", BASE, "-s", MEDIA, "--json")
    flaw, end = documents(done)
    assert (done.exit_code, done.stderr) == (1, "")
    assert (flaw["event"], flaw["problem"], flaw["repaired"]) == ("mismatch", "missing", False)
    assert (flaw["reference"]["cls"], flaw["reference"]["identity"]) == ("UserPicture", [3, 90, 60, ""])
    assert flaw["reference"]["created_at"].endswith("+00:00")
    assert (flaw["error"]["type"], name in flaw["error"]["message"]) == ("StoreFileNotFoundError", True)
    numbers = {"total": 7, "done": 7, "sound": 6, "flawed": 1}
    assert (end["event"], end["label"], numbers.items() <= end.items()) == ("end", "verify", True)
    assert end["seconds"] > 0


def test_json_tells_errors_and_stops(run: Run, filled: Path) -> None:
    """They are documents as well."""
    done = run("verify", BASE, "-s", MEDIA, "--json", "-d", "postgresql://127.0.0.1:1/x")
    [error] = documents(done)
    assert (done.exit_code, error["event"], error["type"]) == (3, "error", "ConnectionRefusedError")
    done = run("migrate", BASE, MEDIA, "tests.cli.models:interrupting", "--json")
    assert (done.exit_code, documents(done)[-1]["event"]) == (130, "stopped")


@pytest.mark.parametrize("command", ["migrate", "thumbnails"])
def test_json_of_each_file(command: str, run: Run, filled: Path) -> None:
    """With --verbose every one has its line; sets and keys are lists and objects."""
    arguments: dict[str, list[str]] = {
        "migrate": [BASE, MEDIA, f"file://{filled}/new"],
        "thumbnails": [PICTURE, "-s", MEDIA, "-w", "30"],
    }
    found: list[dict[str, Any]] = documents(run(command, *arguments[command], "--json", "-v"))
    assert [one["event"] for one in found] == [{"migrate": "file"}.get(command, command)] * USERS + ["end"]
    keys = [one["reference"]["key"] if command == "migrate" else one["keys"][0] for one in found[:-1]]
    assert {key["object_type"] for key in keys} == {"user-picture"}


def test_asyncio_is_left_as_it_was(run: Run, filled: Path) -> None:
    """Another loop can be run after."""
    run("verify", BASE, "-s", MEDIA)
    assert asyncio.run(asyncio.sleep(0, 1)) == 1
