"""Guarantees of sessions with a bucket while servers and networks fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pyvips
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach.context import store_context
from aioimageattach.exc import StoreError, StorePermissionError, StoreUnavailableError
from aioimageattach.stores.s3 import S3Store
from tests.databases import Database
from tests.entity.models import Base, User, UserPicture, started
from tests.servers.gate import Gate
from tests.servers.judge import Refusal
from tests.servers.proxy import Plan, Proxy
from tests.stores.s3.conftest import MakeStore

Sessions = async_sessionmaker[AsyncSession]


def png(width: int) -> bytes:
    """Return an image of noise, whose size in bytes is proportional to its area."""
    image = pyvips.Image.gaussnoise(width, 100, sigma=60, mean=128).cast("uchar")
    return bytes(image.write_to_buffer(".png"))


@pytest.fixture(scope="module")
def small() -> bytes:
    return png(20)


@pytest.fixture(scope="module")
def large() -> bytes:
    return png(4500)


@pytest.fixture
async def sessions(sqlite_database: Database) -> Sessions:
    """Sessions on SQLite."""
    return await started(sqlite_database, Base.metadata, expire_on_commit=False)


async def attach(sessions: Sessions, store: S3Store, blob: bytes, user: int = 1) -> None:
    """Attach an image to a user, and commit."""
    with store_context(store):
        async with sessions() as session:
            owner = await session.get(User, user) or User(id=user)
            session.add(owner)
            await owner.picture.from_blob(blob)
            await session.commit()


async def check(sessions: Sessions, store: S3Store, expected: dict[int, bytes]) -> None:
    """Assert that the rows and files are the expected ones, and that none lacks its counterpart."""
    async with sessions() as session:
        rows = {row.user_id: row for row in (await session.scalars(select(UserPicture))).all()}
        assert rows.keys() == expected.keys()
        for user, row in rows.items():
            async with await store.open(row) as file:
                assert await file.read() == expected[user]
        names = {store.name_of(row.key) for row in rows.values()}
    assert {found.name async for found in store.list_objects()} == names
    assert [one async for one in store.client.list_uploads()] == []


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (502, ""), (503, "SlowDown")])
async def test_a_server_that_recovers(
    gate: Gate, s3_store: S3Store, sessions: Sessions, small: bytes, status: int, code: str
) -> None:
    """The commit succeeds after the server recovers."""
    gate.fail(3, status, code, method="PUT")
    await attach(sessions, s3_store, small)
    assert [request.status for request in gate.log] == [status] * 3 + [200]
    await check(sessions, s3_store, {1: small})


async def test_a_server_that_does_not_recover(
    gate: Gate, make_store: MakeStore, sessions: Sessions, small: bytes
) -> None:
    """The flush fails, the old image is unchanged, no file is left, and the flush can be repeated later."""
    store = make_store(gate.url, max_retry=1)
    await attach(sessions, store, small)
    gate.fail(2, 503, "SlowDown", method="PUT")
    with pytest.raises(StoreUnavailableError) as caught:
        await attach(sessions, store, small + b" ")
    assert caught.value.attempts == 2
    await check(sessions, store, {1: small})
    await attach(sessions, store, small + b" ")
    await check(sessions, store, {1: small + b" "})


@pytest.mark.parametrize("at", [1, 200, 400, 10_000, 200_000, 400_000])
async def test_a_connection_that_breaks_during_the_request(
    gate: Gate, make_store: MakeStore, sessions: Sessions, large: bytes, at: int
) -> None:
    """A break after any byte of the request is retried, and the object exists once."""
    assert len(large) > 400_000
    async with Proxy(gate.port, [Plan(reset_up_after=at)]) as proxy:
        store = make_store(proxy.url)
        await attach(sessions, store, large)
        assert len(proxy.connections) > 1
        await check(sessions, store, {1: large})
        await store.aclose()


@pytest.mark.parametrize("at", [1, 15, 60])
@pytest.mark.parametrize("kind", ["reset_down_after", "close_down_after"])
async def test_a_connection_that_breaks_during_the_response(
    gate: Gate, make_store: MakeStore, sessions: Sessions, large: bytes, at: int, kind: str
) -> None:
    """The second attempt recognises the existing object as its own."""
    async with Proxy(gate.port, [Plan(**{kind: at})]) as proxy:
        store = make_store(proxy.url)
        await attach(sessions, store, large)
        assert [request.status for request in gate.log] == [200, 412, 200]
        await check(sessions, store, {1: large})
        await store.aclose()


async def test_a_network_that_drops_responses(
    gate: Gate, make_store: MakeStore, sessions: Sessions, small: bytes
) -> None:
    """The flush fails within the timeout, and objects that the server created nevertheless are deleted."""
    plans = [Plan(silent_down=True), Plan(silent_down=True)]
    async with Proxy(gate.port, plans) as proxy:
        store = make_store(proxy.url, max_retry=1, read_timeout=0.3)
        with pytest.raises(StoreUnavailableError, match="in time in 2 attempts"):
            await attach(sessions, store, small)
        assert [request.asked.method for request in gate.log][:4] == ["PUT", "PUT", "HEAD", "DELETE"]
        await check(sessions, store, {})
        await store.aclose()


async def test_a_server_that_stops_reading(gate: Gate, make_store: MakeStore, sessions: Sessions, large: bytes) -> None:
    """An upload that makes no progress is retried."""
    async with Proxy(gate.port, [Plan(stall_up_after=100_000)]) as proxy:
        store = make_store(proxy.url, read_timeout=0.5, multipart_threshold=10**9)
        blob = large * 20
        await store.put_object("a", blob)
        assert (await store.head_object("a")).size == len(blob)
        await store.aclose()


@pytest.mark.parametrize("at", [300, 5_000, 100_000, 390_000])
async def test_a_truncated_response(
    gate: Gate, make_store: MakeStore, sessions: Sessions, large: bytes, at: int
) -> None:
    """Reading resumes after the last byte received."""
    await attach(sessions, make_store(gate.url), large)
    for kind in ("reset_down_after", "close_down_after"):
        async with Proxy(gate.port, [Plan(**{kind: at})]) as proxy:
            store = make_store(proxy.url)
            with gate.noting() as requests:
                await check(sessions, store, {1: large})
            gets = [one.asked.headers.get("range") for one in requests if one.asked.key]
            assert gets[0] is None
            assert len(gets) == 2
            await store.aclose()


async def test_wrong_keys(gate: Gate, make_store: MakeStore, sessions: Sessions, small: bytes) -> None:
    """The flush fails with the server's message, no file is left, and no secret is revealed."""
    store = make_store(gate.url, secret_key="canary-of-a-secret")
    with pytest.raises(StorePermissionError, match=r"SignatureDoesNotMatch.*secret_key") as caught:
        await attach(sessions, store, small)
    assert "canary" not in str(caught.value)
    await check(sessions, make_store(gate.url), {})


async def test_a_failed_multipart_upload(gate: Gate, make_store: MakeStore, sessions: Sessions, large: bytes) -> None:
    """No object and no part is left; parts of killed processes are aborted later."""
    store = make_store(gate.url, multipart_threshold=100_000, part_size=100_000)
    gate.before.append(lambda asked: Refusal(403, "AccessDenied") if "partNumber=3" in asked.target else None)
    with pytest.raises(StoreError, match="part 3"):
        await attach(sessions, store, large)
    await check(sessions, store, {})
    gate.before.clear()
    await attach(sessions, store, large)
    await check(sessions, store, {1: large})


async def test_a_commit_that_is_cancelled(gate: Gate, make_store: MakeStore, sessions: Sessions, small: bytes) -> None:
    """A commit that is cancelled during the upload leaves neither the row nor the file."""
    store = make_store(gate.url)
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    async def slow(asked: Any, found: Any) -> Any:
        if asked.method == "PUT":
            loop.call_soon_threadsafe(reached.set)
            await asyncio.sleep(0.2)
        return found

    gate.after.append(slow)
    task = asyncio.create_task(attach(sessions, store, small))
    await asyncio.wait_for(reached.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.after.clear()
    await check(sessions, store, {})


async def test_a_delete_that_fails_does_not_fail_the_commit(
    gate: Gate, make_store: MakeStore, sessions: Sessions, small: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The replaced file is left to a sweep, and the log states this."""
    store = make_store(gate.url, max_retry=1)
    await attach(sessions, store, small)
    gate.fail(2, 503, "SlowDown", method="DELETE")
    await attach(sessions, store, small + b" ")
    assert "could not delete" in caplog.text
    async with sessions() as session:
        row = (await session.scalars(select(UserPicture))).one()
        async with await store.open(row) as file:
            assert await file.read() == small + b" "
    assert len([found async for found in store.list_objects()]) == 2
