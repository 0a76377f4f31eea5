"""``assert_consistent``: each row has its file, and each file has its row."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import delete, select, text

from aioimageattach.exc import DeclarationError
from aioimageattach.testing import assert_consistent
from tests.databases import Database
from tests.maintenance.conftest import Place, place_of
from tests.maintenance.models import Base, User, UserPicture
from tests.stores.plain import PlainStore


@pytest.fixture
async def place(sqlite_database: Database, tmp_path: Path) -> Place:
    """SQLite, a directory, and two users with images."""
    place = await place_of(sqlite_database, tmp_path / "media")
    async with place.sessions.begin() as session:
        for number in (1, 2):
            session.add(user := User(id=number))
            await user.picture.from_raw_file(b"blob", size=(3, 2), mimetype="image/png")
    return place


async def test_consistent_data(place: Place) -> None:
    """The assertion passes for consistent data, and ignores files of other object types."""
    await place.name("elsewhere/file.txt")
    await assert_consistent(place.sessions, Base)
    async with place.sessions() as session:
        await assert_consistent(session, UserPicture, place.store)


async def test_inconsistent_data(place: Place) -> None:
    """The error names each inconsistent row and file."""
    async with place.sessions() as session:  # names made in the same millisecond have no defined order
        rows = (await session.scalars(select(UserPicture).order_by(UserPicture.user_id))).all()
    lost, altered = (place.store.name_of(row.key) for row in rows)
    Path(place.store.path, lost).unlink()
    Path(place.store.path, altered).write_bytes(b"flip")
    orphan = place.store.name_of(await place.file())
    with pytest.raises(AssertionError) as caught:
        await assert_consistent(place.sessions, Base)
    first, *problems = str(caught.value).splitlines()
    assert first == f"3 problems in {place.store!r}:"
    assert sorted(problems) == [
        f"UserPicture (1, 3, 2, ''): missing: {lost}",
        f"UserPicture (2, 3, 2, ''): checksum: {altered}",
        f"no row refers to {orphan}",
    ]


async def test_orphans_without_any_rows(place: Place) -> None:
    """Orphaned files are found even if no rows are left."""
    async with place.sessions.begin() as session:
        await session.execute(delete(UserPicture))
    with pytest.raises(AssertionError, match="2 problems"):
        await assert_consistent(place.sessions, Base)


async def test_a_row_with_a_damaged_reference(place: Place) -> None:
    """A row from which no file name can be derived is reported with the reason, and its file is orphaned."""
    async with place.sessions.begin() as session:
        await session.execute(text("UPDATE user_picture SET mimetype = 'no type' WHERE user_id = 1"))
    with pytest.raises(AssertionError, match="2 problems") as caught:
        await assert_consistent(place.sessions, Base)
    assert "UserPicture (1, 3, 2, ''): " in str(caught.value)
    assert "got 'no type'" in str(caught.value)
    assert "no row refers to user-picture/" in str(caught.value)


async def test_a_store_without_names(place: Place) -> None:
    """A store that is not a ``KeyedStore`` is rejected."""
    with pytest.raises(DeclarationError, match="assert_consistent: expected a KeyedStore"):
        await assert_consistent(place.sessions, Base, PlainStore())
