"""A DELETE or UPDATE that the session considers successful but that changed nothing keeps the file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from aioimageattach.exc import ImageAttachError
from tests.faults.database.changes import CHANGES
from tests.faults.models import User, UserPicture
from tests.faults.rig import Rig, StoredRig, check, get, swept


@pytest.fixture
def unconfirmed() -> Iterator[None]:
    """Accept SQLAlchemy's warning that a DELETE matched no row."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="DELETE statement on table")
        yield


async def check_after_a_sweep(rig: Rig, *expected: bytes) -> None:
    """Assert that rows have their files, and that one sweep removes all others."""
    await rig.check(*expected, orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(*expected)


# --- evaluated in Python ---------------------------------------------------------------------------------------------


async def test_a_bulk_delete_evaluated_on_an_unflushed_change(rig: Rig) -> None:
    """The condition holds for the object in memory, but not for the row."""
    await rig.user()
    async with rig.sessions() as session:
        user = await get(session)
        with session.no_autoflush:
            if isinstance(rig, StoredRig):
                user.name = "condemned"
                await session.execute(
                    delete(User).where(User.name == "condemned"), execution_options={"synchronize_session": "evaluate"}
                )
            else:
                user.picture.require_original().hidden = True
                await session.execute(
                    delete(UserPicture).where(UserPicture.hidden), execution_options={"synchronize_session": "evaluate"}
                )
        await session.commit()
    await check_after_a_sweep(rig, b"old")


async def test_a_bulk_delete_that_matches_a_stale_object(rig: Rig) -> None:
    """The file is kept if another session has changed the row."""
    await rig.user()
    async with rig.sessions() as session, session.begin():
        await session.execute(update(UserPicture).values(hidden=True))
    async with rig.sessions() as session:
        user = await get(session)
        await session.commit()
        async with rig.sessions() as other, other.begin():
            await other.execute(update(UserPicture).values(hidden=False))
            await other.execute(update(User).values(name="renamed"))
        if isinstance(rig, StoredRig):
            await session.execute(
                delete(User).where(User.name == "user 1"), execution_options={"synchronize_session": "evaluate"}
            )
        else:
            assert user.picture.require_original().hidden
            await session.execute(
                delete(UserPicture).where(UserPicture.hidden), execution_options={"synchronize_session": "evaluate"}
            )
        await session.commit()
    await check_after_a_sweep(rig, b"old")


async def test_a_bulk_delete_of_a_row_that_was_replaced_meanwhile(rig: Rig) -> None:
    """The deleted row references another file than the object: that file is left for the sweep."""
    await rig.user()
    async with rig.sessions() as session:
        await get(session)
        await session.commit()
        async with rig.sessions() as other, other.begin():
            await rig.replace(await get(other), b"new")
        await session.execute(
            delete(UserPicture if not isinstance(rig, StoredRig) else User).where(text("1 = 1")),
            execution_options={"synchronize_session": "fetch"},
        )
        await session.commit()
    await check_after_a_sweep(rig)


# --- a primary key that changes in the same flush --------------------------------------------------------------------


@pytest.mark.parametrize(
    "rig",
    [f"{one} {kind}" for one in ("aiosqlite", "asyncpg", "asyncmy") for kind in ("pictures", "values")],
    indirect=True,
)
@pytest.mark.parametrize(
    "what", ["remove", "replace", "replace by another size", "add a thumbnail", "delete the original"]
)
@pytest.mark.usefixtures("unconfirmed")
async def test_the_owners_key_changes_in_the_same_flush(rig: Rig, what: str) -> None:
    """ON UPDATE CASCADE moves the rows before they are deleted by their old keys."""
    await rig.user()
    expected: dict[str, set[bytes]] = {
        "replace": {b"new"},
        "replace by another size": {b"new"},
        "add a thumbnail": {b"old", b"small"},
    }
    try:
        async with rig.sessions() as session, session.begin():
            user = await get(session)
            if what == "remove":
                await rig.remove(user)
            elif what == "add a thumbnail":
                await rig.attach(user.picture, b"small", (3, 2), original=False)
            elif what == "delete the original" and not isinstance(rig, StoredRig):
                await session.delete(user.picture.require_original())
            elif what == "delete the original":
                user.body = None
            else:
                await rig.replace(user, b"new", (30, 20) if what == "replace" else (8, 8))
            user.id = 77
    except (SQLAlchemyError, ImageAttachError):
        await check_after_a_sweep(rig, b"old")
    else:
        await swept(rig.database, rig.store)
        contents = await check(rig.database, rig.store)
        assert expected.get(what, set()) <= contents <= expected.get(what, set()) | {b"old"}  # unless it was deleted
        async with rig.sessions() as session:
            assert await session.scalar(select(User.id)) == 77


# --- triggers and rules ----------------------------------------------------------------------------------------------


VETO = {
    "postgresql": (
        "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        'CREATE TRIGGER veto BEFORE DELETE ON "{table}" FOR EACH ROW EXECUTE FUNCTION veto()',
    ),
    "sqlite": ('CREATE TRIGGER veto BEFORE DELETE ON "{table}" BEGIN SELECT RAISE(IGNORE); END',),
}
RESTORE = {
    "postgresql": (
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.body = OLD.body; RETURN NEW; END'",
        'CREATE TRIGGER keep BEFORE UPDATE ON "user" FOR EACH ROW EXECUTE FUNCTION keep()',
    ),
    "sqlite": (
        "CREATE TRIGGER keep AFTER UPDATE OF body ON user WHEN NEW.body IS NOT OLD.body"
        " BEGIN UPDATE user SET body = OLD.body WHERE id = OLD.id; END",
    ),
    "mariadb": ("CREATE TRIGGER keep BEFORE UPDATE ON user FOR EACH ROW SET NEW.body = OLD.body",),
}
ONE_VETO = [f"{driver} {kind}" for driver in ("aiosqlite", "asyncpg", "psycopg") for kind in ("pictures", "values")]


async def execute(rig: Rig, statements: tuple[str, ...], **words: str) -> None:
    """Execute statements outside of any session."""
    async with rig.database.reader.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement.format(**words))


def table_of(rig: Rig) -> str:
    """The table whose rows reference the files."""
    return "user" if isinstance(rig, StoredRig) else "user_picture"


@pytest.mark.parametrize("rig", ONE_VETO, indirect=True)
@pytest.mark.parametrize("change", ["remove", "delete_owner"])
@pytest.mark.usefixtures("unconfirmed")
async def test_a_trigger_that_forbids_deletions(rig: Rig, change: str) -> None:
    """The row is kept without an error, and so is its file."""
    await rig.user()
    await execute(rig, VETO[rig.database.name], table=table_of(rig))
    try:
        async with rig.sessions() as session, session.begin():
            await CHANGES[change](rig, session)
    except SQLAlchemyError:  # SQLite still checks the foreign key of the kept row
        assert change == "delete_owner"
    expected = set() if isinstance(rig, StoredRig) and change == "remove" else {b"old"}
    await check_after_a_sweep(rig, *expected)


@pytest.mark.parametrize("rig", [one for one in ONE_VETO if "psycopg" in one or "asyncpg" in one], indirect=True)
@pytest.mark.usefixtures("unconfirmed")
async def test_a_rule_that_forbids_deletions(rig: Rig) -> None:
    """PostgreSQL replaces the statement by nothing."""
    await rig.user()
    await execute(rig, ('CREATE RULE veto AS ON DELETE TO "{table}" DO INSTEAD NOTHING',), table=table_of(rig))
    async with rig.sessions() as session, session.begin():
        user = await get(session)
        await session.delete(user if isinstance(rig, StoredRig) else user.picture.require_original())
    await check_after_a_sweep(rig, b"old")


@pytest.mark.parametrize("change", ["replace", "remove"])
async def test_a_trigger_that_keeps_the_old_value(value_rig: Rig, change: str) -> None:
    """The UPDATE matches its row, which is unchanged."""
    rig = value_rig
    await rig.user()
    await execute(rig, RESTORE[rig.database.name])
    async with rig.sessions() as session, session.begin():
        await CHANGES[change](rig, session)
    await check_after_a_sweep(rig, b"old")


async def test_a_trigger_that_keeps_deleted_rows_elsewhere(picture_rig: Rig) -> None:
    """A table without a mapped class is not queried: this is documented, and holds for the sweep as well."""
    rig = picture_rig
    await rig.user()
    async with rig.database.reader.begin() as connection:
        await archive(connection)
    async with rig.sessions() as session, session.begin():
        await rig.remove(await get(session))
    await rig.check()


async def archive(connection: AsyncConnection) -> None:
    """Make a table that the library does not know, with a row for the user's image."""
    await connection.exec_driver_sql("CREATE TABLE archive (revision VARCHAR(64))")
    await connection.exec_driver_sql("INSERT INTO archive SELECT revision FROM user_picture")
