"""The content of an offloaded column: the value itself, or the name of its file, which contains all its metadata."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from .._filenames import UNKNOWN_TYPE, AttachmentName, parse_attachment_name
from .._names import check_name, revision_time
from ..exc import DamagedValueError, DeclarationError
from ..key import make_revision
from ._codec import Compression, bound, extension_of

__all__ = [
    "INLINE_MARKS",
    "MAX_OBJECT_TYPE",
    "Inline",
    "Reference",
    "check_kind",
    "check_object_type",
    "file_reference",
    "format_inline",
    "make_reference",
    "parse",
    "parse_name",
]

MAX_OBJECT_TYPE: Final = 80
"""Maximum length of an object type, so that a reference fits into ``VARCHAR(255)``."""

_REVISION_CHARS: Final = 26  # shorter than for images: these names are not secret, and must fit into the column

_TEXT: Final = "="
_BASE64: Final = "#"
_FILE: Final = "@"
INLINE_MARKS: Final = (_TEXT, _BASE64)
"""The first characters of columns that hold the value itself."""

_OBJECT_TYPE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]*", re.ASCII)
_NAME: Final = re.compile(
    r"(?P<object_type>[^/]+)/(?P<five>[0-9a-z]{5})/"
    r"(?:(?P<two>[0-9a-z]{2})/(?P<revision>(?P=five)(?P=two)[0-9a-z]{19})|shared)"
    r"\.(?P<size>0|[1-9][0-9]{0,14})\.(?P<stored>0|[1-9][0-9]{0,14})\.(?P<sha256>[0-9a-f]{64})"
    r"(?P<kind>\.[a-z0-9]{1,12})(?:\.(?P<compression>gz|zst))?",
    re.ASCII,
)
_FILE_KIND: Final = ".bin"
_KIND: Final = re.compile(r"\.[a-z0-9]{1,12}", re.ASCII)
_COMPRESSIONS: Final[dict[str | None, Compression | None]] = {None: None, "gz": "gzip", "zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Reference:
    """The metadata of a file, which its name contains.

    Args:
        name: The name in the store.
        object_type: The prefix of the name.
        size: Size of the value in bytes.
        stored: Size of the file in bytes.
        sha256: SHA-256 of the value, in hexadecimal.
        kind: The file name extension of the content.
        compression: The compression of the file.
        shared: ``True`` if several rows may reference the file.
        attachment: The parsed name of an attached file; ``None`` for a file of another kind.
    """

    name: str
    object_type: str
    size: int
    stored: int
    sha256: str
    kind: str
    compression: Compression | None
    shared: bool
    attachment: AttachmentName | None = None

    def mimetype(self, plain: str) -> str:
        """Return the MIME type with which the file is served.

        Args:
            plain: The MIME type of an uncompressed file that is not an attached file.
        """
        if self.attachment is not None:
            return self.attachment.served_type
        return plain if self.compression is None else UNKNOWN_TYPE

    def __str__(self) -> str:
        return f"{_FILE}{self.name}"

    @property
    def since(self) -> float:
        """The earliest time at which the file was put, according to its name, in seconds since 1970."""
        start = len(self.object_type) + 1
        revision = self.name[start : start + 5] + "0" * 21
        moment = revision_time(revision)
        return 0.0 if moment is None else moment.timestamp()


@dataclass(frozen=True, slots=True)
class Inline:
    """A value that is kept in the row."""

    data: bytes


def check_object_type(object_type: str) -> str:
    """Return an object type if file names may begin with it.

    Raises:
        DeclarationError: It is invalid.
    """
    if len(object_type) > MAX_OBJECT_TYPE or not _OBJECT_TYPE.fullmatch(object_type) or object_type.endswith("."):
        raise DeclarationError(
            f"object_type: expected at most {MAX_OBJECT_TYPE} letters, digits, '_', '-', '.' and '~', beginning with a "
            f"letter, a digit or '_' and not ending with '.': got {object_type!r:.120}; name another"
        )
    return object_type


def check_kind(kind: str) -> str:
    """Return a file name extension if file names may have it.

    Raises:
        DeclarationError: It is invalid.
    """
    if not _KIND.fullmatch(kind) or kind[1:] in _COMPRESSIONS:
        raise DeclarationError(
            f"kind: expected a dot and at most 12 small letters and digits, such as '.msgpack', got {kind!r:.80}"
        )
    return kind


def make_reference(
    object_type: str, *, size: int, stored: int, sha256: str, kind: str, compression: Compression | None, shared: bool
) -> Reference:
    """Return a new reference.

    The name is ``object_type/rrrrr/rr/revision.size.stored.sha256.kind``. It is unique, and sorts by time like the
    names of images. The name of a shared file is ``object_type/rrrrr/shared.size.stored.sha256.kind``: equal content
    gets the same name within nine hours.

    Args:
        object_type: The prefix of the name.
        size: Size of the value in bytes.
        stored: Size of the file in bytes.
        sha256: SHA-256 of the value, in hexadecimal.
        kind: The file name extension of the content, with its dot.
        compression: The compression of the file.
        shared: ``True`` if other rows may reference the file.
    """
    revision = make_revision()[:_REVISION_CHARS]
    own = "shared" if shared else f"{revision[5:7]}/{revision}"
    ending = f"{kind}{extension_of(compression)}"
    name = f"{object_type}/{revision[:5]}/{own}.{size}.{stored}.{sha256}{ending}"
    return Reference(check_name(name), object_type, size, stored, sha256, kind, compression, shared)


def file_reference(attachment: AttachmentName) -> Reference:
    """Return the reference to an attached file."""
    name, size = attachment.name, attachment.size
    return Reference(name, attachment.object_type, size, size, attachment.sha256, _FILE_KIND, None, False, attachment)


def format_inline(data: bytes) -> str:
    """Return the column content for a value that is kept in the row: plain text if possible, Base64 otherwise."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # PostgreSQL does not accept NUL in text
        return _BASE64 + base64.b64encode(data).decode()
    return _TEXT + text


def parse_name(name: str) -> Reference | None:
    """Parse the name of a file; return ``None`` if this library did not generate it."""
    match = _NAME.fullmatch(name)
    if match is None:
        attachment = parse_attachment_name(name)
        return None if attachment is None else file_reference(attachment)
    size, stored = int(match["size"]), int(match["stored"])
    compression = _COMPRESSIONS[match["compression"]]
    if stored > bound(size) or (compression is None and stored != size):
        return None
    return Reference(
        name,
        match["object_type"],
        size,
        stored,
        match["sha256"],
        match["kind"],
        compression,
        match["revision"] is None,
    )


def parse(raw: str, object_type: str) -> Reference | Inline:
    """Parse the content of a column.

    Column contents are not trusted: a file whose name does not belong to this column is neither read nor deleted.

    Args:
        raw: The string in the column.
        object_type: The prefix of this column's file names.

    Raises:
        DamagedValueError: The string is not in a format that this library writes, or names another column's file.
    """
    if raw.startswith(_TEXT):
        return Inline(raw[1:].encode(errors="surrogatepass"))
    if raw.startswith(_BASE64):
        try:
            return Inline(base64.b64decode(raw[1:], validate=True))
        except binascii.Error as error:
            raise DamagedValueError(f"the column {object_type} holds broken base64: {error}") from error
    if raw.startswith(_FILE):
        found = parse_name(raw[1:])
        if found is not None and found.object_type == object_type:
            return found
    what = repr(raw[:200]) if raw.startswith(_FILE) else f"{len(raw):,} characters"  # the content may be confidential
    raise DamagedValueError(
        f"the column {object_type} holds {what}, which is not a reference to one of its files: it was not written by "
        "this column, and is neither read nor deleted"
    )
