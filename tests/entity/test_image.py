"""The row of one physical image: its properties in Python and in SQL."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, Uuid, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, undefer

from aioimageattach.context import store_context
from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import ContextError, DeclarationError, NotLoadedError, StoreFileNotFoundError
from aioimageattach.key import ImageKey
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from tests import photos
from tests.databases import Database
from tests.entity.models import Base, CountingStore, Post, PostPhoto, User, UserPicture, started

Sessions = async_sessionmaker[AsyncSession]
MOMENT = datetime(2017, 10, 10, 12, 34, 56, 789012, tzinfo=UTC)


class UUIDBase(DeclarativeBase):
    pass


class Place(UUIDBase):
    __tablename__ = "place"
    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    picture = image_attachment["PlacePicture"]("PlacePicture")


class PlacePicture(UUIDBase, Image):
    __tablename__ = "place_picture_of_long_ago"
    place_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("place.id"), primary_key=True)


class Tag(UUIDBase):
    __tablename__ = "tag"
    name: Mapped[str] = mapped_column(String(20), primary_key=True)
    picture = image_attachment["TagPicture"]("TagPicture")


class TagPicture(UUIDBase, Image):
    __tablename__ = "tag_picture"
    tag_name: Mapped[str] = mapped_column(ForeignKey("tag.name"), primary_key=True)

    @property
    def alt(self) -> str:
        return self.tag_name


def legacy(**values: Any) -> dict[str, Any]:
    """A row as SQLAlchemy-ImageAttach wrote it."""
    return {
        "user_id": 1,
        "width": 451,
        "height": 300,
        "variant": "",
        "mimetype": "image/jpeg",
        "original": True,
        "created_at": MOMENT,
        "revision": None,
        **values,
    }


# --- names -----------------------------------------------------------------------------------------------------------


def test_object_type_is_the_table_with_hyphens() -> None:
    """Underscores in the table name become hyphens; a class may override the name."""
    assert UserPicture().object_type == "user-picture"
    assert PlacePicture().object_type == "place-picture-of-long-ago"


def test_object_id_is_the_integer_or_uuid_of_the_owner() -> None:
    """The ``object_id`` of an integer key is the key, and that of a UUID is its number."""
    key = uuid.uuid4()
    assert UserPicture(user_id=7).object_id == 7
    assert PlacePicture(place_id=key).object_id == key.int


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (TagPicture(tag_name="x"), "'tag_name': 'x'"),
        (PostPhoto(post_id=1, order_index=2), "'order_index': 2"),
        (UserPicture(), "'user_id': None"),
    ],
    ids=["text", "pair", "nothing"],
)
def test_other_keys_need_an_object_id_of_the_class(image: Image, named: str) -> None:
    """The error names the class, its key, and what to override."""
    expected = rf"{type(image).__name__}\.object_id: .*{named}.*override the property object_id"
    with pytest.raises(DeclarationError, match=expected):
        _ = image.object_id


async def test_text_keys_need_no_object_id_in_the_built_in_stores(
    sqlite_database: Database, store: CountingStore
) -> None:
    """New files are named by their revision, so an owner may have any key."""
    sessions = await started(sqlite_database, UUIDBase.metadata)
    async with sessions() as session, session.begin():
        tag = Tag(name="x")
        session.add(tag)
        image = await tag.picture.from_blob(photos.photo("chelsea"), store)
        await session.flush()
        assert image.key == ImageKey("tag-picture", None, 451, 300, "image/jpeg", image.revision)
        assert await image.make_blob() == photos.photo("chelsea")


def test_identity() -> None:
    """The attributes of the primary key are owner, discriminators, size and look."""
    assert set(UserPicture.identity_attributes()) == {"user_id", "width", "height", "variant"}
    image = PostPhoto(post_id=1, order_index=2, width=3, height=4, variant="")
    assert image.identity_map == {"post_id": 1, "order_index": 2}
    assert image.size == (3, 4)
    assert image.reproducible
    assert not UserPicture(original=True).reproducible


def test_the_order_of_columns() -> None:
    """The owner's key comes first in the table and in its primary key, then size and look."""
    assert [column.name for column in UserPicture.__table__.primary_key] == ["user_id", "width", "height", "variant"]
    assert [column.name for column in UserPicture.__table__.columns][4:] == [
        "mimetype",
        "original",
        "created_at",
        "revision",
        "byte_size",
        "sha256",
    ]


# --- in SQL ----------------------------------------------------------------------------------------------------------


async def test_columns_and_size_in_sql(database: Database, store: CountingStore) -> None:
    """All columns, and the pair ``size``, can be queried on each database; times keep their microseconds."""
    sessions = await started(database, Base.metadata, expire_on_commit=False)
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        image = await user.picture.from_blob(photos.photo("chelsea"), store)
        await user.picture.generate_thumbnail(width=150)
        made_at = image.created_at
    assert abs(datetime.now(UTC) - made_at) < timedelta(minutes=1)
    async with sessions() as session:
        for condition in (
            UserPicture.size == (451, 300),
            UserPicture.size.in_([(451, 300), (1, 2)]),
            UserPicture.original,
            UserPicture.byte_size == len(photos.photo("chelsea")),
            (UserPicture.width > 400) & (UserPicture.mimetype == "image/jpeg") & (UserPicture.variant == ""),
            UserPicture.created_at == made_at,
            UserPicture.revision == image.revision,
        ):
            [found] = await session.scalars(select(UserPicture).where(condition))
            assert found.original
        found = await session.get_one(UserPicture, {"user_id": 1, "width": 451, "height": 300, "variant": ""})
        assert (found.created_at, found.created_at.tzinfo) == (made_at, UTC)
        assert found.size == (451, 300)


async def test_times_of_the_old_library(any_driver_database: Database) -> None:
    """``_ts`` of an old row is the same with every database, driver and time zone."""
    sessions = await started(any_driver_database, Base.metadata)
    store = MemoryStore()
    async with sessions() as session:
        await session.execute(insert(User).values(id=1, name="x"))
        await session.execute(insert(UserPicture).values(legacy()))
        await session.commit()
    async with sessions() as session:
        if any_driver_database.name == "postgresql":
            await session.execute(text("SET TIME ZONE 'Asia/Tokyo'"))
        user = await session.get_one(User, 1)
        image = user.picture.require_original()
        assert image.locate(store) == "memory:/user-picture/1/451x300.jpe?_ts=20171010123456789012"
        assert (image.created_at, image.created_at.tzinfo) == (MOMENT, UTC)
        session.expire(image, ["created_at"])
        with pytest.raises(NotLoadedError):
            image.locate(store)
        await session.refresh(image, ["created_at"])
        assert image.created_at.tzinfo is UTC
        assert (image.byte_size, image.sha256, image.revision) == (None, None, None)


async def test_rows_of_the_old_library_beside_new_ones(sessions: Sessions, tmp_path: Any) -> None:
    """An old row is read from its old path; when it is replaced, its file is deleted."""
    store = FileSystemStore(tmp_path, "http://images/")
    old = tmp_path / "user-picture" / "1" / "0" / "1.451x300.jpe"
    old.parent.mkdir(parents=True)
    old.write_bytes(photos.photo("chelsea"))
    async with sessions() as session, session.begin():
        await session.execute(insert(User).values(id=1, name="x"))
        await session.execute(insert(UserPicture).values(legacy()))
    async with sessions() as session, session.begin():
        user = await session.get_one(User, 1)
        assert user.picture.locate(store) == "http://images/user-picture/1/0/1.451x300.jpe?_ts=20171010123456789012"
        thumbnail = await user.picture.generate_thumbnail(width=150, store=store)
        assert thumbnail.revision is not None
        assert await user.picture.make_blob(store) == photos.photo("chelsea")
        await session.flush()
        await user.picture.from_blob(photos.photo("coffee"), store)
    assert not old.exists()
    assert len([path for path in tmp_path.rglob("*.jpg") if path.is_file()]) == 1


def test_times_given_by_the_application() -> None:
    """A time that was assigned keeps its value until it is stored."""
    zone = timezone(timedelta(hours=9))
    assert UserPicture(created_at=MOMENT.astimezone(zone)).created_at.tzinfo is zone


# --- files -----------------------------------------------------------------------------------------------------------


async def test_locating_and_reading_one_image(sessions: Sessions, store: CountingStore) -> None:
    """An image locates and opens its own file, pending or stored, by context or argument."""
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        image = await user.picture.from_blob(photos.photo("chelsea"), store)
        url = image.locate()
        assert await image.make_blob() == photos.photo("chelsea")
        assert store.calls == []
    async with sessions() as session:
        [image] = await session.scalars(select(UserPicture))
        with pytest.raises(ContextError):
            image.locate()
        with pytest.raises(ContextError):
            await image.open_file()
        with store_context(store):
            assert image.locate() == image.locate(store) == url
            async with await image.open_file(use_seek=True) as file:
                await file.seek(-2, 2)
                assert await file.read() == photos.photo("chelsea")[-2:]
        await store.delete_object((await store.names())[0])
        with pytest.raises(StoreFileNotFoundError):
            await image.make_blob(store)


def test_html_is_escaped() -> None:
    """A URL is escaped in its attribute."""
    store = MemoryStore('memory:/"><script>&')
    image = UserPicture(**legacy(revision="0" * 26))
    with store_context(store):
        html = image.__html__()
    assert "<script>" not in html
    assert html.startswith('<img src="memory:/&quot;&gt;&lt;script&gt;&amp;/user-picture/')
    assert html.endswith('.jpg" width="451" height="300" alt="">')


def test_alt_of_images() -> None:
    """``alt`` is escaped; without text the attribute is present and empty."""

    with store_context(MemoryStore()):
        assert UserPicture(**legacy(revision="0" * 26)).__html__().endswith(' alt="">')
        values = {**legacy(revision="0" * 26), "tag_name": 'A "cat" & <dog>'}
        del values["user_id"]
        html = TagPicture(**values).__html__()
    assert html.endswith(' alt="A &quot;cat&quot; &amp; &lt;dog&gt;">')


async def test_expired_rows_raise_an_error_with_advice(expiring: Sessions, store: CountingStore) -> None:
    """Every synchronous use of an expired row raises the same error, and so does opening it."""
    async with expiring() as session:
        user = User(id=1)
        session.add(user)
        image = await user.picture.from_blob(photos.photo("chelsea"), store)
        await session.commit()
        for use in (
            lambda: image.key,
            lambda: image.size,
            lambda: image.identity_map,
            lambda: image.locate(store),
            lambda: image.__html__(),
        ):
            with pytest.raises(NotLoadedError, match="expire_on_commit=False"):
                use()
        with pytest.raises(NotLoadedError):
            await image.make_blob(store)
        await session.refresh(image)
        assert image.key.object_id == 1
        session.expire(image, ["user_id"])
        with pytest.raises(NotLoadedError):
            _ = image.key


async def test_images_queried_by_themselves(sessions: Sessions, store: CountingStore) -> None:
    """A query for image rows loads what ``locate`` needs, even if other columns are omitted."""
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        await user.picture.from_blob(photos.photo("chelsea"), store)
    async with sessions() as session:
        [image] = await session.scalars(select(UserPicture).options(undefer(UserPicture.sha256)))
        assert image.locate(store).endswith(".451x300.jpg")
        assert (image.byte_size, len(image.sha256 or "")) == (len(photos.photo("chelsea")), 64)


# --- the key of the owner --------------------------------------------------------------------------------------------


async def test_uuid_owners(database: Database, store: CountingStore) -> None:
    """An owner whose UUID is generated in the flush can have an image on each database."""
    sessions = await started(database, UUIDBase.metadata)
    async with sessions() as session, session.begin():
        place = Place()
        session.add(place)
        image = await place.picture.from_blob(photos.photo("chelsea"), store)
        await session.flush()
        assert image.key.object_id == place.id.int
    async with sessions() as session:
        [place] = await session.scalars(select(Place))
        assert await place.picture.make_blob(store) == photos.photo("chelsea")


async def test_a_changed_owner_key_keeps_the_picture(sqlite_database: Database, store: CountingStore) -> None:
    """The owner's key is not part of the file name, so it may change."""

    class Base(DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")

    class Picture(Base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id", onupdate="CASCADE"), primary_key=True)

    sessions = await started(sqlite_database, Base.metadata)
    async with sessions() as session, session.begin():
        owner = Owner(id=1)
        session.add(owner)
        await owner.picture.from_blob(photos.photo("chelsea"), store)
    async with sessions() as session, session.begin():
        owner = await session.get_one(Owner, 1)
        owner.id = 2
    async with sessions() as session:
        owner = await session.get_one(Owner, 2)
        assert owner.picture.require_original().object_id == 2
        assert await owner.picture.make_blob(store) == photos.photo("chelsea")


async def test_a_store_that_needs_the_key_gets_the_file_after_the_insert(sessions: Sessions) -> None:
    """A store whose names contain ``object_id`` receives the one that the database generated, in the same flush."""

    class Named(CountingStore):
        needs_object_id = True
        seen: list[int | None] = []

        async def put(self, key: ImageKey, file: Any, *, reproducible: bool) -> None:
            self.seen.append(key.object_id)
            await super().put(key, file, reproducible=reproducible)

    store = Named()
    async with sessions() as session, session.begin():
        user, post = User(), Post()
        session.add_all([user, post])
        await user.picture.from_blob(photos.photo("chelsea"), store)
        await session.flush()
        assert store.seen == [user.id]
        await user.picture.from_blob(photos.photo("coffee"), store)
    assert store.seen == [user.id, user.id]
    assert len(await store.names()) == 1


def test_columns_of_the_mixin_in_queries() -> None:
    """Columns of ``Image`` itself can be used in queries of any image class, as in SQLAlchemy-ImageAttach."""
    query = select(UserPicture.user_id).where(Image.original, Image.width > 3).order_by(Image.created_at.desc())
    assert str(query).split("FROM")[1].split() == (
        ["user_picture", "WHERE", "original", "AND", "width", ">", ":width_1", "ORDER", "BY", "created_at", "DESC"]
    )


async def test_columns_of_the_mixin_on_a_database(sessions: async_sessionmaker[AsyncSession]) -> None:
    """A query of such columns can be executed."""
    async with sessions() as session:
        assert (await session.scalars(select(UserPicture).order_by(Image.width, Image.sha256))).all() == []


def test_size_can_be_assigned() -> None:
    """``size`` can be assigned as well as read."""
    image = UserPicture(user_id=1)
    image.size = 30, 20
    assert (image.width, image.height) == (30, 20)


def test_the_set_of_an_image() -> None:
    """An image's ``identity_map`` selects its set, including the owner's key; another owner's key is rejected."""
    post = Post(id=1)
    image = PostPhoto(post_id=1, order_index=2, width=3, height=4, variant="")
    assert post.photos.get_image_set(**image.identity_map).identity == {"order_index": 2}
    assert Post().photos.get_image_set(**image.identity_map).identity == {"order_index": 2}
    with pytest.raises(DeclarationError, match=r"expected order_index, got order_index, post_id"):
        Post(id=9).photos.get_image_set(**image.identity_map)
