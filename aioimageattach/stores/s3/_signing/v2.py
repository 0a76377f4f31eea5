"""Signature Version 2, for servers that support no other version.

Does no I/O; the clock is passed in. Implements "Signing and Authenticating REST Requests (AWS Signature Version 2)" of
the Amazon S3 User Guide. This version uses SHA-1 and covers neither the host nor the body, so use Version 4 with every
server that supports it.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from types import MappingProxyType
from typing import ClassVar, Final
from urllib.parse import unquote

from .._credentials.sources import Credentials
from .._errors import SignatureVersion
from .headers import lowered, stripped
from .policy import Condition, encode_policy
from .urls import Target, quote_query, split_url

__all__ = ["SUBRESOURCES", "SignerV2"]

SUBRESOURCES: Final = frozenset(
    {
        "accelerate",
        "acl",
        "analytics",
        "cors",
        "delete",
        "inventory",
        "lifecycle",
        "location",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "partNumber",
        "policy",
        "replication",
        "requestPayment",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "select",
        "select-type",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
    }
)
"""The query parameters that are signed."""

_REPLACED: Final = frozenset({"authorization", "date", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"})
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


def _signature(credentials: Credentials, text: str) -> str:
    return base64.b64encode(hmac.digest(credentials.secret_key.encode(), text.encode(), "sha1")).decode()


def _in_utc(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise ValueError(f"now: expected a datetime with a time zone, got {now!r}")
    return now.astimezone(UTC)


def _check_expiry(expires_in: int) -> None:
    if expires_in <= 0:
        raise ValueError(f"expires_in: expected at least 1 second, got {expires_in!r}")


def _by_name(headers: Mapping[str, str]) -> dict[str, str]:
    return dict(zip(lowered(tuple(headers)), stripped(headers), strict=True))


class SignerV2:
    """A signer of requests, with the same interface as the signer of Version 4.

    Args:
        bucket: The bucket whose name is the first part of the host in virtual-hosted URLs; it is signed as part of the
            path.
    """

    __slots__ = ("bucket",)

    version: ClassVar[SignatureVersion] = "v2"

    def __init__(self, bucket: str | None = None) -> None:
        self.bucket: str | None = bucket

    def __repr__(self) -> str:
        return f"SignerV2(bucket={self.bucket!r})"

    def _text(self, method: str, target: Target, signed: Mapping[str, str], date: str) -> str:
        lines = [method, signed.get("content-md5", ""), signed.get("content-type", ""), date]
        lines += [f"{name}:{signed[name]}" for name in sorted(signed) if name.startswith("x-amz-")]
        return "\n".join([*lines, self._resource(target)])

    def _resource(self, target: Target) -> str:
        path = target.path
        if self.bucket is not None and target.host.startswith(f"{self.bucket.lower()}."):
            path = f"/{self.bucket}{path}"
        pairs = [pair.partition("=") for pair in target.query.split("&")]
        signed = [f"{name}{equals}{unquote(value)}" for name, equals, value in sorted(pairs) if name in SUBRESOURCES]
        return f"{path}?{'&'.join(signed)}" if signed else path

    def sign(
        self,
        method: str,
        url: str | Target,
        headers: Mapping[str, str],
        credentials: Credentials,
        *,
        now: datetime,
        payload_hash: str = "",
    ) -> dict[str, str]:
        """Sign a request with an ``Authorization`` header.

        Args:
            method: The HTTP method, such as ``"GET"``.
            url: The URL exactly as it is sent, percent-encoded, either whole or split.
            headers: The other headers of the request; an earlier signature is replaced.
            credentials: The credentials to sign with.
            now: The time of the request, an aware datetime; servers accept a skew of up to 15 minutes.
            payload_hash: Ignored; not part of this version.

        Returns:
            All headers to send: the given ones, ``host``, ``date``, ``x-amz-security-token`` for temporary credentials,
            and ``authorization``.

        Raises:
            ValueError: The URL, a header or the time is malformed.
        """
        target = split_url(url) if isinstance(url, str) else url
        sent = {name: value for name, value in headers.items() if name.lower() not in _REPLACED}
        signed = _by_name(sent)
        if "host" not in signed:
            sent["host"] = target.host
        if credentials.token is not None:
            sent["x-amz-security-token"] = signed["x-amz-security-token"] = credentials.token
        sent["date"] = format_datetime(_in_utc(now), usegmt=True)
        signature = _signature(credentials, self._text(method, target, signed, sent["date"]))
        sent["authorization"] = f"AWS {credentials.access_key}:{signature}"
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
    ) -> str:
        """Return a presigned URL, which permits this one request.

        Args:
            method: The HTTP method, such as ``"GET"``.
            url: The URL, percent-encoded.
            credentials: The credentials to sign with; if they are temporary, the URL expires no later than they do.
            now: The time at which the URL becomes valid, an aware datetime.
            expires_in: Lifetime of the URL, in seconds.
            headers: The other headers of the request. Those that start with ``x-amz-`` become part of the URL.
                ``Content-Type`` and ``Content-MD5`` must be sent with the request. Others are not signed.

        Raises:
            ValueError: The URL, a header or a time is malformed.
        """
        _check_expiry(expires_in)
        target = split_url(url)
        expires = str(int(_in_utc(now).timestamp()) + expires_in)
        signed = {
            lower: value
            for lower, value in _by_name(headers).items()
            if lower.startswith("x-amz-") or lower in ("content-md5", "content-type")
        }
        if credentials.token is not None:
            signed["x-amz-security-token"] = credentials.token
        params = {
            "AWSAccessKeyId": credentials.access_key,
            "Signature": _signature(credentials, self._text(method, target, signed, expires)),
            **signed,
            "Expires": expires,
        }
        query = f"{target.query}&{quote_query(params)}" if target.query else quote_query(params)
        return f"{target.origin}{target.path}?{query}"

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
        """Sign a browser form that uploads one file; the arguments are those of the signer of Version 4.

        Returns:
            The fields of the form, which must precede the file.

        Raises:
            ValueError: A time is malformed.
        """
        _check_expiry(expires_in)
        sent = {"key": key, **fields}
        if credentials.token is not None:
            sent["x-amz-security-token"] = credentials.token
        policy = encode_policy(bucket, sent, conditions, _in_utc(now), expires_in)
        return {
            **sent,
            "AWSAccessKeyId": credentials.access_key,
            "policy": policy,
            "signature": _signature(credentials, policy),
        }
