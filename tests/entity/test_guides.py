"""The examples of SQLAlchemy-ImageAttach's guides work with ``await``."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any

import jinja2
import pytest
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Integer, Unicode, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Mapped, declarative_base, mapped_column, relationship

from aioimageattach.context import current_store, pop_store_context, push_store_context, store_context
from aioimageattach.entity import BaseImageSet, Image, image_attachment
from aioimageattach.exc import ContextError
from tests import photos
from tests.databases import Database
from tests.entity.models import Base, CountingStore, Post, User, UserPicture, started

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def session(sessions: Sessions, store: CountingStore) -> AsyncIterator[AsyncSession]:
    """A session in which user 1 has an image, and post 1 has two."""
    async with sessions() as session:
        user, post = User(id=1, name="Ada"), Post(id=1)
        session.add_all([user, post])
        with store_context(store):
            await user.picture.from_blob(photos.photo("chelsea"))
            for number, name in ((2, "coffee"), (1, "rocket")):
                photo = post.photos.get_image_set(order_index=number)
                await photo.from_blob(photos.photo(name))
                await photo.generate_thumbnail(width=300)
            await session.commit()
    async with sessions() as session:
        yield session


async def get_user(session: AsyncSession) -> User:
    user = await session.get(User, 1)
    assert user is not None
    return user


async def get_post(session: AsyncSession) -> Post:
    post = await session.get(Post, 1)
    assert post is not None
    return post


# --- declaring image entities ----------------------------------------------------------------------------------------


async def test_the_declaration_with_columns_and_without_annotations(
    sqlite_database: Database, store: CountingStore
) -> None:
    """A model of the guide, written with ``Column`` and without annotations, supports images."""
    base: Any = declarative_base()

    class User(base):
        """User model."""

        id = Column(Integer, primary_key=True)
        name = Column(Unicode(60), nullable=False)
        picture = image_attachment("UserPicture")
        __tablename__ = "user"

    class UserPicture(base, Image):
        """User picture model."""

        user_id = Column(Integer, ForeignKey("user.id"), primary_key=True)
        user = relationship("User")
        __tablename__ = "user_picture"

    sessions = await started(sqlite_database, base.metadata)
    with store_context(store):
        async with sessions() as session, session.begin():
            user = User(id=7, name="Ada")
            session.add(user)
            await user.picture.from_blob(photos.photo("chelsea"))
        async with sessions() as session:
            [user] = await session.scalars(select(User))
            assert await user.picture.make_blob() == photos.photo("chelsea")
            assert user.picture.original.object_type == "user-picture"
            assert user.picture.original.object_id == 7


async def test_the_object_type_can_be_kept_when_the_table_is_renamed() -> None:
    """``object_type`` can be overridden."""

    class Renamed(Base, Image):
        __tablename__ = "new_name"
        user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
        object_type = "old-name"

    assert Renamed(user_id=1).object_type == "old-name"
    Base.metadata.remove(Base.metadata.tables["new_name"])


async def test_object_ids_of_other_keys_are_defined_by_the_class(
    sqlite_database: Database, store: CountingStore
) -> None:
    """A string key is hashed, and a pair is encoded, into the number that the store receives."""
    base: Any = declarative_base()

    class Page(base):
        __tablename__ = "page"
        id = Column(Unicode(20), primary_key=True)
        language = Column(Integer, primary_key=True)
        picture = image_attachment("PagePicture")

    class PagePicture(base, Image):
        __tablename__ = "page_picture"
        id = Column(Unicode(20), primary_key=True)
        language = Column(Integer, primary_key=True)
        __table_args__ = (ForeignKeyConstraint(["id", "language"], ["page.id", "page.language"]),)

        @property
        def object_id(self) -> int:
            a, b = int(hashlib.sha1(self.id.encode()).hexdigest(), 16), self.language
            return (a + b) * (a + b) + a

    sessions = await started(sqlite_database, base.metadata)
    async with sessions() as session, session.begin():
        page = Page(id="start", language=3)
        session.add(page)
        image = await page.picture.from_blob(photos.photo("chelsea"), store)
        await session.flush()
        a = int(hashlib.sha1(b"start").hexdigest(), 16)
        assert image.key.object_id == image.object_id == (a + 3) ** 2 + a
        assert await page.picture.make_blob() == photos.photo("chelsea")


# --- attaching images ------------------------------------------------------------------------------------------------


async def test_attaching_without_any_context_is_refused(session: AsyncSession) -> None:
    """``ContextError`` is raised before anything is read or changed."""
    user = await get_user(session)
    before = user.picture.original
    file = io.BytesIO(photos.photo("coffee"))
    with pytest.raises(ContextError, match="store_context"):
        await user.picture.from_file(file)
    assert file.tell() == 0
    assert user.picture.original is before


async def test_attaching_from_a_file_object(session: AsyncSession, store: CountingStore, tmp_path: Any) -> None:
    """An open file is attached in the context, and the session is committed outside of it."""
    path = tmp_path / "image_to_attach.jpg"
    path.write_bytes(photos.photo("coffee"))
    user = await get_user(session)
    with store_context(store), open(path, "rb") as f:
        await user.picture.from_file(f)
        assert not f.closed
    await session.commit()
    with store_context(store):
        assert await user.picture.make_blob() == photos.photo("coffee")


async def test_attaching_from_a_byte_string(session: AsyncSession, store: CountingStore) -> None:
    """Bytes are attached; the caller rolls back on failure."""
    user = await get_user(session)
    try:
        with store_context(store):
            await user.picture.from_blob(photos.photo("rocket"))
    except Exception:  # pragma: no cover - the guide's form; nothing fails
        await session.rollback()
        raise
    await session.commit()
    assert user.picture.size == (640, 427)
    assert len(await store.names()) == 5


async def test_getting_image_urls(session: AsyncSession, store: CountingStore) -> None:
    """The URL is calculated in the context; the set has a width and height, and renders as ``<img>``."""
    user = await get_user(session)
    with store_context(store):
        url = user.picture.locate()
        assert url == f"memory:/{next(name for name in await store.names() if name.startswith('user-picture/'))}"
        assert (user.picture.width, user.picture.height) == (451, 300)
        assert user.picture.__html__() == f'<img src="{url}" width="451" height="300" alt="">'


async def test_templates_are_rendered_in_the_context(session: AsyncSession, store: CountingStore) -> None:
    """The guide's Jinja templates give the same result; outside of a context they raise ``ContextError``."""
    environment = jinja2.Environment(autoescape=True)
    short = environment.from_string('<a title="{{ user.name }}">{{ user.picture }}</a>')
    long = environment.from_string(
        '<a title="{{ user.name }}"><img src="{{ user.picture.locate() }}" '
        'width="{{ user.picture.width }}" height="{{ user.picture.height }}" alt=""></a>'
    )
    user = await get_user(session)
    with store_context(store):
        assert short.render(user=user) == long.render(user=user)
        assert "<img src=" in short.render(user=user)
        empty = environment.from_string("[{{ user.picture }}]{% if user.picture %}!{% endif %}")
        assert empty.render(user=User(id=2)) == "[]"
    with pytest.raises(ContextError):
        short.render(user=user)


async def test_getting_image_files(session: AsyncSession, store: CountingStore) -> None:
    """``open_file`` returns a file that the ``async with`` block closes."""
    user = await get_user(session)
    with store_context(store):
        async with await user.picture.open_file() as f:
            first = await f.read(100)
            assert first + await f.read() == photos.photo("chelsea")
        async with await user.picture.open_file(use_seek=True) as f:
            await f.seek(100)
            assert await f.read() == photos.photo("chelsea")[100:]


async def test_getting_the_image_binary(session: AsyncSession, store: CountingStore) -> None:
    """``make_blob`` is a shortcut for opening and reading."""
    user = await get_user(session)
    with store_context(store):
        blob = await user.picture.make_blob()
        async with await user.picture.open_file() as f:
            assert await f.read() == blob


async def test_making_and_finding_thumbnails(session: AsyncSession, store: CountingStore) -> None:
    """Thumbnails are made by width, height or ratio, and can be found again."""
    user = await get_user(session)
    with store_context(store):
        width_150 = await user.picture.generate_thumbnail(width=150)
        height_200 = await user.picture.generate_thumbnail(height=200)
        half = await user.picture.generate_thumbnail(ratio=0.5)
        assert [image.size for image in (width_150, height_200, half)] == [(150, 100), (301, 200), (226, 150)]
        assert len({image.locate() for image in (width_150, height_200, half)}) == 3
        assert (await half.make_blob())[:2] == b"\xff\xd8"
        await session.commit()
        assert user.picture.find_thumbnail(width=150) is width_150
        assert user.picture.find_thumbnail(150) is width_150
        assert user.picture.find_thumbnail(height=200) is height_200
        with pytest.raises(NoResultFound, match="width=77"):
            user.picture.find_thumbnail(width=77)


async def find_or_create(imageset: BaseImageSet[Any], width: int | None = None, height: int | None = None) -> Image:
    assert width is not None or height is not None
    try:
        image = imageset.find_thumbnail(width=width, height=height)
    except NoResultFound:
        image = await imageset.generate_thumbnail(width=width, height=height)
    return image


async def test_the_find_or_create_pattern(session: AsyncSession, store: CountingStore) -> None:
    """The function of the guide finds the thumbnail that it has created."""
    user = await get_user(session)
    with store_context(store):
        image = await find_or_create(user.picture, width=99)
        assert await find_or_create(user.picture, width=99) is image
        assert await find_or_create(user.picture, height=image.height) is image


async def test_naming_the_store(session: AsyncSession, store: CountingStore) -> None:
    """Every method accepts ``store=`` instead of a context."""
    user = await get_user(session)
    await user.picture.from_file(io.BytesIO(photos.photo("coffee")), store=store)
    await user.picture.from_blob(photos.photo("coffee"), store=store)
    assert user.picture.locate(store=store).startswith("memory:/")
    async with await user.picture.open_file(store=store) as f:
        assert await f.read() == await user.picture.make_blob(store=store)
    made = await user.picture.generate_thumbnail(width=150, store=store)
    assert user.picture.find_thumbnail(width=150, store=store) is made


async def test_implicit_contexts(session: AsyncSession, store: CountingStore) -> None:
    """A store pushed by one hook is current until another hook pops it."""
    push_store_context(store)
    try:
        user = await get_user(session)
        assert user.picture.locate() == user.picture.locate(store=current_store) == user.picture.locate(store)
    finally:
        assert pop_store_context() is store
    with pytest.raises(ContextError):
        user.picture.locate()


# --- multiple image sets ---------------------------------------------------------------------------------------------


async def test_choosing_an_image_set(session: AsyncSession, store: CountingStore) -> None:
    """A set is selected by its key, and has the methods of a single one."""
    post = await get_post(session)
    with store_context(store):
        first_photo = post.photos.get_image_set(order_index=1)
        assert first_photo.locate() != first_photo.find_thumbnail(width=300).locate()
        assert await first_photo.make_blob() == photos.photo("rocket")


async def test_attaching_to_an_empty_image_set(session: AsyncSession, store: CountingStore) -> None:
    """An image attached to an empty set gets the set's key."""
    post = await get_post(session)
    new_photo = post.photos.get_image_set(order_index=9)
    assert not new_photo
    with store_context(store):
        image = await new_photo.from_file(io.BytesIO(photos.photo("hubble")))
    assert image.order_index == 9
    await session.commit()
    assert len(post.photos.image_sets) == 3


async def test_enumerating_all_image_sets(session: AsyncSession, store: CountingStore) -> None:
    """``image_sets`` contains the attached images in the order of their keys."""
    post = await get_post(session)
    with store_context(store):
        urls = [image_set.find_thumbnail(width=300).locate() for image_set in post.photos.image_sets]
    assert [image_set.identity for image_set in post.photos.image_sets] == [{"order_index": 1}, {"order_index": 2}]
    assert len(set(urls)) == 2


# --- the reference ---------------------------------------------------------------------------------------------------


async def test_a_user_is_added_after_its_pictures(sessions: Sessions, store: CountingStore) -> None:
    """Images can be attached, and thumbnails made, before the owner is added to a session."""
    with store_context(store):
        user = User()
        await user.picture.from_file(io.BytesIO(photos.photo("coffee")))
        await user.picture.generate_thumbnail(ratio=0.5)
        await user.picture.generate_thumbnail(height=100)
        await user.picture.generate_thumbnail(width=500)
        assert store.calls == []
        async with sessions() as session:
            async with session.begin():
                session.add(user)
            found = set(await session.scalars(select(UserPicture.width)))
    assert found == {600, 300, 150, 500}
    assert len(await store.names()) == 4


async def test_a_thumbnail_renders_in_templates(session: AsyncSession, store: CountingStore) -> None:
    """``{{ user.picture.find_thumbnail(120) }}`` renders as ``<img>``."""
    user = await get_user(session)
    with store_context(store):
        await user.picture.generate_thumbnail(width=120)
        text = jinja2.Environment(autoescape=True).from_string("{{ user.picture.find_thumbnail(120) }}")
        assert text.render(user=user) == user.picture.find_thumbnail(120).__html__()
