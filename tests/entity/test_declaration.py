"""Invalid declarations raise an error when the mappers are configured; keys with a default are valid."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Identity, Integer, MetaData, String, Table, UniqueConstraint, and_, inspect
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    configure_mappers,
    foreign,
    mapped_column,
    registry,
    relationship,
)

from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import DeclarationError
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, started


def fresh_base() -> Any:
    """Return a new declarative base."""

    class Base(DeclarativeBase):
        pass

    return Base


def owner_of(base: Any, **options: Any) -> Any:
    """Return an owner class of images of the class Image."""

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        pictures = image_attachment("Picture", **options)

    return Owner


def key_on_the_owners_side() -> Any:
    base = fresh_base()

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture_id: Mapped[int | None] = mapped_column(ForeignKey("picture.id"))
        pictures = image_attachment("Picture", foreign_keys="Owner.picture_id", single_parent=True)

    class Picture(base, Image):
        __tablename__ = "picture"
        id: Mapped[int] = mapped_column(primary_key=True)

    return Owner, Picture


def no_image_class() -> Any:
    base = fresh_base()

    class Picture(base):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    return owner_of(base), Picture


def table_name_without_letters() -> Any:
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "Bilder von früher"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    return owner_of(base), Picture


def object_type_with_a_slash() -> Any:
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

        @property
        def object_type(self) -> str:
            return "owner/picture"

    return owner_of(base), Picture


def many_without_a_discriminator() -> Any:
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    return owner_of(base, uselist=True), Picture


def many_told_apart_by_the_database() -> Any:
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        number: Mapped[int] = mapped_column(Identity(), primary_key=True)
        autoincrement: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)

    return owner_of(base, uselist=True), Picture


def many_told_apart_in_the_statement() -> Any:
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        number: Mapped[str] = mapped_column(primary_key=True, default=lambda context: str(context))

    return owner_of(base, uselist=True), Picture


def one_with_a_discriminator() -> Any:
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)

    return owner_of(base), Picture


def owner_outside_the_primary_key() -> Any:
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))

    return owner_of(base), Picture


def constants_alone_in_the_primary_key() -> Any:
    base = fresh_base()

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        pictures = image_attachment(
            "Picture", primaryjoin=lambda: and_(foreign(Picture.owner_id) == Owner.id, Picture.kind == "avatar")
        )

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
        kind: Mapped[str] = mapped_column(primary_key=True)

    return Owner, Picture


def imperative(*columns: Any) -> Any:
    """Map an image class to a table with the given columns."""
    mappings = registry()
    metadata = MetaData()
    owners = Table("owner", metadata, Column("id", Integer, primary_key=True))
    table = Table("picture", metadata, Column("owner_id", ForeignKey("owner.id"), primary_key=True), *columns)

    class Owner:
        pictures: Any = image_attachment("Picture")

    class Picture(Image):
        pass

    mappings.map_imperatively(Owner, owners)
    mappings.map_imperatively(Picture, table)
    return Owner, Picture


def table_of_the_predecessor() -> Any:
    return imperative(
        Column("width", Integer, primary_key=True),
        Column("height", Integer, primary_key=True),
        Column("mimetype", String(255)),
        Column("original", Integer),
        Column("created_at", String(255)),
    )


def variant_outside_the_primary_key() -> Any:
    names = ("variant", "mimetype", "original", "created_at", "revision", "byte_size", "sha256")
    return imperative(
        Column("width", Integer, primary_key=True),
        Column("height", Integer, primary_key=True),
        *(Column(name, String(255)) for name in names),
    )


def no_equality() -> Any:
    base = fresh_base()

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        pictures = image_attachment(
            "Picture", primaryjoin=lambda: and_(foreign(Picture.owner_id) == Owner.id, Picture.width > 10)
        )

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    return Owner, Picture


def two_of_the_same_images() -> Any:
    base = fresh_base()

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        pictures = image_attachment("Picture")
        others = image_attachment("Picture")

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    return Owner, Picture


def unique_position_without_null() -> Any:
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        __table_args__ = (UniqueConstraint("owner_id", "position"),)
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)
        position: Mapped[int]

    return owner_of(base, uselist=True, order_by="Picture.position"), Picture


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (key_on_the_owners_side, "the foreign key is a column of Owner.*add to Picture a foreign key to Owner"),
        (no_image_class, "expected a class with the mixin Image, got Picture"),
        (table_name_without_letters, "stores do not accept the table name of Picture.*Bilder von fr"),
        (object_type_with_a_slash, "stores do not accept.*owner/picture"),
        (
            many_without_a_discriminator,
            "does not distinguish the images of one owner.*default=uuid4.*without uselist=True",
        ),
        (
            many_told_apart_by_the_database,
            "does not distinguish the images of one owner.*whose value the database generates does not help",
        ),
        (many_told_apart_in_the_statement, "does not distinguish the images of one owner"),
        (one_with_a_discriminator, "the value of number, part of the primary key of Picture, is unknown.*uselist"),
        (owner_outside_the_primary_key, "does not distinguish the images of two owners"),
        (constants_alone_in_the_primary_key, "does not distinguish the images of two owners"),
        (table_of_the_predecessor, "the table of Picture, which has no byte_size, revision, sha256, variant; add them"),
        (variant_outside_the_primary_key, "expected variant to be part of the primary key of Picture"),
        (unique_position_without_null, r"expected a nullable position, got Picture.position.*Mapped\[int \| None\]"),
        (two_of_the_same_images, "Owner.others_images also attaches Picture.*a separate image class for each"),
        (no_equality, r"expected a primaryjoin of equalities joined by and_\(\)"),
    ],
)
def test_invalid_declarations_fail_when_mappers_are_configured(declare: Callable[[], Any], message: str) -> None:
    """An invalid declaration is rejected with advice before any request, and every later use raises the same error."""
    owner, _image = declare()
    with pytest.raises(DeclarationError, match=rf"Owner\.pictures_images: .*{message}"):
        configure_mappers()
    with pytest.raises(DeclarationError, match=message):
        _ = owner().pictures


def test_two_invalid_attachments() -> None:
    """Of two invalid attachments, one error is raised when mappers are configured, and each when it is used."""
    declared = [many_without_a_discriminator(), one_with_a_discriminator()]
    with pytest.raises(DeclarationError):
        configure_mappers()
    for owner, _image in declared:
        with pytest.raises(DeclarationError, match="Picture"):
            _ = owner(id=1).pictures


def declared_with_a_default() -> Any:
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        photo_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)

    return owner_of(base, uselist=True), Picture


def dataclass_with_a_factory() -> Any:
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        pictures = image_attachment("Picture", uselist=True)

    class Picture(Base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True, init=False)
        photo_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default_factory=uuid.uuid4)

    return Owner, Picture


@pytest.mark.parametrize("declare", [declared_with_a_default, dataclass_with_a_factory])
async def test_a_key_with_a_default_distinguishes_pictures(
    declare: Callable[[], Any], sqlite_database: Database, store: CountingStore
) -> None:
    """Each new image gets its value immediately, even with a constructor; thumbnails and reads use the same value."""
    owner_class, image_class = declare()
    sessions = await started(sqlite_database, image_class.metadata, expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(owner := owner_class(id=1))
        first, second = owner.pictures.get_image_set(), owner.pictures.get_image_set()
        image = await first.from_blob(photos.photo("chelsea"), store)
        assert image.photo_id == first.identity["photo_id"] != second.identity["photo_id"]
        await second.from_blob(photos.photo("coffee"), store, extra_kwargs={})
        chosen = owner.pictures.get_image_set(photo_id=uuid.UUID(int=7))
        await chosen.from_blob(photos.photo("coffee"), store)
        await first.generate_thumbnail(width=20)
    async with sessions() as session:
        owner = await session.get_one(owner_class, 1)
        found = {picture.identity["photo_id"]: len(picture) for picture in owner.pictures}
    identities = (first.identity["photo_id"], second.identity["photo_id"], uuid.UUID(int=7))
    assert found == dict(zip(identities, (2, 1, 1), strict=True))


async def test_a_key_with_a_default_for_one_picture(sqlite_database: Database, store: CountingStore) -> None:
    """With one image per owner, a key with a default only identifies the row: replacing and reading work as usual."""
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        shape: Mapped[str] = mapped_column(primary_key=True, default="square")

    owner_class = owner_of(base)
    sessions = await started(sqlite_database, base.metadata, expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(owner := owner_class(id=1))
        image = await owner.pictures.from_blob(photos.photo("chelsea"), store)
        assert isinstance(image.id, uuid.UUID)
        assert image.shape == "square"
        await owner.pictures.generate_thumbnail(width=20)
        await session.flush()
        await owner.pictures.from_blob(photos.photo("coffee"), store)
    async with sessions() as session:
        [found] = (await session.get_one(owner_class, 1)).pictures
    assert found.size == (600, 400)


class OldStore(MemoryStore):
    """A store whose names contain the owner's key."""

    needs_object_id = True


async def test_object_id_of_a_key_with_a_default(sqlite_database: Database) -> None:
    """For a store that needs an integer, a key with a default is the identifier if it alone distinguishes sets."""
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
        photo_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)

    owner_class = owner_of(base, uselist=True)
    store: Store = OldStore()
    sessions = await started(sqlite_database, base.metadata, expire_on_commit=False)
    async with sessions.begin() as session:
        session.add(owner := owner_class(id=1))
        image = await owner.pictures.get_image_set().from_blob(photos.photo("chelsea"), store)
    assert image.object_id == image.photo_id.int


def test_a_key_with_a_default_for_one_part() -> None:
    """An image is rejected if any part of its key has neither a value nor a default."""
    base = fresh_base()

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        photo_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        side: Mapped[str] = mapped_column(primary_key=True)
        owner: Mapped[Any] = relationship("Owner")

    owner_class = owner_of(base, uselist=True)
    with pytest.raises(DeclarationError, match=r"expected photo_id, side, got photo_id$"):
        owner_class(id=1).pictures.get_image_set()
    assert owner_class(id=1).pictures.get_image_set(side="left").identity["side"] == "left"


def test_mappers_of_a_disposed_registry_are_ignored() -> None:
    """A registry may be disposed of before its mappers are configured, as test suites do."""
    mappers = []
    for base in (fresh_base(), fresh_base()):

        class Picture(base, Image):
            __tablename__ = "picture"
            owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

        mappers += [Picture.__mapper__, owner_of(base).__mapper__]
        if len(mappers) == 2:
            base.registry.dispose()
    configure_mappers()
    assert [inspect(one.class_, raiseerr=False) is one for one in mappers] == [False, False, True, True]
