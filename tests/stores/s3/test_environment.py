"""Settings from environment variables, as botocore reads them."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from aioimageattach.exc import StoreError
from aioimageattach.stores.s3 import Credentials, S3Client
from aioimageattach.stores.s3._environment import find_ca_bundle
from tests.servers.gate import ACCESS_KEY, SECRET_KEY
from tests.stores.s3.conftest import Certificate, MakeClient

KEYS = Credentials(ACCESS_KEY, SECRET_KEY)
FIPS, DUAL_STACK = "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"
IGNORE = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"


def host_of(region: str | None = "us-gov-west-1", **options: Any) -> str | None:
    """Return the host in the URLs of a bucket."""
    return urlsplit(S3Client("pictures", KEYS, region=region, **options).url("a")).hostname


def botocore_host(**config: Any) -> str | None:
    """Return the host that botocore selects."""
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    session.set_credentials(ACCESS_KEY, SECRET_KEY)
    client = session.create_client("s3", region_name="us-gov-west-1", config=Config(signature_version="s3v4", **config))
    url = client.generate_presigned_url("get_object", {"Bucket": "pictures", "Key": "a"})
    return urlsplit(url).hostname


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {FIPS: "true"},
        {DUAL_STACK: "true"},
        {FIPS: "TRUE", DUAL_STACK: "True"},
        {FIPS: "false", DUAL_STACK: ""},
        {"AWS_ENDPOINT_URL": "https://pictures.test", IGNORE: "true"},
        {"AWS_ENDPOINT_URL_S3": "https://pictures.test", IGNORE: "true", FIPS: "true"},
    ],
    ids=str,
)
def test_the_hosts_are_those_of_botocore(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each combination of the variables that select a host of Amazon results in the host of botocore."""
    pytest.importorskip("botocore")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert host_of() == botocore_host()


def test_arguments_take_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment applies only to options that are not given, and only to hosts of Amazon."""
    monkeypatch.setenv(FIPS, "true")
    monkeypatch.setenv(DUAL_STACK, "true")
    assert host_of(fips=False) == "pictures.s3.dualstack.us-gov-west-1.amazonaws.com"
    assert host_of(dual_stack=False) == "pictures.s3-fips.us-gov-west-1.amazonaws.com"
    assert host_of(endpoint_url="https://minio.test") == "minio.test"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://minio.test")
    assert host_of() == "minio.test"
    assert host_of(fips=True) == "pictures.s3-fips.dualstack.us-gov-west-1.amazonaws.com"


@pytest.mark.parametrize("name", [FIPS, DUAL_STACK, IGNORE])
def test_neither_true_nor_false(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other values are rejected, so that "yes" does not silently disable FIPS."""
    monkeypatch.setenv(name, "yes")
    with pytest.raises(ValueError, match=f"{name}: expected 'true' or 'false' in the environment, got 'yes'"):
        host_of()


async def test_certificates_that_the_environment_names(
    certificate: Certificate, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only these certificates are trusted, unless an argument takes precedence."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "tag"\r\nContent-Length: 0\r\n\r\n')
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=certificate.server_context()) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(StoreError, match="certificate"):
            await make_client(url, max_retry=0).replace("a", b"")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.path))
        assert await make_client(url, max_retry=0).replace("a", b"") == "tag"
        with pytest.raises(StoreError, match="certificate"):
            await make_client(url, max_retry=0, ssl_context=ssl.create_default_context()).replace("a", b"")


def test_certificates_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message contains the variable and the file."""
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem"):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / name))
        with pytest.raises(ValueError, match=rf"AWS_CA_BUNDLE: expected a file of certificates, got .*{name}"):
            host_of()


def test_certificates_are_read_once(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """All clients share one context for a file."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.path))
    assert find_ca_bundle() is find_ca_bundle() is not None
