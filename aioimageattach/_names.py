"""The parts of file names: revisions, MIME types, and the rules for names. No I/O."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from .exc import InvalidKeyError

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
"""Suffix that turns the object type of originals into that of their declared thumbnails."""

FRAMING: Final = "[0-9]{6}|[0-9]{8}|[0-9]{14}"
"""Form of the crop box and the focal point in the names of declared thumbnails."""

SANDBOX: Final = "-sandbox"
"""Suffix of the revisions of files in the upper store of an overlay."""

THUMBNAIL: Final = "-t"
"""Suffix of the revisions of thumbnails in a store that keeps them apart from their originals."""

RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.ASCII | re.IGNORECASE)
"""Device names on Windows, where files cannot have these names."""

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, whose digits sort as the numbers do
TIME_CHARS: Final = 10
RANDOM_CHARS: Final = 22
_EARLIER_RANDOM_CHARS: Final = 16  # revisions of earlier versions
_MIMETYPE: Final = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}", re.ASCII)
_BAD_SEGMENTS: Final = frozenset({"", ".", ".."})
_BAD_CHARACTERS: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_MADE: Final = re.compile(
    rf"[0-6][{ALPHABET}]{{{TIME_CHARS - 1 + _EARLIER_RANDOM_CHARS}}}"
    rf"(?:[{ALPHABET}]{{{RANDOM_CHARS - _EARLIER_RANDOM_CHARS}}})?(?:{THUMBNAIL})?"
)
_FILE_NAME: Final = re.compile(
    r"[^/]+/(?P<five>[A-Za-z0-9_-]{5})/(?P<two>[A-Za-z0-9_-]{2})/"
    r"(?P<revision>(?P=five)(?P=two)[A-Za-z0-9_-]{1,65})(?:\..+)?",
    re.ASCII,
)
_SHARED_NAME: Final = re.compile(r"[^/]+/[0-9a-z]{5}/shared\.\d+\.\d+\.[0-9a-f]{64}\..+", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def extension(mimetype: str) -> str:
    """Return the file name extension of new files of a MIME type, with its dot; empty if the type is not known."""
    return EXTENSIONS.get(mimetype, "")


def revision_time(revision: str) -> datetime | None:
    """Return the time at which this library made a revision, in UTC; ``None`` for any other revision."""
    if not _MADE.fullmatch(revision):
        return None
    milliseconds = functools.reduce(lambda number, char: number << 5 | ALPHABET.index(char), revision[:TIME_CHARS], 0)
    return _EPOCH + timedelta(milliseconds=milliseconds)


def check_mimetype(mimetype: str) -> str:
    """Return the MIME type if it has the form ``type/subtype`` (RFC 6838), without parameters.

    Raises:
        InvalidKeyError: The type has another form.
    """
    if not isinstance(mimetype, str) or not _MIMETYPE.fullmatch(mimetype):
        raise InvalidKeyError(f"mimetype: expected a MIME type such as 'image/jpeg', got {mimetype!r:.80}")
    return mimetype


def revision_of(name: str) -> str | None:
    """Return the revision in a name of the form of ``file_name``; ``None`` for any other name."""
    match = _FILE_NAME.fullmatch(name)
    return None if match is None else match["revision"]


def is_own_name(name: str) -> bool:
    """Return whether the name has the form of this library's names, for an image or for an offloaded value."""
    return _FILE_NAME.fullmatch(name) is not None or _SHARED_NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return the name if it is valid in a store.

    A name consists of segments joined by ``/``. A segment is not empty, ``.`` or ``..``, and contains neither control
    characters nor backslashes. The name has at most 1,024 bytes in UTF-8.

    Raises:
        InvalidKeyError: The name is not valid.
    """
    expected = None
    if not isinstance(name, str) or not name:
        expected = "a str that is not empty"
    elif not _BAD_SEGMENTS.isdisjoint(name.split("/")):
        expected = "segments other than '', '.' and '..'"
    elif _BAD_CHARACTERS.search(name):
        expected = "no backslash and no control character"
    else:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            expected = "characters that UTF-8 can encode"
        else:
            if size > 1024:
                expected = f"at most 1,024 bytes in UTF-8 ({size:,} found)"
    if expected is not None:
        raise InvalidKeyError(f"name: expected {expected}, got {name!r:.80}")
    return name
