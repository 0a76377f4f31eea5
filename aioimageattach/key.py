"""The value that names one immutable file, and the pure rules that make names of it."""

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
"""File name extensions of new files by type; a type that is not here gets none."""

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
"""File name extensions in the layouts of SQLAlchemy-ImageAttach by type."""

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: sorts like the numbers it writes
_TIME_CHARS: Final = 10
_RANDOM_CHARS: Final = 16
_OBJECT_TYPE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,126}[A-Za-z0-9_~-]|[A-Za-z0-9_]", re.ASCII)
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}", re.ASCII)
_MIMETYPE: Final = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}", re.ASCII)
_BAD_SEGMENTS: Final = frozenset({"", ".", ".."})
_BAD_CHARACTERS: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.ASCII | re.IGNORECASE)
_MADE: Final = re.compile(rf"[0-6][{_ALPHABET}]{{{_TIME_CHARS + _RANDOM_CHARS - 1}}}")
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
    """Return a new revision: 26 characters, in order of time, with 80 random bits, safe in any file name and URL.

    The form is that of a ULID in lower case: 10 characters of milliseconds since 1970, 16 of randomness.

    Args:
        now: Seconds since 1970; ``None`` means the present.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    return _base32(milliseconds, _TIME_CHARS) + _base32(secrets.randbits(80), _RANDOM_CHARS)


def revision_time(revision: str) -> datetime | None:
    """Return when :func:`make_revision` made a revision, to the millisecond in UTC; ``None`` where it did not."""
    if not _MADE.fullmatch(revision):
        return None
    milliseconds = functools.reduce(lambda number, char: number << 5 | _ALPHABET.index(char), revision[:_TIME_CHARS], 0)
    return _EPOCH + timedelta(milliseconds=milliseconds)


def guess_extension(mimetype: str) -> str | None:
    """Return the extension that SQLAlchemy-ImageAttach gave a type, with its dot; ``None`` where it knew none.

    It asked the machine it ran on, which may have known more types than Python itself did.
    """
    return LEGACY_EXTENSIONS.get(mimetype)


def check_mimetype(mimetype: str) -> str:
    """Return the type if it is of the form ``type/subtype`` (RFC 6838), without parameters.

    Raises:
        InvalidKeyError: It is not so.
    """
    if not isinstance(mimetype, str) or not _MIMETYPE.fullmatch(mimetype):
        raise InvalidKeyError(f"mimetype: expected one such as 'image/jpeg', got {mimetype!r:.80}")
    return mimetype


def extension(mimetype: str) -> str:
    """Return the file name extension of new files of that type, with its dot; empty where none is known."""
    return EXTENSIONS.get(mimetype, "")


@dataclass(frozen=True, slots=True)
class ImageKey:
    """Names one immutable file.

    Args:
        object_type: What kind of picture, by default the table's name; one safe path segment.
        object_id: Whose picture; ``None`` where the database has yet to make it.
        width: In pixels, as displayed.
        height: In pixels, as displayed.
        mimetype: Such as ``"image/jpeg"``.
        revision: Which upload; ``None`` for a file in the layout of SQLAlchemy-ImageAttach.

    Raises:
        InvalidKeyError: A part may be in no file name; nothing was read or written.
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
            raise InvalidKeyError(f"object_type: {self.object_type!r} is the name of a device on Windows; name another")
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
    """Return the name that the built-in stores give the file of a key with a revision.

    ``object_type/rrrrr/rr/revision.WIDTHxHEIGHT.ext``: the revision's first characters are its time, so that a folder
    holds the files of 33 seconds and a folder of folders those of nine hours, and names in order are names by age.

    Raises:
        InvalidKeyError: The key has no revision.
    """
    revision = key.revision
    if revision is None:
        raise InvalidKeyError(f"a key without a revision has no name in this layout: {key!r}")
    shard = f"{revision[:5]}/{revision[5:7]}"
    return f"{key.object_type}/{shard}/{revision}.{key.width}x{key.height}{extension(key.mimetype)}"


def revision_of(name: str) -> str | None:
    """Return the revision in a name of the layout of :func:`file_name`; ``None`` where it is none of that layout."""
    match = _FILE_NAME.fullmatch(name)
    return None if match is None else match["revision"]


def is_own_name(name: str) -> bool:
    """Whether this library may have given a file the name: an image's, or an offloaded value's."""
    return _FILE_NAME.fullmatch(name) is not None or _SHARED_NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return the name if a store may have a file of it.

    A name is segments joined by ``/``: none empty, ``.`` or ``..``, no control character, backslash or NUL,
    at most 1,024 bytes in UTF-8.

    Raises:
        InvalidKeyError: It is not so.
    """
    problem = None
    if not isinstance(name, str) or not name:
        problem = "expected a text that is not empty"
    elif not _BAD_SEGMENTS.isdisjoint(name.split("/")):
        problem = "a segment is empty, '.' or '..'"
    elif _BAD_CHARACTERS.search(name):
        problem = "a backslash or a control character stands in it"
    else:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            problem = "it is not encodable as UTF-8"
        else:
            if size > 1024:
                problem = f"it has {size:,} bytes, 1,024 are allowed"
    if problem is not None:
        raise InvalidKeyError(f"name {name!r:.80}: {problem}")
    return name
