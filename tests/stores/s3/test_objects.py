"""Descriptions of objects in headers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict

from aioimageattach.exc import StoreUnavailableError
from aioimageattach.stores.s3._objects import ObjectHead, read_head

GIVEN = {
    "content-length": "12",
    "last-modified": "Wed, 06 May 2026 07:08:09 GMT",
    "etag": '"abc-2"',
    "content-type": "image/png",
    "X-Amz-Meta-Put-Id": "7",
}


def test_headers_are_parsed() -> None:
    """The names of headers are case-insensitive."""
    assert read_head(CIMultiDict(GIVEN)) == ObjectHead(
        12, datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC), "abc-2", "image/png", {"put-id": "7"}
    )
    spare = CIMultiDict({"Content-Length": "0", "Last-Modified": "Wed, 06 May 2026 07:08:09 -0000"})
    assert read_head(spare) == ObjectHead(0, datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-length", None),
        ("last-modified", None),
        ("last-modified", "x"),
        ("last-modified", "Wed, 32 May 2026 07:08:09 GMT"),
    ],
)
def test_headers_that_are_missing(name: str, value: str | None) -> None:
    """A missing or malformed header raises an error, because the response may have been truncated."""
    given = CIMultiDict(GIVEN)
    del given[name]
    if value is not None:
        given[name] = value
    with pytest.raises(StoreUnavailableError):
        read_head(given)
