"""Deferred deletion: replaced and deleted files are kept until the sweep."""

from __future__ import annotations

from datetime import timedelta

from aioimageattach import store_context
from aioimageattach.maintenance import defer_deletion, sweep
from tests.databases import Database
from tests.faults.conftest import rig_of
from tests.faults.models import Base
from tests.faults.rig import Rig, get


async def deferring(database: Database) -> Rig:
    """A database and a store with deferred deletion, and the images of two users."""
    rig = await rig_of(database)
    defer_deletion(rig.sessions)
    await rig.user(1)
    await rig.user(2, b"two")
    return rig


async def test_replaced_and_deleted_files_stay(database: Database) -> None:
    """Restored rows have their files until a sweep without quarantine deletes them."""
    rig = await deferring(database)
    async with rig.sessions() as session, session.begin():
        await rig.attach((await get(session, 1)).picture, b"new")
        with store_context(rig.store):
            await (await get(session, 2)).picture.delete()
            await session.flush()
    assert len(await rig.store.names()) == 3
    await rig.check(b"new", orphans=True)
    plan = sweep(rig.sessions, Base, rig.store, grace=timedelta(0), delete=True, force=True, permanently=True)
    await plan.execute()
    await rig.check(b"new")


async def test_rolled_back_uploads_are_deleted_immediately(database: Database) -> None:
    """Rolled back uploads are deleted immediately, because no row can reappear for them."""
    rig = await deferring(database)
    async with rig.sessions() as session:
        await rig.attach((await get(session, 1)).picture, b"new")
        await session.flush()
        await session.rollback()
    await rig.check(b"old", b"two")


async def test_immediate_deletion_in_one_session(database: Database) -> None:
    """A session without deferral deletes files immediately, as for a purge that frees space."""
    rig = await deferring(database)
    async with rig.sessions() as session, session.begin():
        defer_deletion(session, False)
        await rig.attach((await get(session, 1)).picture, b"new")
    await rig.check(b"new", b"two")
