"""The effects, the output and the exit codes of verify, sweep, undo, own, migrate and thumbnails."""

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
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import async_sessionmaker

from aioimageattach.context import bind_store
from aioimageattach.entity import _derived
from aioimageattach.entity._image import utcnow
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.thumbnails import _backfill
from tests.cli import models
from tests.cli.conftest import USERS, Run, documents, files
from tests.maintenance import test_marks
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.stores.s3.conftest import BUCKET, REGION

BASE = "tests.cli.models:Base"
MEDIA = "tests.cli.models:media"
PICTURE = "tests.cli.models:User.picture"
CARD = "tests.cli.models:Card"
OLD = 1_500_000_000.0


def last(result: Result) -> str:
    """Return the last line of the standard error."""
    return result.stderr.splitlines()[-1]


def of_user(folder: Path, number: int) -> str:
    """Return the name of the file of a user's image."""
    with closing(sqlite3.connect(folder / models.DATABASE)) as connection:
        query = "SELECT revision FROM user_picture WHERE user_id = ? AND original"
        [revision] = connection.execute(query, [number]).fetchone()
    [name] = [name for name in files(folder / models.MEDIA) if revision in name]
    return name


def lose_file(folder: Path) -> str:
    """Delete the file of the third user; return its name."""
    name = of_user(folder, 3)
    (folder / models.MEDIA / name).unlink()
    return name


def add_orphan(folder: Path) -> str:
    """Add an old file that no row names; return its name."""
    name = ImageKey("user-picture", None, 90, 60, "image/jpeg", make_revision(OLD)).file_name()
    path = folder / models.MEDIA / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left behind")
    os.utime(path, (OLD, OLD))
    return name


# --- verify ----------------------------------------------------------------------------------------------------------


def test_verify_finds_no_problems(run: Run, filled: Path) -> None:
    """Without problems, the standard output is empty, the last line has the counts, and the exit code is 0."""
    done = run("verify", BASE, "-s", MEDIA)
    assert (done.exit_code, done.stdout) == (0, "")
    assert last(done).startswith("verify: 7 of 7, ")
    assert last(done).endswith(", 7 sound")


def test_verify_reports_missing_and_changed_files(run: Run, filled: Path) -> None:
    """Each mismatch has a line, and the exit code is 1."""
    name = lose_file(filled)
    (filled / models.MEDIA / of_user(filled, 7)).write_bytes(b"x")
    done = run("verify", BASE, "-s", MEDIA)
    assert done.exit_code == 1
    found = sorted(done.stdout.splitlines())
    assert found[0].startswith("missing UserPicture 3, 90, 60: ")
    assert name in found[0]
    assert found[1].startswith(f"size UserPicture 7, 90, 60: expected {len(models.SMALL)}, got 1")


def test_verify_repairs_thumbnails(run: Run, filled: Path) -> None:
    """With --repair the exit code is 0, and repaired files are listed only with --verbose."""
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


def test_verify_removes_false_marks(run: Run, folder: Path) -> None:
    """Marks of missing thumbnails are reported as problems until --repair removes them."""

    async def mark() -> None:
        engine = models.engine()
        async with engine.begin() as connection:
            await connection.run_sync(test_marks.Base.metadata.create_all)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        bind_store(sessions, models.media())
        await test_marks.fill(sessions, 2)
        await engine.dispose()

    asyncio.run(mark())
    base = "tests.maintenance.test_marks:Base"
    assert run("verify", base, "-s", MEDIA).exit_code == 0
    (folder / models.MEDIA / next(name for name in files(folder / models.MEDIA) if ".24x24." in name)).unlink()
    done = run("verify", base, "-s", MEDIA)
    assert (done.exit_code, done.stdout) == (1, "thumbnails Picture 1, 451, 300: expected 3, got 2\n")
    assert last(done).endswith(", 2 sound, 2 marked, 1 mismarked")
    assert run("verify", base, "-s", MEDIA, "--repair").exit_code == 0
    assert run("verify", base, "-s", MEDIA).exit_code == 0


# --- sweep -----------------------------------------------------------------------------------------------------------


def test_sweep_reports_and_removes(run: Run, filled: Path) -> None:
    """Without --delete nothing is removed; with it, exactly the orphan is removed."""
    before = files(filled / models.MEDIA)
    name = add_orphan(filled)
    done = run("sweep", BASE, "-s", MEDIA)
    assert (done.exit_code, done.stdout) == (1, f"orphan {name}\n")
    assert name in files(filled / models.MEDIA)
    done = run("sweep", BASE, "-s", MEDIA, "--delete", "-v")
    assert (done.exit_code, done.stdout) == (0, f"removed {name}\n"), done.output
    assert "1 removed, 11 B" in done.stderr
    assert "Removed files are in quarantine; " in last(done)
    add_orphan(filled)
    done = run("sweep", BASE, "-s", MEDIA, "--delete", "--permanently")
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert files(filled / models.MEDIA) == before


def test_undo_restores_the_files_of_a_sweep(run: Run, filled: Path) -> None:
    """A sweep is undone by its identifier or as the last one, and files that cannot be restored are reported."""
    names = []
    ids = []
    for _ in range(2):
        names.append(add_orphan(filled))
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


def test_own_claims_and_transfers(run: Run, filled: Path) -> None:
    """Files without an owner are claimed; another database is refused until the files are transferred to it."""
    done = run("own", BASE, "-s", MEDIA)
    assert (done.exit_code, ": no owner" in done.stdout) == (0, True)
    assert run("own", BASE, "-s", MEDIA, "--claim").stdout.count(": now owned by the sqlite database ") == 3
    done = run("own", BASE, "-s", MEDIA)
    assert (done.exit_code, done.stdout.count(": owned by the sqlite database ")) == (0, 3)
    copy = filled / "copy.sqlite"
    copy.write_bytes((filled / models.DATABASE).read_bytes())
    name = add_orphan(filled)
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


def test_incomplete_runs_have_a_separate_exit_code(run: Run, filled: Path) -> None:
    """A run without rows or files, or a first migration to a complete destination, exits with 4."""
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


def test_sweep_reports_objections(run: Run, filled: Path) -> None:
    """The objections are printed, and the exit code is 3."""
    names = {add_orphan(filled) for _ in range(11)}
    done = run("sweep", BASE, "-s", MEDIA)
    assert (done.exit_code, "--delete would be refused: user-picture/: " in done.stderr) == (1, True), done.output
    done = run("sweep", BASE, "-s", MEDIA, "--delete")
    assert (done.exit_code, "Error: nothing was removed; refused: " in done.stderr) == (3, True), done.output
    assert names < {*files(filled / models.MEDIA)}
    done = run("sweep", BASE, "-s", MEDIA, "--delete", "--force", "--object-type", "user-picture", "--limit", "4")
    assert (done.exit_code, "Warning: the limit of 4 files was reached" in done.stderr) == (1, True), done.output
    assert len(names & {*files(filled / models.MEDIA)}) == 7


def test_sweep_reports_files_that_cannot_be_removed(run: Run, filled: Path) -> None:
    """The file and the error are printed, and the exit code is 1."""
    name = add_orphan(filled)
    folder = (filled / models.MEDIA / name).parent
    done = run("sweep", BASE, "-s", "tests.cli.models:undeletable", "--delete", "--max-share", "1")
    assert (done.exit_code, done.stdout) == (1, f"failed {name}: read only\n"), done.output
    assert folder.exists()


def test_sweep_refuses_a_short_grace_time(run: Run, filled: Path) -> None:
    """A grace time that is shorter than that of the sessions is a wrong argument."""
    done = run("sweep", BASE, "-s", MEDIA, "--delete", "--grace", "0.5")
    assert (done.exit_code, "grace: expected at least 1 day, 0:00:00, the grace time" in done.stderr) == (2, True), (
        done.output
    )


# --- migrate ---------------------------------------------------------------------------------------------------------


def test_migrate_skips_copied_files(run: Run, filled: Path) -> None:
    """The first run copies all files; the second copies none."""
    target = f"file://{filled}/new"
    done = run("migrate", BASE, MEDIA, target)
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"{USERS} copied, {len(models.SMALL) * USERS / 1000:.3g} kB" in last(done)
    assert files(filled / "new") == files(filled / models.MEDIA)
    done = run("migrate", BASE, MEDIA, target, "--deep", "-v")
    assert [line.partition(" ")[0] for line in done.stdout.splitlines()] == ["present"] * USERS
    assert last(done).endswith(", 7 present")


def test_migrate_into_a_bucket(run: Run, filled: Path, gate: Gate) -> None:
    """The bucket is given by its URL, and the credentials by the environment."""
    url = f"s3://{BUCKET}/live?region={REGION}&endpoint_url={gate.url}&public=no"
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    done = run("migrate", BASE, MEDIA, url, **keys)
    assert (done.exit_code, f"{USERS} copied" in last(done)) == (0, True), done.output
    puts = [request.asked.headers for request in gate.log if request.asked.method == "PUT"]
    assert "private, max-age=31536000, immutable" in {headers.get("cache-control") for headers in puts}
    assert not any("public" in headers.get("cache-control", "") for headers in puts)
    done = run("verify", BASE, "-s", url, "--deep", **keys)
    assert (done.exit_code, f"{USERS} sound" in last(done)) == (0, True), done.output


def test_a_bucket_that_does_not_exist(run: Run, filled: Path, gate: Gate) -> None:
    """A missing bucket is reported once, not for each file and not as unreadable files."""
    url = f"s3://no-such-bucket?region={REGION}&endpoint_url={gate.url}"
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    for words in (("verify", BASE, "-s", url), ("verify", BASE, "-s", url, "--deep"), ("sweep", BASE, "-s", url)):
        done = run(*words, **keys)
        assert (done.exit_code, done.output.count("create ")) == (3, 1), done.output
        assert "unreadable" not in done.output


def test_migrate_dry_run(run: Run, filled: Path) -> None:
    """A dry run lists the files that would be copied, and copies none."""
    done = run("migrate", BASE, MEDIA, f"file://{filled}/new", "--dry-run")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, USERS)
    assert "would copy UserPicture 1, 90, 60" in done.stdout.splitlines()
    assert files(filled / "new") == []


def test_migrate_reports_failures(run: Run, filled: Path) -> None:
    """The other files are copied, and the exit code is 1."""
    name = lose_file(filled)
    done = run("migrate", BASE, MEDIA, f"file://{filled}/new")
    assert done.exit_code == 1
    assert done.stdout.startswith("failed UserPicture 3, 90, 60: ")
    assert name in done.stdout
    assert len(files(filled / "new")) == USERS - 1


def test_migrate_refuses_the_same_store_twice(run: Run, filled: Path) -> None:
    """The same store as destination is a wrong argument."""
    store = "tests.cli.models:memory"
    done = run("migrate", BASE, store, store)
    assert (done.exit_code, "Error: destination: expected " in done.stderr) == (2, True), done.output


# --- thumbnails ------------------------------------------------------------------------------------------------------


def test_thumbnails_makes_missing_thumbnails(run: Run, filled: Path) -> None:
    """Each size of each image is made exactly once."""
    arguments = ["thumbnails", PICTURE, "-s", MEDIA, "-w", "30", "-w", "45", "--height", "20", "-v"]
    done = run(*arguments)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "made User 1: 30x20, 45x30"), done.output
    assert "14 made" in last(done)
    assert len(files(filled / models.MEDIA)) == USERS * 3
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (0, "")


def test_thumbnails_fills_boxes(run: Run, filled: Path) -> None:
    """With --fit, each width is combined with each height, and --format converts the thumbnails."""
    done = run("thumbnails", PICTURE, "-s", MEDIA, "-w", "20", "--height", "20", "--fit", "cover", "--format", "webp")
    assert done.exit_code == 0, done.output
    assert len([name for name in files(filled / models.MEDIA) if name.endswith(".20x20.webp")]) == USERS


def test_thumbnails_does_not_enlarge(run: Run, filled: Path) -> None:
    """With --no-enlarge, larger sizes become that of the original, and boxes shrink and keep their gravity."""
    done = run("thumbnails", PICTURE, "-s", MEDIA, "-w", "500", "-w", "900", "--no-enlarge")
    assert (done.exit_code, f"{USERS} made" in last(done)) == (0, True), done.output
    box = ["-w", "900", "--height", "900", "--fit", "cover", "--gravity", "north", "--no-enlarge"]
    done = run("thumbnails", PICTURE, "-s", MEDIA, *box)
    assert (done.exit_code, f"{USERS} made" in last(done)) == (0, True), done.output
    assert len([name for name in files(filled / models.MEDIA) if ".60x60." in name]) == USERS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "UserPicture declares no thumbnails: add __thumbnails__ to the class, or give a --width or --height"),
        (["--format", "webp"], "expected at least one --width or --height"),
        (["-w", "20", "--rate", "3"], "remove --width and --height"),
        (["--dry-run"], "--dry-run and --object-type are for --prune"),
        (["--prune", "--rate", "5"], "--prune makes nothing: remove --enqueue, --rate"),
        (["-w", "20", "--gravity", "north"], "--gravity requires --fit cover"),
        (["-w", "20", "--fit", "cover"], "expected as many --height as --width"),
        (["--height", "20", "--fit", "cover"], "as many --height as --width"),
    ],
)
def test_thumbnails_refuses_invalid_options(arguments: list[str], message: str, run: Run, filled: Path) -> None:
    """The message states which option is missing or does not apply."""
    done = run("thumbnails", PICTURE, "-s", MEDIA, *arguments)
    assert (done.exit_code, message in done.stderr) == (2, True), done.output


def test_thumbnails_reports_failures(run: Run, filled: Path) -> None:
    """The image and the error are printed, the exit code is 1, and the other thumbnails are made."""
    lose_file(filled)
    done = run("thumbnails", PICTURE, "-s", MEDIA, "-w", "30")
    assert (done.exit_code, done.stdout.startswith("failed User 3: ")) == (1, True), done.output
    assert ", 6 made, 1 failed, " in last(done)


async def put_cards(count: int = 5) -> None:
    """Add originals of a class with declared thumbnails."""
    engine, store = models.engine(), models.media()
    async with engine.begin() as connection:
        await connection.run_sync(models.CardBase.metadata.create_all)
        for number in range(count):
            key = ImageKey("card", None, 90, 60, "image/jpeg", make_revision(OLD + 300 * number))
            await store.put(key, models.SMALL, reproducible=False)
            values = {"id": number, "width": 90, "height": 60, "variant": "", "mimetype": key.mimetype}
            values |= {"original": True, "created_at": utcnow(), "revision": key.revision}
            await connection.execute(insert(models.Card.__table__), values)
    await engine.dispose()


def cards(folder: Path) -> list[str]:
    """Return the files of declared thumbnails."""
    return [name for name in files(folder / models.MEDIA) if name.startswith("card.t/")]


def test_thumbnails_makes_declared_thumbnails(run: Run, folder: Path) -> None:
    """Without sizes, the declared thumbnails are made; a second run makes none."""
    asyncio.run(put_cards())
    done = run("thumbnails", CARD, "-s", MEDIA, "-v")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 5), done.output
    assert "made Card 0, 90, 60: 20x13, 30x20, 60x40" in done.stdout.splitlines()
    assert ", 15 made, " in last(done)
    assert len(cards(folder)) == 15
    done = run("thumbnails", CARD, "-s", MEDIA, "--concurrency", "1", "--rate", "0.01")
    assert (done.exit_code, done.stdout, "made" in last(done)) == (0, "", False), done.output


def test_thumbnails_continues_at_a_position(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped run prints the command that continues."""
    asyncio.run(put_cards())
    monkeypatch.setattr(_backfill, "PAGE", 2)
    done = run("thumbnails", CARD, "-s", "tests.cli.models:interrupted_backfill", "--concurrency", "1")
    assert done.exit_code == 130, done.output
    position = re.search(r" with --start-after (\S+) to continue", last(done))
    assert position is not None
    done = run("thumbnails", CARD, "-s", MEDIA, "--start-after", position[1])
    assert (done.exit_code, len(cards(folder))) == (0, 15), done.output


def test_thumbnails_enqueues_work(run: Run, folder: Path) -> None:
    """--enqueue starts the broker, sends a job for each original, and makes no thumbnails itself."""
    asyncio.run(put_cards())
    models.queue.notes.clear()
    done = run("thumbnails", CARD, "-s", MEDIA, "--enqueue", "tests.cli.models:queue")
    assert (done.exit_code, last(done).endswith(", 5 enqueued")) == (0, True), done.output
    first, *jobs, end = models.queue.notes
    assert (first, end) == ("startup", "shutdown")
    assert sorted(jobs) == [f"{name} 2" for name in files(folder / models.MEDIA)]
    assert cards(folder) == []
    done = run("thumbnails", CARD, "-s", MEDIA, "--enqueue", "tests.cli.models:brokerless")
    assert done.exit_code == 0, done.output
    done = run("thumbnails", CARD, "-s", MEDIA, "--enqueue", "tests.cli.models:Queue")
    assert (done.exit_code, last(done).endswith(", 5 enqueued")) == (0, True), done.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Base", "expected ThumbnailTasks, or a function without arguments that returns one, got Base"),
        ("ThumbnailTasks", "got a class that requires arguments: ThumbnailTasks.__init__() missing 3 required"),
        ("none", "expected an object, 'tests.cli.models:none' is None"),
        ("no_method", "expected ThumbnailTasks, got NoMethod, whose enqueue is not a method"),
    ],
)
def test_objects_that_are_not_queues(name: str, message: str, run: Run, folder: Path) -> None:
    """Objects that are not queues are rejected, and no thumbnail is made."""
    asyncio.run(put_cards())
    done = run("thumbnails", CARD, "-s", MEDIA, "--enqueue", f"tests.cli.models:{name}")
    assert (done.exit_code, message in done.stderr, cards(folder)) == (2, True, []), done.output


@pytest.mark.parametrize(
    ("name", "message"),
    [("Refusing", "amqp://***@host/ cannot be reached"), ("unreachable", "redis://***@host/0 cannot be reached")],
)
def test_errors_of_queues_are_shown_without_passwords(name: str, message: str, run: Run, folder: Path) -> None:
    """The error of the broker is shown, without the password in its URL."""
    asyncio.run(put_cards())
    for options in [], ["--json"]:
        done = run("thumbnails", CARD, "-s", MEDIA, "--enqueue", f"tests.cli.models:{name}", *options)
        assert (done.exit_code, message in done.output, "hunter2" in done.output) == (3, True, False), done.output


def test_thumbnails_are_made_by_tasks(run: Run, folder: Path) -> None:
    """ThumbnailTasks can process the jobs that --enqueue sends."""
    asyncio.run(put_cards())
    done = run("thumbnails", CARD, "-s", MEDIA, "--enqueue", "tests.cli.models:tasks")
    assert (done.exit_code, last(done).endswith(", 5 enqueued")) == (0, True), done.output
    assert len(cards(folder)) == 15


def test_thumbnails_prunes(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--prune deletes files that are no longer declared, --dry-run only reports them, and young files are kept."""
    asyncio.run(put_cards())
    run("thumbnails", CARD, "-s", MEDIA)
    monkeypatch.setattr(models.Card, "__thumbnails__", {"icon": models.Card.__thumbnails__["icon"]}, raising=True)
    _derived._memo.pop(models.Card)
    try:
        done = run("thumbnails", CARD, "-s", MEDIA, "--prune")
        assert (done.exit_code, len(cards(folder))) == (0, 15), done.output
        done = run("thumbnails", CARD, "-s", MEDIA, "--prune", "--grace", "0", "--dry-run")
        assert (done.exit_code, len(cards(folder))) == (1, 15), done.output
        outdated = [line.removeprefix("outdated ") for line in done.stdout.splitlines()]
        assert len(outdated) == 10
        done = run("thumbnails", CARD, "-s", MEDIA, "--prune", "--grace", "0", "--object-type", "card")
        assert (done.exit_code, done.stdout) == (0, ""), done.output
        assert last(done).startswith("prune: 10, ")
        assert len(cards(folder)) == 5
        assert not {*cards(folder)} & {*outdated}
    finally:
        _derived._memo.pop(models.Card)
    done = run("thumbnails", "tests.cli.models:TenantCard", "-s", MEDIA, "--prune")
    assert (done.exit_code, "--object-type is required" in done.stderr) == (2, True), done.output


# --- offloaded columns ------------------------------------------------------------------------------------------------


async def write_note() -> None:
    """Add a row with an offloaded value."""
    sessions = await models.sessions()
    bind_store(sessions, models.media())
    async with sessions.begin() as session:
        session.add(models.Note(id=1, body="long " * 200))
    await sessions.kw["bind"].dispose()


def test_offloaded_values(run: Run, filled: Path) -> None:
    """Migrate copies offloaded values, verify checks them, and sweep removes those without rows."""
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


# --- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("store", "number"), [("interrupting", signal.SIGINT), ("terminating", signal.SIGTERM)])
def test_a_signal_stops_a_command_and_another_run_continues(store: str, number: int, run: Run, filled: Path) -> None:
    """The command explains how to continue, leaves no partial files, and its exit code contains the signal."""
    before = signal.getsignal(number)
    done = run("migrate", BASE, MEDIA, f"tests.cli.models:{store}", "--concurrency", "2")
    assert done.exit_code == 128 + number
    assert last(done) == "Stopped. Copied files stay; run the same command again to continue."
    assert signal.getsignal(number) is before
    copied = files(filled / "new")
    assert 1 <= len(copied) < USERS
    assert all((filled / "new" / name).read_bytes() == models.SMALL for name in copied)
    done = run("migrate", BASE, MEDIA, f"file://{filled}/new")
    assert (done.exit_code, f"{len(copied)} present" in last(done)) == (0, True)


def test_a_stopped_sweep_says_where_to_resume(run: Run, filled: Path) -> None:
    """The position to resume from is shown in text and in JSON, after the object types that were swept completely."""
    name = add_orphan(filled)
    arguments = ("sweep", BASE, "-s", "tests.cli.models:interrupted_sweep")
    resume = "Removed files stay removed; run the same command again with --start-after post-photo/ to continue."
    done = run(*arguments)
    assert (done.exit_code, last(done)) == (130, f"Stopped. {resume}"), done.output
    done = run(*arguments, "--json")
    assert (done.exit_code, documents(done)[-1]) == (130, {"event": "stopped", "resume": resume})
    done = run("sweep", BASE, "-s", MEDIA, "--start-after", "post-photo/")
    assert (done.exit_code, done.stdout) == (1, f"orphan {name}\n")


# --- without a terminal ----------------------------------------------------------------------------------------------


def test_lines_of_progress_without_a_terminal(run: Run, filled: Path) -> None:
    """Without a terminal, lines of progress with the remaining time are written at an interval."""
    done = run("migrate", BASE, MEDIA, "tests.cli.models:slow", "--concurrency", "1", "--every", "0.02")
    lines = [line for line in done.stderr.splitlines() if " left" in line]
    assert (done.exit_code, bool(lines)) == (0, True), done.stderr
    assert re.fullmatch(r"migrate: \d of 7, \d+/s, \d:\d\d:\d\d left, \d copied, [\d.]+ kB", lines[-1]), lines


def test_lines_of_progress_without_a_total(run: Run, filled: Path) -> None:
    """Lines of a sweep have no total, because the number of files is not known in advance."""
    done = run("sweep", BASE, "-s", "tests.cli.models:listing", "--every", "0.02")
    assert re.search(r"^sweep: \d+, \d+/s$", done.stderr, re.MULTILINE), done.stderr
    found = documents(run("sweep", BASE, "-s", "tests.cli.models:listing", "--every", "0.02", "--json"))
    assert {one["event"] for one in found} == {"progress", "end"}


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_json_is_one_document_per_line(run: Run, filled: Path) -> None:
    """Results and the summary are documents with all fields, and nothing is written to the standard error."""
    name = lose_file(filled)
    done = run("verify", BASE, "-s", MEDIA, "--json")
    mismatch, end = documents(done)
    assert (done.exit_code, done.stderr) == (1, "")
    assert (mismatch["event"], mismatch["problem"], mismatch["repaired"]) == ("mismatch", "missing", False)
    assert (mismatch["reference"]["cls"], mismatch["reference"]["identity"]) == ("UserPicture", [3, 90, 60, ""])
    assert mismatch["reference"]["created_at"].endswith("+00:00")
    assert (mismatch["error"]["type"], name in mismatch["error"]["message"]) == ("StoreFileNotFoundError", True)
    numbers = {"total": 7, "done": 7, "sound": 6, "mismatched": 1}
    assert (end["event"], end["label"], numbers.items() <= end.items()) == ("end", "verify", True)
    assert end["seconds"] > 0


def test_json_documents_of_errors_and_signals(run: Run, filled: Path) -> None:
    """Errors and signals are reported as documents, too."""
    done = run("verify", BASE, "-s", MEDIA, "--json", "-d", "postgresql://127.0.0.1:1/x")
    [error] = documents(done)
    assert (done.exit_code, error["event"], error["type"]) == (3, "error", "ConnectionRefusedError")
    done = run("migrate", BASE, MEDIA, "tests.cli.models:interrupting", "--json")
    assert (done.exit_code, documents(done)[-1]["event"]) == (130, "stopped")


@pytest.mark.parametrize("command", ["migrate", "thumbnails"])
def test_json_of_each_file(command: str, run: Run, filled: Path) -> None:
    """With --verbose each file has a document, in which sets and keys are lists and objects."""
    arguments: dict[str, list[str]] = {
        "migrate": [BASE, MEDIA, f"file://{filled}/new"],
        "thumbnails": [PICTURE, "-s", MEDIA, "-w", "30"],
    }
    found: list[dict[str, Any]] = documents(run(command, *arguments[command], "--json", "-v"))
    assert [one["event"] for one in found] == [{"migrate": "file"}.get(command, command)] * USERS + ["end"]
    keys = [one["reference"]["key"] if command == "migrate" else one["keys"][0] for one in found[:-1]]
    assert {key["object_type"] for key in keys} == {"user-picture"}


def test_another_event_loop_can_run_afterwards(run: Run, filled: Path) -> None:
    """After a command, another event loop can run in the same process."""
    run("verify", BASE, "-s", MEDIA)
    assert asyncio.run(asyncio.sleep(0, 1)) == 1
