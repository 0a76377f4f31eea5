"""Two processes serve declared thumbnails while images are replaced and deleted, and the processes are killed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach._declared.names import DerivedName
from aioimageattach._names import revision_of
from aioimageattach.store import KeyedStore
from tests.faults.kill.conftest import PLACES, MakePlaces
from tests.faults.kill.parent import Zygote
from tests.faults.kill.place import Place
from tests.faults.kill.thumbnails import Base, Given, Site, check_picture
from tests.faults.kill.worker import store_of
from tests.faults.rig import swept
from tests.faults.soak import ROUNDS
from tests.faults.stores import FaultyStore
from tests.faults.tally import Tally

STOPS = ["before put", "after put", "before delete", "after delete"]
USUAL = {
    ("sqlite directory", "before delete"),
    ("postgresql bucket", "after put"),
    ("postgresql bucket", "after delete"),
}


async def check_files(database: Any, store: KeyedStore) -> int:
    """Assert that each thumbnail file shows the image for which its name was issued; return their number.

    Names of images that were never committed were never issued.
    """
    count = 0
    async with AsyncSession(database.reader) as session:
        given = [*await session.scalars(select(Given))]
    async for info in store.list_objects("picture.t/"):
        name = DerivedName.parse(revision_of(info.name) or "")
        assert name is not None
        for one in given:
            if name.belongs_to(one.revision):
                async with await store.get_object(info.name) as file:
                    check_picture(await file.read(), name.name, name.framing.text, one)
                count += 1
    return count


async def check(place: Place) -> tuple[int, int]:
    """Assert the invariants after the processes have died; return the number of thumbnail files and of orphans."""
    await place.quiet()
    store = store_of(place.store)
    site = Site(async_sessionmaker(place.database.reader, expire_on_commit=False), store)
    try:
        files = await check_files(place.database, store)
        rows = await site.rows()
        orphans = 0
        for _ in ("before the sweep", "after it"):
            for row in rows:
                for name in ("card", "icon"):
                    for url in site.urls(row, name):
                        assert await site.view(row, name, url) == 200
            orphans += await swept(place.database, FaultyStore(store), Base)
        await site.server.aclose()
        revisions = [row.revision for row in rows]
        for left in await FaultyStore(store).names():
            stem = revision_of(left)
            found = DerivedName.parse(stem or "")
            assert stem in revisions or (found is not None and any(map(found.belongs_to, revisions))), left
    finally:
        await store.aclose()
    return files, orphans


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize(
    ("make_places", "step"),
    [
        pytest.param(place, step, marks=() if (place, step) in USUAL else pytest.mark.thorough)
        for place in PLACES
        for step in STOPS
    ],
    indirect=["make_places"],
)
async def test_servers_are_killed(make_places: MakePlaces, zygote: Zygote, tally: Tally, step: str, seed: int) -> None:
    """No URL ever returns another image, no attached image is missing, and a sweep removes all other files.

    One process is killed at a given step, the other at any time.
    """
    random = Random(f"{step} {seed}")
    [place] = make_places(1)
    await place.database.create(Base.metadata)
    zygote.fork(
        [
            place.spec("thumbnails", users=[1, 2], seed=random.random(), stop=(step, random.randint(5, 30))),
            place.spec("thumbnails", users=[3, 4], seed=random.random()),
        ]
    )
    zygote.wait(count=1)
    (end, note), (other_end, _) = zygote.kill()
    assert (end, note.step, other_end) == ("stopped", step, "busy")
    files, orphans = await check(place)
    tally.add("killed servers of thumbnails", 2, place=place.database.name)
    tally.add("files of thumbnails", files)
    tally.add("files of thumbnails without a row before the sweep", orphans)
