"""The command ``aioimageattach doctor``."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
from pathlib import Path

import pytest
import pyvips

from aioimageattach.exc import StorePermissionError
from aioimageattach.stores.s3 import Credentials, S3Store
from aioimageattach.version import VERSION
from tests import predecessor
from tests.cli import models
from tests.cli.conftest import Run, documents, files
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.judge import Refusal
from tests.stores.s3.conftest import BUCKET, REGION

BASE = "tests.cli.models:Base"


def test_no_problems(run: Run, filled: Path) -> None:
    """Versions, formats, database, tables and store are checked, and no file is left in the store."""
    before = files(filled / models.MEDIA)
    done = run("doctor", "-m", BASE, "-s", "tests.cli.models:media")
    assert done.exit_code == 0, done.output
    assert f"aioimageattach {VERSION}, SQLAlchemy" in done.stdout
    assert "✓ formats      AVIF, GIF, JPEG, PNG, WEBP can be written and read, SVG can be read" in done.stdout
    assert "✓ database     connected to sqlite 3." in done.stdout
    assert "✓ tables       user_picture has all columns and keys" in done.stdout
    assert "a file was put, read, listed and deleted in" in done.stdout
    assert files(filled / models.MEDIA) == before


def test_json(run: Run) -> None:
    """Each check is one JSON document."""
    done = run("doctor", "--json", DATABASE_URL="")
    assert {one["event"] for one in documents(done)} == {"check"}
    assert {"versions", "libvips", "formats"} == {one["name"] for one in documents(done)}
    assert {one["status"] for one in documents(done)} == {"ok", "note"}


def test_tables_of_the_predecessor(run: Run, folder: Path) -> None:
    """Missing columns and tables are reported by name."""
    with sqlite3.connect(models.DATABASE) as connection:
        for statement in predecessor.statements("sqlite"):
            if "post_photo" not in statement:
                connection.execute(statement)
    connection.close()
    done = run("doctor", "-m", BASE)
    assert done.exit_code == 1
    assert "✗ tables       user_picture lacks variant, revision, byte_size, sha256: migrate the schema" in done.stdout
    assert "✗ tables       post_photo is missing" in done.stdout


def test_missing_extras(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extras whose packages are not installed are reported by name."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    done = run("doctor", DATABASE_URL="")
    assert done.exit_code == 0
    assert "PDF requires aioimageattach[pdf]" in done.stdout
    assert "HEIC requires aioimageattach[heif]" in done.stdout


def test_a_format_that_libvips_cannot_write(run: Run) -> None:
    """A format is reported if libvips was built without it, or if the host application blocks it."""
    pyvips.operation_block_set("VipsForeignSaveHeif", True)
    try:
        done = run("doctor", DATABASE_URL="")
    finally:
        pyvips.operation_block_set("VipsForeignSaveHeif", False)
    assert (done.exit_code, "✗ formats      AVIF: " in done.stdout) == (1, True), done.output
    assert "GIF, JPEG, PNG, WEBP can be written" in done.stdout


def test_a_database_that_does_not_respond(run: Run) -> None:
    """The failure is reported, and the store is still checked."""
    done = run("doctor", "-d", "postgresql://app:hunter2@127.0.0.1:1/x", "-s", "tests.cli.models:memory")
    assert done.exit_code == 1
    assert "✗ database     [Errno 111]" in done.stdout
    assert "✓ store        <MemoryStore" in done.stdout
    assert "hunter2" not in done.output


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("Changing", "the file that was read differs from the one that was put"),
        ("Hiding", "the file that was put is not listed"),
        ("Undeletable", "read only"),
    ],
)
def test_a_store_that_does_not_work(store: str, message: str, run: Run, folder: Path) -> None:
    """The message describes the problem."""
    made = {"Undeletable": "undeletable"}.get(store, store)
    done = run("doctor", "-s", f"tests.cli.models:{made}", DATABASE_URL="")
    assert (done.exit_code, "✗ store        " in done.stdout, message in done.stdout) == (1, True, True), done.output


def test_a_store_without_names(run: Run, filled: Path) -> None:
    """A store that is not a ``KeyedStore`` is written and read; ownership is not checked."""
    done = run("doctor", "-m", BASE, "-s", "tests.cli.models:Plain")
    assert (done.exit_code, "✓ store" in done.stdout, "ownership" in done.stdout) == (0, True, False), done.output


def test_a_bucket(run: Run, gate: Gate) -> None:
    """The credentials of a bucket are found and not shown."""
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


def test_no_row_is_added_or_removed(run: Run, filled: Path) -> None:
    """The number of rows does not change."""

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


def test_wrong_keys_and_types(run: Run, folder: Path) -> None:
    """Differences of keys and types are reported, even if they have no effect in a small table."""
    with sqlite3.connect(models.DATABASE) as connection:
        connection.execute(
            "CREATE TABLE user_picture (user_id INTEGER, width INTEGER, height INTEGER, variant VARCHAR(8), "
            "mimetype VARCHAR(255), original BOOLEAN, created_at TEXT, revision VARCHAR(64), byte_size BIGINT, "
            "sha256 VARCHAR(64), PRIMARY KEY (user_id, width))"
        )
    connection.close()
    done = run("doctor", "-m", "tests.cli.models:UserPicture")
    assert done.exit_code == 1
    with sqlite3.connect(models.DATABASE) as connection:
        connection.execute("CREATE TABLE page (id INTEGER PRIMARY KEY, body TEXT)")
    connection.close()
    assert "page: body has no index: migrate the schema" in run("doctor", "-m", "tests.cli.models:OtherBase").stdout
    for problem in (
        "its primary key is (user_id, width), expected (height, user_id, variant, width)",
        "revision is not unique",
        "variant has 8 characters, expected 32",
        "created_at is TEXT, expected DATETIME",
    ):
        assert problem in done.stdout


def test_ownership(run: Run, filled: Path) -> None:
    """The checks report a store without an owner, with this or another database as owner, or one not in use."""
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
    assert (done.exit_code, "the application uses FileSystemStore(" in done.stdout) == (1, True), done.output


def test_routes(run: Run, filled: Path) -> None:
    """A route for an object type that no class has is reported: the files would go to the default store."""
    done = run("doctor", "-m", BASE, "-s", "tests.cli.models:routed")
    assert (done.exit_code, "✓ routes       2 stores by object type" in done.stdout) == (0, True), done.output
    done = run("doctor", "-m", BASE, "-s", "tests.cli.models:routed_thumbnails")
    assert "✓ routes       2 stores by object type" in done.stdout, done.output
    done = run("doctor", "-m", BASE, "-s", "tests.cli.models:misrouted")
    expected = (
        "✗ routes       no class has files of the object type 'user-pictures'; expected some of note.body, post-photo,"
    )
    assert (done.exit_code, expected in done.stdout) == (1, True), done.output


def test_a_database_that_hides_rows(run: Run, filled: Path) -> None:
    """A database that may hide rows, such as one opened read-only, is reported."""
    done = run("doctor", "-m", BASE, "-d", f"sqlite:///file:{filled}/{models.DATABASE}?mode=ro&uri=true")
    assert (done.exit_code, "✗ rows         the connection is read-only" in done.stdout) == (1, True), done.output


def test_a_bucket_whose_uploads_may_not_be_listed(run: Run, gate: Gate) -> None:
    """A bucket without the permission to list uploads is reported, because a sweep could not abort them."""
    url = f"s3://{BUCKET}/below?region={REGION}&endpoint_url={gate.url}"
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "DATABASE_URL": ""}
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if "uploadId" in asked.target else None)

    async def leave_upload() -> None:
        credentials = Credentials(ACCESS_KEY, SECRET_KEY)
        async with S3Store(
            BUCKET, prefix="below", region=REGION, endpoint_url=gate.url, credentials=credentials, multipart_threshold=1
        ) as one:
            with pytest.raises(StorePermissionError):
                await one.put_object("aioimageattach-doctor/x", b"x")

    asyncio.run(leave_upload())
    gate.before.clear()
    for _ in range(2):
        assert "✓ rights       unfinished uploads can be listed" in run("doctor", "-s", url, **keys).stdout
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if "uploads" in asked.target else None)
    done = run("doctor", "-s", url, **keys)
    assert (done.exit_code, "✗ rights       unfinished uploads cannot be listed" in done.stdout) == (1, True), (
        done.output
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change owners")
def test_a_directory_of_another_user(run: Run) -> None:
    """Root creates files for the owner of the directory; other users cannot."""
    with tempfile.TemporaryDirectory() as media:
        os.chown(media, 12345, 12345)
        os.chmod(media, 0o777)
        done = run("doctor", "-s", f"file://{media}", DATABASE_URL="")
        text = "belongs to user 12345, who will own all files that this user makes"
        assert (done.exit_code, text in done.stdout) == (0, True), done.output
        os.seteuid(54321)
        try:
            done = run("doctor", "-s", f"file://{media}", DATABASE_URL="")
        finally:
            os.seteuid(0)
    text = "belongs to user 12345, but this is user 54321: run as the other user"
    assert (done.exit_code, text in done.stdout) == (1, True), done.output
