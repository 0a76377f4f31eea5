"""Clients that disconnect, and servers that are stopped, during an upload or a background task."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.kill.conftest import MakePlaces
from tests.faults.kill.parent import Zygote
from tests.faults.kill.place import Place
from tests.faults.tally import Tally
from tests.servers.ministack import BIND, free_port


class Site:
    """A server process, and clients of it.

    Args:
        place: The database and the store.
        zygote: The process that it was forked from.
        port: The port that it listens on.
    """

    def __init__(self, place: Place, zygote: Zygote, port: int) -> None:
        self.place = place
        self._zygote = zygote
        self._port = port
        self._reached = Path(place.photo).parent / "reached"
        self._writers: list[asyncio.StreamWriter] = []

    async def post(self, path: str, body: bytes = b"", missing: int = 0) -> asyncio.StreamReader:
        """Send a request without the last bytes of its announced body."""
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    reader, writer = await asyncio.open_connection(BIND, self._port)
                    break
                await asyncio.sleep(0.01)
        self._writers.append(writer)
        lines = [f"POST {path} HTTP/1.1", "host: test", f"content-length: {len(body) + missing}", "connection: close"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        return reader

    async def answered(self, path: str, body: bytes = b"") -> bytes:
        """Send a request, and return the response."""
        answer = await (await self.post(path, body)).read()
        self._reached.unlink(missing_ok=True)
        return answer

    async def on_its_way(self) -> None:
        """Wait until a file is being put."""
        async with asyncio.timeout(20):
            while not self._reached.exists():
                await asyncio.sleep(0.005)

    def leave(self) -> None:
        """Reset the last connection."""
        self._writers[-1].transport.abort()

    async def aclose(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def end(self) -> str:
        """Stop the server, and return how it exited."""
        self._zygote.signal(signal.SIGTERM)
        self._zygote.wait(20)
        [(end, _)] = self._zygote.kill()
        return end


@pytest.fixture(params=["uvicorn", "hypercorn"])
async def site(request: pytest.FixtureRequest, make_directories: MakePlaces, zygote: Zygote) -> AsyncIterator[Site]:
    """A site on which one user already has an image."""
    pytest.importorskip(request.param)
    [place] = make_directories(1)
    await place.create()
    port = free_port()
    zygote.fork([place.spec("server", server=request.param, port=port)])
    site = Site(place, zygote, port)
    assert b"stored" in await site.answered("/pictures/1", b"old")
    yield site
    await site.aclose()


async def test_a_client_that_leaves_in_the_middle_of_its_upload(site: Site, zygote: Zygote, tally: Tally) -> None:
    """Nothing is stored, and the old image is unchanged."""
    await site.post("/pictures/1", bytes(100_000), missing=1000)
    site.leave()
    await site.answered("/pictures/2", b"other")
    site.end()
    assert await site.place.check(zygote, {}) == (2, 0)
    tally.add("clients that left", kind="in their upload")


async def test_a_client_that_leaves_before_its_answer(site: Site, zygote: Zygote, tally: Tally) -> None:
    """If the server completes the handler, the image is stored; if it cancels the handler, it is not."""
    await site.post("/pictures/1", b"new")
    await site.on_its_way()
    site.leave()
    site.end()
    assert await site.place.check(zygote, {}) == (1, 0)
    tally.add("clients that left", kind="before their answer")


@pytest.mark.parametrize("path", ["/pictures/1", "/thumbnails/1"])
async def test_a_server_that_is_told_to_end(site: Site, zygote: Zygote, path: str, tally: Tally) -> None:
    """A file that a handler or background task is putting is stored completely with its row, or not at all."""
    await site.post(path, b"new" if path.startswith("/pictures") else b"")
    await site.on_its_way()
    site.end()
    files, orphans = await site.place.check(zygote, {})
    assert files in (1, 2)
    assert not orphans
    tally.add("servers told to end", kind=path.split("/")[1])
