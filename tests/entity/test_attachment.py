"""The attachment on the class, the arguments of its relationship, and loading."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    contains_eager,
    defer,
    immediateload,
    joinedload,
    lazyload,
    mapped_column,
    raiseload,
    relationship,
    selectinload,
    subqueryload,
    undefer,
    with_loader_criteria,
)

from aioimageattach.context import bind_store, store_context
from aioimageattach.entity import Image, ImageSubset, MultipleImageSet, SingleImageSet, image_attachment
from aioimageattach.exc import DeclarationError, NotLoadedError, UsageError
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import HttpExposedFileSystemStore
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, Post, User, UserPicture, started, statements

Sessions = async_sessionmaker[AsyncSession]


async def a_user(sessions: Sessions, store: Store, *, id: int = 1, name: str = "Ada") -> None:
    async with sessions() as session, session.begin():
        user = User(id=id, name=name)
        session.add(user)
        await user.picture.from_blob(photos.photo("chelsea"), store)
        await user.picture.generate_thumbnail(width=150)


# --- on the class ----------------------------------------------------------------------------------------------------


async def test_the_class_attribute_is_the_relationship(sessions: Sessions, store: CountingStore) -> None:
    """Joins, ``any()`` and aliases accept ``User.picture``."""
    await a_user(sessions, store)
    await a_user(sessions, store, id=2, name="Grace")
    async with sessions() as session:
        session.add(User(id=3, name="Nobody"))
        await session.flush()
        joined = select(User.name).join(User.picture).where(UserPicture.original).order_by(User.id)
        assert list(await session.scalars(joined)) == ["Ada", "Grace"]
        assert list(await session.scalars(select(User.name).where(~User.picture.any()))) == ["Nobody"]
        wide = select(func.count()).where(User.picture.any(UserPicture.width > 400))
        assert await session.scalar(wide.select_from(User)) == 2
        other = aliased(User)
        names = select(other.name).join(other.picture).where(other.name == "Ada").distinct()
        assert list(await session.scalars(names)) == ["Ada"]
        assert list(await session.scalars(select(other.name).where(other.picture.any()).order_by(other.id))) == [
            "Ada",
            "Grace",
        ]
        small = aliased(UserPicture)
        sizes = select(small.width).join(User.picture.of_type(small)).where(~small.original, User.id == 1)
        assert list(await session.scalars(sizes)) == [150]


LOADING = {
    "selectinload": (selectinload(User.picture), 2),
    "joinedload": (joinedload(User.picture), 1),
    "subqueryload": (subqueryload(User.picture), 2),
    "immediateload": (immediateload(User.picture), 2),
    "nothing said": (None, 2),
    "undefer": (selectinload(User.picture).undefer(UserPicture.sha256), 2),
}


@pytest.mark.parametrize(("option", "count"), LOADING.values(), ids=LOADING)
async def test_eager_loading(option: Any, count: int, sessions: Sessions, store: CountingStore) -> None:
    """Each kind of eager loading loads the rows, and the set needs no further query."""
    await a_user(sessions, store)
    async with sessions() as session:
        with statements(sessions) as sql:
            query = select(User) if option is None else select(User).options(option)
            user = (await session.scalars(query)).unique().one()
            assert len(sql) == count
            assert user.picture.find_thumbnail(width=150).locate(store).startswith("memory:/")
            assert (len(user.picture), bool(user.picture)) == (2, True)
        assert len(sql) == count


async def test_contains_eager_and_criteria(sessions: Sessions, store: CountingStore) -> None:
    """A query may load only some rows of a set."""
    await a_user(sessions, store)
    async with sessions() as session:
        query = select(User).join(User.picture).where(UserPicture.original).options(contains_eager(User.picture))
        user = (await session.scalars(query)).unique().one()
        assert [image.original for image in user.picture] == [True]
    async with sessions() as session:
        criteria = with_loader_criteria(UserPicture, UserPicture.original.is_(False))
        user = (await session.scalars(select(User).options(selectinload(User.picture), criteria))).one()
        assert user.picture.original is None
        assert user.picture.find_thumbnail(width=150).size == (150, 100)


@pytest.mark.parametrize("option", [lazyload, raiseload])
async def test_a_set_that_is_not_loaded(option: Any, sessions: Sessions, store: CountingStore) -> None:
    """All synchronous methods raise one error that names both remedies; awaitable methods load the rows."""
    await a_user(sessions, store)
    async with sessions() as session:
        user = (await session.scalars(select(User).options(option(User.picture)))).one()
        for use in (
            lambda: user.picture.original,
            lambda: user.picture.find_thumbnail(width=150),
            lambda: user.picture.locate(store),
            lambda: bool(user.picture),
            lambda: len(user.picture),
            lambda: list(user.picture),
            lambda: user.picture.__html__(),
            lambda: user.picture.size,
        ):
            with pytest.raises(NotLoadedError, match=r"User\.picture are not loaded.*selectinload.*picture\.load\(\)"):
                use()
        assert await user.picture.make_blob(store) == photos.photo("chelsea")
        assert len(user.picture) == 2


@pytest.mark.parametrize("column", [UserPicture.mimetype, UserPicture.created_at], ids=str)
async def test_columns_that_a_query_leaves_out(column: Any, sessions: Sessions, store: CountingStore) -> None:
    """A row without the columns that a set needs counts as not loaded; ``load()`` and ``undefer`` load them."""
    await a_user(sessions, store)
    async with sessions() as session:
        option = selectinload(User.picture).options(defer(column))
        user = (await session.scalars(select(User).options(option))).one()
        with pytest.raises(NotLoadedError):
            user.picture.locate(store)
        await user.picture.load()
        assert user.picture.locate(store).startswith("memory:/")
    async with sessions() as session:
        option = selectinload(User.picture).options(undefer("*"))
        user = (await session.scalars(select(User).options(option))).one()
        assert user.picture.mimetype == "image/jpeg"


def test_an_attachment_of_an_unmapped_class() -> None:
    """A class that is not mapped can declare an attachment, but its instances have no image set."""

    class HasPicture:
        picture = image_attachment("UserPicture")

    assert isinstance(HasPicture.picture, image_attachment)
    assert isinstance(HasPicture.__dict__["picture"], image_attachment)
    assert copy.copy(HasPicture.picture) is copy.deepcopy(HasPicture.picture) is HasPicture.picture
    with pytest.raises(DeclarationError, match=r"expected a mapped class, got HasPicture"):
        _ = HasPicture().picture


def test_assignment_is_rejected() -> None:
    """Assignment and ``del`` raise an error that names the method to use."""
    user = User(id=1)
    with pytest.raises(DeclarationError, match=r"User\.picture does not support assignment.*from_file"):
        user.picture = photos.photo("chelsea")
    with pytest.raises(DeclarationError, match="does not support assignment"):
        User(picture=photos.photo("chelsea"))
    with pytest.raises(DeclarationError, match=r"await owner\.picture\.delete\(\)"):
        del user.picture


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"lazy": "dynamic"},
        {"lazy": "write_only"},
        {"lazy": "noload"},
        {"viewonly": True},
        {"secondary": "somewhere"},
        {"collection_class": set},
    ],
    ids=str,
)
def test_invalid_arguments_of_an_attachment(arguments: dict[str, Any]) -> None:
    """An invalid argument is rejected, and named, when the attachment is declared."""
    with pytest.raises(DeclarationError, match=f"image_attachment.*{next(iter(arguments))}"):
        image_attachment("UserPicture", **arguments)


def declared(**arguments: Any) -> tuple[Any, Any]:
    class Base(DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture", **arguments)

    class Picture(Base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id", ondelete="CASCADE"), primary_key=True)

    return Owner, Picture


async def attach(sessions: Sessions, owner: Any, store: CountingStore) -> None:
    async with sessions() as session, session.begin():
        found = owner(id=1)
        session.add(found)
        await found.picture.from_blob(photos.photo("chelsea"), store)
        await found.picture.generate_thumbnails([150, 50])


@pytest.mark.parametrize(("lazy", "count"), [("selectin", 2), ("joined", 1), ("subquery", 2), ("immediate", 2)])
async def test_lazy(lazy: str, count: int, sqlite_database: Database, store: CountingStore) -> None:
    """``lazy=`` is passed to the relationship."""
    owner, _ = declared(lazy=lazy)
    sessions = await started(sqlite_database, owner.metadata)
    await attach(sessions, owner, store)
    async with sessions() as session:
        with statements(sessions) as sql:
            found = (await session.scalars(select(owner))).unique().one()
            assert len(found.picture) == 3
        assert len(sql) == count


@pytest.mark.parametrize("lazy", ["raise", "raise_on_sql", "select"])
async def test_lazy_raise_and_select(lazy: str, sqlite_database: Database, store: CountingStore) -> None:
    """With ``lazy="raise"`` or ``"select"`` a set is loaded on request; attaching works without it."""
    owner, _ = declared(lazy=lazy)
    sessions = await started(sqlite_database, owner.metadata)
    await attach(sessions, owner, store)
    async with sessions() as session, session.begin():
        found = (await session.scalars(select(owner))).one()
        with pytest.raises(NotLoadedError):
            found.picture.locate(store)
        await found.picture.from_blob(photos.photo("coffee"), store)
        assert found.picture.size == (600, 400)
    assert len(await store.names()) == 1


async def test_order_by(sqlite_database: Database, store: CountingStore) -> None:
    """``order_by`` is passed to the relationship, and also applies to ``load()``."""
    owner, _ = declared(order_by="Picture.width.desc()")
    sessions = await started(sqlite_database, owner.metadata)
    await attach(sessions, owner, store)
    async with sessions() as session:
        found = (await session.scalars(select(owner))).one()
        assert [image.width for image in found.picture] == [451, 150, 50]
        await found.picture.load()
        assert [image.width for image in found.picture] == [451, 150, 50]


async def test_passive_deletes(sqlite_database: Database, store: CountingStore) -> None:
    """With ``passive_deletes`` the database deletes the unloaded rows, and their files are orphaned."""
    owner, picture = declared(passive_deletes=True, lazy="select")
    sessions = await started(sqlite_database, owner.metadata)
    await attach(sessions, owner, store)
    async with sessions() as session, session.begin():
        await session.delete((await session.scalars(select(owner))).one())
    async with sessions() as session:
        assert list(await session.scalars(select(picture))) == []
    assert len(await store.names()) == 3


async def test_an_attachment_beside_relationships(sqlite_database: Database, store: CountingStore) -> None:
    """Two attachments, a relationship, and one with ``back_populates`` together cause no warning."""

    class Base(DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture", back_populates="owner")
        cover = image_attachment("Cover")

    class Picture(Base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        owner: Mapped[Owner] = relationship("Owner", back_populates="picture_images")

    class Cover(Base, Image):
        __tablename__ = "cover"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        owner: Mapped[Owner] = relationship("Owner")

    sessions = await started(sqlite_database, Base.metadata)
    async with sessions() as session, session.begin():
        owner = Owner(id=1)
        session.add(owner)
        picture = await owner.picture.from_blob(photos.photo("chelsea"), store)
        cover = await owner.cover.from_blob(photos.photo("coffee"), store)
        assert picture.owner is owner
        assert cover.object_type == "cover"
    with store_context(store):
        async with sessions() as session, session.begin():
            owner = (await session.scalars(select(Owner))).one()
            await owner.picture.delete()
            await session.flush()
            assert (bool(owner.picture), bool(owner.cover)) == (False, True)
            assert (await owner.cover.generate_thumbnail(width=60)).size == (60, 40)
    assert [name.split("/")[0] for name in await store.names()] == ["cover", "cover"]


async def test_two_attachments_to_one_image_class(sqlite_database: Database, store: CountingStore) -> None:
    """Two foreign keys of one image class lead to two owners, each with its own images."""

    class Base(DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        front = image_attachment("Side", primaryjoin="and_(Owner.id == Side.owner_id, Side.side == 'front')")
        back = image_attachment("Side", primaryjoin="and_(Owner.id == Side.owner_id, Side.side == 'back')")

    class Side(Base, Image):
        __tablename__ = "side"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        side: Mapped[str] = mapped_column(primary_key=True)

        @property
        def object_id(self) -> int:
            return self.owner_id * 2 + (self.side == "back")

    sessions = await started(sqlite_database, Base.metadata)
    async with sessions() as session, session.begin():
        owner = Owner(id=1)
        session.add(owner)
        await owner.front.from_blob(photos.photo("chelsea"), store, extra_kwargs={"side": "front"})
        await owner.back.from_blob(photos.photo("coffee"), store, extra_kwargs={"side": "back"})
    async with sessions() as session, session.begin():
        owner = (await session.scalars(select(Owner))).one()
        assert (owner.front.size, owner.back.size) == ((451, 300), (600, 400))
        await owner.front.from_blob(photos.photo("rocket"), store, extra_kwargs={"side": "front"})
    async with sessions() as session, session.begin():
        owner = (await session.scalars(select(Owner))).one()
        assert (owner.front.size, owner.back.size) == ((640, 427), (600, 400))
    assert len(await store.names()) == 2


# --- the life of an owner --------------------------------------------------------------------------------------------


async def test_refresh_and_expire(expiring: Sessions, store: CountingStore) -> None:
    """After a commit or ``expire`` a set is not loaded; refreshing the owner or ``load()`` loads it."""
    await a_user(expiring, store)
    async with expiring() as session:
        user = (await session.scalars(select(User))).one()
        image = user.picture.require_original()
        await session.commit()
        with pytest.raises(NotLoadedError):
            user.picture.locate(store)
        with pytest.raises(NotLoadedError, match=r"columns of this UserPicture are expired.*session\.refresh\(image\)"):
            image.locate(store)
        await session.refresh(user)
        assert user.picture.original is image
        assert image.locate(store).startswith("memory:/")
        session.expire(user)
        await user.picture.load()
        assert len(user.picture) == 2
        session.expire(user, ["picture_images"])
        with pytest.raises(NotLoadedError):
            len(user.picture)
        await session.refresh(user, ["picture_images"])
        assert len(user.picture) == 2


async def test_detached_owners_are_read(sessions: Sessions, store: CountingStore) -> None:
    """A detached owner can be read; changing it is rejected before any byte is read."""
    await a_user(sessions, store)
    async with sessions() as session:
        user = (await session.scalars(select(User))).one()
    assert user.picture.find_thumbnail(width=150).locate(store).startswith("memory:/")
    assert await user.picture.make_blob(store) == photos.photo("chelsea")
    for change in (
        lambda: user.picture.from_blob(photos.photo("coffee"), store),
        lambda: user.picture.generate_thumbnail(width=20, store=store),
        lambda: user.picture.get_or_generate_thumbnail(width=20, store=store),
        lambda: user.picture.delete(),
        lambda: user.picture.load(),
    ):
        with pytest.raises(UsageError, match="merge it into a session"):
            await change()
    assert len(user.picture) == 2


async def test_detached_owners_that_were_not_loaded(sessions: Sessions, store: CountingStore) -> None:
    """The rows of a detached owner cannot be loaded, and the error names this reason."""
    await a_user(sessions, store)
    async with sessions() as session:
        user = (await session.scalars(select(User).options(lazyload(User.picture)))).one()
    with pytest.raises(NotLoadedError):
        user.picture.locate(store)
    with pytest.raises(UsageError, match=r"was deleted|is detached"):
        await user.picture.make_blob(store)


async def test_pickled_owners(sessions: Sessions, store: CountingStore) -> None:
    """A pickled owner keeps its loaded rows, as in a cache."""
    await a_user(sessions, store)
    async with sessions() as session:
        user = (await session.scalars(select(User))).one()
        url = user.picture.locate(store)
    again = pickle.loads(pickle.dumps(user))
    assert again.picture.locate(store) == url
    assert len(again.picture) == 2
    async with sessions() as session, session.begin():
        merged = await session.merge(again)
        await merged.picture.from_blob(photos.photo("coffee"), store)
    assert len(await store.names()) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, None], ids=["deepcopy", "merge"])
async def test_copies_of_new_owners_have_their_files(copied: Any, sessions: Sessions, store: CountingStore) -> None:
    """A new owner that is merged, or copied before it is added, is stored with its files."""
    user = User(id=1)
    with store_context(store):
        await user.picture.from_blob(photos.photo("chelsea"))
        await user.picture.generate_thumbnail(width=150)
    async with sessions() as session, session.begin():
        if copied is None:
            await session.merge(user)
        else:
            session.add(copied(user))
    async with sessions() as session:
        user = (await session.scalars(select(User))).one()
        assert await user.picture.make_blob(store) == photos.photo("chelsea")
        assert len(await user.picture.find_thumbnail(width=150).make_blob(store)) > 500
    assert len(await store.names()) == 2


async def test_a_deep_copied_owner(sessions: Sessions, store: CountingStore) -> None:
    """A deep copy of a loaded owner has the rows as well."""
    await a_user(sessions, store)
    async with sessions() as session:
        user = (await session.scalars(select(User))).one()
    assert copy.deepcopy(user).picture.locate(store) == user.picture.locate(store)


async def test_sessions_without_asyncio_are_rejected(store: CountingStore) -> None:
    """An owner in a synchronous ``Session`` is rejected with an explanation."""
    user = User(id=1)
    with Session() as session:
        session.add(user)
        with pytest.raises(DeclarationError, match="expected the User to be in an AsyncSession, got a Session"):
            await user.picture.from_blob(photos.photo("chelsea"), store)


async def test_sets_are_views(sessions: Sessions, store: CountingStore) -> None:
    """Two sets of one owner are equal and have the same hash; those of other owners or classes are not."""
    user, other, post = User(id=1), User(id=1), Post(id=1)
    assert isinstance(user.picture, SingleImageSet)
    assert isinstance(post.photos, MultipleImageSet)
    assert isinstance(post.photos.get_image_set(order_index=1), ImageSubset)
    assert user.picture == user.picture
    assert len({user.picture, user.picture, other.picture}) == 2
    assert user.picture != other.picture
    assert user.picture != post.photos.get_image_set(order_index=1)
    assert post.photos.get_image_set(order_index=1) == post.photos.get_image_set(order_index=1)
    assert post.photos.get_image_set(order_index=1) != post.photos.get_image_set(order_index=2)
    assert repr(user.picture) == "<SingleImageSet User.picture>"
    assert repr(post.photos) == "<MultipleImageSet Post.photos>"
    assert repr(post.photos.get_image_set(order_index=1)) == "<ImageSubset Post.photos order_index=1>"


async def test_fifty_owners_are_two_statements(sessions: Sessions, store: CountingStore) -> None:
    """A page of fifty users shows their thumbnails with two statements and no call to the store."""
    bind_store(sessions, store)
    async with sessions() as session, session.begin():
        for number in range(50):
            user = User(id=number)
            session.add(user)
            await user.picture.from_raw_file(photos.photo("chelsea"), size=(451, 300), mimetype="image/jpeg")
            await user.picture.from_raw_file(b"small", size=(150, 100), mimetype="image/jpeg", original=False)
    store.calls.clear()
    async with sessions() as session:
        with statements(sessions) as sql:
            users = (await session.scalars(select(User))).all()
            urls = {user.picture.find_thumbnail(width=150).locate() for user in users}
        assert (len(urls), len(sql), store.calls) == (50, 2, [])


async def test_downloads_under_a_file_name(sessions: Sessions, tmp_path: Path) -> None:
    """Sets, originals and thumbnails pass the file name to the store, which may not support downloads."""
    store = HttpExposedFileSystemStore(
        tmp_path, host_url_getter=lambda: "https://example.com", url_secret="canary-of-a-url-secret"
    )
    await a_user(sessions, store)
    async with sessions() as session:
        user = (await session.scalars(select(User).options(selectinload(User.picture)))).one()
        thumbnail = user.picture.find_thumbnail(width=150)
        for picture in (user.picture, user.picture.require_original(), thumbnail):
            assert "&download=cat.jpg&" in picture.locate(store, download="cat.jpg")
            assert "download" not in picture.locate(store)
            with pytest.raises(DeclarationError, match="expected a store with signed URLs"):
                picture.locate(MemoryStore(), download="cat.jpg")
