"""The XML that S3 speaks: bounded answers in, values out; values in, bodies of requests out.

Pure. Names of elements count without their namespace, since servers differ about it. A document type is refused before
it is parsed, so there are no entities to expand; so is what is too long or has too many elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from ...exc import InvalidKeyError, StoreError, StoreUnavailableError

__all__ = [
    "MAX_ANSWER",
    "MAX_DELETES",
    "MAX_ERROR",
    "MAX_PARTS",
    "Completed",
    "DeleteFailure",
    "DeleteResult",
    "ListPage",
    "ListedObject",
    "ListedUpload",
    "Part",
    "S3ErrorInAnswer",
    "S3ErrorInfo",
    "UploadsPage",
    "build_complete",
    "build_delete",
    "parse_complete",
    "parse_copy",
    "parse_delete_result",
    "parse_error",
    "parse_initiate_multipart",
    "parse_list",
    "parse_uploads",
]

MAX_ANSWER: Final = 8 * 1024 * 1024
"""How many bytes an answer may have: a thousand of the longest keys fit."""

MAX_ERROR: Final = 64 * 1024
"""How many bytes of an error are read."""

MAX_DELETES: Final = 1000
"""How many keys one request may delete."""

MAX_PARTS: Final = 10_000
"""How many parts an upload may have."""

_MAX_MARKS: Final = 200_000
_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_UNWRITABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ENTITIES: Final = {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
_UNSHOWABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")


@dataclass(frozen=True, slots=True)
class S3ErrorInfo:
    """What a server says of an error; nothing of what it repeats of the request, such as the text it signed.

    Args:
        code: Such as ``"NoSuchKey"``; empty where the answer is none of S3's.
        message: For people, on one line.
        region: Where the bucket is, with ``AuthorizationHeaderMalformed``.
        endpoint: Whom to ask instead, with ``PermanentRedirect`` and ``TemporaryRedirect``.
        request_id: What the server calls the request.
        host_id: What else the server's people ask for.
        server_time: The server's clock, with ``RequestTimeTooSkewed``.
    """

    code: str = ""
    message: str = ""
    region: str | None = None
    endpoint: str | None = None
    request_id: str | None = None
    host_id: str | None = None
    server_time: datetime | None = None


class S3ErrorInAnswer(StoreError):
    """The body of an answer that promised success is an error."""

    def __init__(self, info: S3ErrorInfo) -> None:
        super().__init__(f"the server answered success with an error in it: {info.code}: {info.message}")
        self.info = info


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object in a listing; ``etag`` without quotes, empty where the server gives none."""

    key: str
    size: int
    modified_at: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of a listing, in the server's order.

    Where it is truncated without a token, the server knows version 1 of listings only: go on after the last key.
    """

    objects: tuple[ListedObject, ...]
    prefixes: tuple[str, ...]
    truncated: bool
    next_token: str | None


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """A key that was not deleted, and why."""

    key: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """What became of the keys of one request; in quiet mode the deleted ones are not named."""

    deleted: tuple[str, ...]
    failures: tuple[DeleteFailure, ...]


@dataclass(frozen=True, slots=True)
class Completed:
    """An object that now stands; ``etag`` without quotes."""

    etag: str
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ListedUpload:
    """A multipart upload that was begun and neither completed nor aborted."""

    key: str
    upload_id: str
    initiated_at: datetime


@dataclass(frozen=True, slots=True)
class UploadsPage:
    """A page of a listing of uploads, and where the next begins."""

    uploads: tuple[ListedUpload, ...]
    truncated: bool
    next_key_marker: str | None
    next_upload_id_marker: str | None


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was uploaded.

    Args:
        number: From 1 to 10,000.
        etag: As the server gave it, with or without quotes.
        checksum: The algorithm, such as ``"crc32"``, and the value in base64, if the upload was begun with one.
    """

    number: int
    etag: str
    checksum: tuple[str, str] | None = None


def _parse(body: bytes) -> Element:
    """Parse a body; its root's children and theirs can be found by their bare names."""
    if len(body) > MAX_ANSWER:
        raise _malformed(f"it has {len(body):,} bytes, {MAX_ANSWER:,} are allowed")
    if b"<!DOCTYPE" in body:
        raise _malformed("it has a document type")
    # Each element and each attribute takes many times its bytes in memory.
    if body.count(b"<") + body.count(b"=") > _MAX_MARKS:
        raise _malformed(f"it has more than {_MAX_MARKS:,} elements and attributes")
    try:
        # The parser would take zeros for another encoding, in which a document type would not be seen here.
        if "\0" in body.decode():
            raise _malformed("it is no UTF-8")
    except UnicodeDecodeError:
        raise _malformed("it is no UTF-8") from None
    try:
        # Some servers send blanks first to keep the connection.
        root = ElementTree.fromstring(body.strip(), parser=ElementTree.XMLParser(encoding="utf-8"))
    except (ElementTree.ParseError, ValueError):
        raise _malformed("it is no XML") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _malformed(problem: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"the server's answer cannot be read: {problem}")


def _expect(body: bytes, *names: str) -> Element:
    root = _parse(body)
    if root.tag == "Error":
        raise S3ErrorInAnswer(_info(root))
    if root.tag not in names:
        raise _malformed(f"expected <{names[0]}>, got <{root.tag:.40}>")
    return root


def _text(element: Element, name: str) -> str:
    found = element.findtext(name)
    if found is None:
        raise _malformed(f"<{element.tag}> has no <{name}>")
    return found


def _time(text: str) -> datetime:
    """Read a time in either of the two forms that servers write; one without a zone is in UTC."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = read(text.strip())
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise _malformed(f"{text!r:.40} is no time")


def _size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise _malformed(f"{text!r:.40} is no size")
    return int(text)


def _etag(element: Element) -> str:
    return (element.findtext("ETag") or "").strip().strip('"')


def _truncated(root: Element) -> bool:
    return (root.findtext("IsTruncated") or "").strip() == "true"


def _shown(element: Element, name: str) -> str | None:
    """Return a text as it may stand in a message: on one line, bounded."""
    found = element.findtext(name)
    return _UNSHOWABLE.sub(" ", found).strip()[:500] or None if found else None


def _info(root: Element) -> S3ErrorInfo:
    try:
        server_time = _time(root.findtext("ServerTime") or "")
    except StoreUnavailableError:
        server_time = None
    return S3ErrorInfo(
        code=(_shown(root, "Code") or "")[:100],
        message=_shown(root, "Message") or "",
        region=_shown(root, "Region"),
        endpoint=_shown(root, "Endpoint"),
        request_id=_shown(root, "RequestId"),
        host_id=_shown(root, "HostId"),
        server_time=server_time,
    )


def parse_error(body: bytes) -> S3ErrorInfo:
    """Return what an error says; nothing where it is none of S3's, but a proxy's page, cut, or empty. Never raises.

    Args:
        body: At most ``MAX_ERROR`` bytes are worth reading.
    """
    if len(body) > MAX_ERROR:
        return S3ErrorInfo()
    try:
        root = _parse(body)
    except StoreUnavailableError:
        return S3ErrorInfo()
    if root.tag == "ErrorResponse":  # as other services of Amazon, and some servers, wrap it
        inner = root.find("Error")
        root = root if inner is None else inner
    return _info(root) if root.tag == "Error" else S3ErrorInfo()


def parse_list(body: bytes) -> ListPage:
    """Return a page of a listing, version 2 or 1; its keys are decoded if the server says it encoded them.

    Raises:
        S3ErrorInAnswer: It is an error.
        StoreUnavailableError: It is no listing.
    """
    root = _expect(body, "ListBucketResult")
    encoded = root.findtext("EncodingType") == "url"

    def name(element: Element, tag: str) -> str:
        found = _text(element, tag)
        # S3 writes a space as "+" here.
        return unquote_plus(found, errors="strict") if encoded else found

    try:
        return ListPage(
            objects=tuple(
                ListedObject(
                    key=name(item, "Key"),
                    size=_size(_text(item, "Size")),
                    modified_at=_time(_text(item, "LastModified")),
                    etag=_etag(item),
                )
                for item in root.iterfind("Contents")
            ),
            prefixes=tuple(name(item, "Prefix") for item in root.iterfind("CommonPrefixes")),
            truncated=_truncated(root),
            next_token=root.findtext("NextContinuationToken") or None,
        )
    except UnicodeDecodeError:
        raise _malformed("a key is no UTF-8") from None


def parse_delete_result(body: bytes) -> DeleteResult:
    """Return what became of the keys of :func:`build_delete`.

    Raises:
        S3ErrorInAnswer: It is an error about all of them.
        StoreUnavailableError: It is no such answer.
    """
    root = _expect(body, "DeleteResult", "DeleteObjectsOutput")
    return DeleteResult(
        deleted=tuple(_text(item, "Key") for item in root.iterfind("Deleted")),
        failures=tuple(
            DeleteFailure(_text(item, "Key"), (_shown(item, "Code") or "")[:100], _shown(item, "Message") or "")
            for item in root.iterfind("Error")
        ),
    )


def parse_initiate_multipart(body: bytes) -> str:
    """Return the identifier of an upload that was begun.

    Raises:
        S3ErrorInAnswer: It is an error.
        StoreUnavailableError: It is no such answer.
    """
    upload_id = _text(_expect(body, "InitiateMultipartUploadResult"), "UploadId").strip()
    if not upload_id:
        raise _malformed("<UploadId> is empty")
    return upload_id


def parse_complete(body: bytes) -> Completed:
    """Return the object that a completed upload made.

    Raises:
        S3ErrorInAnswer: It is an error, which comes with status 200 when it happens late.
        StoreUnavailableError: It is no such answer.
    """
    return Completed(_etag(_expect(body, "CompleteMultipartUploadResult")))


def parse_copy(body: bytes) -> Completed:
    """Return the object that a copy made, or the part.

    Raises:
        S3ErrorInAnswer: It is an error, which comes with status 200 when it happens late.
        StoreUnavailableError: It is no such answer.
    """
    root = _expect(body, "CopyObjectResult", "CopyPartResult")
    return Completed(_etag(root), _time(_text(root, "LastModified")))


def parse_uploads(body: bytes) -> UploadsPage:
    """Return a page of the uploads that are neither completed nor aborted.

    Raises:
        S3ErrorInAnswer: It is an error.
        StoreUnavailableError: It is no such answer.
    """
    root = _expect(body, "ListMultipartUploadsResult")
    encoded = root.findtext("EncodingType") == "url"

    def name(text: str) -> str:
        return unquote_plus(text, errors="strict") if encoded else text

    marker = root.findtext("NextKeyMarker")
    try:
        return UploadsPage(
            uploads=tuple(
                ListedUpload(name(_text(item, "Key")), _text(item, "UploadId"), _time(_text(item, "Initiated")))
                for item in root.iterfind("Upload")
            ),
            truncated=_truncated(root),
            next_key_marker=name(marker) if marker else None,
            next_upload_id_marker=root.findtext("NextUploadIdMarker") or None,
        )
    except UnicodeDecodeError:
        raise _malformed("a key is no UTF-8") from None


def _document(root: str, content: Iterable[str]) -> bytes:
    declaration = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{declaration}<{root} xmlns="{_NAMESPACE}">{"".join(content)}</{root}>'.encode()


def build_delete(keys: Sequence[str], *, quiet: bool = True) -> bytes:
    """Return the body of a request that deletes many keys.

    Args:
        keys: At most 1,000.
        quiet: Whether only the failures are reported.

    Raises:
        InvalidKeyError: XML cannot write a key, because of a control character; delete it by a request of its own.
        ValueError: There are none, or too many.
    """
    if not 0 < len(keys) <= MAX_DELETES:
        raise ValueError(f"keys: expected 1 to {MAX_DELETES:,}, got {len(keys):,}")
    for key in keys:
        if _UNWRITABLE.search(key):
            raise InvalidKeyError(f"key {key!r:.80}: XML has no way to write one of its characters", name=key)
    objects = (f"<Object><Key>{escape(key, _ENTITIES)}</Key></Object>" for key in keys)
    return _document("Delete", ["<Quiet>true</Quiet>" if quiet else "", *objects])


def build_complete(parts: Iterable[Part]) -> bytes:
    """Return the body of a request that completes an upload.

    Args:
        parts: In any order; they are written in that of their numbers.

    Raises:
        ValueError: There are none or too many, or a number stands twice or is none.
    """
    ordered = sorted(parts, key=lambda part: part.number)
    numbers = {part.number for part in ordered}
    if not ordered or len(numbers) != len(ordered) or min(numbers) < 1 or max(numbers) > MAX_PARTS:
        raise ValueError(f"parts: expected at least one, with different numbers from 1 to {MAX_PARTS:,}")
    return _document("CompleteMultipartUpload", map(_part, ordered))


def _part(part: Part) -> str:
    etag = escape(part.etag.strip('"'))
    checksum = ""
    if part.checksum is not None:
        tag = f"Checksum{part.checksum[0].upper()}"
        checksum = f"<{tag}>{escape(part.checksum[1])}</{tag}>"
    return f'<Part><PartNumber>{part.number}</PartNumber><ETag>"{etag}"</ETag>{checksum}</Part>'
