"""A bucket on a real server, behind a gateway that checks each request."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aioimageattach.stores.s3 import Credentials, S3Client, S3Store
from tests.databases import REQUIRED
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.ministack import Ministack

BUCKET = "pictures"
REGION = "eu-central-1"
SETTINGS = (
    "AWS_CA_BUNDLE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
)
QUICK: dict[str, Any] = {"read_timeout": 10.0, "timeout": 30.0}

MakeStore = Callable[..., S3Store]
MakeClient = Callable[..., S3Client]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of the user who runs the tests from affecting them."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1."""

    path: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return the SSL context of a server with this certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.path, self.key)
        return context


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A new certificate."""
    folder = tmp_path_factory.mktemp("certificate")
    found = Certificate(folder / "certificate.pem", folder / "key.pem")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", found.key, "-out", found.path]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return found


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """The server of this run."""
    try:
        backend = Ministack(tmp_path_factory.mktemp("ministack"))
    except FileNotFoundError as error:
        if REQUIRED:
            raise
        pytest.skip(str(error))
    gate = Gate(backend)
    yield gate
    gate.close()
    backend.close()


@pytest.fixture
def gate(s3_server: Gate) -> Gate:
    """The gateway, with an empty bucket."""
    s3_server.reset()
    s3_server.backend.create_bucket(BUCKET, REGION)
    return s3_server


@pytest.fixture
async def make_store() -> AsyncIterator[MakeStore]:
    """Return a function that creates stores, by default in the bucket at ``url``, which are closed at the end."""
    async with AsyncExitStack() as stack:

        def make(url: str, bucket: str = BUCKET, **options: Any) -> S3Store:
            if "credentials" not in options:
                options = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, **options}
            store = S3Store(bucket, endpoint_url=url, **{"region": REGION, **QUICK, **options})
            stack.push_async_callback(store.aclose)
            return store

        yield make


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    """Return a function that creates clients in the same way."""
    async with AsyncExitStack() as stack:

        def make(url: str, bucket: str = BUCKET, **options: Any) -> S3Client:
            credentials = options.pop("credentials", Credentials(ACCESS_KEY, SECRET_KEY))
            client = S3Client(bucket, credentials, endpoint_url=url, **{"region": REGION, **QUICK, **options})
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
def s3_store(gate: Gate, make_store: MakeStore) -> S3Store:
    """A store in the bucket."""
    return make_store(gate.url)


@pytest.fixture
def client(gate: Gate, make_client: MakeClient) -> S3Client:
    """A client for the bucket."""
    return make_client(gate.url)
