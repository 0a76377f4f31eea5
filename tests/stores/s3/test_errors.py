"""Error responses and the exceptions for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aioimageattach.exc import (
    InvalidKeyError,
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StoreMissingError,
    StorePermissionError,
    StoreUnavailableError,
)
from aioimageattach.stores.s3 import AuthMechanismError
from aioimageattach.stores.s3._errors import ErrorResponse, options_for, to_error
from aioimageattach.stores.s3._xml import S3ErrorInfo

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
OBJECT_LOCK = (
    "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
)
MECHANISM = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."


def refusal(status: int, code: str = "", message: str = "no", **more: Any) -> ErrorResponse:
    return ErrorResponse(status, S3ErrorInfo(code, message), **more)


@pytest.mark.parametrize(
    ("found", "kind", "advice"),
    [
        (refusal(404, "NoSuchKey"), StoreFileNotFoundError, ""),
        (refusal(404), StoreFileNotFoundError, ""),
        (refusal(404, "NoSuchBucket"), StoreMissingError, "create the bucket"),
        (refusal(404, "NoSuchUpload"), StoreError, ""),
        (refusal(412, "PreconditionFailed"), StoreFileExistsError, "never overwritten"),
        (refusal(412), StoreFileExistsError, "never overwritten"),
        (refusal(400, "KeyTooLongError"), InvalidKeyError, ""),
        (refusal(503, "SlowDown"), StoreUnavailableError, ""),
        (refusal(500), StoreUnavailableError, ""),
        (refusal(403, "AccessDenied"), StorePermissionError, "policy"),
        (refusal(403), StorePermissionError, "policy"),
        (refusal(401), StorePermissionError, ""),
        (refusal(403, "SignatureDoesNotMatch"), StorePermissionError, "secret_key"),
        (refusal(403, "InvalidAccessKeyId"), StorePermissionError, "access_key"),
        (refusal(403, "RequestTimeTooSkewed"), StorePermissionError, "clock"),
        (refusal(400, "ExpiredToken"), StorePermissionError, "renew"),
        (refusal(400, "InvalidRequest", MECHANISM), AuthMechanismError, "signature_version='v4'"),
        (refusal(501, "NotImplemented", "Signature Version 4 is not known"), AuthMechanismError, "'v2'"),
        (refusal(501, "NotImplemented"), StoreError, "the server does not support it: set bulk_delete=False"),
        (refusal(405), StoreError, "the server does not support it"),
        (refusal(407), StoreError, "include them in its URL; .netrc is not read"),
        (refusal(400, "InvalidRequest", OBJECT_LOCK), StoreError, "set checksum='crc32'"),
        (
            refusal(404, is_foreign=True),
            StoreUnavailableError,
            "the response is not from an S3 server: check endpoint_url",
        ),
        (refusal(412, is_foreign=True), StoreUnavailableError, "the response is not from an S3 server"),
        (refusal(403, is_foreign=True), StorePermissionError, "the response is not from an S3 server"),
        (refusal(301, "PermanentRedirect", region="eu-west-1"), StoreError, "set region='eu-west-1'"),
        (refusal(400, "AuthorizationHeaderMalformed"), StoreError, "the bucket's region"),
        (refusal(400, "AccessControlListNotSupported"), StoreError, "omit acl"),
        (refusal(400, "InvalidArgument"), StoreError, ""),
    ],
    ids=lambda value: f"{value.status} {value.info.code}" if isinstance(value, ErrorResponse) else None,
)
def test_the_kind_of_error(found: ErrorResponse, kind: type[StoreError], advice: str) -> None:
    """Each error response becomes the corresponding exception, whose message states the remedy."""
    error = to_error(found, "put 'a'", store="<store>", name="a", attempts=1, options="bulk_delete=False")
    assert type(error) is kind
    assert advice in str(error)
    assert str(error).startswith(f"put 'a': the server responded with {found.status}")


def test_attributes_of_an_error() -> None:
    """An exception has the status, code, request identifier, attempts, name and store."""
    error = to_error(refusal(503, "SlowDown", request_id="R1"), "put 'a'", store="<store>", name="a", attempts=3)
    assert (error.status, error.code, error.request_id, error.attempts) == (503, "SlowDown", "R1", 3)
    assert (error.store, error.name) == ("<store>", "a")
    assert str(error) == "put 'a': the server responded with 503 SlowDown: no in 3 attempts"


def test_a_response_is_parsed() -> None:
    """Both the headers and the body of a response are used."""
    body = b"<Error><Code>AccessDenied</Code><Message>m</Message><Region>x</Region><RequestId>R2</RequestId></Error>"
    found = ErrorResponse.read(403, {}, body)
    assert (found.code, found.region, found.request_id, found.location) == ("AccessDenied", "x", "R2", None)
    headers = {
        "x-amz-bucket-region": "eu-west-1",
        "x-amz-request-id": "R1",
        "Date": "Wed, 06 May 2026 07:08:09 GMT",
        "Retry-After": "7",
        "Location": "https://x/",
    }
    found = ErrorResponse.read(403, headers, body)
    assert (found.region, found.request_id, found.retry_after) == ("eu-west-1", "R1", 7.0)
    assert (found.date, found.location) == (NOW, "https://x/")


@pytest.mark.parametrize("value", ["", "soon", "-1", "1e3", "9" * 9, "Wed, 06 May 2026 07:08:09 GMT", "٣"])
def test_an_invalid_retry_after(value: str) -> None:
    """An invalid Retry-After is ignored."""
    assert ErrorResponse.read(503, {"Retry-After": value}, b"").retry_after is None


@pytest.mark.parametrize(
    ("value", "expected"), [("nonsense", None), ("", None), ("Wed, 06 May 2026 07:08:09 -0000", NOW)]
)
def test_a_date_of_another_form(value: str, expected: datetime | None) -> None:
    """An invalid date is ignored, and one without a time zone is in UTC."""
    assert ErrorResponse.read(503, {"Date": value}, b"").date == expected


def test_the_clock_offset() -> None:
    """The offset is derived from the server's error, or from the Date header of a rejection."""
    late = NOW + timedelta(minutes=20)
    skewed = ErrorResponse(403, S3ErrorInfo("RequestTimeTooSkewed", server_time=late))
    assert skewed.clock_offset(NOW) == 1200
    assert refusal(403, "RequestTimeTooSkewed", date=late).clock_offset(NOW) == 1200
    assert refusal(403, date=late).clock_offset(NOW) == 1200
    assert refusal(403, date=NOW + timedelta(seconds=10)).clock_offset(NOW) is None
    assert refusal(403, "SignatureDoesNotMatch", date=late).clock_offset(NOW) == 1200
    assert refusal(400, date=late).clock_offset(NOW) == 1200
    assert refusal(404, "NoSuchKey", date=late).clock_offset(NOW) is None
    assert refusal(403, "RequestTimeTooSkewed").clock_offset(NOW) is None


def test_errors_that_can_be_corrected() -> None:
    """Expired credentials, unexplained errors and other regions are recognised."""
    assert refusal(400, "ExpiredToken").is_expired
    assert refusal(400).is_unexplained
    assert not refusal(400, "InvalidToken").is_unexplained
    assert refusal(307, "TemporaryRedirect").is_elsewhere
    assert refusal(400, "AuthorizationHeaderMalformed").is_elsewhere
    assert not refusal(400).is_elsewhere


def test_rejected_signatures_of_version_2() -> None:
    """Some servers report an unsupported signature version as a wrong signature."""
    for code in ("SignatureDoesNotMatch", "AccessDenied", ""):
        error = to_error(refusal(403, code), "put", store="", name=None, attempts=1, version="v2")
        assert "set signature_version='v4'" in str(error)


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ((), ("If-None-Match",), "create_only='head'"),
        ((), ("x-amz-checksum-crc32",), "checksum=None"),
        ((), ("x-amz-server-side-encryption", "x-amz-acl"), "acl=None or encryption=None"),
        (("delete",), ("Content-MD5",), "bulk_delete=False"),
        (("uploads",), (), "multipart_threshold above the size of the largest file"),
        (("uploadId",), ("Content-Type",), ""),
    ],
)
def test_options_for_unsupported_features(query: tuple[str, ...], headers: tuple[str, ...], expected: str) -> None:
    """The message names the options that concern the request."""
    assert options_for(query, headers) == expected
