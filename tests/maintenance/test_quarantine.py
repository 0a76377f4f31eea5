"""Quarantine: a sweep can be undone until its files are deleted."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from aioimageattach.key import make_revision
from aioimageattach.maintenance import sweep, sweeps, undo
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore, MirrorStore
from aioimageattach.testing import FaultyStore
from tests.maintenance.conftest import DAY, AgedStore, Place, names_in
from tests.maintenance.models import Base


@pytest.mark.parametrize("combine", [False, True])
async def test_a_sweep_is_undone(place: Place, combine: bool) -> None:
    """Files get their names back in each store that had them."""
    await place.rows(12)
    stores: list[KeyedStore] = [place.store, *([MemoryStore()] if combine else [])]
    store = MirrorStore(*stores) if combine else place.store
    orphans = {place.store.name_of(await place.file(blob=b"%d" % number)) for number in range(3)}
    if combine:
        for name in await names_in(place.store):
            async with await place.store.get_object(name) as file:
                stores[1]._files[name] = (await file.read(), datetime.now(UTC) - timedelta(days=2))  # type: ignore[attr-defined]
    before = [await names_in(one) for one in stores]
    plan = sweep(place.sessions, Base, store, delete=True)
    assert {one.name async for one in plan} == orphans
    assert [await names_in(one) for one in stores] == [one - orphans for one in before]
    assert list(await sweeps(Base, store)) == [plan.id]
    restoring = undo(Base, store)
    progress = await restoring.execute()
    assert (progress.done, progress.counts["restored"]) == (3 * len(stores), 3 * len(stores))
    assert [await names_in(one) for one in stores] == before
    assert await sweeps(Base, store) == {}
    assert (await undo(Base, store).execute()).done == 0


async def test_quarantine_is_emptied(place: Place) -> None:
    """A sweep deletes quarantined files after the retention time, but no newer ones and no other files."""
    await place.rows(12)
    old = make_revision(time.time() - 31 * DAY)
    name = place.store.name_of(await place.file())
    await place.name(f".trash/{old}/{name}")
    await place.name(f".trash/{old}/other-type/x")
    await place.name(".trash/notes.txt")
    progress = await sweep(place.sessions, Base, delete=True).execute()
    assert (progress.counts["removed"], progress.counts["emptied"]) == (1, 1)
    (first, first_at), (_, second_at) = (await sweeps(Base, place.store)).items()
    assert first == old  # for the other object type
    assert second_at > first_at
    progress = await sweep(place.sessions, Base, delete=True, retention=timedelta(0)).execute()
    assert progress.counts["emptied"] == 1
    assert name not in await place.names()
    assert ".trash/notes.txt" in [info.name async for info in place.store.list_objects(".trash/")]


async def test_a_large_sweep_is_undone(place: Place) -> None:
    """Files are restored in batches; a file that could not be quarantined is reported and keeps its name."""
    aged = AgedStore()
    await aged.fill(place.engine, 12)
    names = aged.names
    for _ in range(1002):
        aged.picture()
    orphans = sorted(aged.names - names)
    store = FaultyStore(aged.store)
    store.fail("put", name=lambda name: name.endswith(orphans[4]))
    plan = sweep(place.sessions, Base, store, delete=True, force=True)
    failed = [one.name async for one in plan if one.error is not None]
    assert len(failed) == plan.progress.failed == 1
    store.heal()
    progress = await undo(Base, store).execute()
    assert (progress.done, progress.counts["restored"]) == (1001, 1001)
    assert sorted(aged.names - names) == orphans
