"""Attaching images and making thumbnails of them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiofiles
import anyio
import pytest
from PIL import Image as Pillow
from sqlalchemy import Connection, ForeignKey, String, event, select
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, lazyload, mapped_column
from starlette.datastructures import UploadFile

from aioimageattach.context import bind_store, set_default_store, store_context
from aioimageattach.entity import Image, MultipleImageSet, _thumbnails, image_attachment
from aioimageattach.exc import (
    ContextError,
    DeclarationError,
    ImageTooLargeError,
    NoOriginalError,
    StoreFileNotFoundError,
    UnreadableImageError,
    UnsupportedImageError,
)
from aioimageattach.imaging import ImageLimits, Recipe
from tests import photos
from tests.databases import Database
from tests.entity.models import Base as Models
from tests.entity.models import CountingStore, Post, User, UserPicture, engine_of, started, statements

Sessions = async_sessionmaker[AsyncSession]
BLOB = photos.photo("chelsea")


class Base(DeclarativeBase):
    pass


class Drawing(Base):
    __tablename__ = "drawing"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(20), unique=True)
    picture = image_attachment["DrawingPicture"]("DrawingPicture")


class DrawingPicture(Base, Image):
    __tablename__ = "drawing_picture"
    __image_limits__ = ImageLimits(max_bytes=60_000, max_pixels=400_000).allow("image/svg+xml", "application/pdf")
    drawing_id: Mapped[int] = mapped_column(ForeignKey("drawing.id"), primary_key=True)
    caption: Mapped[str | None] = mapped_column(String(20))

    def __init__(self, caption: str | None = None, **values: Any) -> None:
        super().__init__(caption=caption, **values)


@pytest.fixture
async def drawings(sqlite_database: Database, store: CountingStore) -> Sessions:
    return await started(sqlite_database, Base.metadata, store, expire_on_commit=False)


@pytest.fixture
async def session(sessions: Sessions, store: CountingStore) -> AsyncIterator[AsyncSession]:
    """A session with a bound store and a persistent user 1 without an image."""
    bind_store(sessions, store)
    async with sessions() as session:
        session.add(User(id=1))
        await session.commit()
        yield session


async def user_of(session: AsyncSession) -> User:
    return await session.get_one(User, 1)


# --- sources ---------------------------------------------------------------------------------------------------------


class Sources:
    """Factory of each kind of source with the bytes of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[Any] = []

    async def bytes(self) -> Any:
        return BLOB

    async def bytearray(self) -> Any:
        return bytearray(BLOB)

    async def memoryview(self) -> Any:
        return memoryview(BLOB)

    async def bytesio(self) -> Any:
        return io.BytesIO(BLOB)

    async def file(self) -> Any:
        return open(self.path, "rb")

    async def aiofiles(self) -> Any:
        return await aiofiles.open(self.path, "rb")

    async def anyio(self) -> Any:
        return await anyio.open_file(self.path, "rb")

    async def upload(self) -> Any:
        return UploadFile(io.BytesIO(BLOB), filename="x.exe")

    async def iterator(self) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(BLOB), 1000):
                yield BLOB[start : start + 1000]

        return pieces()


@pytest.mark.parametrize("kind", [name for name in vars(Sources) if not name.startswith("_")])
async def test_sources(kind: str, session: AsyncSession, store: CountingStore, tmp_path: Path) -> None:
    """Every readable source is attached completely and not closed."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(BLOB)
    source = await getattr(Sources(path), kind)()
    user = await user_of(session)
    image = await user.picture.from_file(source)
    assert (image.size, image.mimetype, image.byte_size) == ((451, 300), "image/jpeg", len(BLOB))
    await session.commit()
    assert await user.picture.make_blob() == BLOB
    if hasattr(source, "close"):
        assert not getattr(source, "closed", False)
        closed = source.close()
        if closed is not None:
            await closed
    if hasattr(source, "aclose"):
        await source.aclose()


async def test_a_file_is_read_from_its_position(session: AsyncSession) -> None:
    """Bytes that were read before are not part of the image."""
    user = await user_of(session)
    file = io.BytesIO(b"header" + BLOB)
    file.seek(6)
    assert (await user.picture.from_file(file)).byte_size == len(BLOB)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"", UnreadableImageError),
        (b"GIF89a", UnreadableImageError),
        (b"<html>", UnreadableImageError),
        (BLOB[:100], UnreadableImageError),
        (photos.tiff(), UnsupportedImageError),
        (photos.SVG, UnsupportedImageError),
        ("photo.jpg", DeclarationError),
        (io.StringIO("text"), DeclarationError),
    ],
    ids=["nothing", "head", "other", "truncated", "tiff", "svg", "path", "text"],
)
async def test_a_rejected_file_changes_nothing(source: Any, error: type[Exception], session: AsyncSession) -> None:
    """A rejected file leaves the current image unchanged, and nothing is pending."""
    user = await user_of(session)
    before = await user.picture.from_blob(BLOB)
    await session.commit()
    with pytest.raises(error):
        await user.picture.from_file(source)
    assert user.picture.original is before
    assert not session.new
    assert not session.dirty
    assert not session.deleted


async def test_bytes_are_counted_while_they_stream(drawings: Sessions) -> None:
    """An endless upload is stopped at the limit of the class, regardless of the announced size."""
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 10_000
            yield b"\xff\xd8" + bytes(9_998)

    async with drawings() as session:
        drawing = Drawing(id=1, title="x")
        session.add(drawing)
        with pytest.raises(ImageTooLargeError) as raised:
            await drawing.picture.from_file(endless())
        assert (raised.value.limit, given) == (60_000, 70_000)
        with pytest.raises(ImageTooLargeError):
            await drawing.picture.from_raw_file(endless(), size=(1, 1), mimetype="image/jpeg")
        with pytest.raises(ImageTooLargeError, match="max_pixels"):
            await drawing.picture.from_blob(photos.saved(Pillow.new("1", (1000, 500)), "PNG"))


async def test_arguments_of_the_constructor(drawings: Sessions) -> None:
    """``extra_args`` and ``extra_kwargs`` reach the image class; attributes of the library take precedence."""
    async with drawings() as session:
        drawing = Drawing(id=1, title="x")
        session.add(drawing)
        assert (await drawing.picture.from_blob(BLOB, extra_args=["first"])).caption == "first"
        image = await drawing.picture.from_file(BLOB, extra_kwargs={"caption": "second", "width": 1})
        assert (image.caption, image.width) == ("second", 451)
        image = await drawing.picture.from_raw_file(BLOB, extra_kwargs={"caption": "third"})
        assert image.caption == "third"
        await session.commit()
        assert await session.scalar(select(DrawingPicture.caption)) == "third"


async def test_metadata_is_kept_or_stripped(session: AsyncSession) -> None:
    """The location stays in the original unless it is stripped, and the pixels are identical."""
    user = await user_of(session)
    blob = photos.oriented(6)
    await user.picture.from_blob(blob)
    assert photos.GPS[0] in await user.picture.make_blob()
    image = await user.picture.from_file(io.BytesIO(blob), strip_metadata=True)
    stripped = await image.make_blob()
    assert photos.GPS[0] not in stripped
    assert image.byte_size == len(stripped) < len(blob)
    assert image.size == (451, 300)
    thumbnail = await user.picture.generate_thumbnail(width=100)
    assert thumbnail.size == (100, 67)


async def test_the_size_and_type_of_raw_files(session: AsyncSession) -> None:
    """A given size and type are used without examination; omitted ones are detected."""
    user = await user_of(session)
    image = await user.picture.from_raw_file(b"anything", size=(10, 20), mimetype="image/x-own")
    assert (image.size, image.mimetype, image.original) == ((10, 20), "image/x-own", True)
    image = await user.picture.from_raw_file(io.BytesIO(BLOB), size=(10, 20))
    assert (image.size, image.mimetype) == ((10, 20), "image/jpeg")
    image = await user.picture.from_raw_file(BLOB, mimetype="image/pjpeg")
    assert (image.size, image.mimetype) == ((451, 300), "image/pjpeg")
    with pytest.raises(UnreadableImageError, match="got no bytes"):
        await user.picture.from_raw_file(b"", size=(1, 1), mimetype="image/jpeg")
    with pytest.raises(UnreadableImageError):
        await user.picture.from_raw_file(b"anything")


async def test_a_raw_thumbnail_replaces_one_of_the_same_size(session: AsyncSession, store: CountingStore) -> None:
    """A thumbnail made elsewhere is added to the others, and replaces the one with the same size."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    ours = await user.picture.generate_thumbnail(width=150)
    await user.picture.generate_thumbnail(width=50)
    await session.commit()
    theirs = await user.picture.from_raw_file(b"theirs", size=(150, 100), mimetype="image/jpeg", original=False)
    assert user.picture.find_thumbnail(width=150) is theirs is not ours
    assert len(user.picture) == 3
    await session.commit()
    assert await user.picture.find_thumbnail(width=150).make_blob() == b"theirs"
    assert len(await store.names()) == 3


# --- stores ----------------------------------------------------------------------------------------------------------


async def test_precedence_of_stores(sessions: Sessions) -> None:
    """The argument precedes the context, the session and the process; without any store, nothing is read."""
    default, bound, current, given = stores = [CountingStore() for _ in range(4)]
    set_default_store(default)
    try:
        async with sessions() as session, session.begin():
            users = [User() for _ in range(4)]
            session.add_all(users)
            await users[0].picture.from_blob(BLOB)
            bind_store(session, bound)
            await users[1].picture.from_blob(BLOB)
            with store_context(current):
                await users[2].picture.from_blob(BLOB)
                await users[3].picture.from_blob(BLOB, store=given)
            urls = [user.picture.require_original().revision or "?" for user in users]
    finally:
        set_default_store(None)
    for store, revision in zip(stores, urls, strict=True):
        [name] = await store.names()
        assert revision in name
    file = io.BytesIO(BLOB)
    with pytest.raises(ContextError):
        await User().picture.from_raw_file(file)
    assert file.tell() == 0


async def test_the_store_of_attaching_is_remembered(sessions: Sessions, store: CountingStore) -> None:
    """Thumbnails made in the same session go to the store of the image."""
    other = CountingStore("other:/")
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        await user.picture.from_blob(BLOB, store)
        with store_context(other):
            thumbnail = await user.picture.generate_thumbnail(width=50)
            assert thumbnail.locate().startswith("memory:/")
    assert (len(await store.names()), len(await other.names())) == (2, 0)


# --- thumbnails ------------------------------------------------------------------------------------------------------


def invert(image: Any) -> Any:
    return image.invert()


FORMS: dict[str, tuple[dict[str, Any], tuple[int, int], str, str]] = {
    "width": ({"width": 150}, (150, 100), "image/jpeg", ""),
    "height": ({"height": 150}, (226, 150), "image/jpeg", ""),
    "ratio": ({"ratio": 0.5}, (226, 150), "image/jpeg", ""),
    "larger": ({"ratio": 2}, (902, 600), "image/jpeg", ""),
    "box": ({"width": 100, "height": 100}, (100, 100), "image/jpeg", "cover"),
    "cover": ({"width": 100, "height": 50, "fit": "cover"}, (100, 50), "image/jpeg", "cover"),
    "contain": (
        {"width": 100, "height": 100, "fit": "contain", "background": (0, 0, 0)},
        (100, 100),
        "image/jpeg",
        "contain.bg000000",
    ),
    "fill": ({"width": 100, "height": 100, "fit": "fill"}, (100, 100), "image/jpeg", "fill"),
    "inside": ({"width": 100, "height": 100, "fit": "inside"}, (100, 67), "image/jpeg", ""),
    "webp": ({"width": 100, "format": "webp"}, (100, 67), "image/webp", "webp"),
    "quality": ({"width": 100, "quality": 30}, (100, 67), "image/jpeg", "q30"),
    "filter": ({"width": 100, "filter": "triangle"}, (100, 67), "image/jpeg", "linear"),
    "variant": (
        {"width": 100, "variant": "mine", "postprocess": lambda image: image.invert()},
        (100, 67),
        "image/jpeg",
        "mine",
    ),
    "one pixel": ({"width": 1}, (1, 1), "image/jpeg", ""),
}


@pytest.mark.parametrize(("arguments", "size", "mimetype", "variant"), FORMS.values(), ids=FORMS)
async def test_forms_of_thumbnails(
    arguments: dict[str, Any], size: tuple[int, int], mimetype: str, variant: str, session: AsyncSession
) -> None:
    """Each form yields an image of its size and look, the same row when repeated, and a stored file."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    image = await user.picture.generate_thumbnail(**arguments)
    assert (image.size, image.mimetype, image.variant, image.original) == (size, mimetype, variant, False)
    assert await user.picture.generate_thumbnail(**arguments) is image
    assert len(user.picture) == 2
    await session.commit()
    with Pillow.open(io.BytesIO(await image.make_blob())) as picture:
        assert (picture.size, Pillow.MIME[picture.format or ""]) == (size, mimetype)
    assert image.byte_size == len(await image.make_blob())


async def test_several_looks_of_one_size(session: AsyncSession, store: CountingStore) -> None:
    """Several looks of one size are separate rows, each found by its arguments."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    plain, webp, cover, own = await user.picture.generate_thumbnails(
        [
            100,
            Recipe(width=100, format="webp"),
            Recipe(width=100, height=67, fit="cover"),
            Recipe(width=100, variant="own", postprocess=lambda image: image.invert()),
        ]
    )
    await session.commit()
    find = user.picture.find_thumbnail
    assert (find(100), find(width=100, format="webp"), find(100, 67, fit="cover"), find(100, variant="own")) == (
        plain,
        webp,
        cover,
        own,
    )
    assert find(100, 67) is cover
    with pytest.raises(NoResultFound, match=r"ratio=1"):
        find(ratio=1)
    with pytest.raises(NoResultFound, match=r"User\.picture.*width=100.*format='avif'.*generate_thumbnail"):
        find(width=100, format="avif")
    assert len(await store.names()) == 5


async def test_a_box_finds_a_plain_thumbnail_of_its_size(session: AsyncSession) -> None:
    """Width and height together find the exact size, however the thumbnail was made."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    plain = await user.picture.generate_thumbnail(width=150)
    assert user.picture.find_thumbnail(width=150, height=100) is plain
    with pytest.raises(NoResultFound):
        user.picture.find_thumbnail(width=150, height=100, fit="cover")


async def test_a_thumbnail_of_the_originals_size_is_not_the_original(
    session: AsyncSession, store: CountingStore
) -> None:
    """A thumbnail of the original's own size is not the original, and contains no metadata."""
    user = await user_of(session)
    original = await user.picture.from_blob(photos.png())
    made = await user.picture.generate_thumbnail(width=451)
    for again in (
        user.picture.generate_thumbnail(ratio=1),
        user.picture.generate_thumbnail(width=451, height=300, fit="inside"),
        user.picture.generate_thumbnail(width=9000, enlarge=False),
        user.picture.get_or_generate_thumbnail(height=300),
    ):
        assert await again is made
    await session.commit()
    assert (made.original, made.variant, made.size) == (False, "full", original.size)
    blob = await made.make_blob()
    assert photos.GPS[0] in await original.make_blob()
    assert photos.GPS[0] not in blob
    assert b"private" not in blob
    assert len(await store.names()) == 2
    await user.picture.load()
    for found in (
        user.picture.find_thumbnail(451),
        user.picture.find_thumbnail(451, 300),
        user.picture.find_thumbnail(ratio=1),
        user.picture.find_thumbnail(width=9000, enlarge=False),
    ):
        assert found is made
    assert user.picture.original is original


async def test_a_thumbnail_made_elsewhere_may_have_the_originals_size(
    session: AsyncSession, store: CountingStore
) -> None:
    """A thumbnail of the original's size replaces a thumbnail of this size, not the original, also after a flush."""
    user = await user_of(session)
    original = await user.picture.from_blob(BLOB)
    for _ in range(2):
        made = await user.picture.from_raw_file(BLOB[:-2], size=(451, 300), mimetype="image/jpeg", original=False)
        assert user.picture.images == [original, made]
        await session.flush()
        again = await user.picture.from_raw_file(BLOB, size=(451, 300), mimetype="image/jpeg", original=False)
        assert user.picture.images == [original, again]
        assert user.picture.find_thumbnail(width=451) is again
        await session.commit()
        assert len(await store.names()) == 2


async def test_rows_of_the_predecessor_have_thumbnails_of_their_own_size(
    session: AsyncSession, store: CountingStore
) -> None:
    """An original without a revision keeps its file and its row, and the thumbnail gets its own file."""
    user = await user_of(session)
    await session.flush()
    old = UserPicture(user_id=user.id, width=451, height=300, mimetype="image/jpeg", original=True)
    session.add(old)
    await store.put_object(store.name_of(old.key), BLOB, mimetype="image/jpeg")
    await session.commit()
    await user.picture.load()
    made = await user.picture.get_or_generate_thumbnail(width=451)
    await session.commit()
    assert (made.original, made.variant, made.revision is None) == (False, "full", False)
    assert user.picture.original is not made
    assert await user.picture.make_blob() == BLOB


async def test_widths_of_the_same_thumbnail_share_a_row(session: AsyncSession, store: CountingStore) -> None:
    """Nothing is enlarged, and several sizes beyond the original's share one row, rendered once."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    small, large, larger, square = await user.picture.generate_thumbnails(
        [200, 600, 1200, Recipe(width=900, height=900, enlarge=False)], enlarge=False
    )
    assert large is larger
    assert [row.size for row in (small, large, square)] == [(200, 133), (451, 300), (300, 300)]
    await session.commit()
    assert len(await store.names()) == 4
    assert await user.picture.generate_thumbnail(width=500) is not large
    assert user.picture.find_thumbnail(width=500).size == (500, 333)


async def test_without_an_original(session: AsyncSession) -> None:
    """Without an original, methods that need one raise an error that names the set, and the set is false."""
    user = await user_of(session)
    for use in (
        user.picture.require_original,
        user.picture.locate,
        lambda: user.picture.width,
        lambda: user.picture.height,
        lambda: user.picture.size,
        lambda: user.picture.mimetype,
    ):
        with pytest.raises(NoOriginalError, match=r"<SingleImageSet User\.picture> has no original; attach one"):
            use()
    for work in (
        lambda: user.picture.generate_thumbnail(width=1),
        lambda: user.picture.get_or_generate_thumbnail(width=1),
        lambda: user.picture.open_file(),
        lambda: user.picture.make_blob(),
    ):
        with pytest.raises(FileNotFoundError):
            await work()
    assert (bool(user.picture), len(user.picture), list(user.picture), user.picture.__html__()) == (False, 0, [], "")
    for missing in ({"width": 1}, {"ratio": 0.5}, {"width": 1, "height": 1}):
        with pytest.raises(NoResultFound):
            user.picture.find_thumbnail(**missing)


@pytest.mark.parametrize("arguments", [{}, {"width": 0}, {"width": 10, "ratio": 0.5}, {"width": 10, "fit": "cover"}])
async def test_invalid_arguments_of_thumbnails(arguments: Any, session: AsyncSession) -> None:
    """Invalid arguments are rejected before anything else is done."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    with pytest.raises((ValueError, DeclarationError)):
        await user.picture.generate_thumbnail(**arguments)
    with pytest.raises(ImageTooLargeError):
        await user.picture.generate_thumbnail(width=30_001)
    assert len(user.picture) == 1


async def test_the_original_is_missing_in_the_store(session: AsyncSession, store: CountingStore) -> None:
    """A missing file is reported as such, and nothing becomes pending."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    await session.commit()
    await store.delete_object((await store.names())[0])
    with pytest.raises(StoreFileNotFoundError):
        await user.picture.generate_thumbnail(width=50)
    assert not session.new


class Counter:
    """A hook that counts decodes and changes nothing."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Any) -> Any:
        self.calls += 1
        return image


async def test_tasks_share_one_decode(session: AsyncSession, store: CountingStore) -> None:
    """Concurrent tasks that request the same thumbnail of one set get the same image, which is made once."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    await session.commit()
    store.calls.clear()
    count = Counter()
    images = await asyncio.gather(*(user.picture.generate_thumbnail(width=80, preprocess=count) for _ in range(20)))
    assert len(set(images)) == 1
    assert count.calls == 1
    assert len(store.calls) == 1
    await session.commit()
    assert len(await store.names()) == 2


@pytest.mark.parametrize("loaded", [True, False])
async def test_gathering_on_one_set(loaded: bool, sessions: Sessions, store: CountingStore) -> None:
    """Thumbnails of one owner are made concurrently, even if its rows are not loaded."""
    bind_store(sessions, store)
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        await user.picture.from_blob(BLOB)
    async with sessions() as session, session.begin():
        query = select(User) if loaded else select(User).options(lazyload(User.picture))
        user = (await session.scalars(query)).one()
        with statements(sessions) as sql:
            images = await asyncio.gather(*(user.picture.generate_thumbnail(width=width) for width in (50, 60, 70) * 4))
        assert len(sql) == 12 + (not loaded)  # each checks once whether its thumbnail exists
        assert len(set(images)) == 3
    assert len(await store.names()) == 4


async def test_many_sizes_of_one_decode(session: AsyncSession, store: CountingStore) -> None:
    """Several sizes need one read from the store, come in the requested order, and existing ones are not made again."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    first = await user.picture.generate_thumbnail(width=60)
    await session.commit()
    store.calls.clear()
    images = await user.picture.generate_thumbnails([50, 60, Recipe(height=40), 50, 451])
    assert [image.size for image in images] == [(50, 33), (60, 40), (60, 40), (50, 33), (451, 300)]
    assert images[1] is images[2] is first
    assert images[0] is images[3]
    assert len([call for call in store.calls if call.startswith("get")]) == 1
    assert await user.picture.generate_thumbnails([]) == []
    assert await user.picture.generate_thumbnails([50, 60]) == [images[0], first]


async def test_replacing_while_a_thumbnail_is_made(session: AsyncSession) -> None:
    """A thumbnail of the old image is not added to the new one."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    loop = asyncio.get_running_loop()
    begun, go = asyncio.Event(), asyncio.Event()

    def wait(image: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(5)
        return image

    async def thumbnail() -> None:
        with pytest.raises(NoOriginalError, match="was replaced while a thumbnail was made"):
            await user.picture.generate_thumbnail(width=50, preprocess=wait)

    task = asyncio.create_task(thumbnail())
    await begun.wait()
    await user.picture.from_blob(photos.photo("coffee"))
    go.set()
    await task
    assert len(user.picture) == 1


async def test_transient_owners(sessions: Sessions, store: CountingStore) -> None:
    """Images of an owner without a session can be made, replaced, read and deleted without storing anything."""
    bind_store(sessions, store)
    user = User(id=1)
    await user.picture.from_blob(photos.photo("coffee"), store)
    await user.picture.from_blob(BLOB, store)
    thumbnail = await user.picture.get_or_generate_thumbnail(width=60, store=store)
    assert await user.picture.get_or_generate_thumbnail(width=60, store=store) is thumbnail
    await user.picture.load()
    assert (len(user.picture), user.picture.size) == (2, (451, 300))
    assert await user.picture.make_blob() == BLOB
    assert len(await thumbnail.make_blob()) == thumbnail.byte_size
    assert store.calls == []
    await user.picture.delete()
    assert len(user.picture) == 0
    await user.picture.from_blob(BLOB, store)
    async with sessions() as session, session.begin():
        session.add(user)
        await session.flush()
        await user.picture.generate_thumbnail(width=70)
    assert len(await store.names()) == 2


async def test_pending_owners_get_their_thumbnail_in_the_database(sessions: Sessions, store: CountingStore) -> None:
    """``get_or_generate_thumbnail`` inserts a new owner with its image."""
    bind_store(sessions, store)
    async with sessions() as session:
        user = User(id=1)
        session.add(user)
        await user.picture.from_blob(BLOB)
        pending = await user.picture.generate_thumbnail(width=50)
        assert await user.picture.get_or_generate_thumbnail(width=50) is pending
        assert pending not in session.new
        image = await user.picture.get_or_generate_thumbnail(width=60)
        assert image not in session.new
        assert len(user.picture) == 3
        await session.commit()
    assert len(await store.names()) == 3


async def test_replacing_and_deleting(session: AsyncSession, store: CountingStore) -> None:
    """A new original replaces the thumbnails as well; ``delete()`` and deleting the row empty the set."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    await user.picture.generate_thumbnails([50, 60])
    await session.commit()
    await user.picture.from_blob(photos.photo("coffee"))
    assert [image.size for image in user.picture] == [(600, 400)]
    await user.picture.generate_thumbnail(width=50)
    await session.commit()
    assert len(await store.names()) == 2
    await session.delete(user.picture.require_original())
    assert user.picture.original is None
    await session.commit()
    assert await store.names() == []
    await user.picture.load()
    assert len(user.picture) == 0
    await user.picture.from_blob(BLOB)
    await session.commit()
    await user.picture.delete()
    assert not user.picture
    await session.commit()
    assert await store.names() == []
    assert await session.scalar(select(UserPicture)) is None


async def test_deleting_one_thumbnail(session: AsyncSession, store: CountingStore) -> None:
    """Deleting one thumbnail deletes nothing else."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    thumbnail, _ = await user.picture.generate_thumbnails([50, 60])
    await session.commit()
    await session.delete(thumbnail)
    await session.commit()
    assert [image.width for image in user.picture] == [451, 60]
    assert len(await store.names()) == 2


@pytest.mark.parametrize(("blob", "size"), [(photos.SVG, (240, 120)), (photos.pdf(), (300, 200))], ids=["svg", "pdf"])
async def test_drawings(blob: bytes, size: tuple[int, int], drawings: Sessions, store: CountingStore) -> None:
    """A class that allows drawings stores them unchanged; thumbnails are PNG, even in the size of the original."""
    async with drawings() as session, session.begin():
        drawing = Drawing(id=1, title="x")
        session.add(drawing)
        original = await drawing.picture.from_blob(blob)
        assert original.size == size
        same = await drawing.picture.generate_thumbnail(width=size[0])
        large = await drawing.picture.generate_thumbnail(ratio=2)
        assert same is not original
        assert (same.size, same.mimetype, same.variant) == (size, "image/png", "png")
        assert large.size == (size[0] * 2, size[1] * 2)
        await session.flush()
        assert drawing.picture.find_thumbnail(width=size[0]) is same
        assert await drawing.picture.make_blob() == blob
    assert len(await store.names()) == 3


# --- one thumbnail for all -------------------------------------------------------------------------------------------


async def test_a_hundred_tasks_make_one_thumbnail(
    database: Database, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks in several transactions get the same row: one decode, one insert, one file, and no failed transaction."""
    monkeypatch.setattr(_thumbnails, "KEEP", 600.0)  # a busy machine may take longer than the usual time
    sessions = await started(database, Models.metadata, expire_on_commit=False)
    if database.name == "sqlite":  # its transactions cannot both begin with a read and then write

        @event.listens_for(engine_of(sessions).sync_engine, "begin")
        def take_the_lock(connection: Connection) -> None:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    bind_store(sessions, store)
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        await user.picture.from_blob(BLOB)
    count = Counter()

    async def page() -> set[str | None]:
        async with sessions() as session, session.begin():
            user = await session.get_one(User, 1)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(user.picture.get_or_generate_thumbnail(width=80, preprocess=count))
                    for _ in range(20)
                ]
            images = {task.result() for task in tasks}
            assert images == {user.picture.find_thumbnail(80, variant="custom")}
            session.add(Post())
            return {image.revision for image in images}

    revisions = await asyncio.gather(*(page() for _ in range(5)))
    assert len(set.union(*revisions)) == 1
    assert count.calls == 1
    assert len(await store.names()) == 2
    async with sessions() as session:
        assert len((await session.scalars(select(UserPicture))).all()) == 2
        assert len((await session.scalars(select(Post))).all()) == 5


async def test_get_or_generate_finds_what_is_loaded(session: AsyncSession, store: CountingStore) -> None:
    """A thumbnail in the database needs neither a statement nor a decode."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    made = await user.picture.get_or_generate_thumbnail(width=50)
    await session.commit()
    store.calls.clear()
    assert await user.picture.get_or_generate_thumbnail(width=50) is made
    assert store.calls == []


async def test_get_or_generate_does_not_hide_the_errors_of_others(drawings: Sessions) -> None:
    """A flush that fails because of another row raises that row's error."""
    async with drawings() as session:
        drawing = Drawing(id=1, title="x")
        session.add(drawing)
        await drawing.picture.from_blob(BLOB)
        await session.commit()
        session.add(Drawing(id=2, title="x"))
        with pytest.raises(IntegrityError, match=r"drawing\.title"):
            await drawing.picture.get_or_generate_thumbnail(width=50)


async def test_get_or_generate_if_the_database_rejects_the_row(sqlite_database: Database, store: CountingStore) -> None:
    """A row that can never be inserted raises the database's error, and the session remains usable."""

    class Base(DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")

    class Picture(Base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        caption: Mapped[str] = mapped_column(unique=True)

    sessions = await started(sqlite_database, Base.metadata, store)
    async with sessions() as session, session.begin():
        owner = Owner(id=1)
        session.add(owner)
        await owner.picture.from_blob(BLOB, extra_kwargs={"caption": "x"})
        with pytest.raises(IntegrityError, match=r"picture\.caption"):
            await owner.picture.get_or_generate_thumbnail(width=50)
        session.add(Owner(id=2))
    assert len(await store.names()) == 1


async def test_a_picture_is_deleted_once(session: AsyncSession, store: CountingStore) -> None:
    """Concurrent tasks that load and delete one image do not disturb each other."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    await user.picture.generate_thumbnail(width=50)
    await session.commit()
    await asyncio.gather(user.picture.load(), user.picture.delete(), user.picture.delete())
    await session.commit()
    assert await store.names() == []


async def test_get_or_generate_for_a_deleted_owner(database: Database, store: CountingStore) -> None:
    """If the owner was deleted meanwhile, no row is found, and the database's error is raised."""
    sessions = await started(database, Models.metadata, store, expire_on_commit=False)
    async with sessions() as session, session.begin():
        user = User(id=1)
        session.add(user)
        await user.picture.from_blob(BLOB)
    async with sessions() as session:
        user = await session.get_one(User, 1)
        await session.commit()
        async with sessions() as other, other.begin():
            await other.delete(await other.get_one(User, 1))
        with pytest.raises((IntegrityError, StoreFileNotFoundError, NoOriginalError)):
            await user.picture.get_or_generate_thumbnail(width=50)
        await session.rollback()
    assert await store.names() == []


async def test_hooks_may_change_the_size(session: AsyncSession) -> None:
    """A callable that crops makes a thumbnail of the resulting size, which is found again by its look."""
    user = await user_of(session)
    await user.picture.from_blob(BLOB)
    arguments = {"width": 100, "variant": "square", "postprocess": lambda image: image.crop(0, 0, 60, 60)}
    image = await user.picture.get_or_generate_thumbnail(**arguments)
    assert image.size == (60, 60)
    assert await user.picture.get_or_generate_thumbnail(**arguments) is image
    assert user.picture.find_thumbnail(60, variant="square") is image


# --- many images -----------------------------------------------------------------------------------------------------


async def test_several_photos_of_a_post(session: AsyncSession, store: CountingStore) -> None:
    """Each photo is a separate set: replacing, deleting and thumbnails do not affect the others."""
    post = Post(id=1)
    session.add(post)
    for index, name in ((3, "coffee"), (1, "chelsea"), (2, "rocket")):
        photo = post.photos.get_image_set(order_index=index)
        await photo.from_blob(photos.photo(name))
        await photo.generate_thumbnails([50, 60])
    assert [photo.identity["order_index"] for photo in post.photos] == [1, 2, 3]
    assert (len(post.photos), bool(post.photos)) == (3, True)
    await session.commit()
    second = post.photos.get_image_set(order_index=2)
    await second.from_blob(photos.photo("hubble"))
    await session.commit()
    await post.photos.load()
    assert [len(photo) for photo in post.photos] == [3, 1, 3]
    assert post.photos.get_image_set(order_index=1).size == (451, 300)
    with pytest.raises(NoResultFound):
        second.find_thumbnail(width=second.width)
    await post.photos.get_image_set(order_index=3).delete()
    await session.commit()
    assert [photo.identity["order_index"] for photo in post.photos.image_sets] == [1, 2]
    assert len(await store.names()) == 4
    await post.photos.delete()
    assert not post.photos
    await session.commit()
    assert await store.names() == []


WRONG_KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "expected order_index, got nothing"),
    "unknown": ({"order_index": 1, "index": 2}, "expected order_index, got index, order_index"),
    "both": ({"index": 2, "a": 1}, "expected order_index, got a, index"),
    "none": ({"order_index": None}, "expected a value of order_index, got None"),
    "size": ({"order_index": 1, "width": 2}, "expected order_index, got order_index, width"),
    "owner": ({"order_index": 1, "post_id": 2}, "expected order_index, got order_index, post_id"),
}


@pytest.mark.parametrize(("key", "message"), WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_wrong_keys_of_image_sets(key: dict[str, Any], message: str) -> None:
    """The error names unknown, missing and empty discriminators."""
    with pytest.raises(DeclarationError, match=f"Post.photos>.*{message}"):
        Post(id=1).photos.get_image_set(**key)


async def test_image_sets_in_the_order_of_the_declaration(sqlite_database: Database, store: CountingStore) -> None:
    """With ``order_by``, the sets have the order of their rows."""

    class Base(DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        photos = image_attachment["Photo", MultipleImageSet["Photo"]](
            "Photo", uselist=True, order_by="Photo.order_index.desc()"
        )

    class Photo(Base, Image):
        __tablename__ = "photo"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        order_index: Mapped[int] = mapped_column(primary_key=True)

    sessions = await started(sqlite_database, Base.metadata)
    async with sessions() as session, session.begin():
        owner = Owner(id=1)
        session.add(owner)
        for index in (1, 3, 2):
            await owner.photos.get_image_set(order_index=index).from_blob(BLOB, store)
    async with sessions() as session:
        owner = await session.get_one(Owner, 1)
        assert [photo.identity["order_index"] for photo in owner.photos.image_sets] == [3, 2, 1]


async def test_loading_one_of_several_sets(sessions: Sessions, store: CountingStore) -> None:
    """The other sets stay unloaded, and an image can be attached beside them."""
    bind_store(sessions, store)
    async with sessions() as session, session.begin():
        session.add(post := Post(id=1))
        await post.photos.get_image_set(order_index=1).from_blob(BLOB)
        await post.photos.get_image_set(order_index=2).from_blob(BLOB)
    async with sessions() as session, session.begin():
        post = await session.get_one(Post, 1)
        await post.photos.get_image_set(order_index=1).load()
        await post.photos.get_image_set(order_index=2).from_blob(photos.photo("coffee"))
    async with sessions() as session:
        post = await session.get_one(Post, 1)
        await post.photos.load()
        assert [len(images) for images in post.photos.image_sets] == [1, 1]
