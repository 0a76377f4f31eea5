"""A database and files of SQLAlchemy-ImageAttach after the documented migration."""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import timedelta
from functools import cache
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import BigInteger, Connection, ForeignKey, Integer, String, Uuid, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.context import bind_store
from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.maintenance import sweep, verify
from aioimageattach.migration import migrate as move
from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3SandboxStore, S3Store
from tests import photos, predecessor
from tests.databases import Database
from tests.predecessor import BIG, ITEM, OldImage
from tests.servers.gate import Gate
from tests.stores.s3.conftest import BUCKET, MakeStore
from tests.stores.s3.conftest import gate as gate
from tests.stores.s3.conftest import make_store as make_store
from tests.stores.s3.conftest import s3_server as s3_server

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "howto" / "from-sqlalchemy-imageattach.md"
NAMES = (DOCS / "explanation" / "differences.md").read_text("utf-8").partition("\n## Names\n")[2]
ENV = """
from alembic import context
connection = context.config.attributes["connection"]
context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
"""
BASE = "https://img.example.com/"
Number = BigInteger().with_variant(Integer(), "sqlite")
Identifier = Uuid(native_uuid=False).with_variant(Uuid(), "postgresql")
Sessions = async_sessionmaker[AsyncSession]

# A CHECK constraint of SQLite's old tables restricts a boolean column to 0 and 1; Alembic ignores it.
pytestmark = pytest.mark.filterwarnings("ignore:Unnamed CHECK constraint:UserWarning")


class Base(DeclarativeBase):
    """The models of the old application, ported to this library."""


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    picture = image_attachment["UserPicture"]("UserPicture")


class UserPicture(Base, Image):
    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(Number, ForeignKey("user.id"), primary_key=True)


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["PostPhoto", MultipleImageSet["PostPhoto"]]("PostPhoto", uselist=True)


class PostPhoto(Base, Image):
    __tablename__ = "post_photo"
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)

    @property
    def object_id(self) -> int:
        return predecessor.paired(self.post_id, self.order_index)


class Item(Base):
    __tablename__ = "item"
    id: Mapped[uuid.UUID] = mapped_column(Identifier, primary_key=True)
    image = image_attachment["ItemImage"]("ItemImage")


class ItemImage(Base, Image):
    __tablename__ = "item_image"
    item_id: Mapped[uuid.UUID] = mapped_column(Identifier, ForeignKey("item.id"), primary_key=True)


class Article(Base):
    __tablename__ = "article"
    slug: Mapped[str] = mapped_column(String(60), primary_key=True)
    cover = image_attachment["ArticleCover"]("ArticleCover")


class ArticleCover(Base, Image):
    """An image class whose table was renamed once, while its files were not."""

    __tablename__ = "article_cover"
    slug: Mapped[str] = mapped_column(ForeignKey("article.slug"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "article"}

    @property
    def object_type(self) -> str:
        return "cover"

    @property
    def object_id(self) -> int:
        return int(hashlib.sha1(self.slug.encode()).hexdigest(), 16)


class IssueCover(ArticleCover):
    __mapper_args__ = {"polymorphic_identity": "issue"}

    @property
    def object_type(self) -> str:
        return "issue-cover"

    @property
    def object_id(self) -> int:
        return int(self.slug.rpartition("-")[2])


CLASSES: dict[str, type[Image]] = {
    "user_picture": UserPicture,
    "post_photo": PostPhoto,
    "item_image": ItemImage,
    "article_cover": ArticleCover,
}


def migration() -> str:
    """The documented migration, for all tables."""
    [block] = [
        found for found in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL) if "op." in found
    ]
    tables, count = re.subn(r"^TABLES = .*$", f"TABLES = {predecessor.TABLES!r}", block, flags=re.MULTILINE)
    assert count == 1
    return f'revision = "1"\ndown_revision = None\n{tables}'


async def migrate(database: Database, folder: Path) -> None:
    """Run the migration with Alembic."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENV)
    (folder / "versions" / "1_new_columns.py").write_text(migration())
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")

    def run(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with database.engine().begin() as connection:
        await connection.run_sync(run)


@pytest.fixture
async def migrated(database: Database, tmp_path: Path) -> Database:
    """The old database after the migration."""
    async with database.engine().begin() as connection:
        await predecessor.fill(connection, database.name)
    await migrate(database, tmp_path / "migrations")
    return database


@pytest.fixture
def directory(tmp_path: Path) -> FileSystemStore:
    """A store for the old directory."""
    predecessor.write(tmp_path / "media")
    return FileSystemStore(tmp_path / "media", BASE)


@pytest.fixture
async def bucket(gate: Gate, make_store: MakeStore) -> S3Store:
    """A store for the old bucket, on a real server."""
    store = make_store(gate.url, prefix="old")
    for image in predecessor.images():
        await store.put_object(image.bucket_name, image.blob, mimetype=image.mimetype)
    return store


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest) -> KeyedStore:
    """A store with the old files: a directory and a bucket."""
    found: KeyedStore = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def sessions(migrated: Database, store: KeyedStore) -> Sessions:
    """Sessions with ``expire_on_commit=False``."""
    sessions = async_sessionmaker(migrated.engine(), expire_on_commit=False)
    bind_store(sessions, store)
    return sessions


def identity(image: OldImage | Image) -> dict[str, Any]:
    """Return the values that identify a row within its class."""
    if isinstance(image, OldImage):
        own = {name: value for name, value in image.key.items() if name != "kind"}
        return {"table": image.table, **own, "size": image.size}
    own = {name: value for name, value in image.identity_map.items() if name not in ("width", "height", "variant")}
    return {"table": type(image).__table__.name, **own, "size": image.size}  # type: ignore[attr-defined]


async def rows_of(session: AsyncSession) -> list[tuple[OldImage, Image]]:
    """Return the images of the old library, each with its row."""
    rows = [row for cls in CLASSES.values() for row in await session.scalars(select(cls))]
    return [(old, row) for old in predecessor.images() for row in rows if identity(old) == identity(row)]


def name_in(store: KeyedStore, old: OldImage) -> str:
    """Return the name that the old library used in that store."""
    return old.bucket_name if isinstance(store, S3Store) else old.directory_name


async def names_of(store: KeyedStore) -> set[str]:
    return {found.name async for found in store.list_objects() if not found.name.startswith(".")}


async def test_the_migration_is_complete(migrated: Database) -> None:
    """After the migration, Alembic reports no difference from the models, and no row is lost."""

    def differences(connection: Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection), Base.metadata)

    async with migrated.engine().connect() as connection:
        assert await connection.run_sync(differences) == []
        for table in predecessor.TABLES:
            key = await connection.run_sync(lambda c, table=table: inspect(c).get_pk_constraint(table))
            assert key["constrained_columns"][-3:] == ["width", "height", "variant"]
            old = [image for image in predecessor.images() if image.table == table]
            found = await connection.execute(text(f"SELECT variant, revision, byte_size, sha256 FROM {table}"))
            assert [tuple(row) for row in found] == [("", None, None, None)] * len(old)


async def test_the_old_library_can_use_the_migrated_tables(migrated: Database) -> None:
    """An INSERT without the new columns still works."""
    made_at = predecessor.MADE_AT if migrated.name == "postgresql" else "2015-06-01 12:34:56"
    columns = "width, height, mimetype, original, created_at, user_id"
    row = {"original": True, "made_at": made_at, "user_id": 1}
    async with migrated.engine().begin() as connection:
        values = "90, 60, 'image/jpeg', :original, :made_at, :user_id"
        await connection.execute(text(f"INSERT INTO user_picture ({columns}) VALUES ({values})"), row)
        where = "user_id = 1 AND width = 90"
        assert await connection.scalar(text(f"SELECT variant FROM user_picture WHERE {where}")) == ""


async def test_old_rows_are_read_and_located(sessions: Sessions, store: KeyedStore, gate: Gate) -> None:
    """Each row finds its file, byte for byte, and keeps its URL, with the old layout, extension and ``_ts``."""
    base = f"{gate.url}/{BUCKET}/old/" if isinstance(store, S3Store) else BASE
    async with sessions() as session:
        pairs = await rows_of(session)
        assert len(pairs) == len(predecessor.images())
        for old, row in pairs:
            assert await row.make_blob() == old.blob
            assert row.locate(store) == f"{base}{name_in(store, old)}?_ts=20150601123456000000"
            assert row.created_at == predecessor.MADE_AT
            assert (row.mimetype, row.original, row.revision) == (old.mimetype, old.original, None)


async def test_old_thumbnails_are_found(sessions: Sessions) -> None:
    """Thumbnails are found by width, height or both, within the right image of several."""
    async with sessions() as session:
        user = await session.get_one(User, 1)
        assert user.picture.find_thumbnail(width=150).size == (150, 99)
        assert user.picture.find_thumbnail(width=150, height=99).size == (150, 99)
        assert (await user.picture.generate_thumbnail(width=150)).revision is None
        post = await session.get_one(Post, 3)
        assert [photo.size for photo in post.photos] == [(512, 512), (512, 512)]
        assert post.photos.get_image_set(order_index=2).find_thumbnail(height=100).revision is None
        assert len(post.photos.get_image_set(order_index=1)) == 1


@pytest.mark.parametrize(
    ("owner", "attribute", "key"),
    [(User, "picture", BIG), (User, "picture", 7), (Item, "image", ITEM), (Article, "cover", "issue-42")],
    ids=["big", "webp", "uuid", "polymorphic"],
)
@pytest.mark.parametrize("store", ["directory"], indirect=True)  # the following tests of the bucket read and replace
async def test_new_thumbnails_of_old_originals(
    owner: type[Any], attribute: str, key: Any, sessions: Sessions, store: KeyedStore
) -> None:
    """A new thumbnail has a revision and a file in the new layout, and the old files are unchanged."""
    before = await names_of(store)
    async with sessions() as session:
        images = getattr(await session.get_one(owner, key), attribute)
        thumbnail = await images.generate_thumbnail(width=60)
        await session.commit()
        assert (thumbnail.width, thumbnail.original, thumbnail.mimetype) == (60, False, images.mimetype)
        assert {thumbnail.revision in name for name in await names_of(store) - before} == {True}
        assert await thumbnail.make_blob()
    assert before < await names_of(store)


async def test_old_files_of_a_replaced_picture_are_deleted(sessions: Sessions, store: KeyedStore) -> None:
    """The commit deletes the files of the old original and of its thumbnail, and no others."""
    gone = {name_in(store, old) for old in predecessor.images() if old.key.get("user_id") == 1234}
    before = await names_of(store)
    async with sessions() as session:
        user = await session.get_one(User, 1234)
        await user.picture.from_blob(photos.photo("coffee"))
        await session.flush()
        assert gone < await names_of(store)
        await session.commit()
        assert before - await names_of(store) == gone
        assert await user.picture.make_blob() == photos.photo("coffee")
        assert user.picture.require_original().revision in user.picture.locate()


async def test_a_rollback_leaves_old_files(sessions: Sessions, store: KeyedStore) -> None:
    """Rolling back a replacement of the same size, or a deletion, changes no file."""
    before = await names_of(store)
    async with sessions() as session:
        user = await session.get_one(User, 1)
        await user.picture.from_blob(photos.photo("chelsea"))
        await session.flush()
        await session.rollback()
        await session.delete(await session.get_one(Post, 3))
        await session.flush()
        await session.rollback()
    assert await names_of(store) == before


async def test_old_files_of_deleted_owners_are_deleted(sessions: Sessions, store: KeyedStore) -> None:
    """One of several images, an owner with several, and a polymorphic image are deleted with their files."""
    async with sessions.begin() as session:
        await (await session.get_one(Post, 3)).photos.get_image_set(order_index=2).delete()
        await session.delete(await session.get_one(Article, "issue-42"))
        await session.delete(await session.get_one(Item, ITEM))
    left = {
        name_in(store, old)
        for old in predecessor.images()
        if old.object_type not in ("issue-cover", "item-image") and old.key.get("order_index") != 2
    }
    assert await names_of(store) == left
    async with sessions.begin() as session:
        await session.delete(await session.get_one(Post, 3))
    assert not any(name.startswith("post-photo/") for name in await names_of(store))


async def test_old_rows_are_verified(sessions: Sessions, store: KeyedStore) -> None:
    """Verification finds all files, and reports a missing one with its row."""
    progress = await verify(sessions, Base, deep=True).execute()
    assert (progress.total, progress.counts["sound"], progress.counts["mismatched"]) == (
        len(predecessor.images()),
        progress.total,
        0,
    )
    lost = next(old for old in predecessor.images() if old.object_type == "issue-cover")
    await store.delete_object(name_in(store, lost))
    [flaw] = [flaw async for flaw in verify(sessions, Base)]
    assert (flaw.problem, flaw.reference.cls, flaw.reference.identity[0]) == ("missing", IssueCover, "issue-42")


async def test_a_sweep_keeps_the_files_of_old_rows(sessions: Sessions, store: KeyedStore) -> None:
    """A sweep deletes orphaned files of the old library, but no file of a row or of another program."""
    gone = OldImage("", {}, "user-picture", 99, (10, 10), "image/jpeg", ".jpe", True, b"left behind")
    other = OldImage("", {}, "banner", 1, (10, 10), "image/jpeg", ".jpe", True, b"of no class here")
    before = await names_of(store)
    for old in (gone, other):
        await store.put_object(name_in(store, old), old.blob)
    plan = sweep(sessions, Base, delete=True, grace=timedelta(0), force=True)
    assert [orphan.name async for orphan in plan] == [name_in(store, gone)]
    assert await names_of(store) == {*before, name_in(store, other)}
    assert plan.progress.counts["named"] == len(before)


async def test_old_files_are_migrated_between_layouts(
    sessions: Sessions, store: KeyedStore, tmp_path: Path, gate: Gate, make_store: MakeStore
) -> None:
    """A migration between a directory and a bucket gives each file the name in the layout of the destination."""
    (tmp_path / "new").mkdir()
    new: KeyedStore = (
        FileSystemStore(tmp_path / "new", BASE) if isinstance(store, S3Store) else make_store(gate.url, prefix="new")
    )
    progress = await move(sessions, Base, store, new).execute()
    assert (progress.counts["copied"], progress.failed) == (len(predecessor.images()), 0)
    assert await names_of(new) == {name_in(new, old) for old in predecessor.images()}
    async with sessions() as session:
        for old, row in await rows_of(session):
            assert await row.make_blob(new) == old.blob
    progress = await move(sessions, Base, store, new).execute()
    assert (progress.counts["copied"], progress.counts["present"]) == (0, len(predecessor.images()))


async def test_old_files_without_rows_are_adopted(sessions: Sessions, store: KeyedStore) -> None:
    """Old files are adopted without a copy, as rows without a revision; a rollback does not delete them."""
    old = OldImage("", {}, "user-picture", 55, (451, 300), "image/jpeg", ".jpe", True, photos.photo("chelsea"))
    name = name_in(store, old)
    await store.put_object(name, old.blob)
    before = await names_of(store)
    async with sessions.begin() as session:
        session.add(User(id=55))
    async with sessions() as session:
        user = await session.get_one(User, 55)
        await user.picture.adopt(name)
        await session.flush()
        await session.rollback()
        assert await names_of(store) == before
        user = await session.get_one(User, 55, populate_existing=True)
        row = await user.picture.adopt(name)
        await session.commit()
        assert (row.revision, row.size, row.byte_size) == (None, (451, 300), len(old.blob))
        assert await user.picture.make_blob() == old.blob
        await session.delete(user)
        await session.commit()
    assert await names_of(store) == before - {name}


def test_the_layout_of_the_bucket() -> None:
    """The S3 store calculates the name of each old file, below the prefix, without a request."""
    bucket = S3Store("pictures", "key", "secret", prefix="old", region="eu-central-1")
    for old in predecessor.images():
        row = CLASSES[old.table](**old.key, width=old.size[0], height=old.size[1], mimetype=old.mimetype)
        if old.object_type == "issue-cover":
            row = IssueCover(**old.key, width=old.size[0], height=old.size[1], mimetype=old.mimetype)
        row.created_at = predecessor.MADE_AT
        url = f"https://pictures.s3.eu-central-1.amazonaws.com/old/{old.bucket_name}?_ts=20150601123456000000"
        assert row.locate(bucket) == url


# --- what its names have become --------------------------------------------------------------------------------------


@cache
def samples() -> dict[str, KeyedStore]:
    """Return instances of classes whose attributes are on the page."""
    return {
        "S3Store": S3Store("pictures", "key", "secret", region="eu-central-1"),
        "S3SandboxStore": S3SandboxStore("pictures", "sandbox", "key", "secret"),
    }


def found_in(module: str, name: str) -> Any:
    """Return the object that a name on the page refers to, in the module of that name or elsewhere."""
    first, *rest = name.split(".")
    found: Any = getattr(import_module(f"aioimageattach.{module}"), first)
    for part in rest:
        found = getattr(samples().get(first, found), part)
    return found


@pytest.mark.parametrize("module", predecessor.NAMES)
def test_each_name_of_the_old_library_is_on_the_page(module: str) -> None:
    """Each name is listed with its replacement, which exists, and is a coroutine if the page says so."""
    [section] = re.findall(rf"^### `{re.escape(module)}`\n(.*?)(?=^##)", NAMES, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`([\w.]+)`|–) \| (.*?) ?\|$", section, re.MULTILINE)
    assert len(rows) == section.count("\n| `")
    assert sorted(old for old, _, _ in rows) == sorted(predecessor.public_names(module))
    for old, new, change in rows:
        awaited = bool(new) and iscoroutinefunction(found_in(module, new))
        assert awaited == ("a coroutine" in change), old


def test_the_page_has_each_module_of_the_old_library() -> None:
    """The page lists exactly the modules of the old library."""
    assert re.findall(r"^### `(.*)`$", NAMES, re.MULTILINE) == list(predecessor.NAMES)
