"""Names of attached files: safe file names for uploads, and the names of their files in a store. No I/O."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ._names import EXTENSIONS, RESERVED, check_name
from .exc import InvalidKeyError
from .key import make_revision

__all__ = [
    "MAX_FILENAME_BYTES",
    "SERVED_TYPES",
    "UNKNOWN_TYPE",
    "AttachmentName",
    "clean_filename",
    "clean_mimetype",
    "guess_mimetype",
    "make_attachment_name",
    "parse_attachment_name",
]

UNKNOWN_TYPE: Final = "application/octet-stream"

_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_OPEN: Final = "application/vnd.oasis.opendocument."

SERVED_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{extension: mimetype for mimetype, extension in EXTENSIONS.items() if mimetype != "image/svg+xml"},
        ".7z": "application/x-7z-compressed",
        ".aac": "audio/aac",
        ".csv": "text/csv",
        ".doc": "application/msword",
        ".docx": f"{_OFFICE}wordprocessingml.document",
        ".epub": "application/epub+zip",
        ".flac": "audio/flac",
        ".gz": "application/gzip",
        ".ics": "text/calendar",
        ".jpeg": "image/jpeg",
        ".json": "application/json",
        ".m4a": "audio/mp4",
        ".mkv": "video/matroska",
        ".mov": "video/quicktime",
        ".mp3": "audio/mpeg",
        ".mp4": "video/mp4",
        ".odp": f"{_OPEN}presentation",
        ".ods": f"{_OPEN}spreadsheet",
        ".odt": f"{_OPEN}text",
        ".ogg": "audio/ogg",
        ".opus": "audio/ogg",
        ".ppt": "application/vnd.ms-powerpoint",
        ".pptx": f"{_OFFICE}presentationml.presentation",
        ".rtf": "application/rtf",
        ".tar": "application/x-tar",
        ".tiff": "image/tiff",
        ".txt": "text/plain",
        ".wav": "audio/wav",
        ".webm": "video/webm",
        ".xls": "application/vnd.ms-excel",
        ".xlsx": f"{_OFFICE}spreadsheetml.sheet",
        ".zip": "application/zip",
    }
)
"""MIME types, by file name extension, that browsers never interpret as a page, a script or a style sheet."""

MAX_FILENAME_BYTES: Final = 200
"""Longest file name of an attached file, in bytes of UTF-8."""

_INERT: Final = ".bin"  # never a key of SERVED_TYPES: appended to file names with any other extension
_MAX_EXTENSION: Final = 20
_MAX_MIMETYPE: Final = 96
_FORBIDDEN: Final = re.compile(r'[<>:"|?*]')  # by Windows
_MIMETYPE: Final = re.compile(r"[a-z]{1,20}/[a-z0-9][a-z0-9.+_-]*", re.ASCII)
_NAME: Final = re.compile(
    r"(?P<object_type>[^/]+)/(?P<five>[0-9a-z]{5})/(?P<two>[0-9a-z]{2})/"
    r"(?P<revision>(?P=five)(?P=two)[0-9a-z]{25})\.(?P<size>0|[1-9][0-9]{0,14})\.(?P<sha256>[0-9a-f]{64})"
    r"\.(?P<type>[a-z]+)~(?P<subtype>[a-z0-9.+_-]+)/(?P<filename>[^/]+)",
    re.ASCII,
)


def clean_filename(filename: str) -> str:
    """Return the file name of an upload in a form that is safe in every store, URL, header and file system.

    Directories, unprintable characters, and dots and spaces at both ends are removed. Characters that Windows forbids
    are replaced by ``_``. The result is in Unicode's form NFC, is not empty, and has at most 200 bytes in UTF-8; a
    longer name keeps its extension.
    """
    name = "".join(" " if char.isspace() else char for char in filename if char.isspace() or char.isprintable())
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    name = _FORBIDDEN.sub("_", " ".join(name.split())).strip(". ") or "file"
    if len(name.encode()) > MAX_FILENAME_BYTES:
        extension = extension_of(name)
        kept = extension if len(extension.encode()) <= _MAX_EXTENSION else ""
        stem = name.removesuffix(kept).encode()[: MAX_FILENAME_BYTES - len(kept.encode())].decode(errors="ignore")
        name = (stem.rstrip(". ") + kept).rstrip(". ")
    return f"_{name}" if RESERVED.fullmatch(name) else name


def clean_mimetype(mimetype: str) -> str:
    """Return a MIME type in lower case without its parameters; ``application/octet-stream`` if it is not valid."""
    found = mimetype.partition(";")[0].strip().lower()
    return found if len(found) <= _MAX_MIMETYPE and _MIMETYPE.fullmatch(found) else UNKNOWN_TYPE


def guess_mimetype(filename: str) -> str:
    """Return the MIME type of a file by its extension; ``application/octet-stream`` if it is not known."""
    return SERVED_TYPES.get(extension_of(filename).lower(), UNKNOWN_TYPE)


def extension_of(filename: str) -> str:
    """Return the extension of a file name, with its dot; empty if there is none."""
    stem, dot, ending = filename.rpartition(".")
    return f"{dot}{ending}" if stem and dot else ""


@dataclass(frozen=True, slots=True)
class AttachmentName:
    """The name of an attached file in a store, which contains all metadata of the file.

    It has the form ``object_type/rrrrr/rr/revision.size.sha256.type~subtype/filename``. The file name comes last, so
    that it is the last segment of the URL. It is followed by ``.bin`` if its extension is not in :data:`SERVED_TYPES`:
    a web server therefore never sends a type that browsers run, whatever an upload claims.

    Args:
        name: The name in the store.
        object_type: The prefix of the name.
        revision: Identifies the upload, as for images.
        size: Size in bytes.
        sha256: SHA-256 in hexadecimal.
        mimetype: The declared MIME type.
        filename: The file name.
    """

    name: str
    object_type: str
    revision: str
    size: int
    sha256: str
    mimetype: str
    filename: str

    @property
    def served_type(self) -> str:
        """The MIME type with which the file is served. It depends only on the extension."""
        return guess_mimetype(self.name)


def make_attachment_name(object_type: str, *, size: int, sha256: str, mimetype: str, filename: str) -> AttachmentName:
    """Return the name of a new file.

    Args:
        object_type: The prefix of the name.
        size: Size in bytes.
        sha256: SHA-256 in hexadecimal.
        mimetype: A result of :func:`clean_mimetype`.
        filename: A result of :func:`clean_filename`.
    """
    revision = make_revision()
    facts = f"{revision}.{size}.{sha256}.{mimetype.replace('/', '~')}"
    ending = _INERT if guess_mimetype(filename) == UNKNOWN_TYPE else ""
    name = f"{object_type}/{revision[:5]}/{revision[5:7]}/{facts}/{filename}{ending}"
    return AttachmentName(check_name(name), object_type, revision, size, sha256, mimetype, filename)


def parse_attachment_name(name: str) -> AttachmentName | None:
    """Parse a name in a store; return ``None`` if it is not the name of an attached file."""
    found = _NAME.fullmatch(name)
    try:
        check_name(name)
    except InvalidKeyError:
        return None
    if found is None or not (filename := found["filename"].removesuffix(_INERT)):
        return None
    mimetype = f"{found['type']}/{found['subtype']}"
    return AttachmentName(
        name, found["object_type"], found["revision"], int(found["size"]), found["sha256"], mimetype, filename
    )
