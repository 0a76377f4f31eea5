"""Offloaded columns: all forms of declaration, assignment, and use in SQLAlchemy."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    aliased,
    column_property,
    declared_attr,
    mapped_column,
    registry,
    undefer,
)
from sqlalchemy.orm.exc import DetachedInstanceError
from sqlmodel import Field, SQLModel

from aioimageattach.exc import DeclarationError, NotLoadedError
from aioimageattach.offload import (
    Stored,
    StoredBinary,
    StoredJSON,
    StoredText,
    stored,
    stored_binary,
    stored_json,
    stored_text,
)
from aioimageattach.stores import MemoryStore
from tests.databases import Database
from tests.entity.models import started
from tests.faults.stores import FaultyStore
from tests.offload.conftest import Sessions


class Base(AsyncAttrs, DeclarativeBase):
    """Declarative base of these models."""


class HasBody:
    """A mixin, whose column is copied for each class."""

    body: Mapped[StoredText | None] = stored_text(compression="gzip")

    @declared_attr
    def blob(cls) -> Mapped[StoredBinary | None]:  # noqa: N805
        return stored_binary(nullable=True)


class Letter(HasBody, Base):
    """A class with the columns of a mixin."""

    __tablename__ = "letter"
    id: Mapped[int] = mapped_column(primary_key=True)


class Memo(HasBody, Base):
    """Another class with the same columns."""

    __tablename__ = "memo"
    id: Mapped[int] = mapped_column(primary_key=True)


class Point(MappedAsDataclass, Base, kw_only=True):
    """A dataclass."""

    __tablename__ = "point"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText | None] = stored_text(default=None)
    text: Mapped[StoredText] = stored_text(default="", inline_below=100)
    tags: Mapped[StoredJSON] = stored_json(default_factory=lambda: StoredJSON([]), repr=False)


class Shape(Base):
    """The base class of three kinds of inheritance."""

    __tablename__ = "shape"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    body: Mapped[StoredText | None] = stored_text()
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shape"}


class Single(Shape):
    """A subclass in the same table."""

    remark: Mapped[StoredText | None] = stored_text()
    __mapper_args__ = {"polymorphic_identity": "single"}


class Joined(Shape):
    """A subclass with an additional table."""

    __tablename__ = "joined"
    id: Mapped[int] = mapped_column(ForeignKey(Shape.id), primary_key=True)
    aside: Mapped[StoredText | None] = stored_text()
    __mapper_args__ = {"polymorphic_identity": "joined"}


class Concrete(Shape):
    """A subclass with a separate table."""

    __tablename__ = "concrete"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    body: Mapped[StoredText | None] = stored_text()
    __mapper_args__ = {"concrete": True, "polymorphic_identity": "concrete"}


class Report(Base):
    """A class with column names, keys, defaults, and deferred columns."""

    __tablename__ = "annual_report"
    __table_args__ = {"comment": "of all years"}
    id: Mapped[int] = mapped_column(primary_key=True)
    long_body: Mapped[StoredText | None] = stored_text(name="text_of_body", deferred=True, comment="in the store")
    told: Mapped[StoredText] = stored_text(object_type="tales", default="once upon a time")
    tags: Mapped[StoredJSON] = stored_json(default=["new"], inline_below=100)


mapping = registry(metadata=Base.metadata)
notes = Table(
    "note",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    stored_text(name="body", compression="zstd").column,
)


class Note:
    """A class that is mapped imperatively."""

    id: int
    text: StoredText | None


mapping.map_imperatively(Note, notes, properties={"text": notes.c.body})


class Card(SQLModel, table=True):
    """A model of SQLModel."""

    metadata = Base.metadata
    id: int | None = Field(default=None, primary_key=True)
    body: StoredText = Field(sa_column=stored_text(name="body", nullable=False).column)


class Remarkable:
    """A value with its own comparison, which therefore has no hash."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remarkable)

    __hash__ = None  # type: ignore[assignment]


class Unhashable(Remarkable, Base):
    """A row that cannot be in a set."""

    __tablename__ = "unhashable"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText | None] = stored_text()


@pytest.fixture
async def sessions(sqlite_database: Database, store: FaultyStore) -> Sessions:
    """Sessions on SQLite, with the tables and the store."""
    return await started(sqlite_database, Base.metadata, store, expire_on_commit=False)


def make_note() -> Note:
    note = Note()
    note.text = "a text"  # type: ignore[assignment]
    return note


@pytest.mark.parametrize(
    ("make", "key", "object_type"),
    [
        (lambda: Letter(body="a text"), "body", "letter.body"),
        (lambda: Memo(body="a text"), "body", "memo.body"),
        (lambda: Memo(blob=b"a text"), "blob", "memo.blob"),
        (lambda: Point(id=1, body=StoredText("a text")), "body", "point.body"),
        (lambda: Shape(kind="shape", body="a text"), "body", "shape.body"),
        (lambda: Single(body="a text"), "body", "shape.body"),
        (lambda: Single(remark="a text"), "remark", "shape.remark"),
        (lambda: Joined(body="a text"), "body", "shape.body"),
        (lambda: Joined(aside="a text"), "aside", "joined.aside"),
        (lambda: Concrete(kind="concrete", body="a text"), "body", "concrete.body"),
        (lambda: Report(long_body="a text", told=""), "long_body", "annual-report.long-body"),
        (lambda: Report(told="a text"), "told", "tales"),
        (make_note, "text", "note.text"),
        (lambda: Card(body=StoredText("a text")), "body", "card.body"),
        (lambda: Unhashable(body="a text"), "body", "unhashable.body"),
    ],
)
async def test_each_form_of_declaration(
    sessions: Sessions, store: FaultyStore, make: Any, key: str, object_type: str
) -> None:
    """A value is written, read by another session, replaced and deleted; its name starts with table and attribute."""
    async with sessions() as session, session.begin():
        session.add(row := make())
    expected = b"a text" if key == "blob" else "a text"
    assert getattr(row, key).value == expected
    identity = inspect(row).identity
    assert [name for name in await store.names() if name.startswith(f"{object_type}/")] != []
    async with sessions() as session, session.begin():
        found = await session.get_one(type(row), identity)
        handle = await found.awaitable_attrs.long_body if key == "long_body" else getattr(found, key)
        assert not handle.loaded
        assert await handle.load() == expected
        setattr(found, key, expected * 2)
    assert getattr(found, key).name.startswith(f"{object_type}/")
    assert handle.name not in await store.names()
    async with sessions() as session, session.begin():
        await session.delete(await session.get_one(type(row), identity))
    gc.collect()
    assert await store.names() == set()


def test_classes_of_a_mixin_have_separate_settings() -> None:
    """The declarations are equal, but each class has separate settings."""
    letter, memo = (inspect(cls).columns["body"].type.settings for cls in (Letter, Memo))
    assert letter is not memo
    assert (letter.place, memo.place) == ("letter.body", "memo.body")
    assert letter.compression == memo.compression == "gzip"


async def test_dataclasses(sessions: Sessions, store: FaultyStore) -> None:
    """Constructor, representation and comparison work as in dataclasses; defaults are those of the field."""
    one, two = Point(id=1, body="same"), Point(id=1, body="same")  # type: ignore[arg-type]
    assert one == two
    assert one != Point(id=1)
    assert Point(id=2).text == ""
    assert "body=<StoredText, not stored yet>" in repr(one)
    assert "tags" not in repr(one)
    async with sessions() as session, session.begin():
        session.add_all([one, Point(id=2)])
    async with sessions() as session:
        found = await session.get_one(Point, 2)
        assert (found.body, found.text.value, await found.tags.load()) == (None, "", [])


async def test_defaults(sessions: Sessions, store: FaultyStore) -> None:
    """A default is stored if nothing was assigned, or only ``None``, as in SQLAlchemy; each row has its own."""
    async with sessions() as session, session.begin():
        session.add_all([one := Report(id=1), two := Report(id=2, tags=None)])
        await session.flush()
        one.tags.value.append("mine")
        assert (one.tags.value, two.tags.value) == (["new", "mine"], ["new"])
    async with sessions() as session, session.begin():
        session.add(Report(id=3))
    async with sessions() as session:
        rows = list(await session.scalars(select(Report).order_by(Report.id)))
        assert [row.tags.value for row in rows] == [["new"]] * 3
        assert [await row.told.load() for row in rows] == ["once upon a time"] * 3


async def test_a_value_that_was_changed_in_place_must_be_assigned_again(sessions: Sessions, store: FaultyStore) -> None:
    """A change in place is not detected, and an assigned value is stored as it is at the flush."""
    async with sessions() as session, session.begin():
        session.add(Report(id=1))
    async with sessions() as session, session.begin():
        found = await session.get_one(Report, 1)
        found.tags.value.append("unseen")
        assert not session.is_modified(found)
        found.tags = found.tags.value
        found.tags.value.append("late")
    async with sessions() as session:
        assert (await session.get_one(Report, 1)).tags == ["new", "unseen", "late"]


async def test_values_that_are_not_loaded(sessions: Sessions, store: FaultyStore) -> None:
    """An expired or deferred value is not loaded implicitly, and each call in the message loads it."""
    async with sessions() as session, session.begin():
        session.add(Report(id=1, long_body="long"))
    async with sessions() as session:
        found = await session.get_one(Report, 1)
        with pytest.raises(NotLoadedError, match=r"undefer\(Report\.long_body\)"):
            assert found.long_body
        await session.refresh(found, ["long_body"])
        assert await found.long_body.load() == "long"
        session.expire(found)
        with pytest.raises(NotLoadedError, match="expire_on_commit=False"):
            assert found.told
        assert await session.run_sync(lambda _: found.told.size) == 16
        session.expire(found)
        assert (await found.awaitable_attrs.told).size == 16
    async with sessions() as session:
        found = await session.get_one(Report, 1, options=[undefer(Report.long_body)])
        assert found.long_body.size == 4
    async with sessions() as session:
        found = await session.get_one(Report, 1)
    with pytest.raises(DetachedInstanceError):
        assert found.long_body
    assert Report().long_body is None


def test_sessions_without_asyncio_read(tmp_path: Any) -> None:
    """A plain session loads columns as usual; writing requires an AsyncSession, and the error says so."""
    engine = create_engine(f"sqlite:///{tmp_path}/plain.sqlite")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(insert(Letter).values(id=1))
        found = session.get_one(Letter, 1)
        session.expire(found)
        assert found.body is None
        found.body = StoredText("new", store=MemoryStore())
        with pytest.raises(DeclarationError, match="AsyncSession"):
            session.flush()
    engine.dispose()


async def test_in_queries(sessions: Sessions, store: FaultyStore) -> None:
    """The attribute is a column: it can be selected, aliased, counted and compared with NULL."""
    async with sessions() as session, session.begin():
        session.add_all([Letter(id=1, body="one"), Letter(id=2), Letter(id=3, body="three")])
    other = aliased(Letter)
    async with sessions() as session:
        assert list(await session.scalars(select(Letter.id).where(Letter.body == None))) == [2]  # noqa: E711
        assert await session.scalar(select(func.count(other.body))) == 2
        handles = list(await session.scalars(select(other.body).where(other.body.is_not(None)).order_by(other.id)))
        assert [await handle.load(store) for handle in handles] == ["one", "three"]
        [by_core, *_] = (await session.execute(select(Letter.__table__.c.body).order_by(Letter.id))).scalars()
        assert isinstance(by_core, StoredText)
        assert by_core == "one"
        assert len((await session.scalars(select(Letter.body).distinct())).unique().all()) == 3
    async with sessions() as session:
        found = await session.get_one(Letter, 1)
        assert isinstance(found.body, StoredText)
        assert Letter.body.property.columns[0] is Letter.__table__.c.body


class Union(DeclarativeBase):
    """The base of concrete classes that are queried together."""


class Document(AbstractConcreteBase, Union):
    """All documents."""

    strict_attrs = True
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText | None] = stored_text()


class Bill(Document):
    """One kind of document."""

    __tablename__ = "bill"
    __mapper_args__ = {"polymorphic_identity": "bill", "concrete": True}


class Offer(Document):
    """Another kind of document."""

    __tablename__ = "offer"
    __mapper_args__ = {"polymorphic_identity": "offer", "concrete": True}


class Digest(Union):
    """A class mapped to a query."""

    __table__ = select(Bill.__table__.c.id, Bill.__table__.c.body).subquery("digest")
    __mapper_args__ = {"primary_key": [__table__.c.id]}


async def test_unions_and_queries(sqlite_database: Database, store: FaultyStore) -> None:
    """Rows of several tables in one result use their own columns; a class over a query reads its table's."""
    sessions = await started(sqlite_database, Union.metadata, store)
    async with sessions() as session, session.begin():
        session.add_all([Bill(id=1, body="bill"), Offer(id=1, body="offer")])
    async with sessions() as session, session.begin():
        rows = list(await session.scalars(select(Document).order_by(Document.id)))
        assert {type(row).__name__: await row.body.load() for row in rows} == {"Bill": "bill", "Offer": "offer"}
        digest = await session.get_one(Digest, 1)
        assert await digest.body.load() == "bill"
        for row in rows:
            row.body = "new"
    assert {name.partition("/")[0] for name in await store.names()} == {"bill.body", "offer.body"}
    assert len(await store.names()) == 2


def test_a_column_under_two_names() -> None:
    """A labelled column of a query is not an attribute that can be written."""

    class Local(DeclarativeBase):
        pass

    class Owner(Local):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[StoredText | None] = stored_text()

    Owner.first = column_property(select(Owner.body).order_by(Owner.id).limit(1).scalar_subquery())  # type: ignore[attr-defined]
    Local.registry.configure()
    assert inspect(Owner).columns["body"].type.settings.place == "owner.body"


def test_tables_are_copied_and_pickled() -> None:
    """Copied and pickled tables keep the declaration."""
    copied = Table("letter", MetaData(), *(column._copy() for column in Letter.__table__.columns))
    pickled = pickle.loads(pickle.dumps(Letter.__table__))
    for table in (copied, pickled, Letter.__table__.to_metadata(MetaData())):
        assert repr(table.c.body.type) == "String(length=255)"
        assert table.c.body.type.settings.compression == "gzip"
        assert table.c.body.type.settings.object_type == "letter.body"
    assert repr(Report.__table__.c.tags.type) == "Text()"


class Upside(Stored[str]):
    """A serializer with a kind that is invalid in names."""

    kind = ".TXT"


class Parametrised(Stored[str]):
    """A type with a parameter."""

    mimetype = "text/plain; charset=utf-8"


NOT_STORED: Any = str


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: stored(NOT_STORED), "derived from Stored, got <class 'str'>"),
        (lambda: stored(Upside), r"kind: expected a dot"),
        (lambda: stored(Parametrised), r"Parametrised: mimetype: expected a MIME type such as"),
        (lambda: stored_text(compression="lzma"), "expected None, 'gzip' or 'zstd', got 'lzma'"),  # type: ignore[call-overload]
        (lambda: stored_text(default=lambda: "x"), "expected a plain value, got a callable"),
        (lambda: stored_text(inline_below=16_385), "expected 0 to 16,384 bytes, got 16385"),
        (lambda: stored_text(inline_below=-1), "expected 0 to 16,384"),
        (lambda: stored_binary(max_size=0), "expected at least 1 byte, got 0"),
        (lambda: stored_json(object_type="a/b"), "object_type: expected at most 80"),
        *(
            (lambda name=name: stored_text(**{name: "x"}), f"{name}: not supported for offloaded columns")
            for name in ("server_default", "onupdate", "server_onupdate", "primary_key", "insert_default", "type_")
        ),
    ],
)
def test_invalid_declarations(declare: Any, message: str) -> None:
    """An invalid declaration raises an error with the expected arguments."""
    with pytest.raises(DeclarationError, match=message):
        declare()


def test_nullable_columns() -> None:
    """The declaration determines whether a column is nullable; otherwise SQLAlchemy's default applies."""
    declared = {given: stored_text(name="x", nullable=given).column.nullable for given in (True, False, None)}  # type: ignore[call-overload]
    assert declared == {True: True, False: False, None: True}


def test_a_table_whose_name_is_not_an_object_type() -> None:
    """The error is raised when the mapping is configured, or when the first object of the class is created."""

    class Local(DeclarativeBase):
        pass

    class Owner(Local):
        __tablename__ = "größe"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[StoredText | None] = stored_text()

    with pytest.raises(DeclarationError, match="name another"):
        Local.registry.configure()
    Local.registry.dispose()
