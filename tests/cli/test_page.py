"""What the manual shows of terminals is what they show, and what it says of JSON is so."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from aioimageattach.cli.app import app
from aioimageattach.context import bind_store
from aioimageattach.key import ImageKey, file_name, make_revision
from aioimageattach.stores.fs import FileSystemStore
from tests import photos
from tests.cli.conftest import files

DOCS = Path(__file__).parent.parent.parent / "docs"
PIECE = re.compile(
    r"^<!-- meanwhile: (?P<event>.+?) -->$|^ *```console\n(?P<block>.*?)^ *```$", re.DOTALL | re.MULTILINE
)
MODELS = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, image_attachment


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment("UserPicture")


class UserPicture(Base, Image):
    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
"""
USERS = 12
LONG_AGO = 1.75e9


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a block of a terminal, each with what follows it."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^ +", "", block, flags=re.MULTILINE))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", joined, re.MULTILINE)


def measured(text: str) -> str:
    """A text without what differs from run to run."""
    for pattern, word in (
        (r"\b\d+:\d\d:\d\d\b", "TIME"),
        (r"\b[\d,]+/s\b", "RATE"),
        (r"\b[\d,.]+ (?:B|kB|MB|GB)\b", "SIZE"),
        (r"\b[\d,]+ ms\b", "TIME"),
        (r"\b\d+\.\d+(?:\.\d+)*\b", "NUMBER"),
    ):
        text = re.sub(pattern, word, text)
    return text


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An application with twelve pictures, and the directories of the page."""
    (folder / "app").mkdir()
    (folder / "app" / "models.py").write_text(MODELS)
    for name in ("srv/media", "srv/new"):
        (folder / name).mkdir(parents=True)
    for name in ("DATABASE_URL", "AIOIMAGEATTACH_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(folder)
    asyncio.run(fill(folder, _Long(folder / "srv/media", "https://example.com/media/"), USERS))
    for name in files(folder / "srv/media"):
        os.utime(folder / "srv/media" / name, (LONG_AGO, LONG_AGO))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
        del sys.modules[name]


class _Long(FileSystemStore):
    """Its files were put long ago."""

    def make_revision(self) -> str:
        return make_revision(LONG_AGO)


async def fill(folder: Path, store: FileSystemStore, users: int) -> None:
    """Make a database with some pictures."""
    found = importlib.import_module("app.models")
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/app.sqlite")
    async with engine.begin() as connection:
        await connection.run_sync(found.Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    bind_store(sessions, store)
    async with sessions.begin() as session:
        for number in range(1, users + 1):
            session.add(user := found.User(id=number))
            await user.picture.from_blob(photos.photo("chelsea"))
    await engine.dispose()


def happen(event: str, folder: Path) -> None:
    """What the page says has happened meanwhile."""
    media, database, backup = folder / "srv/media", folder / "app.sqlite", folder / "backup.sqlite"
    match event:
        case "a file is lost":
            [revision] = rows_of(database, "SELECT revision FROM user_picture WHERE user_id = 3 AND original")
            [name] = [name for name in files(media) if revision in name]
            (media / name).unlink()
        case "a file is left behind":
            name = file_name(ImageKey("user-picture", None, 451, 300, "image/jpeg", make_revision(LONG_AGO)))
            (media / name).parent.mkdir(parents=True, exist_ok=True)
            (media / name).write_bytes(photos.photo("chelsea"))
            os.utime(media / name, (LONG_AGO, LONG_AGO))
        case "a backup is made":
            shutil.copy(database, backup)
        case "the backup is restored":
            shutil.copy(backup, database)
        case "the database is copied":
            shutil.copy(database, folder / "copy.sqlite")
        case "a row is deleted by SQL":
            rows_of(database, "DELETE FROM user_picture WHERE user_id = 5")
        case "rows are moved to another table":
            rows_of(database, "CREATE TABLE user_picture_archive AS SELECT * FROM user_picture WHERE user_id = 5")
            rows_of(database, "DELETE FROM user_picture WHERE user_id = 5")
        case "they are moved back":
            rows_of(database, "INSERT INTO user_picture SELECT * FROM user_picture_archive")
            rows_of(database, "DROP TABLE user_picture_archive")
        case _:
            raise AssertionError(event)


def rows_of(database: Path, query: str) -> list[Any]:
    """Run a statement, and return the first column."""
    with closing(sqlite3.connect(database)) as connection, connection:
        return [row[0] for row in connection.execute(query)]


TERMINALS = [DOCS / "howto" / "command-line.md", *sorted((DOCS / "howto" / "runbooks").glob("*.md"))]


@pytest.mark.parametrize("page", TERMINALS, ids=lambda page: page.stem)
def test_terminals_show_what_the_page_shows(page: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command says what stands below it, but for times, sizes, and what ``...`` leaves out."""
    is_runbook = page.parent.name == "runbooks"
    if is_runbook:
        monkeypatch.setenv("DATABASE_URL", "sqlite:///app.sqlite")
        monkeypatch.setenv("AIOIMAGEATTACH_STORE", f"file://{shop}/srv/media?base_url=https://example.com/media/")
    code, ran = 0, 0
    for piece in PIECE.finditer(page.read_text("utf-8")):
        if piece["event"]:
            happen(piece["event"], shop)
            continue
        for command, expected in commands(piece["block"]):
            words = shlex.split(command.replace("/srv/", f"{shop}/srv/"))
            if words[0] == "export":
                monkeypatch.setenv(*words[1].split("=", 1))
            elif command == "echo $?":
                assert expected.strip() == str(code)
            elif words[0] == "aioimageattach" and (expected or is_runbook):
                result = CliRunner().invoke(app, words[1:])
                code, ran = result.exit_code, ran + 1
                assert code != 2, result.output
                shown = measured(result.output.replace(str(shop), ""))
                wanted = re.escape(measured(expected)).replace(re.escape("..."), ".*")
                assert not expected or re.fullmatch(wanted, shown, re.DOTALL), f"$ {command}\n{result.output}"
    assert ran > 0 or page.stem == "index"


def pages() -> list[Path]:
    return [path for path in sorted(DOCS.rglob("*.md")) if "$ aioimageattach" in path.read_text("utf-8")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_each_command_of_the_manual_can_be_given(page: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options are there, and its models and URLs are understood."""
    monkeypatch.setenv("DATABASE_URL", "sqlite://")
    (shop / "copy.sqlite").touch()
    monkeypatch.setenv("AIOIMAGEATTACH_STORE", f"file://{shop}/srv/media")
    for block in re.findall(r"^ *```console\n(.*?)^ *```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for command, _ in commands(block):
            left_out = re.sub(r" --\w+ \.\.\.", "", command)
            program, *words = shlex.split(left_out.replace("/srv/", f"{shop}/srv/"))
            if program == "aioimageattach":
                name, found, rest = app.resolve_command(app.make_context(program, [*words]), words)
                assert found is not None
                found.make_context(name, rest)


# --- JSON ------------------------------------------------------------------------------------------------------------

REFERENCE = (DOCS / "reference" / "command-line.md").read_text("utf-8")
HELD = {
    "verify": {"mismatch": "maintenance.verify:Mismatch", "progress": "maintenance.verify:VerifyProgress"},
    "sweep": {
        "orphan": "maintenance.sweep:Orphan",
        "progress": "maintenance.sweep:SweepProgress",
        "objection": "maintenance.sweep:Objection",
    },
    "undo": {
        "restored": "maintenance.quarantine:Restored",
        "sweep": "maintenance.quarantine:Sweep",
        "progress": "maintenance.quarantine:UndoProgress",
    },
    "retire": {"copy": "migration.retire:Retired", "progress": "migration.retire:RetireProgress"},
    "own": {"ownership": "inventory.ownership:Ownership"},
    "migrate": {
        "file": "migration.plan:Migrated",
        "failure": "migration.plan:Failure",
        "progress": "migration.plan:Progress",
    },
    "thumbnails": {
        "thumbnails": "thumbnails:Thumbnails",
        "failure": "thumbnails:ThumbnailFailure",
        "progress": "thumbnails:ThumbnailProgress",
    },
    "doctor": {"check": "cli.checks:Check"},
    "inside": {
        "reference": "inventory:Reference",
        "key": "key:ImageKey",
        "owner": "inventory.ownership:Owner",
        "content": "offload.reference:Reference",
    },
}


def rows(command: str) -> dict[str, list[str]]:
    """The table of the reference: the fields of each kind of document."""
    [section] = re.findall(rf"^### {command}\n(.*?)(?=^#|\Z)", REFERENCE, re.DOTALL | re.MULTILINE)
    found = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    return {event: re.findall(r"`(\w+)`", names) for event, names in found if event != "event"}


def held(path: str) -> list[str]:
    """The fields of a dataclass."""
    module, _, name = path.partition(":")
    cls: Any = getattr(importlib.import_module(f"aioimageattach.{module}"), name)
    return [field.name for field in dataclasses.fields(cls)]


@pytest.mark.parametrize("command", HELD)
def test_the_fields_of_documents_are_those_of_the_reference(command: str) -> None:
    """All of them, in their order, and no other."""
    assert rows(command) == {event: held(path) for event, path in HELD[command].items()}


def test_documents_have_the_fields_of_the_reference(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each command writes is in its table, and nothing else is written."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{shop}/app.sqlite")
    monkeypatch.setenv("AIOIMAGEATTACH_STORE", f"file://{shop}/srv/media")
    happen("a file is lost", shop)
    for _ in range(11):
        happen("a file is left behind", shop)
    seen = set()
    for command, *words in (
        ("verify", "app.models:Base"),
        ("sweep", "app.models:Base"),
        ("sweep", "app.models:Base", "--delete"),
        ("sweep", "app.models:Base", "--delete", "--max-share", "1"),
        ("own", "app.models:Base"),
        ("undo", "app.models:Base", "--list"),
        ("undo", "app.models:Base", "-v"),
        ("migrate", "app.models:Base", f"file://{shop}/srv/media", f"file://{shop}/srv/new", "-v"),
        ("retire", "app.models:Base", f"file://{shop}/srv/media", f"file://{shop}/srv/new", "-v"),
        ("thumbnails", "app.models:User.picture", "-w", "30", "-v"),
        ("doctor",),
    ):
        fields = rows(command)
        ends = {"label", *fields.get("progress", []), "seconds", "rate"}
        result = CliRunner().invoke(app, [command, *words, "--json"])
        for document in map(json.loads, result.stdout.splitlines()):
            event = document.pop("event")
            seen.add((command, event))
            others = {"end": ends, "quarantine": {"sweep"}, "error": {"type", "message"}}
            assert document.keys() == others.get(event, {*fields.get(event, [])}), document
            for name in document.keys() & rows("inside").keys():
                assert not isinstance(document[name], dict) or document[name].keys() == {*rows("inside")[name]}
    assert seen == {
        *(
            (command, event)
            for command in HELD
            for event in HELD[command]
            if event != "progress" and command != "inside"
        ),
        *((command, "end") for command in HELD if command not in ("doctor", "inside", "own")),
        ("sweep", "quarantine"),
        ("sweep", "error"),
    }
