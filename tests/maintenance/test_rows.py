"""Every committed row is read once, regardless of its primary key and of concurrent changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Boolean, Enum, Float, String, insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from aioimageattach import bind_store
from aioimageattach._inventory import count, kinds, references
from aioimageattach.entity import Image
from aioimageattach.exc import IncompleteError, InvalidKeyError, RefusedError
from aioimageattach.key import ImageKey
from aioimageattach.maintenance import sweep, verify
from aioimageattach.migration import migrate
from aioimageattach.offload import StoredText, stored_text
from aioimageattach.stores import MemoryStore
from tests.databases import Database
from tests.entity.models import started
from tests.maintenance.conftest import AgedStore, Place, names_in, row
from tests.maintenance.models import Base, Post, PostPhoto, User, UserPicture

Sessions = async_sessionmaker[AsyncSession]


class OddBase(DeclarativeBase):
    """The declarative base of classes with unusual primary keys."""


class Odd(OddBase, Image):
    """An image class with an ENUM, a FLOAT and a BOOLEAN in its primary key."""

    __tablename__ = "odd"
    kind: Mapped[str] = mapped_column(Enum("portrait", "banner", name="odd_kind"), primary_key=True, sort_order=-3)
    weight: Mapped[float] = mapped_column(Float, primary_key=True, sort_order=-2)
    dark: Mapped[bool] = mapped_column(Boolean, primary_key=True, sort_order=-1)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)

    @property
    def object_id(self) -> int:
        return self.number * 4 + 2 * (self.kind == "banner") + self.dark


class OddNote(OddBase):
    """A class with an offloaded value, and an ENUM in its primary key."""

    __tablename__ = "odd_note"
    kind: Mapped[str] = mapped_column(Enum("portrait", "banner", name="note_kind"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[StoredText] = stored_text()


async def odd_rows(database: Database, count: int, *, revised: bool) -> tuple[Sessions, AgedStore]:
    """Commit four images and two notes per number, with their files."""
    aged = AgedStore()
    sessions = await started(database, OddBase.metadata, aged.store, expire_on_commit=False)
    rows = []
    for number in range(count):
        for kind in ("portrait", "banner"):
            for dark in (False, True):
                key = {"kind": kind, "dark": dark, "number": number, "weight": number / 7 + 0.1}
                revision = aged.picture(object_type="odd") if revised else None
                rows.append({**row(0, revision), **key})
                del rows[-1]["user_id"]
                if not revised:
                    name = ImageKey("odd", Odd(**key).object_id, 30, 20, "image/png")
                    aged.put(aged.store.legacy_name(name))
    async with sessions.begin() as session:
        await session.execute(insert(Odd.__table__), rows)
        session.add_all(
            OddNote(kind=kind, number=number, text=f"{kind} {number}")
            for number in range(count)
            for kind in ("portrait", "banner")
        )
    for name in aged.names:
        aged.put(name)
    return sessions, aged


@pytest.mark.parametrize("revised", [True, False])
async def test_odd_primary_keys(database: Database, revised: bool) -> None:
    """Every row is read once, for any columns in its primary key and any size of the pages."""
    sessions, aged = await odd_rows(database, 10, revised=revised)
    for kind in kinds(OddBase):
        total = await count(sessions, kind)
        for page in (1, 7):
            scan = references(sessions, kind, page=page)
            found = [one.identity async for one in scan]
            assert (len(found), len(set(found)), scan.missed) == (total, total, 0)
    assert (await verify(sessions, OddBase).execute()).counts["sound"] == len(aged.names) == 60
    assert (await sweep(sessions, OddBase, delete=True).execute()).counts["orphans"] == 0


@pytest.mark.thorough
@pytest.mark.parametrize("revised", [True, False])
async def test_odd_primary_keys_of_several_full_pages(database: Database, revised: bool) -> None:
    """Verification, sweep and migration process each row if there are more rows than fit into one page."""
    sessions, aged = await odd_rows(database, 300, revised=revised)
    destination = MemoryStore()
    progress = await verify(sessions, OddBase).execute()
    assert (progress.total, progress.done, progress.counts["sound"]) == (1800, 1800, 1800)
    assert (await sweep(sessions, OddBase, delete=True).execute()).counts["orphans"] == 0
    assert (await migrate(sessions, Odd, aged.store, destination).execute()).counts["copied"] == 1200
    assert len(await names_in(destination)) == 1200


async def test_an_incomplete_run_fails(mariadb: Database) -> None:
    """If the database sorts and compares differently, the missed rows are counted and the run fails."""

    class Own(DeclarativeBase):
        pass

    class Note(Own):
        __tablename__ = "note"
        kind: Mapped[str] = mapped_column(String(20), primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        text: Mapped[StoredText] = stored_text()

    await mariadb.create(Own.metadata)
    engine, store = mariadb.engine(), MemoryStore()
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE note MODIFY kind ENUM('portrait', 'banner') NOT NULL"))
    sessions = async_sessionmaker(engine)
    bind_store(sessions, store)
    async with sessions.begin() as session:
        session.add_all(Note(kind="portrait", number=number, text=f"portrait {number}") for number in range(1000))
        session.add_all(Note(kind="banner", number=number, text=f"banner {number}") for number in range(5))
    for plan in (verify(sessions, Own), migrate(sessions, Own, store, MemoryStore())):
        with pytest.raises(IncompleteError, match=r"5 of 1,005 rows were not read, although the database counts them"):
            await plan.execute()  # type: ignore[attr-defined]
        assert (plan.progress.done, plan.progress.missed, plan.progress.total) == (1000, 5, 1005)


async def test_keys_that_change_during_the_run(place: Place) -> None:
    """A photo that is moved to the front of its post during a migration is not missed."""
    aged, destination = AgedStore(), MemoryStore()
    rows = [photo(1, number, aged.picture(object_type="post-photo")) for number in range(1, 1101)]
    async with place.engine.begin() as connection:
        await connection.execute(insert(Post), [{"id": 1}])
        await connection.execute(insert(PostPhoto.__table__), rows)
    photos = PostPhoto.__table__
    plan = migrate(place.sessions, Base, aged.store, destination)
    async for _ in plan:
        if plan.progress.done == 500:  # when the first page of 1,000 rows was read
            async with place.engine.begin() as connection:
                await connection.execute(update(photos).where(photos.c.place == 1090).values(place=-1))
    assert (plan.progress.counts["copied"], plan.progress.done, plan.progress.total) == (1100, 1100, 1100)
    assert len(await names_in(destination)) == 1100


async def test_keys_of_legacy_rows_that_change_during_the_run(place: Place) -> None:
    """Rows without a revision are read by primary key, and missed ones are read at the end."""
    rows = [photo(number, number, None) for number in range(1, 61)]
    async with place.engine.begin() as connection:
        await connection.execute(insert(Post), [{"id": number} for number in range(-1, 61)])
        await connection.execute(insert(PostPhoto.__table__), rows)
    photos = PostPhoto.__table__
    [kind] = kinds(PostPhoto)
    scan = references(place.sessions, kind, page=20)
    seen: list[tuple[Any, ...]] = []
    async for reference in scan:
        seen.append(reference.identity)
        if len(seen) == 30:
            async with place.engine.begin() as connection:
                await connection.execute(update(photos).where(photos.c.post_id == 50).values(post_id=-1))
    assert (-1, 50, 30, 20, "") in seen
    assert (len(seen), len({one[1] for one in seen}), scan.rows, scan.missed) == (60, 60, 60, 0)


def photo(post: int, place: int, revision: str | None) -> dict[str, Any]:
    """Return the columns of a photo."""
    found = row(0, revision, post_id=post, place=place)
    del found["user_id"]
    return found


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 0, "height": 0, "mimetype": "image/svg+xml"},
        {"mimetype": "image/jpeg; charset=binary"},
        {"mimetype": ""},
    ],
)
async def test_a_row_without_a_valid_name(place: Place, bad: dict[str, Any]) -> None:
    """A row without a valid name is reported, other rows are processed, and legacy files are not removed."""
    await place.rows(12)
    async with place.engine.begin() as connection:
        await connection.execute(insert(User), [{"id": 77}])
        await connection.execute(insert(UserPicture.__table__), [row(77, None, **bad)])
    found = [one async for one in verify(place.sessions, Base)]
    assert [(one.problem, one.reference.identity[0]) for one in found] == [("unreadable", 77)]
    assert isinstance(found[0].error, InvalidKeyError)
    plan = migrate(place.sessions, Base, place.store, MemoryStore())
    with pytest.raises(ExceptionGroup):
        await plan.execute()
    assert (plan.progress.counts["copied"], plan.progress.failed) == (12, 1)
    assert (await sweep(place.sessions, Base, delete=True).execute()).counts["orphans"] == 0
    old = await place.name("user-picture/77/0/77.0x0.svg")
    with pytest.raises(RefusedError, match=r"the file of UserPicture \(77, .* cannot be distinguished from an"):
        await sweep(place.sessions, Base, delete=True, force=True).execute()
    assert old in await place.names()


async def test_a_class_that_was_removed(sqlite_database: Database) -> None:
    """Rows with the polymorphic identity of a removed class are reported, and other rows are processed."""

    class Own(DeclarativeBase):
        pass

    class Shot(Own, Image):
        __tablename__ = "shot"
        number: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(20))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shot"}  # type: ignore[misc]

    await sqlite_database.create(Own.metadata)
    aged, sessions = AgedStore(), async_sessionmaker(sqlite_database.engine())
    rows = []
    for number, kind in ((1, "shot"), (2, "removed")):
        one = {**row(0, aged.picture(object_type="shot")), "number": number, "kind": kind}
        del one["user_id"]
        rows.append(one)
    async with sessions.begin() as session:
        await session.execute(insert(Shot.__table__), rows)  # type: ignore[arg-type]
    found = [one async for one in verify(sessions, Own, aged.store)]
    assert [(one.problem, one.reference.identity[0]) for one in found] == [("unreadable", 2)]
    assert "expected a polymorphic identity of an imported class, got 'removed'" in str(found[0].error)
    assert (await sweep(sessions, Own, aged.store, delete=True).execute()).counts["orphans"] == 0


async def test_a_session_keeps_its_info(servers: Any, tmp_path: Path) -> None:
    """New sessions have the ``info`` of their template, by which a session may choose its database."""
    databases: dict[str, Database] = {name: servers.database("aiosqlite", tmp_path) for name in ("default", "acme")}
    engines = {name: database.engine() for name, database in databases.items()}

    class Tenant(Session):
        def get_bind(self, mapper: Any = None, **more: Any) -> Any:
            return engines[self.info.get("tenant", "default")].sync_engine

    stores = {name: AgedStore() for name in databases}
    await stores["default"].fill(engines["default"], 30)
    await stores["acme"].fill(engines["acme"], 3)
    sessions = async_sessionmaker(sync_session_class=Tenant)
    async with sessions(info={"tenant": "acme"}) as session:
        progress = await verify(session, Base, stores["acme"].store).execute()
        assert (progress.total, progress.counts["sound"]) == (3, 3)
        assert (await sweep(session, Base, stores["acme"].store, delete=True).execute()).counts["named"] == 3
    for database in databases.values():
        await database.aclose()
