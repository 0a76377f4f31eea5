"""A private bucket of an S3 server that runs as long as the gallery does."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from aioimageattach.stores.s3 import S3Store
from tests.servers.gate import ACCESS_KEY, SECRET_KEY, Gate
from tests.servers.ministack import Ministack

BUCKET = "gallery"
REGION = "eu-central-1"


def open_bucket(endpoint_url: str) -> S3Store:
    """Return a store in the bucket, whose URLs are signed."""
    return S3Store(BUCKET, ACCESS_KEY, SECRET_KEY, region=REGION, endpoint_url=endpoint_url, url_expires_in=3600)


@contextmanager
def private_bucket() -> Generator[S3Store]:
    """Start the S3 server of the tests, and yield a store in a private bucket."""
    with TemporaryDirectory() as folder:
        backend = Ministack(Path(folder))
        gate = Gate(backend)
        try:
            backend.create_bucket(BUCKET, REGION)
            yield open_bucket(gate.url)
        finally:
            gate.close()
            backend.close()
