"""The order of an owner's images, and their maximum number."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, ForeignKeyConstraint, String, UniqueConstraint, func, nulls_last, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import bind_store
from aioimageattach.entity import Image, image_attachment
from aioimageattach.entity._gallery import renumbered
from aioimageattach.exc import DeclarationError, TooManyPicturesError, UsageError
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, Post, engine_of, started, statements

Sessions = async_sessionmaker[AsyncSession]
BLOB = photos.photo("chelsea")


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Album(Base):
    """An owner of photos that people sort."""

    __tablename__ = "album"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos: Any = image_attachment("AlbumPhoto", uselist=True, order_by="AlbumPhoto.position")
    newest: Any = image_attachment("NewestPhoto", uselist=True, order_by="NewestPhoto.created_at.desc()")
    few: Any = image_attachment("FewPhoto", uselist=True, max_pictures=2)


class AlbumPhoto(Base, Image):
    """A photo with a unique position."""

    __tablename__ = "album_photo"
    __table_args__ = (UniqueConstraint("album_id", "position"),)
    album_id: Mapped[int] = mapped_column(ForeignKey("album.id"), primary_key=True)
    photo_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    position: Mapped[int | None]
    caption: Mapped[str | None] = mapped_column(String(20))


class NewestPhoto(Base, Image):
    """A photo of a gallery that is sorted by time."""

    __tablename__ = "newest_photo"
    album_id: Mapped[int] = mapped_column(ForeignKey("album.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(20), primary_key=True)


class FewPhoto(Base, Image):
    """A photo of a gallery with at most two photos."""

    __tablename__ = "few_photo"
    album_id: Mapped[int] = mapped_column(ForeignKey("album.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(20), primary_key=True)


@pytest.fixture
async def albums(database: Database, store: CountingStore) -> Sessions:
    """Sessions on each database, with an album."""
    sessions = await started(database, Base.metadata, store, expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(Album(id=1))
    return sessions


async def album_of(session: AsyncSession) -> Any:
    """Return the album as stored in the database."""
    return await session.get_one(Album, 1)


async def fill(sessions: Sessions, *captions: str) -> None:
    """Append photos, each in a separate transaction."""
    for caption in captions:
        async with sessions.begin() as session:
            album = await album_of(session)
            await album.photos.get_image_set().from_blob(BLOB, extra_kwargs={"caption": caption})


def captions(album: Any) -> str:
    """Return the captions of an album's photos in order."""
    return "".join(photo.require_original().caption for photo in album.photos)


async def stored(sessions: Sessions) -> str:
    """Return the captions as stored in the database."""
    async with sessions() as session:
        return captions(await album_of(session))


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([], []),
        ([4, 7, 9], [4, 7, 9]),
        ([1, 0, 2], [3, 4, 5]),
        ([4, 3, 5], [0, 1, 2]),
        ([None, None], [0, 1]),
        ([0, None], [2, 3]),
        ([None, 3, 0], [4, 5, 6]),
        ([1, 1], [2, 3]),
        ([-1, -3], [0, 1]),
    ],
)
def test_new_positions(positions: list[int | None], expected: list[int]) -> None:
    """Increasing positions are kept; others are replaced by consecutive numbers that are not in use."""
    assert renumbered(positions) == expected


async def test_appended(albums: Sessions) -> None:
    """A new image comes last, before and after the flush; the cover is the first; thumbnails need no position."""
    await fill(albums, "a", "b")
    async with albums.begin() as session:
        album = await album_of(session)
        for caption in "cd":
            await album.photos.get_image_set().from_blob(BLOB, extra_kwargs={"caption": caption})
        assert captions(album) == "abcd"
        for photo in album.photos:
            await photo.generate_thumbnail(width=20)
    async with albums() as session:
        album = await album_of(session)
        assert captions(album) == "abcd"
        assert album.photos.cover.require_original().caption == "a"
        rows = [row for photo in album.photos for row in photo]
        assert [row.position for row in rows if row.original] == [0, 1, 2, 3]
        assert {row.position for row in rows if not row.original} == {None}
        assert {row.caption for row in rows if not row.original} == set("abcd")


async def test_no_cover(sessions: Sessions) -> None:
    """An owner without images has no cover."""
    assert Post(id=1).photos.cover is None


async def test_a_new_owner(albums: Sessions) -> None:
    """The images of a new owner are numbered in the order in which they were attached."""
    async with albums.begin() as session:
        session.add(album := Album(id=2))
        for caption, position in (("a", None), ("b", 7), ("c", None)):
            extra = {"caption": caption, "position": position}
            await album.photos.get_image_set().from_blob(BLOB, extra_kwargs=extra)
    assert captions(album) == "bac"
    assert [photo.require_original().position for photo in album.photos] == [7, 8, 9]


@pytest.mark.parametrize(
    ("index", "to", "expected"),
    [(2, 0, "cabd"), (0, 2, "bcad"), (0, -1, "bcda"), (3, -2, "abdc"), (3, -9, "dabc"), (0, 9, "bcda"), (1, 1, "abcd")],
)
async def test_move(albums: Sessions, index: int, to: int, expected: str) -> None:
    """An image moves immediately, and in the next flush with one UPDATE that does not touch primary keys."""
    await fill(albums, *"abcd")
    async with albums.begin() as session:
        album = await album_of(session)
        await album.photos.move(list(album.photos)[index], to=to)
        assert captions(album) == expected
        with statements(albums) as sent:
            await session.flush()
        assert [statement.split(" WHERE")[0] for statement in sent if "UPDATE" in statement.split()[0]] == (
            [] if expected == "abcd" else [sent[-1].split(" WHERE")[0]]
        )
    assert await stored(albums) == expected


async def test_reorder(albums: Sessions) -> None:
    """Images can be reordered repeatedly under a unique constraint; omitted images follow."""
    await fill(albums, *"abcd")
    for order, expected in (("dcba", "dcba"), ("b", "bdca"), ("ab", "abdc"), ("", "abdc"), ("dcab", "dcab")):
        async with albums.begin() as session:
            album = await album_of(session)
            by_caption = {photo.require_original().caption: photo for photo in album.photos}
            await album.photos.reorder(by_caption[caption] for caption in order)
        assert await stored(albums) == expected
    async with albums() as session:
        assert max((await session.scalars(select(AlbumPhoto.position))).all()) < 12


async def test_reorder_an_expired_owner(albums: Sessions) -> None:
    """An owner whose attributes are expired is loaded first."""
    await fill(albums, *"ab")
    async with albums.begin() as session:
        album = await album_of(session)
        [_, last] = album.photos
        session.expire(album)
        await album.photos.move(last, to=0)
    assert await stored(albums) == "ba"


async def test_reorder_with_new_pictures(albums: Sessions, store: CountingStore) -> None:
    """Pending images are ordered, too, even if their owner is pending."""
    await fill(albums, *"ab")
    async with albums.begin() as session:
        album = await album_of(session)
        await album.photos.get_image_set().from_blob(BLOB, extra_kwargs={"caption": "c"})
        await album.photos.move(list(album.photos)[-1], to=0)
        await session.flush()
        await album.photos.get_image_set().from_blob(BLOB, extra_kwargs={"caption": "d"})
        new: Any = Album(id=2)
        for caption in "xy":
            await new.photos.get_image_set().from_blob(BLOB, store, extra_kwargs={"caption": caption})
        await new.photos.reorder(reversed(list(new.photos)))
        session.add(new)
    assert await stored(albums) == "cabd"
    assert captions(new) == "yx"


async def test_pictures_of_another_owner(albums: Sessions) -> None:
    """Only the owner's images can be ordered, each once."""
    await fill(albums, *"ab")
    async with albums() as session:
        album = await album_of(session)
        [first, _] = album.photos
        missing = album.photos.get_image_set()
        with pytest.raises(ValueError, match=r"move\(\) of .*Album.photos>: expected one of its images, got <ImageSub"):
            await album.photos.move(missing, to=0)
        for wrong in ([first, first], [missing]):
            with pytest.raises(ValueError, match=r"expected each of its images once, got <ImageSubset Album.photos"):
                await album.photos.reorder(wrong)
    with pytest.raises(UsageError, match=r"was deleted|is detached"):
        await album.photos.reorder([])


async def test_no_position(albums: Sessions) -> None:
    """Images without a position column cannot be moved; the error names the declaration to add."""
    async with albums() as session:
        album = await album_of(session)
        for move in (album.newest.reorder([]), album.few.move(album.few.get_image_set(name="a"), to=0)):
            with pytest.raises(
                DeclarationError, match=r"expected a position column.*`position: Mapped\[int \| None\]`"
            ):
                await move


async def test_a_replacement_keeps_the_position(albums: Sessions) -> None:
    """A replaced image keeps its position and caption, even if it was moved meanwhile."""
    await fill(albums, *"abc")
    async with albums() as session:
        album = await album_of(session)
        [_, second, _] = album.photos
        await session.commit()
        async with albums.begin() as other:
            moved = await album_of(other)
            await moved.photos.move(list(moved.photos)[1], to=0)
        await second.from_blob(photos.photo("coffee"))
        await session.commit()
    assert await stored(albums) == "bac"
    async with albums.begin() as session:
        album = await album_of(session)
        [first, *_] = album.photos
        assert first.size == (600, 400)
        await first.from_blob(BLOB, extra_kwargs={"position": 99, "caption": "z"})
        assert captions(album) == "acz"
    assert await stored(albums) == "acz"


async def test_pictures_without_a_position(albums: Sessions) -> None:
    """Images without a position come first, new ones follow them, and reordering numbers all of them."""
    await fill(albums, *"abc")
    async with albums.begin() as session:
        await session.execute(update(AlbumPhoto.__table__).values(position=None))  # type: ignore[arg-type]
    await fill(albums, "d")
    async with albums.begin() as session:
        album = await album_of(session)
        assert captions(album)[-1] == "d"
        [first, *_] = album.photos
        kept = first.require_original().caption
        await first.from_blob(BLOB)
        await session.flush()
        assert first.require_original().position is None
        await album.photos.move(list(album.photos)[-1], to=0)
    assert (await stored(albums))[0] == "d"
    assert kept in await stored(albums)


async def test_newest_first(albums: Sessions) -> None:
    """Image sets follow the order of the originals: a thumbnail does not make its image newer."""
    for name in ("old", "new"):
        async with albums.begin() as session:
            await (await album_of(session)).newest.get_image_set(name=name).from_blob(BLOB)
    async with albums.begin() as session:
        await (await album_of(session)).newest.get_image_set(name="old").generate_thumbnail(width=10)
    async with albums() as session:
        album = await album_of(session)
        assert [photo.identity["name"] for photo in album.newest] == ["new", "old"]
        await session.delete(album.newest.get_image_set(name="new").require_original())
        await album.newest.get_image_set(name="new").from_raw_file(
            BLOB, size=(5, 5), mimetype="image/jpeg", original=False
        )
        assert [photo.identity["name"] for photo in album.newest] == [
            "old",
            "new",
        ]  # without an original: last


async def test_too_many(albums: Sessions, store: CountingStore) -> None:
    """One image more than allowed is rejected when it is attached; replacing and deleting do not count."""
    async with albums.begin() as session:
        album = await album_of(session)
        for name in "aba":
            await album.few.get_image_set(name=name).from_blob(BLOB)
        with pytest.raises(TooManyPicturesError, match=r"at most 2 images per Album \(max_pictures\), got 3") as raised:
            await album.few.get_image_set(name="c").from_blob(BLOB)
        assert (raised.value.limit, raised.value.actual) == (2, 3)
    async with albums.begin() as session:
        album = await album_of(session)
        await album.few.get_image_set(name="a").delete()
        await album.few.get_image_set(name="c").from_blob(BLOB)
    async with albums() as session:
        assert [photo.identity["name"] for photo in (await album_of(session)).few] == ["b", "c"]
    assert len(await store.names()) == 2


async def test_too_many_of_a_new_owner(albums: Sessions) -> None:
    """The limit also applies to an owner that is not in the database yet."""
    album: Any = Album(id=2)
    for name in "ab":
        await album.few.get_image_set(name=name).from_blob(BLOB, CountingStore())
    with pytest.raises(TooManyPicturesError, match="at most 2 images per Album"):
        await album.few.get_image_set(name="c").from_blob(BLOB, CountingStore())


async def test_pictures_deleted_by_another_transaction(albums: Sessions) -> None:
    """Images that were deleted after they were loaded do not count."""
    async with albums.begin() as session:
        for name in "ab":
            await (await album_of(session)).few.get_image_set(name=name).from_blob(BLOB)
    async with albums() as session:
        album = await album_of(session)
        await session.commit()
        async with albums.begin() as other:
            await (await album_of(other)).few.get_image_set(name="a").delete()
        await album.few.get_image_set(name="c").from_blob(BLOB)
        await session.commit()
    async with albums() as session:
        assert len((await album_of(session)).few) == 2


async def test_pictures_attached_by_another_transaction(albums: Sessions, store: CountingStore) -> None:
    """The flush checks the limit while the owner is locked, rejects the image, and leaves no file behind."""
    async with albums() as session:
        album = await album_of(session)
        await session.commit()
        async with albums.begin() as other:
            for name in "ab":
                await (await album_of(other)).few.get_image_set(name=name).from_blob(BLOB)
        await album.few.get_image_set(name="c").from_blob(BLOB)
        with pytest.raises(TooManyPicturesError, match=r"at most 2 images per Album \(max_pictures\), got 3"):
            await session.commit()
    assert len(await store.names()) == 2


async def test_uploads_at_the_same_time(albums: Sessions, store: CountingStore) -> None:
    """Concurrent uploads to one owner are serialised: each gets its own position, and the limit is never exceeded."""
    engine = engine_of(albums)
    if engine.dialect.name == "sqlite":
        pytest.skip("on SQLite whole transactions take turns")
    # by default, a transaction on MariaDB reads a snapshot of its beginning
    sessions = async_sessionmaker(engine.execution_options(isolation_level="READ COMMITTED"), expire_on_commit=False)
    bind_store(sessions, store)

    async def upload(name: str) -> bool:
        try:
            async with sessions.begin() as session:
                album = await album_of(session)
                await album.photos.get_image_set().from_blob(BLOB)
                await album.few.get_image_set(name=name).from_blob(BLOB)
        except TooManyPicturesError:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(upload(name)) for name in "abcd"]
    assert sum(task.result() for task in tasks) == 2
    async with albums() as session:
        assert await session.scalar(select(func.count(AlbumPhoto.position.distinct()))) == 2


@pytest.mark.parametrize("limit", [0, True, "2"])
def test_invalid_limits(limit: Any) -> None:
    """A limit that is not a positive int is rejected."""
    with pytest.raises(DeclarationError, match="to be an int of at least 1, with uselist=True"):
        image_attachment("Photo", uselist=True, max_pictures=limit)


def test_a_limit_for_one_picture() -> None:
    """A limit requires ``uselist=True``."""
    single: Callable[..., Any] = image_attachment
    with pytest.raises(DeclarationError, match="with uselist=True"):
        single("Photo", max_pictures=2)


@pytest.mark.parametrize(
    "order",
    [
        lambda photo: [photo.position.asc(), photo.created_at],
        lambda photo: nulls_last(photo.position),
        lambda photo: photo.position.asc().nulls_first(),
    ],
)
async def test_other_forms_of_order_by(order: Callable[[Any], Any], sqlite_database: Database) -> None:
    """Any ascending ``order_by`` of a position column is recognised; thumbnails copy a position that is NOT NULL."""

    class Own(DeclarativeBase):
        pass

    class Owner(Own):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        photos: Any = image_attachment("Photo", uselist=True, order_by=lambda: order(Photo))
        last: Any = image_attachment(
            "Photo",
            uselist=True,
            order_by=lambda: Photo.position.desc(),
            primaryjoin="Owner.id == foreign(Photo.other)",
        )

    class Photo(Own, Image):
        __tablename__ = "photo"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        other: Mapped[int | None]
        photo_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        position: Mapped[int]

    sessions = await started(sqlite_database, Own.metadata, CountingStore(), expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(owner := Owner(id=1))
        for _ in range(2):
            image = await owner.photos.get_image_set().from_blob(BLOB)
        await owner.photos.get_image_set(photo_id=image.photo_id).generate_thumbnail(width=20)
        await owner.photos.move(owner.photos.get_image_set(photo_id=image.photo_id), to=0)
    assert owner.photos.cover.original is image
    with pytest.raises(DeclarationError, match="expected a position column"):
        await owner.last.move(owner.photos.cover, to=0)


@pytest.mark.parametrize("order", ["Photo.byte_size", "Photo.width", "func.lower(Photo.caption)"])
def test_columns_that_are_no_positions(order: str) -> None:
    """Only an integer column of the application is a position."""

    class Own(DeclarativeBase):
        pass

    class Owner(Own):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        photos: Any = image_attachment("Photo", uselist=True, order_by=order)

    class Photo(Own, Image):
        __tablename__ = "photo"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        photo_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        caption: Mapped[str | None]

    assert Photo.__mapper__.registry
    with pytest.raises(DeclarationError, match="expected a position column"):
        asyncio.run(Owner(id=1).photos.reorder([]))


async def test_positions_of_joined_tables(database: Database) -> None:
    """Columns of the application may be in the table of a subclass of the image class."""

    class Own(DeclarativeBase):
        pass

    class Owner(Own):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        photos: Any = image_attachment("Sorted", uselist=True, order_by="Sorted.position", max_pictures=3)

    class Photo(Own, Image):
        __tablename__ = "photo"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "photo"}
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(20))
        code: Mapped[str | None] = mapped_column(String(20), unique=True)

    class Sorted(Photo):
        __tablename__ = "sorted"
        __mapper_args__ = {"polymorphic_identity": "sorted"}
        __table_args__ = (
            ForeignKeyConstraint(
                ["owner_id", "number", "width", "height", "variant"],
                ["photo.owner_id", "photo.number", "photo.width", "photo.height", "photo.variant"],
            ),
        )
        owner_id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)
        width: Mapped[int] = mapped_column(primary_key=True)
        height: Mapped[int] = mapped_column(primary_key=True)
        variant: Mapped[str] = mapped_column(String(32), primary_key=True)
        position: Mapped[int | None] = mapped_column(unique=True)

    sessions = await started(database, Own.metadata, CountingStore(), expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(Owner(id=1))
        await session.flush()
        owner = await session.get_one(Owner, 1)
        for number in (3, 1, 2):
            extra = {"code": str(number)}
            await owner.photos.get_image_set(number=number).from_blob(BLOB, extra_kwargs=extra)
            await session.flush()
    async with sessions.begin() as session:
        owner = await session.get_one(Owner, 1)
        assert [photo.identity["number"] for photo in owner.photos] == [3, 1, 2]
        await owner.photos.get_image_set(number=1).from_blob(photos.photo("coffee"))
        await session.flush()
        await owner.photos.move(owner.photos.get_image_set(number=2), to=0)
        with pytest.raises(TooManyPicturesError):
            await owner.photos.get_image_set(number=4).from_blob(BLOB)
    async with sessions() as session:
        owner = await session.get_one(Owner, 1)
        assert [photo.require_original().code for photo in owner.photos] == ["2", "3", "1"]
