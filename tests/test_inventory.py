"""Inventory: the files that committed rows name."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    String,
    Table,
    case,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.ext.declarative import AbstractConcreteBase, ConcreteBase
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    mapped_column,
    registry,
    with_loader_criteria,
)

from aioimageattach._inventory import FileReference, Kind, count, kinds, named, references
from aioimageattach.entity import Image, image_attachment
from aioimageattach.entity._image import utcnow
from aioimageattach.exc import DeclarationError
from aioimageattach.key import make_revision
from aioimageattach.stores import MemoryStore
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.entity.models import engine_of, started, statements

STORE = MemoryStore()


class Base(DeclarativeBase):
    """The declarative base."""


class User(Base):
    """A user with one image."""

    __tablename__ = "user"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    picture = image_attachment["UserPicture"]("UserPicture")


class UserPicture(Base, Image):
    """The image of a user."""

    __tablename__ = "user_picture"
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("user.id"), primary_key=True)


class Shot(Base, Image):
    """The root of a hierarchy with single-table and joined inheritance; the object type depends on the row."""

    __tablename__ = "shot"
    album: Mapped[str] = mapped_column(String(20), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "shot"}

    @property
    def object_type(self) -> str:
        return f"shot-{self.album}"

    @property
    def object_id(self) -> int:
        return self.number


class Night(Shot):
    """A subclass in the table of its parent."""

    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "night"}


class Tagged(Shot):
    """A subclass with a separate table."""

    __table__ = Table(
        "tagged",
        Base.metadata,
        Column("album", String(20), primary_key=True),
        *(Column(name, Integer, primary_key=True, autoincrement=False) for name in ("number", "width", "height")),
        Column("variant", String(32), primary_key=True),
        Column("tag", String(20)),
        ForeignKeyConstraint(
            ["album", "number", "width", "height", "variant"],
            ["shot.album", "shot.number", "shot.width", "shot.height", "shot.variant"],
        ),
    )
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "tagged"}


class Scan(ConcreteBase, Base, Image):
    """The root of a hierarchy with concrete-table inheritance."""

    __tablename__ = "scan"
    number: Mapped[int] = mapped_column(primary_key=True)
    object_type = "all-scans"
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "scan", "concrete": True}


class ColourScan(Scan):
    """A concrete subclass."""

    __table__ = Scan.__table__.to_metadata(Base.metadata, name="colour_scan")  # type: ignore[attr-defined]
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "colour", "concrete": True}


class Sheet(AbstractConcreteBase, Base, Image):
    """An abstract class without a table."""

    number: Mapped[int] = mapped_column(primary_key=True)


class Letter(Sheet):
    """A concrete subclass of the abstract class."""

    __tablename__ = "letter"
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "letter", "concrete": True}


def values(revision: str | None = "", **more: Any) -> dict[str, Any]:
    """Return the columns of a row."""
    revision = make_revision() if revision == "" else revision
    return {"width": 30, "height": 20, "variant": "", "mimetype": "image/jpeg", "original": True} | {
        "revision": revision,
        "created_at": utcnow(),
        **more,
    }


async def fill(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Commit rows of every class, without files."""
    number = uuid.UUID(int=7)
    async with sessions.begin() as session:
        await session.execute(insert(User), [{"id": number}])
        picture = values(user_id=number, byte_size=5, sha256="0" * 64)
        thumbnail = values(user_id=number, variant="webp", original=False, byte_size=None, sha256=None)
        await session.execute(insert(UserPicture.__table__), [picture, thumbnail])
        for table, more in (
            (Shot.__table__, {"album": "a", "kind": "shot"}),
            (Shot.__table__, {"album": "b", "kind": "night"}),
            (Shot.__table__, {"album": "b", "kind": "tagged", "width": 99}),
            (Scan.__table__, {}),
            (ColourScan.__table__, {}),
            (Letter.__table__, {}),
        ):
            await session.execute(insert(table), [values(number=number, **more) for number in range(3)])
        tags = [
            {"album": "b", "number": number, "width": 99, "height": 20, "variant": "", "tag": "x"}
            for number in range(3)
        ]
        await session.execute(insert(Tagged.__table__), tags)


async def all_of(sessions: Any, kind: Kind, **options: Any) -> list[FileReference]:
    return [found async for found in references(sessions, kind, **options)]


@pytest.fixture
async def sessions(sqlite_database: Database) -> async_sessionmaker[AsyncSession]:
    """Sessions on SQLite with rows of every class."""
    sessions = await started(sqlite_database, Base.metadata)
    await fill(sessions)
    return sessions


def plain(kind: Kind) -> str:
    return kind.cls.__name__


def test_kinds_of_a_base() -> None:
    """Each class whose rows are in a separate table is returned once, for all classes that share the table."""
    assert sorted(map(plain, kinds(Base))) == ["ColourScan", "Letter", "Scan", "Shot", "UserPicture"]
    assert kinds(Base.registry)[0].cls is kinds(Base)[0].cls
    assert repr(kinds(UserPicture)) == "(<ImageKind UserPicture>,)"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (UserPicture, {"UserPicture": 2}),
        (Shot, {"Shot": 9}),
        (Night, {"Night": 3}),
        (Tagged, {"Tagged": 3}),
        (Scan, {"Scan": 3, "ColourScan": 3}),
        (Sheet, {"Letter": 3}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_rows_of_a_class(
    sessions: async_sessionmaker[AsyncSession], target: type[Any], expected: dict[str, int]
) -> None:
    """The rows of a class and of its subclasses are found once, and their count is correct."""
    found = {kind.cls.__name__: await all_of(sessions, kind) for kind in kinds(target)}
    assert {name: len(rows) for name, rows in found.items()} == expected
    assert {kind.cls.__name__: await count(sessions, kind) for kind in kinds(target)} == expected
    assert all(issubclass(row.cls, target) for rows in found.values() for row in rows)


async def test_a_reference_contains_the_values_of_its_row(sessions: async_sessionmaker[AsyncSession]) -> None:
    """A reference has the class, key, name, size, SHA-256, time and reproducibility of the row."""
    [original, thumbnail] = sorted(await all_of(sessions, kinds(UserPicture)[0]), key=lambda one: one.identity)
    assert (original.cls, original.identity) == (UserPicture, (uuid.UUID(int=7), 30, 20, ""))
    assert (original.object_type, original.mimetype) == ("user-picture", "image/jpeg")
    assert (original.size, original.sha256, original.reproducible) == (5, "0" * 64, False)
    assert (thumbnail.size, thumbnail.sha256, thumbnail.reproducible) == (None, None, True)
    assert original.key is not None
    assert original.name_in(STORE) == STORE.name_of(original.key)
    assert original.created_at is not None
    assert original.created_at.tzinfo is not None


def test_a_name_in_the_row() -> None:
    """A name that is kept in the row is the name of the file in every store."""
    kept = FileReference(User, (1,), "user.bio", None, "user.bio/x", "text/plain", 1, None, False, None)
    assert kept.name_in(STORE) == "user.bio/x"


async def test_rows_of_a_hierarchy(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Each reference has the most derived class of its row, with the object type and id of that class."""
    found = sorted(await all_of(sessions, kinds(Shot)[0]), key=lambda one: one.identity)
    assert [(one.cls.__name__, one.object_type) for one in found] == [
        *[("Shot", "shot-a")] * 3,
        *[("Night", "shot-b"), ("Tagged", "shot-b")] * 3,
    ]
    assert [one.key.object_id for one in found if one.key] == [0, 1, 2, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("page", [1, 2, 3, 100])
async def test_pages(database: Database, page: int) -> None:
    """Each row is read once: rows with a revision ordered by revision, the others by primary key."""
    sessions = await started(database, Base.metadata)
    await fill(sessions)
    async with sessions.begin() as session:
        await session.execute(update(Shot.__table__).where(Shot.__table__.c.number == 1).values(revision=None))
    [kind] = kinds(Shot)
    rows = await all_of(sessions, kind, page=page)
    revisions = [row.key.revision for row in rows if row.key]
    assert revisions == [*sorted(one for one in revisions if one is not None), None, None, None]
    assert len({row.identity for row in rows}) == 9
    assert [row.identity for row in rows[6:]] == sorted(row.identity for row in rows[6:])


async def test_an_empty_table(sqlite_database: Database) -> None:
    """An empty table names no files."""
    sessions = await started(sqlite_database, Base.metadata)
    assert await all_of(sessions, kinds(Shot)[0]) == []
    assert await count(sessions, kinds(Shot)[0]) == 0


async def test_filters_of_an_application(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Filters that the application adds to its queries do not hide rows."""

    class Filtering(Session):
        pass

    hidden = [with_loader_criteria(cls, cls.width < 0) for cls in (UserPicture, Shot, Scan, Letter)]

    @event.listens_for(Filtering, "do_orm_execute")
    def hide(state: Any) -> None:
        if state.is_select:
            state.statement = state.statement.options(*hidden)

    filtered = async_sessionmaker(engine_of(sessions), sync_session_class=Filtering)
    async with filtered() as session:
        assert (await session.scalars(select(UserPicture))).all() == []
    for kind in kinds(Base):
        expected = await all_of(sessions, kind)
        assert len(expected) > 1
        assert await all_of(filtered, kind) == expected
        names = {one.name_in(STORE) for one in expected}
        assert await named(filtered, kind, names, STORE) == names
        assert await count(filtered, kind) == len(expected)


async def test_a_session_as_a_template(sessions: async_sessionmaker[AsyncSession]) -> None:
    """The transaction of a template session is not visible, unless the session is bound to a connection."""
    [kind] = kinds(UserPicture)
    async with sessions() as session:
        await session.execute(update(UserPicture.__table__).values(mimetype="image/png"))
        assert {one.mimetype for one in await all_of(session, kind)} == {"image/jpeg"}
    async with engine_of(sessions).connect() as connection, AsyncSession(connection) as session:
        await session.execute(update(UserPicture.__table__).values(mimetype="image/png"))
        assert {one.mimetype for one in await all_of(session, kind)} == {"image/png"}
        assert session.in_transaction()
        assert set(await session.scalars(select(UserPicture.mimetype))) == {"image/png"}


async def test_a_property_that_loads_a_relationship(sqlite_database: Database) -> None:
    """``object_type`` may load a relationship of a row that was read with a Core statement."""

    class Own(DeclarativeBase):
        pass

    class Owner(Own):
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant: Mapped[str] = mapped_column(String(20))
        picture = image_attachment("Picture", backref="owner")

    class Picture(Own, Image):
        __tablename__ = "picture"
        owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"), primary_key=True)

        @property
        def object_type(self) -> str:
            return str(self.owner.tenant)  # type: ignore[attr-defined]

    sessions = await started(sqlite_database, Own.metadata)
    async with sessions.begin() as session:
        await session.execute(insert(Owner), [{"id": 1, "tenant": "one"}])
        await session.execute(insert(Picture.__table__), [values(owner_id=1)])
    [kind] = kinds(Own)
    assert kind.object_types is None
    assert [one.object_type for one in await all_of(sessions, kind)] == ["one"]
    async with sessions.begin() as session:
        await session.execute(text("ALTER TABLE owner RENAME TO somebody"))
    with pytest.raises(OperationalError):  # not a problem of the row
        await all_of(sessions, kind)


async def test_expressions_in_a_mapping(sqlite_database: Database) -> None:
    """A column property and a discriminator that is an expression do not disturb the columns of the row."""

    class Own(DeclarativeBase):
        pass

    class Drawing(Own, Image):
        __tablename__ = "drawing"
        number: Mapped[int] = mapped_column(primary_key=True)
        double: Mapped[int] = column_property(number * 2)
        __mapper_args__: ClassVar[dict[str, Any]] = {
            "polymorphic_on": case((number < 10, "drawing"), else_="sketch"),
            "polymorphic_identity": "drawing",
        }

    class Sketch(Drawing):
        __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "sketch"}

    sessions = await started(sqlite_database, Own.metadata)
    async with sessions.begin() as session:
        await session.execute(insert(Drawing.__table__), [values(number=7), values(number=70)])
    [kind] = kinds(Own)
    found = {one.identity[0]: one for one in await all_of(sessions, kind)}
    assert {number: one.cls for number, one in found.items()} == {7: Drawing, 70: Sketch}
    assert {one.object_type for one in found.values()} == {"drawing"}


async def test_a_row_without_a_time(sessions: async_sessionmaker[AsyncSession]) -> None:
    """A table that SQLAlchemy did not create may contain rows without ``created_at``."""
    async with sessions.begin() as session:
        await session.execute(text("ALTER TABLE user_picture RENAME TO earlier"))
        await session.execute(text("CREATE TABLE user_picture AS SELECT * FROM earlier"))
        await session.execute(text("UPDATE user_picture SET created_at = NULL"))
    assert {one.created_at for one in await all_of(sessions, kinds(UserPicture)[0])} == {None}


def test_object_types_of_a_class() -> None:
    """Object types are known without reading a row, unless they depend on the row."""
    found = {kind.cls.__name__: kind.object_types for kind in kinds(Base)}
    assert found == {
        "UserPicture": {"user-picture"},
        "Shot": None,
        "Scan": {"all-scans"},
        "ColourScan": {"all-scans"},
        "Letter": {"letter"},
    }


async def test_names(database: Database) -> None:
    """Exactly the names that rows contain are returned, with one statement per thousand names."""
    sessions = await started(database, Base.metadata)
    await fill(sessions)
    [kind] = kinds(UserPicture)
    ours = [one.name_in(STORE) for one in await all_of(sessions, kind)]
    revisions = [make_revision() for _ in range(1500)]
    others = [f"user-picture/{one[:5]}/{one[5:7]}/{one}.30x20.jpg" for one in revisions]
    with statements(sessions) as sent:
        assert await named(sessions, kind, [*others, *ours, "user-picture/notes.txt"], STORE) == set(ours)
    assert len([one for one in sent if "user_picture" in one]) == 2
    assert await named(sessions, kind, [], STORE) == set()


async def test_revisions_of_any_case(database: Database) -> None:
    """Revisions with capital letters, which a custom store may generate, are found."""
    sessions = await started(database, Base.metadata)
    revision = "01ABcdEFgh-7"
    async with sessions.begin() as session:
        await session.execute(insert(User), [{"id": uuid.UUID(int=7)}])
        await session.execute(insert(UserPicture.__table__), [values(revision, user_id=uuid.UUID(int=7))])
    [kind] = kinds(UserPicture)
    [ours] = [one.name_in(STORE) for one in await all_of(sessions, kind)]
    assert revision in ours
    assert await named(sessions, kind, [ours, ours.replace("-7", "-8")], STORE) == {ours}


@pytest.mark.parametrize("store", [STORE, FileSystemStore("/nowhere", "/")], ids=["bucket", "directory"])
async def test_legacy_names(sessions: async_sessionmaker[AsyncSession], store: Any) -> None:
    """Rows without a revision name files in the legacy layout, regardless of the extension."""
    async with sessions.begin() as session:
        await session.execute(update(UserPicture.__table__).values(revision=None, mimetype="image/x-odd"))
    [kind] = kinds(UserPicture)
    [name, _] = [one.name_in(store) for one in await all_of(sessions, kind)]
    assert name.endswith("30x20None")
    other = name.replace("30x20None", "30x20.jpe")
    strangers = [name.replace("30x20", "31x20"), name.replace("/7", "/8"), f"other-{name}", "user-picture/me.30x20.jpg"]
    assert await named(sessions, kind, [name, other, *strangers], store) == {name, other}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("user-picture/01k9z/3x/01k9z3xbcdefghjkmnpqrstvwx.30x20.jpg", True),
        ("user-picture/01k9z/3x/01k9z3xbcdefghjkmnpqrstvwx", True),
        ("user-picture/7/30x20.jpe", True),
        ("user-picture/-7/30x20.jpe", True),
        ("user-picture/7/0/7.30x20None", True),
        ("user-picture/01k9z/3x/01k9z3y.30x20.jpg", False),
        ("user-picture/backup/me.30x20.jpg", False),
        ("user-picture/notes.txt", False),
        ("notes.txt", False),
    ],
)
def test_names_of_other_programs(name: str, expected: bool) -> None:
    """A name in another format is recognised as that of another program."""
    assert kinds(UserPicture)[0].can_have(name) is expected


async def test_sharded_sessions_are_refused(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Sharded sessions are rejected, because they return rows in no defined order; the message states the remedy."""
    sharded = async_sessionmaker(
        sync_session_class=ShardedSession,
        shards={"one": engine_of(sessions).sync_engine},
        shard_chooser=lambda *_: "one",
        identity_chooser=lambda *_, **__: ["one"],
        execute_chooser=lambda *_: ["one"],
    )
    with pytest.raises(DeclarationError, match="one by one"):
        await all_of(sharded, kinds(UserPicture)[0])


class Other(DeclarativeBase):
    """A base without images."""


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Other, "got Other, which has none; import the modules"),
        (User, "got User, which has none"),
        (registry(), "import the modules"),
        (int, "expected a declarative base.*got int"),
        ("Base", "got 'Base'"),
        (Image, "got Image"),
    ],
)
def test_targets_without_files(target: Any, words: str) -> None:
    """A target without files is rejected, and the message states the remedy."""
    with pytest.raises(DeclarationError, match=words):
        kinds(target)
