"""HTML and URLs of declared thumbnails in templates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jinja2
import pytest
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column

from aioimageattach import (
    FocalPoint,
    Image,
    MultipleImageSet,
    Placeholder,
    Recipe,
    Srcset,
    bind_store,
    image_attachment,
    set_default_store,
    store_context,
)
from aioimageattach._declared.names import DerivedName
from aioimageattach._names import revision_of
from aioimageattach.exc import ContextError, DeclarationError, NotLoadedError, UsageError
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore, OverlayStore, RoutingStore
from tests.databases import Database
from tests.entity.models import started, statements
from tests.photos import opened, photo, saved
from tests.thumbnails.models import Links


class Base(DeclarativeBase):
    """Declarative base of these models."""


class Product(Base):
    """An owner of a cover and any number of photos."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    cover = image_attachment["Cover"]("Cover")
    photos = image_attachment["Photo", MultipleImageSet["Photo"]]("Photo", uselist=True)


class Cover(Base, Image, FocalPoint, Placeholder):
    """An image class with every kind of declared thumbnail."""

    __tablename__ = "product_cover"
    __placeholder_on_attach__ = True
    __fallback_picture__ = "/none.svg"
    __thumbnails__ = {
        "icon": Srcset([48, 96], aspect=(1, 1), sizes="48px"),
        "card": Srcset([100, 200, 400], formats=["avif", "webp"]),
        "share": Recipe(width=200, height=105, format="jpeg"),
        "one": Srcset([100]),
        "jpeg": Srcset([100, 200], formats=["webp", "jpeg"], sizes="50vw"),
    }
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)

    @property
    def alt(self) -> str:
        """Return the alternative text."""
        return "A <cover>"


class Photo(Base, Image):
    """An image class with one thumbnail and without mixins."""

    __tablename__ = "product_photo"
    __thumbnails__ = {"card": Srcset([100, 200], sizes="50vw")}
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
async def sessions(sqlite_database: Database) -> async_sessionmaker[AsyncSession]:
    """Sessions on SQLite with the tables of these models."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


@pytest.fixture
def store() -> Iterator[KeyedStore]:
    """The default store, with a thumbnail server."""
    store = MemoryStore()
    set_default_store(store, thumbnails=Links(store))
    yield store
    set_default_store(None)


async def attached(sessions: async_sessionmaker[AsyncSession], blob: bytes | None = None) -> Product:
    """A product with a cover and two photos, loaded by another session."""
    async with sessions() as session:
        session.add(product := Product())
        await product.cover.from_blob(blob or photo("chelsea"))
        for number in (0, 1):
            await product.photos.get_image_set(order_index=number).from_blob(photo("coffee"))
        await session.commit()
    async with sessions() as session:
        return await session.get_one(Product, product.id)


async def test_candidates_are_calculated(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Candidates need no statement and no store call, and have the declared order."""
    product = await attached(sessions)
    with statements(sessions) as sent:
        found = product.cover.candidates("card")
    assert sent == []
    assert [(one.width, one.height, one.mimetype, one.fallback) for one in found] == [
        (100, 67, "image/avif", False),
        (200, 133, "image/avif", False),
        (400, 266, "image/avif", False),
        (100, 67, "image/webp", False),
        (200, 133, "image/webp", False),
        (400, 266, "image/webp", False),
        (200, 133, "image/jpeg", True),
    ]
    original = product.cover.require_original()
    assert product.cover.candidates("card") == original.candidates("card")
    for one in found:
        name = one.url.removeprefix("/thumbnails/")
        stem = revision_of(name)
        assert stem is not None
        parsed = DerivedName.parse(stem)
        assert parsed is not None
        assert name.startswith("product-cover.t/")
        assert parsed.belongs_to(str(original.revision))
        assert str(original.revision) not in one.url


async def test_what_is_derived_from_candidates(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """URL and size are those of the fallback file; a srcset contains one format."""
    cover = (await attached(sessions)).cover
    *_, last = cover.candidates("card")
    assert last.fallback
    assert cover.url("card") == last.url
    assert cover.url("card", base_url="https://example.com/de/") == f"https://example.com{last.url}"
    assert cover.thumbnail_size("card") == (last.width, last.height)
    webp = [one for one in cover.candidates("card") if one.mimetype == "image/webp"]
    assert cover.srcset("card") == ", ".join(f"{one.url} {one.width}w" for one in webp)
    assert cover.srcset("card", mimetype="image/avif") == cover.srcset("card").replace(".webp", ".avif")
    assert cover.srcset("share") == cover.url("share")


async def test_templates(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Jinja inserts the elements unescaped, with their HTML attributes."""
    product = await attached(sessions)
    environment = jinja2.Environment(autoescape=True)
    text = (
        '{{ cover.img("icon", class="avatar") }}{{ cover.picture("card", sizes="50vw", alt="x", placeholder=False) }}'
    )
    html = environment.from_string(text).render(cover=product.cover)
    assert html.startswith('<img src="/thumbnails/product-cover.t/')
    assert html.count("<picture>") == 1
    assert html.count('<source type="image/') == 2
    assert 'alt="A &lt;cover&gt;"' in html
    assert 'alt="x"' in html
    assert html.count("background-color:") == 1
    assert '.96x96.jpg"' in html
    assert 'class="avatar"' in html


async def test_one_file_is_no_choice(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """A recipe renders as an ``<img>`` even for ``picture()``, and a single width needs no ``sizes``."""
    cover = (await attached(sessions)).cover
    assert cover.picture("share") == cover.img("share")
    assert "srcset" not in cover.img("share")
    assert "sizes" not in cover.picture("one")
    assert " 100w" not in cover.picture("one")
    assert ".100x67.webp" in cover.img("one")


async def test_the_fallback_may_be_one_of_the_formats(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore
) -> None:
    """The fallback is listed with the other files of its format, and used by programs without ``srcset``."""
    cover = (await attached(sessions)).cover
    html = cover.picture("jpeg")
    assert html.count("<source") == 2
    assert html.count(".200x133.jpg") == 2
    assert ".200x133.jpg" in str(cover.url("jpeg"))
    assert ".100x67.jpg 100w" in cover.img("jpeg")


async def test_a_picture_without_a_description(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A description that is ``None`` in the database marks the image as decorative, as an empty one does."""
    cover = (await attached(sessions)).cover
    monkeypatch.setattr(Cover, "alt", None)
    assert 'alt=""' in cover.img("icon")


async def test_pictures_of_a_set(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Each image set of a gallery renders its own image."""
    product = await attached(sessions)
    found = [one.picture("card") for one in product.photos]
    assert len({*found}) == 2
    assert all("style" not in one for one in found)


async def test_nothing_is_attached(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """Without an image, nothing is rendered, or the fallback image of the class."""
    product = Product()
    photos = product.photos.get_image_set(order_index=0)
    assert photos.candidates("card") == ()
    assert (photos.url("card"), photos.srcset("card"), photos.thumbnail_size("card")) == (None, "", None)
    assert (photos.img("card"), photos.picture("card")) == ("", "")
    assert product.cover.img("icon", class_="avatar", alt="Nobody", sizes="1px") == (
        '<img src="/none.svg" alt="Nobody" loading="lazy" decoding="async" class="avatar">'
    )
    assert product.cover.picture("share") == '<img src="/none.svg" alt="" loading="lazy" decoding="async">'


async def test_no_file_can_be_made(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """If the limits of the class allow no file, the set renders as if no image were attached."""
    product = await attached(sessions)
    original = product.cover.require_original()
    original.__dict__["height"] = 3_000_000
    assert product.cover.img("one") == '<img src="/none.svg" alt="" loading="lazy" decoding="async">'
    assert product.cover.candidates("one") == ()
    assert product.cover.srcset("one") == ""


async def test_mistakes_are_named(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """An unknown name lists the known ones, and several widths need ``sizes``, even if no image is attached."""
    product = await attached(sessions)
    for one in (product.cover, product.cover.require_original(), Product().cover):
        with pytest.raises(
            DeclarationError, match="expected one of 'icon', 'card', 'share', 'one', 'jpeg', got 'thumb'"
        ):
            one.img("thumb")
        with pytest.raises(DeclarationError, match="has several widths: expected sizes"):
            one.picture("card")


async def test_the_focal_point_is_part_of_what_is_cropped(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore
) -> None:
    """Another focal point changes the names of cropped thumbnails, and only those."""
    cover = (await attached(sessions)).cover
    before = {name: cover.url(name) for name in ("icon", "card", "share")}
    cover.require_original().focal_point = (0.4, 0.255)
    after = {name: cover.url(name) for name in before}
    assert after["card"] == before["card"]
    assert "-icon-040026-" in str(after["icon"])
    assert "-share-040026-" in str(after["share"])


async def test_only_originals_that_are_loaded(sessions: async_sessionmaker[AsyncSession], store: KeyedStore) -> None:
    """A thumbnail row has no declared thumbnails, nor has a row of SQLAlchemy-ImageAttach with a large identifier."""
    async with sessions() as session:
        session.add(product := Product())
        original = await product.cover.from_blob(photo("chelsea"))
        thumbnail = await product.cover.generate_thumbnail(width=30)
        with pytest.raises(UsageError, match="expected the row of an original"):
            thumbnail.url("icon")
        assert original.url("icon") is not None
        await session.commit()
        session.expire(original)
        with pytest.raises(NotLoadedError, match="expired"):
            original.url("icon")
        await session.refresh(original)
        original.__dict__["revision"] = None
        assert "/product-cover.t/o0000/00/o000000" in str(original.url("icon"))
        original.__dict__["product_id"] = 2**35
        with pytest.raises(UsageError, match="SQLAlchemy-ImageAttach"):
            original.url("icon")


async def test_the_server_of_the_store_is_found(sessions: async_sessionmaker[AsyncSession]) -> None:
    """The server is taken from the context, the session or the process; the server of another store is ignored."""
    store, other = MemoryStore(), MemoryStore()
    try:
        set_default_store(store)
        product = await attached(sessions)
        with pytest.raises(ContextError, match="expected a thumbnail server for"):
            product.cover.url("icon")
        set_default_store(store, thumbnails=Links(store, "/default/"))
        assert str(product.cover.url("icon")).startswith("/default/")
        with store_context(store):
            assert str(product.cover.url("icon")).startswith("/default/")
        with store_context(store, thumbnails=Links(store, "/context/")), store_context(store):
            assert str(product.cover.url("icon")).startswith("/context/")
        with store_context(store, thumbnails=Links(other)):
            assert str(product.cover.url("icon")).startswith("/default/")
        bind_store(sessions, store, thumbnails=Links(store, "/session/"))
        async with sessions() as session:
            product = await session.get_one(Product, product.id)
            assert str(product.cover.url("icon")).startswith("/session/")
    finally:
        set_default_store(None)


async def test_one_signature_for_each_picture(sessions: async_sessionmaker[AsyncSession]) -> None:
    """All files of an image have the same signed query."""
    store = MemoryStore()
    with store_context(store, thumbnails=(links := Links(store, query="?signature=x&y"))):
        cover = (await attached(sessions)).cover
        assert {one.url.partition("?")[2] for one in cover.candidates("card")} == {"signature=x&y"}
        assert "signature=x&amp;y" in cover.img("icon")
        assert len({*links.pictures}) == 1
        assert str(cover.url("card")).startswith(f"/thumbnails/{links.pictures[0][:20]}")


async def test_stores_without_names_are_refused(sessions: async_sessionmaker[AsyncSession]) -> None:
    """A store without names is rejected with advice to use thumbnails with rows."""
    with store_context(RoutingStore.plain({}, default=MemoryStore())):
        product = Product(id=1)
        await product.cover.from_blob(photo("chelsea"))
        with pytest.raises(DeclarationError, match="thumbnails with rows"):
            product.cover.url("icon")


async def test_pictures_above_an_overlay(sessions: async_sessionmaker[AsyncSession]) -> None:
    """The thumbnails of an image in the upper store are also in the upper store."""
    store = OverlayStore(MemoryStore(), MemoryStore("below:/"))
    with store_context(store, thumbnails=Links(store)):
        cover = (await attached(sessions)).cover
        assert "-sandbox.96x96.jpg" in str(cover.url("icon"))


async def test_a_transparent_picture_has_no_background(
    sessions: async_sessionmaker[AsyncSession], store: KeyedStore
) -> None:
    """A transparent image has no background colour; an opaque one of the same type has."""
    transparent = opened("coffee", (60, 40)).convert("RGBA")
    transparent.putalpha(100)
    for picture, expected in ((transparent, False), (opened("coffee", (60, 40)), True)):
        cover = (await attached(sessions, saved(picture, "PNG"))).cover
        assert ("background-color" in cover.img("icon")) == expected


@pytest.mark.parametrize("thumbnails", [{"Icon": Srcset([48])}, [Srcset([48])], {"icon": 48}])
def test_declarations_are_checked_with_the_class(thumbnails: Any) -> None:
    """An invalid declaration raises an error when the class is defined, not when a page is rendered."""

    class Other(DeclarativeBase):
        """A separate registry."""

    with pytest.raises(DeclarationError, match=r"Wrong\.__thumbnails__"):

        class Wrong(Other, Image):
            """An image class with an invalid declaration."""

            __tablename__ = "wrong"
            __thumbnails__ = thumbnails
            id: Mapped[int] = mapped_column(primary_key=True)

        configure_mappers()
