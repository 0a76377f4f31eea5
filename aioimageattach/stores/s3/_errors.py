"""Error responses of servers, and the exceptions that they are translated to. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias

from ..._http.dates import read_date
from ...exc import (
    InvalidKeyError,
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StoreMissingError,
    StorePermissionError,
    StoreUnavailableError,
)
from ._retry import is_transient
from ._xml import S3ErrorInfo, parse_error

__all__ = ["AuthMechanismError", "ErrorResponse", "SignatureVersion", "is_unsupported", "options_for", "to_error"]

SignatureVersion: TypeAlias = Literal["v4", "v2"]


class AuthMechanismError(StorePermissionError):
    """The server does not accept this signature version; see ``signature_version``."""


_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_OTHER_REGION: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "IllegalLocationConstraintException",
        "IncorrectEndpoint",
        "PermanentRedirect",
        "Redirect",
        "TemporaryRedirect",
    }
)
_FOREIGN: Final = "the response is not from an S3 server: check endpoint_url, and any proxies"
_OTHER_VERSION: Final = "the server may not support Signature Version 2: set signature_version='v4'"
_ADVICE: Final = {
    "AccessDenied": "allow the operation in the policy of the bucket or the user",
    "AccessControlListNotSupported": "omit acl: ACLs are disabled for the bucket",
    "EntityTooLarge": "lower multipart_threshold, or raise the server's limit",
    "ExpiredToken": "use a credential source that renews the credentials",
    "InvalidAccessKeyId": "check access_key, and that it belongs to this endpoint",
    "InvalidToken": "check that the session token belongs to these keys",
    "MissingContentMD5": "set checksum='crc32'",
    "NoSuchBucket": "create the bucket, or correct its name, region and endpoint_url",
    "RequestTimeTooSkewed": "correct this machine's clock",
    "SignatureDoesNotMatch": "check secret_key, and whether a proxy modifies requests",
}
_PERMISSION: Final = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound"})
_NAMES: Final = frozenset({"InvalidObjectName", "InvalidURI", "KeyTooLongError", "XMinioInvalidObjectName"})
_UNSUPPORTED: Final = frozenset({"MethodNotAllowed", "NotImplemented", "NotSupported", "UnsupportedOperation"})
_CODE_OF_STATUS: Final = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange"}
_SKEWED: Final = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
_SKEW_LIMIT: Final = 840.0  # servers reject a skew of 15 minutes; allow for the time that the response took


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """A response that is not a success.

    Args:
        status: The HTTP status.
        info: The error in the body; empty without a body, as for ``HEAD``.
        is_foreign: ``True`` if the response has a body that is not an S3 error, such as a proxy's page.
        region: The bucket's region, if the response contains it.
        location: The target of a redirect, if the response contains one.
        date: The time on the server's clock, if the response contains it.
        retry_after: How long the server asks to wait before the next request, in seconds.
        request_id: The server's identifier of the request.
    """

    status: int
    info: S3ErrorInfo = field(default_factory=S3ErrorInfo)
    is_foreign: bool = False
    region: str | None = None
    location: str | None = None
    date: datetime | None = None
    retry_after: float | None = None
    request_id: str | None = None

    @classmethod
    def read(cls, status: int, headers: Mapping[str, str], body: bytes) -> ErrorResponse:
        """Parse a response; the lookup in ``headers`` must be case-insensitive."""
        return cls.of(status, headers, parse_error(body), is_foreign=bool(body.strip()))

    @classmethod
    def of(
        cls, status: int, headers: Mapping[str, str], info: S3ErrorInfo | None, *, is_foreign: bool = False
    ) -> ErrorResponse:
        """Combine the headers of a response with an error that has already been parsed."""
        known = info or S3ErrorInfo()
        return cls(
            status,
            known,
            is_foreign=is_foreign and info is None,
            region=headers.get("x-amz-bucket-region") or known.region,
            location=headers.get("Location"),
            date=_date(headers.get("Date")),
            retry_after=_seconds(headers.get("Retry-After")),
            request_id=(headers.get("x-amz-request-id") or known.request_id or "")[:100] or None,
        )

    @property
    def code(self) -> str:
        """The error code of S3; derived from the status if there is no body."""
        return self.info.code or ("" if self.is_foreign else _CODE_OF_STATUS.get(self.status, ""))

    @property
    def is_transient(self) -> bool:
        """``True`` if another attempt may succeed."""
        return is_transient(self.status, self.info.code)

    @property
    def is_expired(self) -> bool:
        """``True`` if the credentials were rejected because they have expired."""
        return self.info.code in _EXPIRED

    @property
    def is_unexplained(self) -> bool:
        """``True`` if this is a 400 without an error code, as for ``HEAD``."""
        return self.status == 400 and not self.info.code

    @property
    def is_elsewhere(self) -> bool:
        """``True`` if the bucket is in another region or on another host."""
        return self.status in (301, 302, 307, 308) or self.info.code in _OTHER_REGION

    @property
    def is_refused(self) -> bool:
        """``True`` if the server rejected the credentials or the signature, or denied permission."""
        return self.status in (401, 403) or self.info.code in _PERMISSION

    def clock_offset(self, now: datetime) -> float | None:
        """Return how far the server's clock is ahead, in seconds, if that may be why the request was rejected.

        Some servers report clock skew as such, others as a wrong signature, and a response to ``HEAD`` reports no cause
        at all. In the latter cases, the ``Date`` header reveals the skew.
        """
        server = self.info.server_time or self.date
        if server is None or not (self.is_refused or self.is_unexplained):
            return None
        offset = (server - now).total_seconds()
        return offset if self.info.code in _SKEWED or abs(offset) > _SKEW_LIMIT else None


def _date(text: str | None) -> datetime | None:
    try:
        return read_date(text or "")
    except ValueError:
        return None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdecimal() and len(text) < 6 else None


_OPTIONS: Final = {
    "If-None-Match": "create_only='head'",
    "x-amz-acl": "acl=None",
    "x-amz-checksum-": "checksum=None",
    "x-amz-server-side-encryption": "encryption=None",
    "x-amz-storage-class": "storage_class=None",
    "delete": "bulk_delete=False",
    "uploads": "multipart_threshold above the size of the largest file",
}


def options_for(query: Iterable[str], headers: Iterable[str]) -> str:
    """Return the options that disable the features of a request which some servers lack.

    Args:
        query: The names of the request's query parameters.
        headers: The names of the request's headers.
    """
    names = [*query, *headers]
    return " or ".join(option for start, option in _OPTIONS.items() if any(name.startswith(start) for name in names))


def is_unsupported(error: StoreError) -> bool:
    """Return whether the server rejected a request because it does not support the operation."""
    return error.status in (405, 501) or error.code in _UNSUPPORTED


def _kind(response: ErrorResponse) -> type[StoreError]:
    code = response.code
    message = response.info.message
    if "authorization mechanism" in message or (code == "NotImplemented" and "signature" in message.lower()):
        return AuthMechanismError
    if code == "NoSuchBucket":
        return StoreMissingError
    if code in _MISSING:
        return StoreFileNotFoundError
    if code == "PreconditionFailed":
        return StoreFileExistsError
    if code in _NAMES:
        return InvalidKeyError
    if response.is_transient or (response.is_foreign and response.status in _CODE_OF_STATUS and response.status != 403):
        return StoreUnavailableError
    if response.is_elsewhere:
        return StoreError
    return StorePermissionError if response.is_refused else StoreError


def _advice(response: ErrorResponse, kind: type[StoreError], version: SignatureVersion, options: str) -> str | None:
    if kind is AuthMechanismError:
        return "set signature_version='v4' and the bucket's region, or 'v2' for a server that supports no other"
    if kind is StoreFileExistsError:
        return "a file is never overwritten"
    if response.status == 407:
        return "the proxy requires credentials: include them in its URL; .netrc is not read"
    if response.is_elsewhere:
        return f"set region={response.region!r}" if response.region else "set the bucket's region and endpoint_url"
    if version == "v2" and (response.is_refused or response.status == 400):
        return _OTHER_VERSION
    if response.status in (405, 501) or response.code in _UNSUPPORTED:
        return f"the server does not support it{f': set {options}' if options else ''}"
    if response.is_foreign:
        return _FOREIGN
    if "Content-MD5" in response.info.message and "required" in response.info.message:
        return "set checksum='crc32': puts to a bucket with Object Lock require a checksum"
    return _ADVICE.get(response.code)


def to_error(
    response: ErrorResponse,
    operation: str,
    *,
    store: str,
    name: str | None,
    attempts: int,
    version: SignatureVersion = "v4",
    options: str = "",
) -> StoreError:
    """Return the exception that corresponds to an error response.

    Args:
        response: The server's last response.
        operation: The operation, such as ``"put 'a/b'"``.
        store: The short description of the store.
        name: The name of the file, if the request concerned one.
        attempts: The number of attempts.
        version: The signature version that was used.
        options: The options that avoid the features which the request uses; see :func:`options_for`.
    """
    kind = _kind(response)
    text = ": ".join(part for part in (f"{response.status} {response.code}".strip(), response.info.message) if part)
    tries = f" in {attempts} attempts" if attempts > 1 else ""
    advice = _advice(response, kind, version, options)
    return kind(
        f"{operation}: the server responded with {text}{tries}{f'; {advice}' if advice else ''}",
        store=store,
        name=name,
        status=response.status,
        code=response.code or None,
        request_id=response.request_id,
        attempts=attempts,
    )
