"""Sweep and verification of a bucket: prefixes, multipart uploads, and rejected requests."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from sqlalchemy import update

from aioimageattach.exc import StorePermissionError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.maintenance import sweep, verify
from tests.maintenance.conftest import DAY, Place, names_in
from tests.maintenance.models import Base, UserPicture
from tests.servers.gate import Gate, Refusal
from tests.stores.s3.conftest import MakeStore


def key() -> ImageKey:
    """Return the key of a file whose name is two days old."""
    return ImageKey("user-picture", None, 30, 20, "image/jpeg", make_revision(time.time() - 2 * DAY))


async def test_a_sweep_of_a_bucket(place: Place, gate: Gate, make_store: MakeStore) -> None:
    """Orphans and unfinished multipart uploads are removed, but not those below another prefix."""
    store, other = (make_store(gate.url, prefix=prefix, multipart_threshold=1_000_000) for prefix in ("app", "app-2"))
    kept, orphans = [key() for _ in range(3)], [key() for _ in range(40)]
    for one in kept:
        await place.row(one)
    await asyncio.gather(*(store.put_object(store.name_of(one), b"x") for one in [*kept, *orphans]))
    await other.put_object(store.name_of(orphans[0]), b"other")
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if "uploadId" in asked.target else None)
    for prefixed in (store, other):
        with pytest.raises(StorePermissionError):  # the upload can be neither continued nor aborted
            await prefixed.put_object(store.name_of(key()), bytes(6_000_000))
    gate.before.clear()

    assert (await sweep(place.sessions, UserPicture, store).execute()).counts[
        "young"
    ] == 43  # according to the store's clock
    now = timedelta(0)
    progress = await sweep(place.sessions, UserPicture, store, grace=now, delete=True, force=True).execute()
    assert (progress.counts["named"], progress.counts["removed"], progress.failed, progress.counts["unfinished"]) == (
        3,
        40,
        0,
        1,
    )
    assert await names_in(store) == {store.name_of(one) for one in kept}
    assert [one.name async for one in other.list_objects()] == [store.name_of(orphans[0])]
    assert len([one async for one in other.client.list_uploads()]) == 1


async def test_a_verification_of_a_bucket(place: Place, gate: Gate, make_store: MakeStore) -> None:
    """Missing files and wrong sizes are reported, and a rejected request is not reported as a missing file."""
    store = make_store(gate.url)
    kept = [key() for _ in range(4)]
    for one in kept:
        await place.row(one, byte_size=4)
        await store.put_object(store.name_of(one), b"blob")
    await store.delete_object(store.name_of(kept[1]))
    async with place.sessions.begin() as session:
        await session.execute(
            update(UserPicture.__table__).where(UserPicture.__table__.c.user_id == 3).values(byte_size=5)
        )
    refused = store.name_of(kept[3])
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if refused in asked.target else None)
    found = {one.reference.identity[0]: one.problem async for one in verify(place.sessions, Base, store)}
    assert found == {2: "missing", 3: "size", 4: "unreadable"}
