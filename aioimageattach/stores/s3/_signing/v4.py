"""Signature Version 4, for request headers, presigned URLs and browser forms.

Does no I/O; the clock is passed in. Implements "Authenticating Requests (AWS Signature Version 4)" of the Amazon S3 API
Reference: paths are encoded once and never normalised.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple
from urllib.parse import quote

from .._credentials.sources import Credentials
from .._errors import SignatureVersion
from .headers import UNSIGNED_HEADERS, collapsed, lowered
from .policy import Condition, encode_policy
from .urls import Target, split_url

__all__ = ["EMPTY_SHA256", "MAX_EXPIRES_IN", "UNSIGNED_PAYLOAD", "SignerV4"]

UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
"""The payload hash that excludes the body from the signature."""

EMPTY_SHA256: Final = sha256(b"").hexdigest()
"""The payload hash of an empty body."""

MAX_EXPIRES_IN: Final = 7 * 24 * 60 * 60
"""Maximum lifetime of a presigned URL, in seconds."""

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_HASH_HEADER: Final = "x-amz-content-sha256"
_REPLACED: Final = frozenset({"authorization", "x-amz-date", "x-amz-security-token"})
_SCOPE_PART: Final = re.compile(r"[A-Za-z0-9._-]+")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class _Key:
    """A key for HMAC-SHA-256 (RFC 2104) whose padded blocks are hashed only once, which halves the time per message."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        key = key.ljust(64, b"\0")  # all keys are shorter than a block, because they are digests
        self._inner = sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in key))

    def sign(self, text: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer.hexdigest()


@dataclass(frozen=True, slots=True, repr=False)
class _Scope:
    """A signing key, and the day, region and service that it is valid for. Its repr does not reveal them."""

    day: str
    secret_key: str
    text: str
    key: _Key


class _Second(NamedTuple):
    """A second and its representations in signatures, which requests in the same second share."""

    start: datetime
    end: datetime
    stamp: str


def _second_of(now: datetime) -> _Second:
    start = now.astimezone(UTC).replace(microsecond=0)
    return _Second(start, start + timedelta(seconds=1), f"{start:%Y%m%dT%H%M%SZ}")


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    # Sort by name, then by value. Whole pairs would sort differently, because "-" and "." come before "=".
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&"))
    return "&".join(f"{name}={value}" for name, value in pairs)


@lru_cache(maxsize=256)
def _layout(names: tuple[str, ...]) -> tuple[str, str, Callable[[Sequence[str]], Any]]:
    """Return how headers with these names are signed: their list, a template of their lines, and a sorter of values.

    The result is cached, because nearly all requests of one kind have the same headers.
    """
    places = {lower: place for place, lower in enumerate(lowered(names)) if lower not in UNSIGNED_HEADERS}
    order = sorted(places)
    lines = "".join(f"{lower.replace('%', '%%')}:%s\n" for lower in order)
    return ";".join(order), lines, itemgetter(*(places[lower] for lower in order))


class SignerV4:
    """A signer of requests to one region.

    It caches the last signing key, which never appears in a repr or a pickle.

    Args:
        region: The region, such as ``"us-east-1"``; servers with a single region may call it ``"auto"``.
        service: ``"s3"``, or a related service.

    Raises:
        ValueError: The name of the region or the service is invalid.
    """

    __slots__ = ("_replaced", "_scope", "_second", "_states_hash", "region", "service")

    version: ClassVar[SignatureVersion] = "v4"

    def __init__(self, region: str, *, service: str = "s3") -> None:
        for label, value in (("region", region), ("service", service)):
            if not _SCOPE_PART.fullmatch(value):
                raise ValueError(f"{label}: expected letters, digits, '-', '.' and '_', got {value!r:.80}")
        self.region: str = region
        self.service: str = service
        self._states_hash = service.startswith("s3")
        self._replaced = _REPLACED | {_HASH_HEADER} if self._states_hash else _REPLACED
        self._scope = _Scope("", "", "", _Key(b""))
        self._second = _second_of(datetime.now(UTC))

    def __repr__(self) -> str:
        return f"SignerV4({self.region!r}, service={self.service!r})"

    def __getstate__(self) -> tuple[str, str]:
        return self.region, self.service

    def __setstate__(self, state: tuple[str, str]) -> None:
        SignerV4.__init__(self, state[0], service=state[1])

    def _timestamp(self, now: datetime) -> str:
        if now.tzinfo is None:
            raise ValueError(f"now: expected a datetime with a time zone, got {now!r}")
        second = self._second
        if not second.start <= now < second.end:
            second = self._second = _second_of(now)
        return second.stamp

    def _scope_of(self, day: str, secret_key: str) -> _Scope:
        scope = self._scope
        if scope.day != day or scope.secret_key != secret_key:
            key = f"AWS4{secret_key}".encode()
            for part in (day, self.region, self.service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            scope = _Scope(day, secret_key, f"{day}/{self.region}/{self.service}/aws4_request", _Key(key))
            self._scope = scope
        return scope

    def _signature(
        self,
        scope: _Scope,
        stamp: str,
        method: str,
        path: str,
        query: str,
        names: tuple[str, ...],
        values: Sequence[str],
        payload_hash: str,
    ) -> tuple[str, str]:
        """Return the names of the signed headers, and the signature."""
        listed, lines, order = _layout(names)
        signed = lines % order(values)
        request = f"{method}\n{path}\n{_canonical_query(query)}\n{signed}\n{listed}\n{payload_hash}"
        text = f"{_ALGORITHM}\n{stamp}\n{scope.text}\n{sha256(request.encode()).hexdigest()}"
        return listed, scope.key.sign(text)

    def sign(
        self,
        method: str,
        url: str | Target,
        headers: Mapping[str, str],
        credentials: Credentials,
        *,
        now: datetime,
        payload_hash: str = UNSIGNED_PAYLOAD,
    ) -> dict[str, str]:
        """Sign a request with an ``Authorization`` header.

        All headers are signed except those that may change in transit, such as ``User-Agent``.

        Args:
            method: The HTTP method, such as ``"GET"``.
            url: The URL exactly as it is sent, percent-encoded, either whole or split.
            headers: The other headers of the request; ``Host`` overrides the host of the URL. An earlier signature is
                replaced.
            credentials: The credentials to sign with.
            now: The time of the request, an aware datetime; servers accept a skew of up to 15 minutes.
            payload_hash: The SHA-256 of the body in hexadecimal, or a literal such as ``UNSIGNED-PAYLOAD``.

        Returns:
            All headers to send: the given ones, ``host``, ``x-amz-date``, ``x-amz-content-sha256``,
            ``x-amz-security-token`` for temporary credentials, and ``authorization``.

        Raises:
            ValueError: The URL, a header or the time is malformed.
        """
        _, host, path, query = split_url(url) if isinstance(url, str) else url
        stamp = self._timestamp(now)
        sent: dict[str, str] = {}
        values: list[str] = []
        if headers:
            names = lowered(tuple(headers))
            sent.update(headers)
            if not self._replaced.isdisjoint(names):
                sent = {name: value for name, value in headers.items() if name.lower() not in self._replaced}
            values = collapsed(sent)
        else:
            names = ()
        if "host" not in names:
            sent["host"] = host
        sent["x-amz-date"] = stamp
        if self._states_hash:
            sent[_HASH_HEADER] = payload_hash
        if credentials.token is not None:
            sent["x-amz-security-token"] = credentials.token
        # Only the given headers can contain blanks or control characters.
        values += [*sent.values()][len(values) :]
        scope = self._scope_of(stamp[:8], credentials.secret_key)
        listed, signature = self._signature(scope, stamp, method, path, query, tuple(sent), values, payload_hash)
        sent["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope.text}, "
            f"SignedHeaders={listed}, Signature={signature}"
        )
        return sent

    def presign(
        self,
        method: str,
        url: str,
        credentials: Credentials,
        *,
        now: datetime,
        expires_in: int,
        headers: Mapping[str, str] = _NONE,
        payload_hash: str = UNSIGNED_PAYLOAD,
    ) -> str:
        """Return a presigned URL, which permits this one request.

        Args:
            method: The HTTP method, such as ``"GET"``.
            url: The URL, percent-encoded; its query is signed, too.
            credentials: The credentials to sign with; if they are temporary, the URL expires no later than they do.
            now: The time at which the URL becomes valid, an aware datetime.
            expires_in: Lifetime of the URL, in seconds, at most seven days.
            headers: The headers that the request must have; all are signed except those that may change in transit.
            payload_hash: The payload hash; if it is not the default, the client must also send it as
                ``x-amz-content-sha256``.

        Raises:
            ValueError: The URL, a header or a time is malformed.
        """
        if not 0 < expires_in <= MAX_EXPIRES_IN:
            raise ValueError(f"expires_in: expected 1 to {MAX_EXPIRES_IN} seconds, got {expires_in!r}")
        origin, host, path, query = split_url(url)
        stamp = self._timestamp(now)
        signed = {"host": host, **headers} if "host" not in lowered(tuple(headers)) else headers
        scope = self._scope_of(stamp[:8], credentials.secret_key)
        # Quoting all of these values would take as long as the rest; most of them never contain reserved characters.
        credential = f"{quote(credentials.access_key, safe='~')}%2F{scope.text.replace('/', '%2F')}"
        listed = quote(_layout(tuple(signed))[0], safe="~")
        params = (
            f"X-Amz-Algorithm={_ALGORITHM}&X-Amz-Credential={credential}&X-Amz-Date={stamp}"
            f"&X-Amz-Expires={expires_in}&X-Amz-SignedHeaders={listed}"
        )
        if credentials.token is not None:
            params = f"{params}&X-Amz-Security-Token={quote(credentials.token, safe='~')}"
        query = f"{query}&{params}" if query else params
        names, values = tuple(signed), collapsed(signed)
        _, signature = self._signature(scope, stamp, method, path, query, names, values, payload_hash)
        return f"{origin}{path}?{query}&X-Amz-Signature={signature}"

    def presign_post(
        self,
        bucket: str,
        key: str,
        credentials: Credentials,
        *,
        now: datetime,
        expires_in: int,
        fields: Mapping[str, str] = _NONE,
        conditions: Sequence[Condition] = (),
    ) -> dict[str, str]:
        """Sign a browser form that uploads one file.

        Args:
            bucket: The bucket to upload to.
            key: The key of the object; S3 replaces a trailing ``${filename}`` by the name of the uploaded file.
            credentials: The credentials to sign with.
            now: The time at which the form becomes valid, an aware datetime.
            expires_in: Lifetime of the form, in seconds, at most seven days.
            fields: Additional fields, such as ``{"content-type": "image/png"}``; the form must send them unchanged.
            conditions: Additional policy conditions, such as ``["content-length-range", 1, 5_000_000]`` or
                ``["starts-with", "$content-type", "image/"]``; a field that they name may be sent with another value.

        Returns:
            The fields of the form, which must precede the file.

        Raises:
            ValueError: A time is malformed.
        """
        if not 0 < expires_in <= MAX_EXPIRES_IN:
            raise ValueError(f"expires_in: expected 1 to {MAX_EXPIRES_IN} seconds, got {expires_in!r}")
        stamp = self._timestamp(now)
        scope = self._scope_of(stamp[:8], credentials.secret_key)
        sent = {
            "key": key,
            **fields,
            "x-amz-algorithm": _ALGORITHM,
            "x-amz-credential": f"{credentials.access_key}/{scope.text}",
            "x-amz-date": stamp,
        }
        if credentials.token is not None:
            sent["x-amz-security-token"] = credentials.token
        sent["policy"] = encode_policy(bucket, sent, conditions, now, expires_in)
        sent["x-amz-signature"] = scope.key.sign(sent["policy"])
        return sent
