"""Declared thumbnails that are made ahead of time, marked, and deleted with their originals."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import (
    FocalPoint,
    Image,
    MultipleImageSet,
    Placeholder,
    Recipe,
    Srcset,
    ThumbnailMarks,
    image_attachment,
    set_default_store,
    store_context,
)
from aioimageattach._transaction.deferral import defer_deletion
from aioimageattach.entity._derived import declared_files
from aioimageattach.exc import (
    DeclarationError,
    NoOriginalError,
    StoreError,
    StoreFileNotFoundError,
    StoreUnavailableError,
    UsageError,
)
from aioimageattach.file import Source
from aioimageattach.key import ImageKey
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore, OverlayStore, RoutingStore, SplitStore
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.declared.test_html import Elements
from tests.entity.models import started, statements
from tests.photos import opened, photo, saved
from tests.thumbnails.models import Links, declared, names


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Product(Base):
    """An owner of a cover and any number of photos."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    cover = image_attachment["Cover"]("Cover")
    photos = image_attachment["Photo", MultipleImageSet["Photo"]]("Photo", uselist=True)
    plain = image_attachment["Plain"]("Plain")


class Cover(Base, Image, FocalPoint, Placeholder, ThumbnailMarks):
    """An image class with marks."""

    __tablename__ = "cover"
    __thumbnails__ = {
        "icon": Srcset([24], aspect=(1, 1), fallback=None),
        "card": Srcset([60, 120], sizes="50vw"),
    }
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)


class Photo(Base, Image):
    """An image class without marks."""

    __tablename__ = "photo"
    __thumbnails__ = {"card": Srcset([60], fallback=None)}
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)


class Plain(Base, Image):
    """An image without declared thumbnails."""

    __tablename__ = "plain"
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)


class Failing(MemoryStore):
    """A store that fails to put or delete names that contain a given string."""

    refused = "nothing"
    broken = False

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        if self.refused in name:
            raise StoreUnavailableError("out of order")
        await super().put_object(name, data, mimetype=mimetype, reproducible=reproducible)

    async def delete_objects(self, names: Iterable[str]) -> dict[str, StoreError]:
        if self.broken:
            raise ValueError("not an error of a store")
        return {name: StoreUnavailableError("out of order") for name in names if self.refused in name}

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """A location that is the same in every process, as that of a bucket."""
        return frozenset({("failing",)})


@pytest.fixture
async def sessions(sqlite_database: Database) -> async_sessionmaker[AsyncSession]:
    """Sessions on SQLite with the tables of these models."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileSystemStore]:
    """The default store, in a directory, with a thumbnail server."""
    (tmp_path / "files").mkdir()
    store = FileSystemStore(tmp_path / "files", "/files/", fsync=False)
    set_default_store(store, thumbnails=Links(store))
    yield store
    set_default_store(None)


async def attached(sessions: async_sessionmaker[AsyncSession], *, ahead: bool = True) -> Product:
    """A product with a cover and its thumbnails."""
    async with sessions() as session:
        session.add(product := Product())
        await product.cover.from_blob(photo("chelsea"))
        if ahead:
            await product.cover.generate_thumbnails()
        await session.commit()
    return product


# --- made ahead ------------------------------------------------------------------------------------------------------


async def test_thumbnails_are_stored_with_their_original(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore
) -> None:
    """After the commit all thumbnails are stored, made from one decode together with the preview."""
    async with sessions() as session:
        session.add(product := Product())
        original = await product.cover.from_blob(photo("chelsea"))
        original.focal_point = (0.2, 0.4)
        assert await product.cover.generate_thumbnails() == []
        assert await names(store) == []
        await session.commit()
    assert await names(store, "cover.t/") == declared(original, store)
    assert len(declared(original, store)) == 4
    assert original.dominant_colour is not None
    assert original.thumbnail_marks is not None


async def test_thumbnails_of_a_stored_picture(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Thumbnails of a stored image are made immediately, the mark follows with the commit, existing files remain."""
    product = await attached(sessions, ahead=False)
    name = declared(product.cover.require_original(), store)[0]
    await store.put_object(name, b"there already")
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        await product.cover.generate_thumbnails()
        original = product.cover.require_original()
        assert await names(store, "cover.t/") == declared(original, store)
        marks = original.thumbnail_marks
        assert marks is not None
        await session.commit()
    async with sessions() as session:
        assert await session.scalar(select(Cover.thumbnail_marks)) == marks
    async with await store.get_object(name) as file:
        assert await file.read() == b"there already"


@pytest.mark.parametrize("when", ["with the original", "later"])
async def test_marks_count_in_a_directory_that_the_first_file_creates(
    sessions: async_sessionmaker[AsyncSession], tmp_path: Path, when: str
) -> None:
    """The first image has the marks of all others, although nothing identified the directory before."""
    originals = FileSystemStore(tmp_path / "originals", "/originals/", fsync=False)
    store = SplitStore(originals, FileSystemStore(tmp_path / "public", "/public/", fsync=False))
    set_default_store(store, thumbnails=Links(store))
    for _ in range(2):
        product = await attached(sessions, ahead=when == "with the original")
        if when == "later":
            async with sessions.begin() as session:
                product = await session.get_one(Product, product.id)
                await product.cover.generate_thumbnails()
        assert str(product.cover.url("card")).startswith("/public/cover.t/")


async def test_an_adopted_picture(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """The file of an adopted image exists, so its thumbnails are made immediately."""
    product = await attached(sessions)
    name = store.name_of(product.cover.require_original().key)
    for derived in await names(store, "cover.t/"):
        await store.delete_object(derived)
    async with sessions() as session:
        await session.execute(Cover.__table__.delete())
        await session.commit()
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        await product.cover.adopt(name)
        await product.cover.generate_thumbnails()
        await session.commit()
    assert len(await names(store, "cover.t/")) == 4


async def test_without_a_session(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Without a session the files are made, but no mark is written."""
    product = await attached(sessions, ahead=False)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        session.expunge_all()
    await product.cover.generate_thumbnails()
    assert len(await names(store, "cover.t/")) == 4
    assert product.cover.require_original().thumbnail_marks is None


async def test_a_class_without_the_mixin(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Without the mixin the thumbnails are made, and their URLs lead to the server."""
    async with sessions() as session:
        session.add(product := Product())
        picture = product.photos.get_image_set(order_index=1)
        await picture.from_blob(photo("coffee"))
        await picture.generate_thumbnails()
        await session.commit()
        assert len(await names(store, "photo.t/")) == 1
        await picture.generate_thumbnails()
    assert str(picture.url("card")).startswith("/thumbnails/")


async def test_what_cannot_be_made_ahead(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Thumbnails need an image, a declaration, a suitable row and a store with names."""

    class Other(DeclarativeBase):
        """A separate registry."""

    class Owner(Other):
        """An owner of an image."""

        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment["Picture"]("Picture")

    class Picture(Other, Image):
        """An image class without declared thumbnails."""

        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    with pytest.raises(NoOriginalError):
        await Product().cover.generate_thumbnails()
    owner = Owner(id=1)
    await owner.picture.from_blob(photo("chelsea"))
    with pytest.raises(DeclarationError, match="expected declared thumbnails in"):
        await owner.picture.generate_thumbnails()
    product = Product(id=1)
    original = await product.cover.from_blob(photo("chelsea"))
    original.__dict__.update(revision=None, product_id=2**35)
    with pytest.raises(UsageError, match="SQLAlchemy-ImageAttach"):
        await product.cover.generate_thumbnails()
    with store_context(RoutingStore.plain({}, default=MemoryStore())):
        await product.cover.from_blob(photo("chelsea"))
        with pytest.raises(DeclarationError, match="thumbnails with rows"):
            await product.cover.generate_thumbnails()


async def test_a_picture_that_is_gone_meanwhile(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """If the image is deleted meanwhile, none of its thumbnails remain."""
    product = await attached(sessions, ahead=False)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        head = store.head_object

        async def deleted(name: str) -> Any:
            await store.delete_object(name)
            return await head(name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "head_object", deleted)
            with pytest.raises(StoreFileNotFoundError):
                await product.cover.generate_thumbnails()
    assert await names(store) == []


async def test_a_store_that_fails_ahead(sessions: async_sessionmaker[AsyncSession]) -> None:
    """If the store fails, the flush of a new image fails and can be retried; for a stored image, the call fails."""
    store = Failing()
    with store_context(store, thumbnails=Links(store)):
        async with sessions() as session:
            session.add(product := Product())
            await product.cover.from_blob(photo("chelsea"))
            await product.cover.generate_thumbnails()
            store.refused = "-icon-"
            with pytest.raises(StoreUnavailableError):
                await session.flush()
            assert await names(store, "cover/") == []
            store.refused = "nothing"
            await session.commit()
        assert set(declared(product.cover.require_original(), store)) <= {*await names(store, "cover.t/")}
        product = await attached(sessions, ahead=False)
        store.refused = ".t/"
        with pytest.raises(StoreUnavailableError):
            await product.cover.generate_thumbnails()


# --- marks -----------------------------------------------------------------------------------------------------------


async def test_marked_urls_lead_to_the_store(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Each marked URL leads to an existing file and is calculated without a statement."""
    product = await attached(sessions)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
    with statements(sessions) as sent:
        for name in ("icon", "card"):
            for one in product.cover.candidates(name):
                await store.head_object(one.url.removeprefix("/files/"))
    assert sent == []


@pytest.mark.parametrize("ahead", [False, True])
async def test_urls_are_escaped_once(sessions: async_sessionmaker[AsyncSession], tmp_path: Path, ahead: bool) -> None:
    """A browser reads the URLs of :meth:`candidates` from elements, whether the server or the store makes them."""
    base = "https://example.com/a'&amp;b&c/"
    store = FileSystemStore(tmp_path, base, fsync=False)
    with store_context(store, thumbnails=Links(store, f"{base}thumbnails/", "?d='&amp;e&f")):
        original = (await attached(sessions, ahead=ahead)).cover.require_original()
        candidates = original.candidates("card")
        assert all(one.url.startswith(base) for one in candidates)
        assert any("thumbnails/" in one.url for one in candidates) == (not ahead)
        [_, (_, source), (_, img)] = Elements(original.picture("card")).found
        assert source["srcset"] == original.srcset("card")
        assert img["src"] == original.url("card") == candidates[-1].url
        [(_, img)] = Elements(original.img("card")).found
        assert img["srcset"] == original.srcset("card")


def is_direct(product: Product, name: str = "icon") -> bool:
    """Return whether the URLs of a thumbnail lead to the store."""
    return "/thumbnails/" not in str(product.cover.url(name))


async def test_a_mark_is_for_certain_files(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """A mark is not valid for another focal point, another declaration or another store."""
    product = await attached(sessions)
    original = product.cover.require_original()
    assert is_direct(product)
    original.focal_point = (0.1, 0.1)
    assert not is_direct(product)
    assert is_direct(product, "card")
    original.focal_point = None

    other = FileSystemStore(Path(str(store.path)).parent, "/elsewhere/")  # type: ignore[attr-defined]
    with store_context(other, thumbnails=Links(other)):
        assert "/thumbnails/" in str(original.url("icon", store=other))
    with store_context(store, thumbnails=(private := Links(store))):
        private.is_private = True
        assert not is_direct(product)

    class Other(DeclarativeBase):
        """A separate registry."""

    class Changed(Other, Image, FocalPoint, ThumbnailMarks):
        """The same class with another width."""

        __tablename__ = "cover"
        __thumbnails__ = {"icon": Cover.__thumbnails__["icon"], "card": Srcset([60, 121])}
        id: Mapped[int] = mapped_column(primary_key=True)

    changed = Changed(
        width=451,
        height=300,
        mimetype="image/jpeg",
        original=True,
        revision=original.revision,
        thumbnail_marks=original.thumbnail_marks,
    )
    assert str(changed.url("icon")).startswith("/files/")
    assert str(changed.url("card")).startswith("/thumbnails/")


async def test_stores_in_which_no_mark_counts(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Marks do not apply to stores without a stable location, nor to an overlay, whose URLs may lead elsewhere."""
    for one in (MemoryStore(), OverlayStore(store, MemoryStore("below:/"))):
        with store_context(one, thumbnails=Links(one)):
            product = await attached(sessions)
            assert product.cover.require_original().thumbnail_marks is None
            await product.cover.generate_thumbnails()
            assert not is_direct(product)


async def test_rows_of_the_predecessor_are_not_marked(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore
) -> None:
    """Without a revision, the mark could be written to the rows of other images."""
    products = [await attached(sessions, ahead=False) for _ in range(2)]
    for product in products:
        original = product.cover.require_original()
        async with sessions.begin() as session:
            statement = update(Cover.__table__).where(Cover.product_id == product.id)
            await session.execute(statement.values(revision=None))
        legacy = store.legacy_name(ImageKey("cover", product.id, original.width, original.height, original.mimetype))
        await store.put_object(legacy, photo("chelsea"))
    async with sessions.begin() as session:
        product = await session.get_one(Product, products[0].id)
        await product.cover.generate_thumbnails()
        assert not is_direct(product)
    assert len(await names(store, "cover.t/")) == 4
    async with sessions() as session:
        assert (await session.scalars(select(Cover.thumbnail_marks))).all() == [None, None]


async def test_a_mark_goes_with_its_transaction(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """A rollback removes the mark, although the files exist."""
    product = await attached(sessions, ahead=False)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        await product.cover.generate_thumbnails()
        assert is_direct(product)
        await session.rollback()
        await session.refresh(product)
        assert not is_direct(product)


async def test_somebody_else_has_replaced_the_picture(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore
) -> None:
    """The mark is not written for another image, and the commit does not fail."""
    product = await attached(sessions, ahead=False)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        await session.execute(update(Cover.__table__).values(revision="x" * 30))
        await product.cover.generate_thumbnails()
        await session.commit()
        assert await session.scalar(select(Cover.thumbnail_marks).execution_options(populate_existing=True)) is None


# --- deleted ---------------------------------------------------------------------------------------------------------


async def test_thumbnails_go_with_their_original(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """All declared thumbnails are deleted, including those made on request, with and without a focal point."""
    product = await attached(sessions)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        product.cover.require_original().focal_point = (0.3, 0.3)
        await session.commit()
        await product.cover.generate_thumbnails()
        assert len(await names(store, "cover.t/")) == 5
        await product.cover.delete()
        await session.commit()
    assert await names(store) == []


@pytest.mark.parametrize("loaded", [True, False])
async def test_thumbnails_go_with_a_replaced_original(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore, loaded: bool
) -> None:
    """They are deleted even if the replaced image was not loaded."""
    product = await attached(sessions)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        product.cover.require_original().focal_point = (0.3, 0.3)
        await session.commit()
        await product.cover.generate_thumbnails()
        if not loaded:
            session.expunge(product.cover.require_original())
            session.expire(product)
            await session.refresh(product, ["id"])
        await product.cover.from_blob(photo("coffee"))
        await session.commit()
    assert await names(store, "cover.t/") == []
    assert len(await names(store)) == 1


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_picture_of_the_same_size_inherits_nothing(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore, loaded: bool
) -> None:
    """Marks, focal point, colour and preview belong to one image, also if SQLAlchemy updates its row for another."""
    product = await attached(sessions)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        product.cover.require_original().focal_point = (0.3, 0.3)
        await session.commit()
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        if loaded:
            await product.cover.load()
        await product.cover.from_blob(saved(opened("coffee", (451, 300)), "JPEG"))
        await session.commit()
    async with sessions() as session:
        cover = (await session.get_one(Product, product.id)).cover
        await cover.load()
        row = cover.require_original()
        assert (row.size, len(cover)) == ((451, 300), 1)
        assert (row.thumbnail_marks, row.focal_point, row.thumbhash, row.dominant_colour) == (None,) * 4
        assert str(cover.url("card")).startswith("/thumbnails/")


async def test_a_rollback_leaves_nothing(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """After a rollback of the transaction or a savepoint, the previous image still has its thumbnails."""
    product_id = (await attached(sessions)).id
    before = await names(store)
    async with sessions() as session:
        product = await session.get_one(Product, product_id)
        await product.cover.from_blob(photo("coffee"))
        await product.cover.generate_thumbnails()
        await session.flush()
        assert len(await names(store)) == 10
        await session.rollback()
    assert await names(store) == before
    async with sessions() as session:
        product = await session.get_one(Product, product_id)
        with pytest.raises(RuntimeError):
            async with session.begin_nested():
                await product.cover.from_blob(photo("coffee"))
                await product.cover.generate_thumbnails()
                await session.flush()
                raise RuntimeError
        await session.commit()
    assert await names(store) == before


async def test_a_picture_that_is_replaced_before_its_flush(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore
) -> None:
    """The thumbnails of an image that is replaced before its flush are never stored."""
    async with sessions() as session:
        session.add(product := Product())
        await product.cover.from_blob(photo("chelsea"))
        await product.cover.generate_thumbnails()
        await product.cover.from_blob(photo("coffee"))
        await session.commit()
    assert await names(store, "cover.t/") == []


async def test_deletion_is_deferred(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """With deferred deletion, thumbnails stay with their original for the sweep."""
    defer_deletion(sessions)
    product = await attached(sessions)
    before = await names(store)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        await product.cover.delete()
        await session.commit()
    assert await names(store) == before


@pytest.mark.parametrize("broken", [True, False])
async def test_thumbnails_that_cannot_be_deleted(
    sessions: async_sessionmaker[AsyncSession], caplog: pytest.LogCaptureFixture, broken: bool
) -> None:
    """The commit succeeds, and the thumbnails are left for the sweep."""
    store = Failing()
    with store_context(store, thumbnails=Links(store)):
        product = await attached(sessions)
        store.refused, store.broken = "-card-", broken
        with caplog.at_level(logging.WARNING):
            async with sessions() as session:
                product = await session.get_one(Product, product.id)
                await product.cover.delete()
                await session.commit()
    assert "thumbnails, which are left for the sweep" in caplog.text
    assert await names(store, "cover/") == []


async def test_rows_of_thumbnails_have_none(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Deleting the row of a thumbnail deletes no declared thumbnails."""
    product = await attached(sessions)
    async with sessions() as session:
        product = await session.get_one(Product, product.id)
        thumbnail = await product.cover.generate_thumbnail(width=30)
        await session.commit()
        await session.delete(thumbnail)
        await session.commit()
    assert len(await names(store)) == 5


async def test_many_sessions_at_once(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Each image has its own thumbnails, and no other file remains."""
    products = await asyncio.gather(*(attached(sessions) for _ in range(5)))
    expected = sorted(name for product in products for name in declared(product.cover.require_original(), store))
    assert await names(store, "cover.t/") == expected


def test_a_recipe_is_part_of_a_declaration() -> None:
    """The files of a row are those of all its declared thumbnails."""

    class Other(DeclarativeBase):
        """A separate registry."""

    class One(Other, Image):
        """An image class that declares both kinds."""

        __tablename__ = "one"
        __thumbnails__ = {"share": Recipe(width=30, height=20), "card": Srcset([60], fallback=None)}
        id: Mapped[int] = mapped_column(primary_key=True)

    row = One(width=100, height=50, mimetype="image/jpeg", original=True, revision="x" * 30)
    assert [one.step.tail for one in declared_files(row)] == [".30x20.jpg", ".60x30.webp"]
