"""The key of an immutable file, and the rules that turn it into a file name. No I/O."""

from __future__ import annotations

import functools
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from .exc import InvalidKeyError

__all__ = [
    "EXTENSIONS",
    "LEGACY_EXTENSIONS",
    "VECTOR_TYPES",
    "ImageKey",
    "check_mimetype",
    "check_name",
    "extension",
    "file_name",
    "guess_extension",
    "is_own_name",
    "make_revision",
    "revision_of",
    "revision_time",
]

VECTOR_TYPES: Final = frozenset({"image/svg+xml", "application/pdf"})
"""The vector image types; their thumbnails are PNG."""

EXTENSIONS: Final = MappingProxyType(
    {
        "application/pdf": ".pdf",
        "image/avif": ".avif",
        "image/gif": ".gif",
        "image/heic": ".heic",
        "image/jpeg": ".jpg",
        "image/png": ".png",
        "image/svg+xml": ".svg",
        "image/tiff": ".tif",
        "image/webp": ".webp",
    }
)
"""File name extensions of new files, by MIME type; other types get none."""

LEGACY_EXTENSIONS: Final = MappingProxyType(
    {
        "application/pdf": ".pdf",
        "image/bmp": ".bmp",
        "image/gif": ".gif",
        "image/jpeg": ".jpe",
        "image/png": ".png",
        "image/svg+xml": ".svg",
        "image/tiff": ".tiff",
    }
)
"""File name extensions in the layouts of SQLAlchemy-ImageAttach, by MIME type."""

DERIVED: Final = ".t"
"""End of the object types of declared thumbnails; before it comes that of their originals."""

SANDBOX: Final = "-sandbox"
"""End of the revisions of files that an overlay keeps above."""

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, whose digits sort as the numbers do
_TIME_CHARS: Final = 10
_RANDOM_CHARS: Final = 22
_EARLIER_RANDOM_CHARS: Final = 16  # revisions of earlier versions
_OBJECT_TYPE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,126}[A-Za-z0-9_~-]|[A-Za-z0-9_]", re.ASCII)
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}", re.ASCII)
_MIMETYPE: Final = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}", re.ASCII)
_BAD_SEGMENTS: Final = frozenset({"", ".", ".."})
_BAD_CHARACTERS: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.ASCII | re.IGNORECASE)
THUMBNAIL: Final = "-t"
"""End of the revisions of thumbnails in a store that keeps them apart from their originals."""

_MADE: Final = re.compile(
    rf"[0-6][{_ALPHABET}]{{{_TIME_CHARS - 1 + _EARLIER_RANDOM_CHARS}}}"
    rf"(?:[{_ALPHABET}]{{{_RANDOM_CHARS - _EARLIER_RANDOM_CHARS}}})?(?:{THUMBNAIL})?"
)
_FILE_NAME: Final = re.compile(
    r"[^/]+/(?P<five>[A-Za-z0-9_-]{5})/(?P<two>[A-Za-z0-9_-]{2})/"
    r"(?P<revision>(?P=five)(?P=two)[A-Za-z0-9_-]{1,57})(?:\..+)?",
    re.ASCII,
)
_SHARED_NAME: Final = re.compile(r"[^/]+/[0-9a-z]{5}/shared\.\d+\.\d+\.[0-9a-f]{64}\..+", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SIDE: Final = 2**31 - 1
_MAX_ID_BITS: Final = 512


def _base32(number: int, chars: int) -> str:
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (chars - 1), -1, -5))


def make_revision(now: float | None = None) -> str:
    """Return a new revision, which is safe in file names and URLs, and sorts by time.

    It has 32 characters and begins like a ULID in lower case: 10 characters for the milliseconds since 1970, then 22
    characters with 110 random bits. The names of declared thumbnails contain the first 18 characters of the original's
    revision, so 70 random bits of it stay secret.

    Args:
        now: Seconds since 1970; ``None`` for the current time.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    return _base32(milliseconds, _TIME_CHARS) + _base32(secrets.randbits(5 * _RANDOM_CHARS), _RANDOM_CHARS)


def revision_time(revision: str) -> datetime | None:
    """Return the time at which this module made a revision, in UTC; ``None`` for any other revision."""
    if not _MADE.fullmatch(revision):
        return None
    milliseconds = functools.reduce(lambda number, char: number << 5 | _ALPHABET.index(char), revision[:_TIME_CHARS], 0)
    return _EPOCH + timedelta(milliseconds=milliseconds)


def guess_extension(mimetype: str) -> str | None:
    """Return the extension that SQLAlchemy-ImageAttach used for a MIME type, with its dot; ``None`` if it used none.

    SQLAlchemy-ImageAttach looked types up in the MIME database of the machine, which may have had more of them.
    """
    return LEGACY_EXTENSIONS.get(mimetype)


def check_mimetype(mimetype: str) -> str:
    """Return the MIME type if it has the form ``type/subtype`` (RFC 6838), without parameters.

    Raises:
        InvalidKeyError: It does not.
    """
    if not isinstance(mimetype, str) or not _MIMETYPE.fullmatch(mimetype):
        raise InvalidKeyError(f"mimetype: expected a MIME type such as 'image/jpeg', got {mimetype!r:.80}")
    return mimetype


def extension(mimetype: str) -> str:
    """Return the file name extension of new files of a MIME type, with its dot; empty if the type is not known."""
    return EXTENSIONS.get(mimetype, "")


@dataclass(frozen=True, slots=True)
class ImageKey:
    """The key of one immutable file.

    Args:
        object_type: The kind of image, by default the name of the table with ``-`` for ``_``; one safe path segment.
        object_id: Identifier of the owner; ``None`` if the database has not assigned it yet.
        width: Width in pixels, as displayed.
        height: Height in pixels, as displayed.
        mimetype: MIME type, such as ``"image/jpeg"``.
        revision: Identifies the upload; ``None`` for a file in the layout of SQLAlchemy-ImageAttach.

    Raises:
        InvalidKeyError: A field has a value that is not allowed in file names.
    """

    object_type: str
    object_id: int | None
    width: int
    height: int
    mimetype: str
    revision: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.object_type, str) or not _OBJECT_TYPE.fullmatch(self.object_type):
            raise InvalidKeyError(
                "object_type: expected at most 128 letters, digits, '_', '-', '.' and '~', beginning with a letter, a "
                f"digit or '_' and not ending with '.': got {self.object_type!r:.80}"
            )
        if _RESERVED.fullmatch(self.object_type):
            raise InvalidKeyError(
                f"object_type: {self.object_type!r} is the name of a device on Windows; choose another name"
            )
        if self.object_id is not None and type(self.object_id) is not int:
            raise InvalidKeyError(f"object_id: expected an int, got {self.object_id!r:.80}")
        if self.object_id is not None and self.object_id.bit_length() > _MAX_ID_BITS:
            raise InvalidKeyError(f"object_id: expected at most {_MAX_ID_BITS} bits, got {self.object_id.bit_length()}")
        for label, side in (("width", self.width), ("height", self.height)):
            if type(side) is not int or not 0 < side <= _MAX_SIDE:
                raise InvalidKeyError(f"{label}: expected pixels from 1 to {_MAX_SIDE}, got {side!r:.80}")
        check_mimetype(self.mimetype)
        if self.revision is not None and (not isinstance(self.revision, str) or not _REVISION.fullmatch(self.revision)):
            raise InvalidKeyError(
                "revision: expected 8 to 64 letters, digits, '_' and '-', beginning with a letter or digit: "
                f"got {self.revision!r:.80}"
            )


def file_name(key: ImageKey) -> str:
    """Return the name under which the built-in stores keep the file of a key with a revision.

    The name is ``object_type/rrrrr/rr/revision.WIDTHxHEIGHT.ext``. The directories are the first seven characters of
    the revision, which are its time: the innermost one has the files of 33 seconds, the one around it those of nine
    hours. So files sort by age.

    Raises:
        InvalidKeyError: The key has no revision.
    """
    revision = key.revision
    if revision is None:
        raise InvalidKeyError(f"a key without a revision has no name in this layout: {key!r}")
    shard = f"{revision[:5]}/{revision[5:7]}"
    return f"{key.object_type}/{shard}/{revision}.{key.width}x{key.height}{extension(key.mimetype)}"


def revision_of(name: str) -> str | None:
    """Return the revision in a name that :func:`file_name` may have made; ``None`` for any other name."""
    match = _FILE_NAME.fullmatch(name)
    return None if match is None else match["revision"]


def is_own_name(name: str) -> bool:
    """Return whether the name has the form of this library's names, for an image or for an offloaded value."""
    return _FILE_NAME.fullmatch(name) is not None or _SHARED_NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return the name if a store can have a file of this name.

    A name consists of segments joined by ``/``. A segment is not empty, ``.`` or ``..``, and contains neither control
    characters nor backslashes. The name has at most 1,024 bytes in UTF-8.

    Raises:
        InvalidKeyError: The name is not valid.
    """
    problem = None
    if not isinstance(name, str) or not name:
        problem = "expected a str that is not empty"
    elif not _BAD_SEGMENTS.isdisjoint(name.split("/")):
        problem = "a segment is empty, '.' or '..'"
    elif _BAD_CHARACTERS.search(name):
        problem = "it contains a backslash or a control character"
    else:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            problem = "it cannot be encoded as UTF-8"
        else:
            if size > 1024:
                problem = f"expected at most 1,024 bytes in UTF-8, got {size:,}"
    if problem is not None:
        raise InvalidKeyError(f"name {name!r:.80}: {problem}")
    return name
