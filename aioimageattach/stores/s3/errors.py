"""What a server's refusals mean, as errors of ours that say what to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from ...exc import (
    InvalidKeyError,
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StorePermissionError,
    StoreUnavailableError,
)
from .retry import is_passing
from .xml import S3ErrorInfo, parse_error

__all__ = ["AuthMechanismError", "Refusal", "as_error"]


class AuthMechanismError(StorePermissionError):
    """The server does not take this version of signatures; see ``signature_version``."""


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
_ADVICE: Final = {
    "AccessDenied": "give the keys the right to it in the bucket's policy or the user's",
    "AccessControlListNotSupported": "give no acl: the bucket has them switched off",
    "EntityTooLarge": "lower multipart_threshold, or raise the server's limit",
    "ExpiredToken": "renew the credentials: give a source that does",
    "InvalidAccessKeyId": "look at access_key, and whether it belongs to this endpoint",
    "InvalidToken": "look at the session token: it belongs to other keys",
    "NoSuchBucket": "create the bucket, or correct its name, region and endpoint_url",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": "look at secret_key, and whether a proxy changes requests on their way",
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
_CODE_OF_STATUS: Final = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success.

    Args:
        status: Of HTTP.
        info: What its body says; nothing where it has none, as with ``HEAD``.
        region: Where the bucket is, if the answer tells.
        location: Whom to ask instead, if the answer tells.
        date: The server's clock, if the answer tells.
        retry_after: How long the server asks to be left alone, in seconds.
        request_id: What the server calls the request.
    """

    status: int
    info: S3ErrorInfo = field(default_factory=S3ErrorInfo)
    region: str | None = None
    location: str | None = None
    date: datetime | None = None
    retry_after: float | None = None
    request_id: str | None = None

    @classmethod
    def read(cls, status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
        """Return what an answer says; ``headers`` find their values in any case."""
        return cls.of(status, headers, parse_error(body))

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], info: S3ErrorInfo) -> Refusal:
        """Return what the headers and an error that was read already say."""
        return cls(
            status,
            info,
            region=headers.get("x-amz-bucket-region") or info.region,
            location=headers.get("Location"),
            date=_date(headers.get("Date")),
            retry_after=_seconds(headers.get("Retry-After")),
            request_id=(headers.get("x-amz-request-id") or info.request_id or "")[:100] or None,
        )

    @property
    def code(self) -> str:
        """What S3 calls it; told from the status where the body does not say."""
        return self.info.code or _CODE_OF_STATUS.get(self.status, "")

    @property
    def is_passing(self) -> bool:
        """Whether another attempt may succeed."""
        return is_passing(self.status, self.info.code)

    @property
    def is_expired(self) -> bool:
        """Whether the credentials are refused because they have expired."""
        return self.info.code in _EXPIRED

    @property
    def is_mute(self) -> bool:
        """Whether it is an answer to ``HEAD`` that does not say what is wrong with the request."""
        return self.status == 400 and not self.info.code

    @property
    def is_elsewhere(self) -> bool:
        """Whether the bucket is said to be in another region, or at another place."""
        return self.status in (301, 302, 307, 308) or self.info.code in _OTHER_REGION

    def offset(self, now: datetime) -> float | None:
        """Return by how many seconds the server's clock is ahead, where the request was refused for it.

        An answer to ``HEAD`` does not say why it refuses: there a clock that is 15 minutes off says it.
        """
        server = self.info.server_time or self.date
        if server is None:
            return None
        offset = (server - now).total_seconds()
        if self.info.code in ("RequestTimeTooSkewed", "RequestExpired"):
            return offset
        return offset if self.status == 403 and not self.info.code and abs(offset) > 840 else None


def _date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdecimal() and len(text) < 6 else None


def _kind(refusal: Refusal) -> type[StoreError]:
    code = refusal.code
    message = refusal.info.message
    if "authorization mechanism" in message or (code == "NotImplemented" and "signature" in message.lower()):
        return AuthMechanismError
    if code in _MISSING:
        return StoreFileNotFoundError
    if code == "PreconditionFailed":
        return StoreFileExistsError
    if code in _NAMES:
        return InvalidKeyError
    if refusal.is_passing:
        return StoreUnavailableError
    if refusal.is_elsewhere:
        return StoreError
    return StorePermissionError if code in _PERMISSION or refusal.status in (401, 403) else StoreError


def _advice(refusal: Refusal, kind: type[StoreError]) -> str:
    if kind is AuthMechanismError:
        return "; give signature_version='v4' and the bucket's region, or 'v2' for a server that knows no other"
    if kind is StoreFileExistsError:
        return "; a file is never overwritten"
    if refusal.is_elsewhere:
        where = f"region={refusal.region!r}" if refusal.region else "the bucket's region and endpoint_url"
        return f"; give {where}"
    if refusal.code == "NotImplemented":
        return "; the server lacks it: see create_only, bulk_delete, checksum and encryption"
    advice = _ADVICE.get(refusal.code)
    return f"; {advice}" if advice else ""


def as_error(refusal: Refusal, what: str, *, store: str, name: str | None, attempts: int) -> StoreError:
    """Return the error to raise.

    Args:
        refusal: The server's last answer.
        what: What was tried, such as ``"put 'a/b'"``.
        store: The short description of the store.
        name: Of the file it was about.
        attempts: How often it was tried.
    """
    kind = _kind(refusal)
    said = ": ".join(part for part in (f"{refusal.status} {refusal.code}".strip(), refusal.info.message) if part)
    tries = f" in {attempts} attempts" if attempts > 1 else ""
    return kind(
        f"{what}: the server answered {said}{tries}{_advice(refusal, kind)}",
        store=store,
        name=name,
        status=refusal.status,
        code=refusal.code or None,
        request_id=refusal.request_id,
        attempts=attempts,
    )
