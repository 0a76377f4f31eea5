"""What the tests of signatures share: requests at random, and botocore as the judge."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import strategies as st

from aioimageattach.stores.s3.credentials import Credentials
from aioimageattach.stores.s3.urls import quote_key

AWKWARD = [
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
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# botocore takes other blanks than space and tab for blanks, too.
_VALUE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], include_characters=" \t"), max_size=20)
_SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


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
        """The request as botocore has them."""
        return AWSRequest(self.method, self.url, dict(self.headers))

    @property
    def keys(self) -> ReadOnlyCredentials:
        """The credentials as botocore has them."""
        return ReadOnlyCredentials(self.credentials.access_key, self.credentials.secret_key, self.credentials.token)


def _dotted(key: str) -> bool:
    return any(segment in (".", "..") for segment in key.split("/"))


keys = (
    st.lists(st.sampled_from(AWKWARD) | _TEXT, min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda key: key and not _dotted(key))
)


@st.composite
def requests(draw: Any) -> Request:
    """Requests of all kinds: keys, queries, metadata, ports, tokens, regions, times."""
    scheme = draw(st.sampled_from(["http", "https"]))
    host = draw(
        st.sampled_from(["s3.amazonaws.com", "Bucket.s3.eu-west-1.amazonaws.com", "localhost", "[::1]", "10.0.0.1"])
    )
    port = draw(st.sampled_from(["", ":80", ":443", ":9000"]))
    query = draw(st.dictionaries(_TEXT.filter(bool), st.none() | _TEXT, max_size=4))
    encoded = "&".join(
        quote(name, safe="~") if value is None else f"{quote(name, safe='~')}={quote(value, safe='~')}"
        for name, value in query.items()
    )
    names = st.from_regex(r"[xX]-[Aa]mz-[Mm]eta-[A-Za-z0-9_.-]{1,6}", fullmatch=True)
    headers = draw(st.dictionaries(names, _VALUE, max_size=3))
    headers = {name: value for name, value in headers.items() if [n.lower() for n in headers].count(name.lower()) == 1}
    for name, values in {
        "Content-Type": ["image/png"],
        "range": ["bytes=0-9"],
        "User-Agent": ["some thing/1.0"],
        "If-None-Match": ["*"],
    }.items():
        if draw(st.booleans()):
            headers[name] = values[0]
    zone = timezone(timedelta(minutes=draw(st.integers(-14 * 60, 14 * 60))))
    moment = draw(st.datetimes(datetime(2000, 1, 2), datetime(2099, 1, 1)))
    return Request(
        method=draw(st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE"])),
        url=f"{scheme}://{host}{port}/{quote_key(draw(keys))}{'?' if encoded else ''}{encoded}",
        headers=headers,
        credentials=Credentials(draw(_SECRET), draw(_SECRET), draw(st.none() | _SECRET)),
        region=draw(st.sampled_from(["us-east-1", "eu-central-1", "auto", "ap-southeast-2", "x_y.z"])),
        now=draw(st.sampled_from([moment.replace(tzinfo=zone), moment.replace(tzinfo=UTC)])),
        payload_hash=draw(st.sampled_from(["UNSIGNED-PAYLOAD", "0" * 64, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"])),
        expires_in=draw(st.integers(1, 604800)),
    )
