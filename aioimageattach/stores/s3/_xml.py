"""A parser for XML from servers, with limits on untrusted input. Does no I/O.

Element names are compared without their namespace, because servers use different ones. A document is rejected before it
is parsed if it has a document type declaration (so no entities are expanded), is too long, or has too many elements.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ..._http.dates import read_date
from ...exc import StoreUnavailableError

__all__ = [
    "MAX_ERROR",
    "MAX_RESPONSE",
    "S3ErrorInResponse",
    "S3ErrorInfo",
    "UnexpectedResponse",
    "expect_document",
    "parse_error",
    "read_text",
    "read_time",
    "show_text",
]

MAX_RESPONSE: Final = 8 * 1024 * 1024
"""Largest response that is read, in bytes; 1,000 keys of the maximum length fit."""

MAX_ERROR: Final = 64 * 1024
"""Largest error response that is read, in bytes."""

_MAX_MARKS: Final = 200_000
_UNSHOWABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")


class UnexpectedResponse(StoreUnavailableError):
    """The response is not one that S3 sends to this request, regardless of its status."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the response is not from an S3 server: {problem}")


@dataclass(frozen=True, slots=True)
class S3ErrorInfo:
    """An S3 error, without the elements that repeat the request, such as the string to sign.

    Args:
        code: The error code, such as ``"NoSuchKey"``; empty if the response is not an S3 error.
        message: The human-readable message, on one line.
        region: The bucket's region, with ``AuthorizationHeaderMalformed``.
        endpoint: The host to use instead, with ``PermanentRedirect`` and ``TemporaryRedirect``.
        request_id: The server's identifier of the request.
        host_id: The second identifier that AWS Support asks for.
        server_time: The time on the server's clock, with ``RequestTimeTooSkewed``.
    """

    code: str = ""
    message: str = ""
    region: str | None = None
    endpoint: str | None = None
    request_id: str | None = None
    host_id: str | None = None
    server_time: datetime | None = None


class S3ErrorInResponse(Exception):
    """The body of a response with a successful status is an S3 error."""

    def __init__(self, info: S3ErrorInfo) -> None:
        super().__init__(info.code)
        self.info = info


def _parse(body: bytes) -> Element:
    """Parse a body, and remove the namespaces from the names of all elements."""
    if len(body) > MAX_RESPONSE:
        raise UnexpectedResponse(f"expected at most {MAX_RESPONSE:,} bytes, got {len(body):,}")
    if b"<!DOCTYPE" in body:
        raise UnexpectedResponse("expected no document type")
    # In memory, each element and each attribute is many times larger than in the document.
    if body.count(b"<") + body.count(b"=") > _MAX_MARKS:
        raise UnexpectedResponse(f"expected at most {_MAX_MARKS:,} elements and attributes, got more")
    try:
        # NUL bytes would make the parser assume another encoding, in which the check above misses a document type.
        if "\0" in body.decode():
            raise UnexpectedResponse("expected UTF-8")
    except UnicodeDecodeError:
        raise UnexpectedResponse("expected UTF-8") from None
    try:
        # Some servers send leading whitespace to keep the connection open.
        root = ElementTree.fromstring(body.strip(), parser=ElementTree.XMLParser(encoding="utf-8"))
    except (ElementTree.ParseError, ValueError):
        raise UnexpectedResponse("expected XML" if body.strip() else "expected XML, got an empty body") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _error_of(root: Element) -> Element | None:
    """Return the error element of a document, even if it is wrapped, as by other AWS services and some servers."""
    if root.tag == "ErrorResponse":
        inner = root.find("Error")
        return root if inner is None else inner
    return root if root.tag == "Error" else None


def expect_document(body: bytes) -> Element:
    """Parse the body of a successful response.

    Raises:
        S3ErrorInResponse: The body is an error.
        UnexpectedResponse: The body is not XML.
    """
    root = _parse(body)
    error = _error_of(root)
    if error is not None:
        raise S3ErrorInResponse(_info(error))
    return root


def read_text(element: Element, name: str) -> str:
    """Return the text of a required, non-empty child element.

    Raises:
        UnexpectedResponse: The element is missing or empty.
    """
    found = element.findtext(name)
    if not found:
        raise UnexpectedResponse(f"expected <{name}> in <{element.tag:.40}>, found none")
    return found


def read_time(text: str) -> datetime:
    """Parse a time in either of the two formats that servers use; a time without a time zone is in UTC.

    Raises:
        UnexpectedResponse: The time has neither format.
    """
    for read in (datetime.fromisoformat, read_date):
        try:
            found = read(text.strip())
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise UnexpectedResponse(f"expected a time, got {text!r:.40}")


def show_text(element: Element, name: str) -> str | None:
    """Return the text of a child element for an error message: on one line, with a bounded length."""
    found = element.findtext(name)
    return _UNSHOWABLE.sub(" ", found).strip()[:500] or None if found else None


def _info(root: Element) -> S3ErrorInfo:
    try:
        server_time = read_time(root.findtext("ServerTime") or "")
    except UnexpectedResponse:
        server_time = None
    return S3ErrorInfo(
        code=(show_text(root, "Code") or "")[:100],
        message=show_text(root, "Message") or "",
        region=show_text(root, "Region"),
        endpoint=show_text(root, "Endpoint"),
        request_id=show_text(root, "RequestId"),
        host_id=show_text(root, "HostId"),
        server_time=server_time,
    )


def parse_error(body: bytes) -> S3ErrorInfo | None:
    """Return the S3 error in a body; ``None`` if the body is truncated, empty or something else. Never raises.

    Args:
        body: The body; it is ignored if it is longer than ``MAX_ERROR``.
    """
    if len(body) > MAX_ERROR:
        return None
    try:
        error = _error_of(_parse(body))
    except UnexpectedResponse:
        return None
    return None if error is None else _info(error)
