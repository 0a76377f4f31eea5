"""Connections of buckets that are combined."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from aioimageattach.context import current_store, store_context
from aioimageattach.exc import StoreError
from aioimageattach.key import ImageKey
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore, MirrorStore, OverlayStore, RoutingStore, SplitStore
from aioimageattach.stores.s3 import Credentials, S3SandboxStore, S3Store
from aioimageattach.testing import FaultyStore
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.stores.s3.conftest import BUCKET, REGION
from tests.stores.s3.test_client import connections_to

COMBINATIONS: dict[str, Callable[[S3Store, S3Store], Store]] = {
    "faulty": lambda one, other: MirrorStore(FaultyStore(one), FaultyStore(other)),
    "mirror": MirrorStore,
    "nested": lambda one, other: MirrorStore(
        MemoryStore(), RoutingStore({"a": one}, OverlayStore(other, MemoryStore()))
    ),
    "overlay": OverlayStore,
    "plain faulty": lambda one, other: MirrorStore.plain(FaultyStore.plain(one), other),
    "plain mirror": MirrorStore.plain,
    "plain overlay": OverlayStore.plain,
    "plain routing": lambda one, other: RoutingStore.plain({"a": one}, other),
    "routing": lambda one, other: RoutingStore({"a": one}, other),
    "sandbox": S3SandboxStore,
    "split": SplitStore,
}


@pytest.fixture
def buckets(gate: Gate) -> tuple[S3Store, S3Store]:
    """Two stores that are not closed by the fixture."""
    gate.backend.create_bucket("other", REGION)
    return tuple(  # type: ignore[return-value]
        S3Store(name, ACCESS_KEY, SECRET_KEY, endpoint_url=gate.url, region=REGION) for name in (BUCKET, "other")
    )


async def use(*stores: Store) -> None:
    """Let each store open a connection."""
    for store in stores:
        key = ImageKey("a", 1, 30, 20, "image/png", store.make_revision())
        await store.put(key, b"blob", reproducible=False)
        await store.discard(key)


@pytest.mark.parametrize("combine", COMBINATIONS.values(), ids=COMBINATIONS)
async def test_leaving_a_combined_store_closes_its_buckets(
    gate: Gate, buckets: tuple[S3Store, S3Store], combine: Callable[[S3Store, S3Store], Store]
) -> None:
    """No connection is left when ``async with`` ends, nor after ``aclose()``, and the stores can be used again."""
    async with combine(*buckets) as store:
        await use(store, *buckets)
        assert connections_to(gate.port) >= 2
    assert connections_to(gate.port) == 0
    await use(*buckets)
    with store_context(store):
        await current_store.aclose()
    assert connections_to(gate.port) == 0
    await store.aclose()
    del store, buckets
    gc.collect()  # a store with connections would emit a ResourceWarning


@pytest.mark.parametrize("combine", COMBINATIONS.values(), ids=COMBINATIONS)
async def test_connecting_a_combined_store_connects_its_buckets(
    gate: Gate, combine: Callable[[S3Store, S3Store], Store]
) -> None:
    """Signed URLs need the credentials of each bucket, which are fetched only then."""

    async def provide() -> Credentials:
        return Credentials(ACCESS_KEY, SECRET_KEY)

    one, other = (
        S3Store(name, credentials=provide, endpoint_url=gate.url, region=REGION, url_expires_in=60)
        for name in (BUCKET, "other")
    )
    async with combine(one, other) as store:
        for bucket in one, other:
            with pytest.raises(StoreError, match="connect"):
                bucket.url_of("a")
        with store_context(store):
            await current_store.connect()
        for bucket in one, other:
            assert bucket.url_of("a")
