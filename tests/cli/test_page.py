"""The terminal sessions and the tables of JSON fields in the documentation match the program."""

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

from aioimageattach._declared.names import path_of, stem_of
from aioimageattach.cli._app import app
from aioimageattach.context import bind_store
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.maintenance import Plan, Progress
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

from aioimageattach import Srcset
from aioimageattach.entity import Image, image_attachment


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment("UserPicture")


class UserPicture(Base, Image):
    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


class ShopBase(DeclarativeBase): ...


class ProductPhoto(ShopBase, Image):
    __tablename__ = "product_photo"
    __thumbnails__ = {"card": Srcset([120, 240], sizes="100vw")}
    product_id: Mapped[int] = mapped_column(primary_key=True)
"""
USERS = 12
LONG_AGO = 1.75e9


def commands(block: str) -> list[tuple[str, str]]:
    """Return the commands in a console block, each with its output."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^ +", "", block, flags=re.MULTILINE))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", joined, re.MULTILINE)


def normalize(text: str) -> str:
    """Replace everything that differs from run to run."""
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
def application(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An application with twelve images, and the directories of the page."""
    (folder / "app").mkdir()
    (folder / "app" / "models.py").write_text(MODELS)
    (folder / "app" / "tasks.py").write_text("from tests.cli.models import queue as tasks")
    for name in ("srv/media", "srv/new"):
        (folder / name).mkdir(parents=True)
    for name in ("DATABASE_URL", "AIOIMAGEATTACH_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(folder)
    asyncio.run(fill(folder, _Old(folder / "srv/media", "https://example.com/media/"), USERS))
    for name in files(folder / "srv/media"):
        os.utime(folder / "srv/media" / name, (LONG_AGO, LONG_AGO))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
        del sys.modules[name]


class _Old(FileSystemStore):
    """A store whose files were put long ago."""

    def make_revision(self) -> str:
        return make_revision(LONG_AGO)


async def fill(folder: Path, store: FileSystemStore, users: int) -> None:
    """Create a database with some images."""
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


def simulate(event: str, folder: Path) -> None:
    """Simulate the event that the page mentions."""
    media, database, backup = folder / "srv/media", folder / "app.sqlite", folder / "backup.sqlite"
    match event:
        case "a file is lost":
            [revision] = execute(database, "SELECT revision FROM user_picture WHERE user_id = 3 AND original")
            [name] = [name for name in files(media) if revision in name]
            (media / name).unlink()
        case "a file is left behind":
            name = ImageKey("user-picture", None, 451, 300, "image/jpeg", make_revision(LONG_AGO)).file_name()
            (media / name).parent.mkdir(parents=True, exist_ok=True)
            (media / name).write_bytes(photos.photo("chelsea"))
            os.utime(media / name, (LONG_AGO, LONG_AGO))
        case "a thumbnail is no longer declared":
            revision = make_revision(LONG_AGO)
            original = ImageKey("product-photo", None, 451, 300, "image/jpeg", revision).file_name()
            for name in (original, f"{path_of('product-photo', stem_of(revision, 'wide', ''))}.240x160.webp"):
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
            execute(database, "DELETE FROM user_picture WHERE user_id = 5")
        case "rows are moved to another table":
            execute(database, "CREATE TABLE user_picture_archive AS SELECT * FROM user_picture WHERE user_id = 5")
            execute(database, "DELETE FROM user_picture WHERE user_id = 5")
        case "they are moved back":
            execute(database, "INSERT INTO user_picture SELECT * FROM user_picture_archive")
            execute(database, "DROP TABLE user_picture_archive")
        case _:
            raise AssertionError(event)


def execute(database: Path, query: str) -> list[Any]:
    """Execute a statement, and return the first column."""
    with closing(sqlite3.connect(database)) as connection, connection:
        return [row[0] for row in connection.execute(query)]


TERMINALS = [DOCS / "howto" / "command-line.md", *sorted((DOCS / "howto" / "runbooks").glob("*.md"))]


@pytest.mark.parametrize("page", TERMINALS, ids=lambda page: page.stem)
def test_terminals(page: Path, application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command prints the output on the page, except for times, sizes, and the parts replaced by ``...``."""
    is_runbook = page.parent.name == "runbooks"
    if is_runbook:
        monkeypatch.setenv("DATABASE_URL", "sqlite:///app.sqlite")
        monkeypatch.setenv(
            "AIOIMAGEATTACH_STORE", f"file://{application}/srv/media?base_url=https://example.com/media/"
        )
    code, ran = 0, 0
    for piece in PIECE.finditer(page.read_text("utf-8")):
        if piece["event"]:
            simulate(piece["event"], application)
            continue
        for command, expected in commands(piece["block"]):
            words = shlex.split(command.replace("/srv/", f"{application}/srv/"))
            if words[0] == "export":
                monkeypatch.setenv(*words[1].split("=", 1))
            elif command == "echo $?":
                assert expected.strip() == str(code)
            elif words[0] == "aioimageattach" and (expected or is_runbook):
                result = CliRunner().invoke(app, words[1:])
                code, ran = result.exit_code, ran + 1
                assert code != 2, result.output
                shown = normalize(result.output.replace(str(application), ""))
                wanted = re.escape(normalize(expected)).replace(re.escape("..."), ".*")
                assert not expected or re.fullmatch(wanted, shown, re.DOTALL), f"$ {command}\n{result.output}"
    assert ran > 0 or page.stem == "index"


def pages() -> list[Path]:
    return [path for path in sorted(DOCS.rglob("*.md")) if "$ aioimageattach" in path.read_text("utf-8")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_commands_are_valid(page: Path, application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands in the documentation have existing options, models and URLs."""
    monkeypatch.setenv("DATABASE_URL", "sqlite://")
    (application / "copy.sqlite").touch()
    monkeypatch.setenv("AIOIMAGEATTACH_STORE", f"file://{application}/srv/media")
    for block in re.findall(r"^ *```console\n(.*?)^ *```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for command, _ in commands(block):
            left_out = re.sub(r" --\w+ \.\.\.", "", command)
            program, *words = shlex.split(left_out.replace("/srv/", f"{application}/srv/"))
            if program == "aioimageattach":
                name, found, rest = app.resolve_command(app.make_context(program, [*words]), words)
                assert found is not None
                found.make_context(name, rest)


# --- JSON ------------------------------------------------------------------------------------------------------------

REFERENCE = (DOCS / "reference" / "command-line.md").read_text("utf-8")
OBJECTS = "Objects in fields"

DATACLASSES = {
    "verify": {"mismatch": "maintenance:Mismatch", "progress": "maintenance._verify:_VerifyPlan"},
    "sweep": {
        "orphan": "maintenance:Orphan",
        "progress": "maintenance._sweep:_SweepPlan",
        "objection": "_inventory.plan:Objection",
    },
    "undo": {"restored": "maintenance:Orphan", "progress": "maintenance._quarantine:_UndoPlan"},
    "retire": {"copy": "migration:Copy", "progress": "migration._retire:_RetirePlan"},
    "own": {"ownership": "maintenance:Ownership"},
    "migrate": {"file": "migration:Copy", "failure": "migration:Copy", "progress": "migration:MigrationPlan"},
    "thumbnails": {
        "thumbnails": "thumbnails:Thumbnails",
        "failure": "thumbnails:Thumbnails",
        "progress": "thumbnails._plan:ThumbnailPlan",
    },
    "thumbnails --prune": {"outdated": "store:ObjectInfo", "progress": "cli._thumbnails:_PrunePlan"},
    "doctor": {"check": "cli._doctor:Check"},
    OBJECTS: {
        "reference": "_inventory:FileReference",
        "key": "key:ImageKey",
        "owner": "_inventory.ownership:Owner",
        "content": "offload._reference:Reference",
        "attachment": "_filenames:AttachmentName",
    },
}


def documented(command: str) -> dict[str, list[str]]:
    """Return the fields of each kind of document in the tables of the reference."""
    [section] = re.findall(rf"^### {command}\n(.*?)(?=^#|\Z)", REFERENCE, re.DOTALL | re.MULTILINE)
    found = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    return {event: re.findall(r"`(\w+)`", names) for event, names in found if event != "event"}


def fields_of(path: str) -> list[str]:
    """Return the fields of a dataclass, or the outcomes of a plan."""
    module, _, name = path.partition(":")
    cls: Any = getattr(importlib.import_module(f"aioimageattach.{module}"), name)
    return list(cls._outcomes) if issubclass(cls, Plan) else [field.name for field in dataclasses.fields(cls)]


@pytest.mark.parametrize("command", DATACLASSES)
def test_documented_fields(command: str) -> None:
    """The reference lists all fields of each dataclass, in order."""
    expected = {event: fields_of(path) for event, path in DATACLASSES[command].items()}
    found = documented(command)
    assert found.pop("sweep", None) == (["id", "swept_at"] if command == "undo" else None)
    assert found == expected


def test_written_fields(application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each document has exactly the documented fields, and all kinds of documents are written."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{application}/app.sqlite")
    monkeypatch.setenv("AIOIMAGEATTACH_STORE", f"file://{application}/srv/media")
    simulate("a file is lost", application)
    simulate("a thumbnail is no longer declared", application)
    for _ in range(11):
        simulate("a file is left behind", application)
    seen = set()
    for command, *words in (
        ("verify", "app.models:Base"),
        ("sweep", "app.models:Base"),
        ("sweep", "app.models:Base", "--delete"),
        ("sweep", "app.models:Base", "--delete", "--max-share", "1"),
        ("own", "app.models:Base"),
        ("undo", "app.models:Base", "--list"),
        ("undo", "app.models:Base", "-v"),
        ("migrate", "app.models:Base", f"file://{application}/srv/media", f"file://{application}/srv/new", "-v"),
        ("retire", "app.models:Base", f"file://{application}/srv/media", f"file://{application}/srv/new", "-v"),
        ("thumbnails", "app.models:User.picture", "-w", "30", "-v"),
        ("thumbnails --prune", "app.models:ProductPhoto", "-v"),
        ("doctor",),
    ):
        expected = documented(command)
        numbers = {field.name for field in dataclasses.fields(Progress)} - {"counts"}
        ends = {"label", "seconds", "rate", *numbers, *expected.get("progress", [])}
        result = CliRunner().invoke(app, [*command.split(), *words, "--json"])
        for document in map(json.loads, result.stdout.splitlines()):
            event = document.pop("event")
            seen.add((command, event))
            others = {"end": ends, "quarantine": {"sweep"}, "error": {"type", "message"}}
            assert document.keys() == others.get(event, {*expected.get(event, [])}), document
            for name in document.keys() & documented(OBJECTS).keys():
                assert not isinstance(document[name], dict) or document[name].keys() == {*documented(OBJECTS)[name]}
    assert seen == {
        *(
            (command, event)
            for command in DATACLASSES
            for event in DATACLASSES[command]
            if event != "progress" and command != OBJECTS
        ),
        *((command, "end") for command in DATACLASSES if command not in ("doctor", OBJECTS, "own")),
        ("sweep", "quarantine"),
        ("sweep", "error"),
        ("undo", "sweep"),
    }
