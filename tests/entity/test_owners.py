"""Owners and images of every kind of mapping: attach, thumbnail, commit, read, replace, delete."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    select,
)
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.ext.declarative import AbstractConcreteBase, ConcreteBase
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    declared_attr,
    mapped_column,
    registry,
    selectinload,
)
from sqlmodel import Field, SQLModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the warnings that SQLModel causes in SQLAlchemy are ignored
    from advanced_alchemy.base import BigIntAuditBase, DefaultBase, UUIDAuditBase

from aioimageattach.entity import Image, image_attachment
from aioimageattach.exc import DeclarationError
from tests import photos
from tests.databases import Database
from tests.entity.models import CountingStore, started


@dataclass
class Kind:
    """An owner class, its image class, and a function that creates an owner."""

    owner: Any
    image: Any
    metadata: MetaData
    values: dict[str, Any]
    others: tuple[Any, ...] = ()  # mapped classes live as long as they are referenced


def fresh_base() -> Any:
    class Base(DeclarativeBase):
        pass

    return Base


def picture_of_owner(base: Any) -> Any:
    """Map an ordinary image class for owners in the table ``owner``."""

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    return Picture


def declarative() -> Kind:
    base = fresh_base()

    class Owner(AsyncAttrs, base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")

    return Kind(Owner, picture_of_owner(base), base.metadata, {"id": 1})


def by_another_key() -> Kind:
    base = fresh_base()

    class Owner(AsyncAttrs, base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        code: Mapped[int] = mapped_column(unique=True)
        picture = image_attachment("Picture")

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_code: Mapped[int] = mapped_column(ForeignKey("owner.code"), primary_key=True)

    return Kind(Owner, Picture, base.metadata, {"id": 1, "code": 7})


def image_declared_first() -> Kind:
    base = fresh_base()

    class Picture(Image, base):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment(Picture)

    return Kind(Owner, Picture, base.metadata, {"id": 1})


def target_as_callable() -> Kind:
    kind = image_declared_first()
    base = fresh_base()

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment(lambda: Picture)

    class Picture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    assert kind.owner is not Owner
    return Kind(Owner, Picture, base.metadata, {"id": 1})


def dataclasses() -> Kind:
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20), default="x")
        picture: ClassVar[image_attachment[Any]] = image_attachment("Picture")

    class Picture(Image, Base):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        caption: Mapped[str | None] = mapped_column(String(20), default=None)

    assert "picture" not in repr(Owner(id=1))
    return Kind(Owner, Picture, Base.metadata, {"id": 1, "name": "y"})


def dataclass_without_annotation() -> Kind:
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Picture(Base, Image, kw_only=True):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    class Owner(Base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment(Picture)

    return Kind(Owner, Picture, Base.metadata, {"id": 1})


def mixin() -> Kind:
    base = fresh_base()

    class HasPicture:
        picture = image_attachment("Picture")

    class Owner(HasPicture, base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)

    return Kind(Owner, picture_of_owner(base), base.metadata, {"id": 1})


def mixin_of_two_owners() -> Kind:
    """A mixin whose target depends on the class, in the style of SQLAlchemy's own mixins."""
    base = fresh_base()

    class HasPicture:
        @declared_attr.directive
        def picture(cls):  # noqa: N805 - an annotation would be taken for a column's
            return image_attachment(f"{cls.__name__}Picture")

    class Other(HasPicture, base):
        __tablename__ = "other"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Owner(HasPicture, base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)

    class OtherPicture(base, Image):
        __tablename__ = "other_picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("other.id"), primary_key=True)

    class OwnerPicture(base, Image):
        __tablename__ = "owner_picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    return Kind(Owner, OwnerPicture, base.metadata, {"id": 1}, (Other, OtherPicture))


def abstract_base() -> Kind:
    base = fresh_base()

    class Illustrated(base):
        __abstract__ = True
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")

    class AnyPicture(base, Image):
        __abstract__ = True
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    class Owner(Illustrated):
        __tablename__ = "owner"

    class Picture(AnyPicture):
        __tablename__ = "picture"

    return Kind(Owner, Picture, base.metadata, {"id": 1})


def imperative_owner() -> Kind:
    reg = registry()

    class Base(DeclarativeBase):
        registry = reg

    class Picture(Base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    class Owner:
        picture = image_attachment(Picture)

    reg.map_imperatively(Owner, Table("owner", reg.metadata, Column("id", Integer, primary_key=True)))
    return Kind(Owner, Picture, reg.metadata, {"id": 1})


def imperative_both() -> Kind:
    reg = registry()

    class Owner:
        picture = image_attachment("Picture")

    class Picture(Image):
        owner_id: int

    table = Table(
        "picture",
        reg.metadata,
        Column("owner_id", ForeignKey("owner.id"), primary_key=True),
        Column("width", Integer, primary_key=True),
        Column("height", Integer, primary_key=True),
        Column("variant", String(32), primary_key=True, default=""),
        Column("mimetype", String(255), nullable=False),
        Column("original", Boolean, nullable=False, default=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("revision", String(64), unique=True),
        Column("byte_size", Integer),
        Column("sha256", String(64)),
    )
    reg.map_imperatively(Owner, Table("owner", reg.metadata, Column("id", Integer, primary_key=True)))
    reg.map_imperatively(Picture, table)
    return Kind(Owner, Picture, reg.metadata, {"id": 1})


def joined_inheritance() -> Kind:
    base = fresh_base()

    class Person(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(10))
        picture = image_attachment("Picture")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}

    class Owner(Person):
        __tablename__ = "special_owner"
        id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        __mapper_args__ = {"polymorphic_identity": "owner"}

    return Kind(Owner, picture_of_owner(base), base.metadata, {"id": 1})


def attachment_on_a_joined_subclass() -> Kind:
    base = fresh_base()

    class Person(base):
        __tablename__ = "person"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(10))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}

    class Owner(Person):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
        picture = image_attachment("Picture")
        __mapper_args__ = {"polymorphic_identity": "owner"}

    return Kind(Owner, picture_of_owner(base), base.metadata, {"id": 1})


def single_table_inheritance() -> Kind:
    base = fresh_base()

    class Person(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(10))
        picture = image_attachment("Picture")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}

    class Owner(Person):
        __mapper_args__ = {"polymorphic_identity": "owner"}

    return Kind(Owner, picture_of_owner(base), base.metadata, {"id": 1})


def concrete_inheritance() -> Kind:
    base = fresh_base()

    class Person(ConcreteBase, base):
        __tablename__ = "person"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("PersonPicture")
        __mapper_args__ = {"polymorphic_identity": "person", "concrete": True}

    class Owner(Person):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")
        __mapper_args__ = {"polymorphic_identity": "owner", "concrete": True}

    class PersonPicture(base, Image):
        __tablename__ = "person_picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)

    return Kind(Owner, picture_of_owner(base), base.metadata, {"id": 1}, (Person, PersonPicture))


def abstract_concrete_base() -> Kind:
    base = fresh_base()

    class Person(AbstractConcreteBase, base):
        strict_attrs = True

    class Owner(Person):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")
        __mapper_args__ = {"polymorphic_identity": "owner", "concrete": True}

    return Kind(Owner, picture_of_owner(base), base.metadata, {"id": 1})


def joined_images() -> Kind:
    base = fresh_base()

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")

    class AnyPicture(base, Image):
        __tablename__ = "any_picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        kind: Mapped[str] = mapped_column(String(10))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "any"}

    class Picture(AnyPicture):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(primary_key=True)
        width: Mapped[int] = mapped_column(primary_key=True)
        height: Mapped[int] = mapped_column(primary_key=True)
        variant: Mapped[str] = mapped_column(String(32), primary_key=True)
        caption: Mapped[str | None] = mapped_column(String(20))
        __table_args__ = (
            ForeignKeyConstraint(
                ["owner_id", "width", "height", "variant"],
                ["any_picture.owner_id", "any_picture.width", "any_picture.height", "any_picture.variant"],
            ),
        )
        __mapper_args__ = {"polymorphic_identity": "picture"}

    return Kind(Owner, Picture, base.metadata, {"id": 1})


def single_table_images() -> Kind:
    base = fresh_base()

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture", primaryjoin="Owner.id == Picture.owner_id")

    class AnyPicture(base, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        kind: Mapped[str] = mapped_column(String(10))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "any"}

    class Picture(AnyPicture):
        __mapper_args__ = {"polymorphic_identity": "picture"}

    return Kind(Owner, Picture, base.metadata, {"id": 1})


def concrete_images() -> Kind:
    base = fresh_base()

    class Owner(base):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("Picture")

    class AnyPicture(base, Image):
        __tablename__ = "any_picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

    class Picture(AnyPicture, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)
        width: Mapped[int] = mapped_column(primary_key=True)
        height: Mapped[int] = mapped_column(primary_key=True)
        variant: Mapped[str] = mapped_column(String(32), primary_key=True)
        mimetype: Mapped[str] = mapped_column(String(255))
        original: Mapped[bool]
        created_at: Mapped[Any] = mapped_column(DateTime(timezone=True))
        revision: Mapped[str | None] = mapped_column(String(64), unique=True)
        byte_size: Mapped[int | None]
        sha256: Mapped[str | None] = mapped_column(String(64))
        __mapper_args__ = {"concrete": True}

    return Kind(Owner, Picture, base.metadata, {"id": 1})


def advanced_alchemy() -> Kind:
    """Base classes with a key, timestamps and a registry; the key of the image is longer than usual."""

    class Owner(UUIDAuditBase):
        __tablename__ = f"owner_{uuid.uuid4().hex[:8]}"
        picture: ClassVar[image_attachment[Any]] = image_attachment(lambda: Picture)

    class Picture(UUIDAuditBase, Image):
        __tablename__ = f"picture_{uuid.uuid4().hex[:8]}"
        owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Owner.id), primary_key=True)

    metadata = MetaData()
    for cls in (Owner, Picture):
        cls.__table__.to_metadata(metadata)
    return Kind(Owner, Picture, metadata, {})


def advanced_alchemy_integers() -> Kind:
    class IntegerOwner(BigIntAuditBase):
        __tablename__ = f"owner_{uuid.uuid4().hex[:8]}"
        picture = image_attachment(lambda: IntegerPicture)

    class IntegerPicture(DefaultBase, Image):
        __tablename__ = f"picture_{uuid.uuid4().hex[:8]}"
        owner_id: Mapped[int] = mapped_column(ForeignKey(IntegerOwner.id), primary_key=True)

    metadata = MetaData()
    for cls in (IntegerOwner, IntegerPicture):
        cls.__table__.to_metadata(metadata)
    return Kind(IntegerOwner, IntegerPicture, metadata, {"id": 1})


def sqlmodel_owner() -> Kind:
    reg = registry()

    class Base(SQLModel, registry=reg):
        pass

    class ImageBase(DeclarativeBase):
        registry = reg

    class Owner(Base, table=True):
        __tablename__ = "owner"
        id: int | None = Field(default=None, primary_key=True)
        picture: ClassVar[image_attachment[Any]] = image_attachment("Picture")

    return Kind(Owner, picture_of_owner(ImageBase), reg.metadata, {})


def sqlmodel_both() -> Kind:
    reg = registry()

    class Base(SQLModel, registry=reg):
        pass

    class Owner(Base, table=True):
        __tablename__ = "owner"
        id: int | None = Field(default=None, primary_key=True)
        picture: ClassVar[image_attachment[Any]] = image_attachment("Picture")

    class Picture(Base, Image, table=True):
        __tablename__ = "picture"
        owner_id: int = Field(foreign_key="owner.id", primary_key=True)

    return Kind(Owner, Picture, reg.metadata, {})


KINDS = [
    declarative,
    by_another_key,
    image_declared_first,
    target_as_callable,
    dataclasses,
    dataclass_without_annotation,
    mixin,
    mixin_of_two_owners,
    abstract_base,
    imperative_owner,
    imperative_both,
    joined_inheritance,
    attachment_on_a_joined_subclass,
    single_table_inheritance,
    concrete_inheritance,
    abstract_concrete_base,
    joined_images,
    single_table_images,
    concrete_images,
    advanced_alchemy,
    advanced_alchemy_integers,
    sqlmodel_owner,
    sqlmodel_both,
]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
async def test_an_owner_of_each_kind_has_a_picture(
    make: Callable[[], Kind], sqlite_database: Database, store: CountingStore
) -> None:
    """An image can be attached to a new owner, stored, replaced, thumbnailed and deleted with it."""
    kind = make()
    sessions = await started(sqlite_database, kind.metadata)
    async with sessions() as session, session.begin():
        owner = kind.owner(**kind.values)
        session.add(owner)
        await owner.picture.from_blob(photos.photo("chelsea"), store)
        await owner.picture.generate_thumbnail(width=50)
    assert len(await store.names()) == 2
    async with sessions() as session, session.begin():
        [owner] = await session.scalars(select(kind.owner).options(selectinload(kind.owner.picture)))
        original = owner.picture.require_original()
        assert isinstance(original, kind.image)
        assert isinstance(original.object_id, int)
        assert owner.picture.find_thumbnail(width=50).size == (50, 33)
        assert (original.size, original.byte_size) == ((451, 300), len(photos.photo("chelsea")))
        assert await owner.picture.make_blob(store) == photos.photo("chelsea")
        await owner.picture.from_blob(photos.photo("coffee"), store)
        await owner.picture.generate_thumbnails([40, 50], store)
    names = await store.names()
    assert len(names) == 3
    assert sum("600x400" in name for name in names) == 1
    async with sessions() as session, session.begin():
        [owner] = await session.scalars(select(kind.owner))
        assert (await owner.picture.get_or_generate_thumbnail(width=60, store=store)).size == (60, 40)
        assert len(owner.picture) == 4
        await session.delete(owner)
        session.info["aioimageattach.store"] = store
    assert await store.names() == []
    async with sessions() as session:
        assert list(await session.scalars(select(kind.image))) == []


async def test_a_retried_upload_of_a_sqlmodel_row(sqlite_database: Database, store: CountingStore) -> None:
    """A flush that failed in the store is retried with a new revision, even if the row is a pydantic model."""
    kind = sqlmodel_both()
    sessions = await started(sqlite_database, kind.metadata)
    async with sessions() as session:
        owner = kind.owner()
        session.add(owner)
        image = await owner.picture.from_blob(photos.photo("chelsea"), store)
        first = image.revision
        await store.put_object(f"picture/{first[:5]}/{first[5:7]}/{first}.451x300.jpg", b"in the way")
        with pytest.raises(FileExistsError):
            await session.flush()
        await session.commit()
        await session.refresh(image)
        assert image.revision != first
        assert await image.make_blob(store) == photos.photo("chelsea")


def test_a_concrete_subclass_needs_its_own_attachment() -> None:
    """The inherited attachment refers to another table's images, so its use raises an error."""
    base = fresh_base()

    class Person(base):
        __tablename__ = "person"
        id: Mapped[int] = mapped_column(primary_key=True)
        picture = image_attachment("PersonPicture")

    class Owner(Person):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        __mapper_args__ = {"concrete": True}

    class PersonPicture(base, Image):
        __tablename__ = "person_picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)

    assert len(Person(id=1).picture) == 0
    with pytest.raises(DeclarationError, match=r"Owner.picture has no relationship.*declare picture again on Owner"):
        _ = Owner(id=1).picture
