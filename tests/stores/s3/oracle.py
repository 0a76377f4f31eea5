"""Shared parts of the tests of signatures: random requests, and botocore as the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeVar
from urllib.parse import quote

from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import strategies as st

from aioimageattach.stores.s3 import Credentials
from aioimageattach.stores.s3._signing.urls import quote_key

T = TypeVar("T")

AWKWARD = [
    "a.png",
    "a//b",
    "/leading",
    "trailing/",
    "a b",
    "a+b",
    "100%",
    "a%2Fb",
    "#1",
    "what?",
    "~home",
    "x=1&y=2",
    "...",
    "a:b@c",
    "é",
    "e\u0301",
    "画像/Ω.png",
    "🖼️",
    "a\r\nX-Evil: 1",
    "\x00\x7f",
    "!'()*;,$[]{}|\\^`\"<>",
]
HOSTS = ["s3.amazonaws.com", "Bucket.s3.eu-west-1.amazonaws.com", "localhost", "[::1]", "10.0.0.1"]
REGIONS = ["us-east-1", "eu-central-1", "auto", "ap-southeast-2", "x_y.z"]
HASHES = ["UNSIGNED-PAYLOAD", "0" * 64, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"]
SIMPLE = {
    "Content-Type": "image/png",
    "range": "bytes=0-9",
    "User-Agent": "some thing/1.0",
    "If-None-Match": "*",
}


@dataclass(frozen=True)
class Request:
    """One request to sign."""

    method: str
    url: str
    headers: dict[str, str]
    credentials: Credentials
    region: str
    now: datetime
    payload_hash: str
    expires_in: int

    @property
    def aws(self) -> AWSRequest:
        """Return the request as an object of botocore."""
        return AWSRequest(self.method, self.url, dict(self.headers))

    @property
    def keys(self) -> ReadOnlyCredentials:
        """Return the credentials as an object of botocore."""
        return ReadOnlyCredentials(self.credentials.access_key, self.credentials.secret_key, self.credentials.token)


class Entropy:
    """Makes values from bytes, of which zeros make the simplest. One draw for a whole request is fast."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def below(self, limit: int) -> int:
        size = (limit.bit_length() + 7) // 8
        taken = self.data[self.at : self.at + size]
        self.at += size
        return int.from_bytes(taken, "big") % limit

    def pick(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def char(self, *, control: bool = True) -> str:
        kind = self.below(4)
        if kind < 3:
            return chr(32 + self.below(95))
        found = chr(self.below(0x110000))
        if "\ud800" <= found <= "\udfff":
            return "ß"
        # botocore also strips other whitespace than space and tab, which in headers is ordinary data.
        if not control and (found.isspace() or ord(found) < 32 or ord(found) == 127):
            return "\t"
        return found

    def text(self, most: int, *, control: bool = True) -> str:
        return "".join(self.char(control=control) for _ in range(self.below(most + 1)))

    def visible(self, most: int) -> str:
        return "".join(chr(33 + self.below(94)) for _ in range(1 + self.below(most)))

    def key(self) -> str:
        parts = [self.pick(AWKWARD) if self.below(2) == 0 else self.text(8) for _ in range(1 + self.below(3))]
        key = "/".join(part for part in "/".join(parts).split("/") if part not in (".", ".."))
        return key or "key"

    def request(self) -> Request:
        query: dict[str, str] = {}
        for _ in range(self.below(4)):
            name = quote(self.text(5) or "uploads", safe="~")
            query[name] = name if self.below(4) == 3 else f"{name}={quote(self.text(5), safe='~')}"
        encoded = "&".join(query.values())
        headers = {name: value for name, value in SIMPLE.items() if self.below(4) == 1}
        for number in range(self.below(3)):
            name = self.pick(["x-amz-meta-a", "X-Amz-Meta-A-B_c.", "X-AMZ-META-"])
            headers[f"{name}{number}"] = self.text(10, control=False)
        zone = timezone(timedelta(minutes=self.below(27 * 60) - 13 * 60)) if self.below(2) else UTC
        return Request(
            method=self.pick(["GET", "PUT", "POST", "HEAD", "DELETE"]),
            url=f"{self.pick(['http', 'https'])}://{self.pick(HOSTS)}{self.pick(['', ':80', ':443', ':9000'])}"
            f"/{quote_key(self.key())}{'?' if encoded else ''}{encoded}",
            headers=headers,
            credentials=Credentials(self.visible(8), self.visible(20), self.visible(8) if self.below(2) else None),
            region=self.pick(REGIONS),
            now=datetime(2000, 1, 2, tzinfo=zone) + timedelta(seconds=self.below(100 * 365 * 86400)),
            payload_hash=self.pick(HASHES),
            expires_in=1 + self.below(604800),
        )


BATCH = 10
_BYTES = 200


def _requests(data: bytes) -> list[Request]:
    return [Entropy(data[start : start + _BYTES]).request() for start in range(0, BATCH * _BYTES, _BYTES)]


batches = st.binary(min_size=BATCH * _BYTES, max_size=BATCH * _BYTES).map(_requests)
"""Ten requests of all kinds: keys, queries, metadata, ports, tokens, regions, times."""
