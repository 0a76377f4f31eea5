"""S3 clients, each in a separate process: ``python -m tests.bench.s3_peers NAME URL``.

Each line of JSON on standard input requests a measurement, see :func:`main`; each line of output contains its result.
All clients put an object with one request, read an object completely into memory, and exclude bodies from signatures
where possible, as over TLS. Other options have their defaults.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import io
import itertools
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .measure import Timer

__all__ = ["PEERS"]

BUCKET = "pictures"
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"
AT_ONCE = 64
HUGE = 2**40
TICK = 0.001


@dataclass(frozen=True)
class Peer:
    """The operations of a client.

    Args:
        put: Puts a name with bytes or an open file.
        get: Gets a name; returns the number of bytes.
        url: Signs the URL of a name, if the client can do so without I/O.
    """

    put: Callable[[str, bytes | BinaryIO], Awaitable[object]]
    get: Callable[[str], Awaitable[int]]
    url: Callable[[str], str] | None = None


@asynccontextmanager
async def _ours(endpoint: str, **options: Any) -> AsyncIterator[Peer]:
    from aioimageattach.stores.s3 import S3Store

    options = {"sign_payload": False, "url_expires_in": 3600, "multipart_threshold": HUGE, **options}
    async with S3Store(BUCKET, ACCESS_KEY, SECRET_KEY, region=REGION, endpoint_url=endpoint, **options) as store:

        async def put(name: str, body: bytes | BinaryIO) -> None:
            await store.put_object(name, body, mimetype="image/jpeg")

        async def get(name: str) -> int:
            async with await store.get_object(name) as file:
                return len(await file.read())

        yield Peer(put, get, store.url_of)


@asynccontextmanager
async def _ours_public(endpoint: str) -> AsyncIterator[Peer]:
    async with _ours(endpoint, url_expires_in=None) as peer:
        yield peer


@asynccontextmanager
async def _ours_signed(endpoint: str) -> AsyncIterator[Peer]:
    async with _ours(endpoint, sign_payload=True) as peer:
        yield peer


@asynccontextmanager
async def _ours_parts(endpoint: str) -> AsyncIterator[Peer]:
    async with _ours(endpoint, multipart_threshold=16 * 2**20) as peer:
        yield peer


@asynccontextmanager
async def _raw(endpoint: str) -> AsyncIterator[Peer]:
    """Yield a peer without signatures, retries and errors: the minimum that any client based on aiohttp costs."""
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def put(name: str, body: bytes | BinaryIO) -> None:
            # aiohttp emits a warning for bytes beyond 1 MiB, and streams a file
            data = io.BytesIO(body) if isinstance(body, bytes) and len(body) > 2**20 else body
            headers = {"Content-Type": "image/jpeg"}
            async with session.put(f"{endpoint}/{BUCKET}/{name}", data=data, headers=headers) as answer:
                answer.raise_for_status()
                await answer.read()

        async def get(name: str) -> int:
            async with session.get(f"{endpoint}/{BUCKET}/{name}") as answer:
                answer.raise_for_status()
                return len(await answer.read())

        yield Peer(put, get)


@asynccontextmanager
async def _obstore(endpoint: str) -> AsyncIterator[Peer]:
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=endpoint,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        region=REGION,
        unsigned_payload=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def put(name: str, body: bytes | BinaryIO) -> None:
        await obstore.put_async(store, name, body, attributes={"Content-Type": "image/jpeg"}, use_multipart=False)

    async def get(name: str) -> int:
        return len(await (await obstore.get_async(store, name)).bytes_async())

    yield Peer(put, get)


@asynccontextmanager
async def _aiobotocore(endpoint: str) -> AsyncIterator[Peer]:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    config = AioConfig(max_pool_connections=AT_ONCE, s3={"payload_signing_enabled": False})
    async with get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=config,
    ) as client:

        async def put(name: str, body: bytes | BinaryIO) -> None:
            await client.put_object(Bucket=BUCKET, Key=name, Body=body, ContentType="image/jpeg")

        async def get(name: str) -> int:
            async with (await client.get_object(Bucket=BUCKET, Key=name))["Body"] as stream:
                return len(await stream.read())

        yield Peer(put, get)


@asynccontextmanager
async def _aiohttp_s3_client(endpoint: str) -> AsyncIterator[Peer]:
    import aiohttp
    from aiohttp_s3_client import S3Client

    async with aiohttp.ClientSession() as session:
        client = S3Client(session, endpoint, access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY, region=REGION)

        async def put(name: str, body: bytes | BinaryIO) -> None:
            path = f"{BUCKET}/{name}"
            headers = {"Content-Type": "image/jpeg"}
            if isinstance(body, bytes):
                answer = await client.put(path, body, headers=headers)
            else:
                answer = await client.put_file(path, body.name, headers=headers)
            async with answer:
                answer.raise_for_status()
                await answer.read()

        async def get(name: str) -> int:
            async with client.get(f"{BUCKET}/{name}") as answer:
                answer.raise_for_status()
                return len(await answer.read())

        yield Peer(put, get)


@asynccontextmanager
async def _miniopy(endpoint: str) -> AsyncIterator[Peer]:
    from miniopy_async import Minio

    client = Minio(
        endpoint.removeprefix("http://"), access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False, region=REGION
    )
    try:

        async def put(name: str, body: bytes | BinaryIO) -> None:
            size = len(body) if isinstance(body, bytes) else os.fstat(body.fileno()).st_size
            data = io.BytesIO(body) if isinstance(body, bytes) else body
            await client.put_object(BUCKET, name, data, size, content_type="image/jpeg", part_size=32 * 2**20)

        async def get(name: str) -> int:
            async with await client.get_object(BUCKET, name) as answer:
                return len(await answer.read())

        yield Peer(put, get)
    finally:
        await client.close_session()


@asynccontextmanager
async def _boto3(endpoint: str) -> AsyncIterator[Peer]:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(max_pool_connections=AT_ONCE, s3={"payload_signing_enabled": False}, signature_version="s3v4"),
    )
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(AT_ONCE) as threads:

        def put_now(name: str, body: bytes | BinaryIO) -> None:
            client.put_object(Bucket=BUCKET, Key=name, Body=body, ContentType="image/jpeg")

        def get_now(name: str) -> int:
            return len(client.get_object(Bucket=BUCKET, Key=name)["Body"].read())

        async def put(name: str, body: bytes | BinaryIO) -> None:
            await loop.run_in_executor(threads, put_now, name, body)

        async def get(name: str) -> int:
            return await loop.run_in_executor(threads, get_now, name)

        def url(name: str) -> str:
            params = {"Bucket": BUCKET, "Key": name}
            return str(client.generate_presigned_url("get_object", Params=params, ExpiresIn=3600))

        yield Peer(put, get, url)
    client.close()


PEERS = {
    "aiohttp": (_raw, ("aiohttp",)),
    "aioimageattach": (_ours, ("aioimageattach", "aiohttp")),
    "aioimageattach, signed bodies": (_ours_signed, ("aioimageattach", "aiohttp")),
    "aioimageattach, in parts": (_ours_parts, ("aioimageattach", "aiohttp")),
    "aioimageattach, public": (_ours_public, ("aioimageattach", "aiohttp")),
    "obstore": (_obstore, ("obstore",)),
    "aiohttp-s3-client": (_aiohttp_s3_client, ("aiohttp-s3-client", "aiohttp")),
    "miniopy-async": (_miniopy, ("miniopy-async", "aiohttp")),
    "aiobotocore": (_aiobotocore, ("aiobotocore", "botocore", "aiohttp")),
    "boto3": (_boto3, ("boto3", "botocore")),
}
"""The clients by name, with the packages whose versions are reported."""


def _memory(what: str) -> float:
    """Return memory in megabytes: the peak (``VmHWM``) or the current value (``VmRSS``)."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


async def _ticker(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(TICK)
        late.append(1e3 * (time.perf_counter() - began - TICK))


async def _all(peer: Peer, task: dict[str, Any], body: bytes | Path, numbers: Iterator[int]) -> None:
    size, operation = task["size"], task["operation"]
    mine = itertools.islice(numbers, task["count"])

    async def work() -> None:
        for number in mine:
            # as many names as images, so that no client profits from its cache
            name = f"user-picture/{number:08x}/{number * 2654435761 % 2**32:08x}.jpg/{size}"
            if operation == "get":
                if await peer.get(name) != size:
                    raise RuntimeError("the body is not whole")
            elif isinstance(body, Path):
                with body.open("rb") as file:
                    await peer.put(name, file)
            else:
                await peer.put(name, body)

    await asyncio.gather(*(work() for _ in range(task["concurrency"])))


def _urls(peer: Peer, count: int, numbers: Iterator[int]) -> None:
    if peer.url is None:
        raise RuntimeError("its URLs are no calculation")
    for number in itertools.islice(numbers, count):
        peer.url(f"user-picture/{number:08x}/{number * 2654435761 % 2**32:08x}.jpg")


async def _measured(peer: Peer, task: dict[str, Any], numbers: Iterator[int]) -> dict[str, float]:
    body = Path(task["file"]) if "file" in task else os.urandom(task["size"])
    late: list[float] = []
    ticker = asyncio.create_task(_ticker(late)) if task.get("lag") else None
    before = _memory("VmRSS")
    with Timer() as timer:
        if task["operation"] == "url":
            _urls(peer, task["count"], numbers)
        else:
            await _all(peer, task, body, numbers)
    answer = {"cpu": timer.sample.cpu, "wall": timer.sample.wall, "before": before, "peak": _memory("VmHWM")}
    if ticker is not None:
        ticker.cancel()
        answer["lag"] = max(late, default=0.0)
    return answer


async def main(name: str, endpoint: str) -> None:
    """Run the measurements on standard input: ``operation``, ``size``, ``count``, ``concurrency``, ``lag``.

    ``lag`` is optional. A put has a ``file`` if its body comes from disk.
    """
    make, packages = PEERS[name]
    try:
        versions = [f"{package} {importlib.metadata.version(package)}" for package in packages]
        stack = AsyncExitStack()
        peer = await stack.enter_async_context(make(endpoint))
    except (ImportError, importlib.metadata.PackageNotFoundError) as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    print(json.dumps({"version": ", ".join(versions)}), flush=True)
    numbers = itertools.count()
    async with stack:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                answer = await _measured(peer, json.loads(line), numbers)
            except Exception as error:
                print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
                continue
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
