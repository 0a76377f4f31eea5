"""Parsers for the bodies of successful responses. Does no I/O.

Servers use different names for root elements. So a document is accepted if it contains the requested elements,
regardless of the name of its root; any other document is not a success.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element

from .._xml import S3ErrorInfo, S3ErrorInResponse, UnexpectedResponse, expect_document, read_text, read_time, show_text

__all__ = [
    "DeleteFailure",
    "DeleteResult",
    "ListPage",
    "ListedObject",
    "ListedUpload",
    "UploadsPage",
    "parse_delete_result",
    "parse_etag",
    "parse_list",
    "parse_upload_id",
    "parse_uploads",
]


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object in a listing; ``etag`` has no quotes, and is empty if the server does not return one."""

    key: str
    size: int
    modified_at: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of a listing, in the server's order.

    Args:
        objects: The objects, at most 1,000.
        prefixes: The common prefixes, if a delimiter was given.
        truncated: ``True`` if there are more pages.
        next_token: The continuation token of the next page in version 2 of the listing API.
        next_marker: The marker of the next page in version 1; many servers omit it.
    """

    objects: tuple[ListedObject, ...]
    prefixes: tuple[str, ...]
    truncated: bool
    next_token: str | None
    next_marker: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """A key that was not deleted, and the reason."""

    key: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """The outcome of a request that deletes many keys; in quiet mode it lists only the failures."""

    deleted: tuple[str, ...]
    failures: tuple[DeleteFailure, ...]


@dataclass(frozen=True, slots=True)
class ListedUpload:
    """A multipart upload that has been neither completed nor aborted."""

    key: str
    upload_id: str
    initiated_at: datetime


@dataclass(frozen=True, slots=True)
class UploadsPage:
    """A page of a listing of uploads, and the position of the next page."""

    uploads: tuple[ListedUpload, ...]
    truncated: bool
    next_key_marker: str | None
    next_upload_id_marker: str | None


class _Names:
    """A reader of names, which decodes them if the response declares that they are URL-encoded."""

    def __init__(self, root: Element) -> None:
        self._encoded = root.findtext("EncodingType") == "url"

    def decode(self, text: str) -> str:
        try:
            # S3 encodes a space as "+" in listings.
            return unquote_plus(text, errors="strict") if self._encoded else text
        except UnicodeDecodeError:
            raise UnexpectedResponse("expected keys in UTF-8") from None

    def read(self, element: Element, tag: str) -> str:
        return self.decode(read_text(element, tag))

    def find(self, element: Element, tag: str) -> str | None:
        found = element.findtext(tag)
        return self.decode(found) if found else None


def _size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise UnexpectedResponse(f"expected a size, got {text!r:.40}")
    return int(text)


def _is_truncated(root: Element, *items: str) -> bool:
    """Return whether there are more pages; a document with neither that element nor any item is not a listing."""
    found = root.findtext("IsTruncated")
    if found is None and all(root.find(item) is None for item in items) and not root.tag.startswith("List"):
        raise UnexpectedResponse(f"expected a listing, got <{root.tag:.40}>")
    return (found or "").strip().lower() == "true"


def parse_list(body: bytes) -> ListPage:
    """Parse a page of a listing, in version 2 or 1.

    Raises:
        S3ErrorInResponse: The body is an error.
        UnexpectedResponse: The body is not a listing.
    """
    root = expect_document(body)
    names = _Names(root)
    return ListPage(
        truncated=_is_truncated(root, "Contents"),
        objects=tuple(
            ListedObject(
                key=names.read(item, "Key"),
                size=_size(read_text(item, "Size")),
                modified_at=read_time(read_text(item, "LastModified")),
                etag=(item.findtext("ETag") or "").strip().strip('"'),
            )
            for item in root.iterfind("Contents")
        ),
        prefixes=tuple(names.read(item, "Prefix") for item in root.iterfind("CommonPrefixes")),
        next_token=root.findtext("NextContinuationToken") or None,
        next_marker=names.find(root, "NextMarker"),
    )


def parse_uploads(body: bytes) -> UploadsPage:
    """Parse a page of the uploads that have been neither completed nor aborted.

    Raises:
        S3ErrorInResponse: The body is an error, or lists objects, as from a server that does not support ``?uploads``.
        UnexpectedResponse: The body is not a listing.
    """
    root = expect_document(body)
    if root.tag.startswith("ListBucket"):
        raise S3ErrorInResponse(S3ErrorInfo("NotImplemented", "expected a listing of uploads, got one of objects"))
    names = _Names(root)
    return UploadsPage(
        truncated=_is_truncated(root, "Upload"),
        uploads=tuple(
            ListedUpload(names.read(item, "Key"), read_text(item, "UploadId"), read_time(read_text(item, "Initiated")))
            for item in root.iterfind("Upload")
        ),
        next_key_marker=names.find(root, "NextKeyMarker"),
        next_upload_id_marker=root.findtext("NextUploadIdMarker") or None,
    )


def parse_delete_result(body: bytes) -> DeleteResult:
    """Parse the outcome for the keys of :func:`~aioimageattach.stores.s3._documents.build_delete`.

    Raises:
        S3ErrorInResponse: The body is an error that applies to all keys.
        UnexpectedResponse: The body is not such a result.
    """
    root = expect_document(body)
    result = DeleteResult(
        deleted=tuple(read_text(item, "Key") for item in root.iterfind("Deleted")),
        failures=tuple(
            DeleteFailure(
                read_text(item, "Key"), (show_text(item, "Code") or "")[:100], show_text(item, "Message") or ""
            )
            for item in root.iterfind("Error")
        ),
    )
    # In quiet mode an empty document means success, so the name of its root is the only evidence.
    if not (result.deleted or result.failures or root.tag.startswith("Delete")):
        raise UnexpectedResponse(f"expected <DeleteResult>, got <{root.tag:.40}>")
    return result


def parse_upload_id(body: bytes) -> str:
    """Parse the identifier of an upload that was started.

    Raises:
        S3ErrorInResponse: The body is an error.
        UnexpectedResponse: The body contains no identifier.
    """
    found = read_text(expect_document(body), "UploadId").strip()
    if not found:
        raise UnexpectedResponse("expected a value in <UploadId>, got none")
    return found


def parse_etag(body: bytes) -> str:
    """Parse the ETag of the object that a copy or a completed upload created; return it without quotes.

    Raises:
        S3ErrorInResponse: The body is an error; errors that occur late have status 200.
        UnexpectedResponse: The body contains no ETag.
    """
    found = read_text(expect_document(body), "ETag").strip().strip('"')
    if not found:
        raise UnexpectedResponse("expected a value in <ETag>, got none")
    return found
