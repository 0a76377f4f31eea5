"""Deferred deletion: rows of a restored backup, or of a promoted replica, still have their files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aioimageattach.maintenance import defer_deletion
from tests.databases import Servers
from tests.faults.database.changes import CHANGES, left_by
from tests.faults.database.conftest import KINDS, bound_rig
from tests.faults.rig import Rig, get, swept


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_backup_is_restored(servers: Servers, tmp_path: Path, kind: str, change: str) -> None:
    """The restored rows have their files, which were not deleted; later files are left for the sweep."""
    rig = await bound_rig(servers, tmp_path, "aiosqlite", KINDS[kind])
    defer_deletion(rig.sessions)
    await rig.user()
    assert rig.database.url.database is not None
    shutil.copy(rig.database.url.database, tmp_path / "backup")
    async with rig.sessions() as session, session.begin():
        await CHANGES[change](rig, session)
    await rig.check(*left_by(CHANGES[change]), orphans=True)
    await rig.engine.dispose()
    await rig.database.reader.dispose()
    shutil.copy(tmp_path / "backup", rig.database.url.database)
    await rig.check(b"old", orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(b"old")
    await rig.database.aclose()


async def test_deferred_files_are_swept(rig: Rig) -> None:
    """After two replacements and a rollback, one sweep removes the files that no row references."""
    defer_deletion(rig.sessions)
    await rig.user()
    async with rig.sessions() as session:
        await rig.replace(await get(session), b"second")
        await session.commit()
        await rig.replace(await get(session), b"third")
        await session.flush()
        await session.rollback()
    await rig.check(b"second", orphans=True)
    await swept(rig.database, rig.store)
    await rig.check(b"second")
