"""What the doctor finds."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest
import pyvips

from aioimageattach.version import VERSION
from tests import predecessor
from tests.cli import models
from tests.cli.conftest import Run, documents, files
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.judge import Refusal
from tests.stores.s3.conftest import BUCKET, REGION

BASE = "tests.cli.models:Base"


def test_all_is_well(run: Run, filled: Path) -> None:
    """Versions, formats, database, tables, store; nothing is left in it."""
    before = files(filled / models.MEDIA)
    done = run("doctor", "-m", BASE, "-s", "tests.cli.models:media")
    assert done.exit_code == 0, done.output
    assert f"aioimageattach {VERSION}, SQLAlchemy" in done.stdout
    assert "✓ formats      AVIF, GIF, JPEG, PNG, WEBP are written and read, SVG is read" in done.stdout
    assert "✓ database     sqlite 3." in done.stdout
    assert "✓ tables       user_picture has all columns and keys" in done.stdout
    assert "a file was put, read, listed and deleted in" in done.stdout
    assert files(filled / models.MEDIA) == before


def test_json(run: Run) -> None:
    """Each check is a document."""
    done = run("doctor", "--json", DATABASE_URL="")
    assert {one["event"] for one in documents(done)} == {"check"}
    assert {"versions", "libvips", "formats"} == {one["name"] for one in documents(done)}
    assert {one["status"] for one in documents(done)} == {"ok", "note"}


def test_tables_of_the_predecessor_are_seen(run: Run, folder: Path) -> None:
    """What they lack is named, and a table that is not there."""
    with sqlite3.connect(models.DATABASE) as connection:
        for statement in predecessor.statements("sqlite"):
            if "post_photo" not in statement:
                connection.execute(statement)
    connection.close()
    done = run("doctor", "-m", BASE)
    assert done.exit_code == 1
    assert "✗ tables       user_picture lacks variant, revision, byte_size, sha256: migrate the schema" in done.stdout
    assert "✗ tables       post_photo is missing" in done.stdout


def test_the_extras_that_are_missing_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where their packages are not found."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    done = run("doctor", DATABASE_URL="")
    assert done.exit_code == 0
    assert "PDF needs aioimageattach[pdf]" in done.stdout
    assert "HEIC needs aioimageattach[heif]" in done.stdout


def test_a_format_that_libvips_cannot_write(run: Run) -> None:
    """As where a distribution built it without, or its host has blocked it."""
    pyvips.operation_block_set("VipsForeignSaveHeif", True)
    try:
        done = run("doctor", DATABASE_URL="")
    finally:
        pyvips.operation_block_set("VipsForeignSaveHeif", False)
    assert (done.exit_code, "✗ formats      AVIF: " in done.stdout) == (1, True), done.output
    assert "GIF, JPEG, PNG, WEBP are written" in done.stdout


def test_a_database_that_does_not_answer(run: Run) -> None:
    """It is told, and the store is looked at all the same."""
    done = run("doctor", "-d", "postgresql://app:hunter2@127.0.0.1:1/x", "-s", "tests.cli.models:memory")
    assert done.exit_code == 1
    assert "✗ database     [Errno 111]" in done.stdout
    assert "✓ store        <MemoryStore" in done.stdout
    assert "hunter2" not in done.output


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("Changing", "what was put and what was read differ"),
        ("Hiding", "what was put is not listed"),
        ("Undeletable", "read only"),
    ],
)
def test_a_store_that_does_not_work(store: str, message: str, run: Run, folder: Path) -> None:
    """What went wrong is said."""
    made = {"Undeletable": "undeletable"}.get(store, store)
    done = run("doctor", "-s", f"tests.cli.models:{made}", DATABASE_URL="")
    assert (done.exit_code, "✗ store        " in done.stdout, message in done.stdout) == (1, True, True), done.output


def test_a_store_without_names(run: Run) -> None:
    """It is written and read; it cannot be listed."""
    done = run("doctor", "-s", "tests.cli.models:Plain", DATABASE_URL="")
    assert (done.exit_code, "✓ store" in done.stdout) == (0, True), done.output


def test_a_bucket(run: Run, gate: Gate) -> None:
    """Its credentials are found, and not shown."""
    url = f"s3://{BUCKET}/below?region={REGION}&endpoint_url={gate.url}"
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "DATABASE_URL": ""}
    done = run("doctor", "-s", url, **keys)
    assert done.exit_code == 0, done.output
    assert f"✓ credentials  found: the access key ends in {ACCESS_KEY[-4:]}, no session token" in done.stdout
    assert "✓ store        <S3Store 'pictures' under 'below'>: a file was put" in done.stdout
    assert SECRET_KEY not in done.output
    assert ACCESS_KEY not in done.output
    done = run("doctor", "-s", url, **{**keys, "AWS_SECRET_ACCESS_KEY": "wrong"})
    assert (done.exit_code, "✗ store" in done.stdout) == (1, True), done.output
    assert "wrong" not in done.output.replace("wrong region", "")


def test_the_folder_is_filled_by_the_fixture_alone(run: Run, filled: Path) -> None:
    """The doctor changes no row."""

    async def rows() -> int:
        engine = models.engine()
        async with engine.connect() as connection:
            found = await connection.exec_driver_sql("SELECT count(*) FROM user_picture")
            number = int(found.scalar_one())
        await engine.dispose()
        return number

    before = asyncio.run(rows())
    run("doctor", "-m", BASE, "-s", "tests.cli.models:media")
    assert asyncio.run(rows()) == before


def test_keys_and_types_that_are_missing(run: Run, folder: Path) -> None:
    """A table that was made without them works until it is large, or until two rows are the same."""
    with sqlite3.connect(models.DATABASE) as connection:
        connection.execute(
            "CREATE TABLE user_picture (user_id INTEGER, width INTEGER, height INTEGER, variant VARCHAR(8), "
            "mimetype VARCHAR(255), original BOOLEAN, created_at TEXT, revision VARCHAR(64), byte_size BIGINT, "
            "sha256 VARCHAR(64), PRIMARY KEY (user_id, width))"
        )
    connection.close()
    done = run("doctor", "-m", "tests.cli.models:UserPicture")
    assert done.exit_code == 1
    for problem in (
        "its primary key is (user_id, width), expected (height, user_id, variant, width)",
        "revision is not unique",
        "variant has 8 characters, expected 32",
        "created_at is TEXT, expected DATETIME",
    ):
        assert problem in done.stdout


def test_the_owner_of_files(run: Run, filled: Path) -> None:
    """Nobody, this database, or another one; and the store that the application uses."""
    words = ("doctor", "-m", BASE, "-s", "tests.cli.models:media")
    done = run(*words)
    assert (done.exit_code, "'https://example.com/'): no owner" in done.stdout) == (0, True), done.output
    assert run("own", BASE, "-s", "tests.cli.models:media", "--claim").exit_code == 0
    done = run(*words)
    assert (done.exit_code, "owned by this database" in done.stdout) == (0, True), done.output
    copy = filled / "copy.sqlite"
    copy.write_bytes((filled / models.DATABASE).read_bytes())
    done = run(*words, "-d", f"sqlite:///{copy}")
    assert (done.exit_code, "a copy of it" in done.stdout) == (1, True), done.output
    done = run(*words[:-1], f"file://{filled}", "-d", "tests.cli.models:bound_sessions")
    assert (done.exit_code, "the application's store is FileSystemStore(" in done.stdout) == (1, True), done.output


def test_a_database_that_hides_rows(run: Run, filled: Path) -> None:
    """Such as one that is opened for reading only."""
    done = run("doctor", "-m", BASE, "-d", f"sqlite:///file:{filled}/{models.DATABASE}?mode=ro&uri=true")
    assert (done.exit_code, "✗ rows         the connection is read-only" in done.stdout) == (1, True), done.output


def test_a_bucket_whose_uploads_may_not_be_listed(run: Run, gate: Gate) -> None:
    """A sweep could not abort those that killed processes leave."""
    url = f"s3://{BUCKET}/below?region={REGION}&endpoint_url={gate.url}"
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "DATABASE_URL": ""}
    assert "✓ rights       unfinished uploads can be listed" in run("doctor", "-s", url, **keys).stdout
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if "uploads" in asked.target else None)
    done = run("doctor", "-s", url, **keys)
    assert (done.exit_code, "✗ rights       unfinished uploads cannot be listed" in done.stdout) == (1, True), (
        done.output
    )
