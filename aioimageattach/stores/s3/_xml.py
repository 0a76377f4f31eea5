"""XML from servers, parsed under limits. Pure.

Names of elements are compared without their namespace, because servers use different ones. A document with a document
type is refused before it is parsed, so there are no entities to expand; so is one that is too long or has too many
elements.
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
"""Largest response that is read, in bytes: a thousand keys of the greatest length fit."""

MAX_ERROR: Final = 64 * 1024
"""Largest error that is read, in bytes."""

_MAX_MARKS: Final = 200_000
_UNSHOWABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")


class UnexpectedResponse(StoreUnavailableError):
    """A response is not one that S3 sends to this request, whatever its status."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the server's response is not one of S3: {problem}")


@dataclass(frozen=True, slots=True)
class S3ErrorInfo:
    """An error element; without the parts that repeat the request, such as the string that was signed.

    Args:
        code: Such as ``"NoSuchKey"``; empty if the response is not an error of S3.
        message: For people, on one line.
        region: The bucket's region, with ``AuthorizationHeaderMalformed``.
        endpoint: The host to use instead, with ``PermanentRedirect`` and ``TemporaryRedirect``.
        request_id: The server's identifier of the request.
        host_id: The second identifier that Amazon's support asks for.
        server_time: The server's clock, with ``RequestTimeTooSkewed``.
    """

    code: str = ""
    message: str = ""
    region: str | None = None
    endpoint: str | None = None
    request_id: str | None = None
    host_id: str | None = None
    server_time: datetime | None = None


class S3ErrorInResponse(Exception):
    """The body of a response with a successful status is an error of S3."""

    def __init__(self, info: S3ErrorInfo) -> None:
        super().__init__(info.code)
        self.info = info


def _parse(body: bytes) -> Element:
    """Parse a body; its root and all its descendants can be found by their bare names."""
    if len(body) > MAX_RESPONSE:
        raise UnexpectedResponse(f"it has {len(body):,} bytes, {MAX_RESPONSE:,} are allowed")
    if b"<!DOCTYPE" in body:
        raise UnexpectedResponse("it has a document type")
    # Each element and each attribute takes many times its bytes in memory.
    if body.count(b"<") + body.count(b"=") > _MAX_MARKS:
        raise UnexpectedResponse(f"it has more than {_MAX_MARKS:,} elements and attributes")
    try:
        # The parser would take zeros for another encoding, in which a document type would not be seen here.
        if "\0" in body.decode():
            raise UnexpectedResponse("it is not UTF-8")
    except UnicodeDecodeError:
        raise UnexpectedResponse("it is not UTF-8") from None
    try:
        # Some servers send blanks first to keep the connection.
        root = ElementTree.fromstring(body.strip(), parser=ElementTree.XMLParser(encoding="utf-8"))
    except (ElementTree.ParseError, ValueError):
        raise UnexpectedResponse("it is not XML" if body.strip() else "it is empty") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _error_of(root: Element) -> Element | None:
    """Return the error element of a document, also where other services of Amazon and some servers wrap it."""
    if root.tag == "ErrorResponse":
        inner = root.find("Error")
        return root if inner is None else inner
    return root if root.tag == "Error" else None


def expect_document(body: bytes) -> Element:
    """Parse the body of a successful response.

    Raises:
        S3ErrorInResponse: It is an error.
        UnexpectedResponse: It is not XML.
    """
    root = _parse(body)
    error = _error_of(root)
    if error is not None:
        raise S3ErrorInResponse(_info(error))
    return root


def read_text(element: Element, name: str) -> str:
    """Return the text of a child element that must be there and not be empty.

    Raises:
        UnexpectedResponse: It is missing.
    """
    found = element.findtext(name)
    if not found:
        raise UnexpectedResponse(f"<{element.tag:.40}> has no <{name}>")
    return found


def read_time(text: str) -> datetime:
    """Read a time in either of the two forms that servers write; one without a zone is in UTC.

    Raises:
        UnexpectedResponse: It has neither form.
    """
    for read in (datetime.fromisoformat, read_date):
        try:
            found = read(text.strip())
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise UnexpectedResponse(f"{text!r:.40} is not a time")


def show_text(element: Element, name: str) -> str | None:
    """Return the text of a child element as a message may show it: on one line, bounded."""
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
    """Return the error in a body; ``None`` if it is not one of S3 but a proxy's page, cut off, or empty. Never raises.

    Args:
        body: Longer ones than ``MAX_ERROR`` are not read.
    """
    if len(body) > MAX_ERROR:
        return None
    try:
        error = _error_of(_parse(body))
    except UnexpectedResponse:
        return None
    return None if error is None else _info(error)
