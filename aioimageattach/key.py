"""The key of an immutable file, and the rules that turn it into a file name. No I/O."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import Final

from ._names import (
    ALPHABET,
    DERIVED,
    LEGACY_EXTENSIONS,
    RANDOM_CHARS,
    RESERVED,
    TIME_CHARS,
    check_mimetype,
    extension,
)
from .exc import InvalidKeyError

__all__ = ["VECTOR_TYPES", "ImageKey", "guess_extension", "make_revision"]

VECTOR_TYPES: Final = frozenset({"image/svg+xml", "application/pdf"})
"""The vector image types; their thumbnails are PNG."""

_OBJECT_TYPE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,126}[A-Za-z0-9_~-]|[A-Za-z0-9_]", re.ASCII)
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,71}", re.ASCII)
_MAX_REVISION: Final = 64  # as the column of the rows
_MAX_DERIVED: Final = 72  # declared thumbnails have no rows
_MAX_SIDE: Final = 2**31 - 1
_MAX_ID_BITS: Final = 512


def _base32(number: int, chars: int) -> str:
    return "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (chars - 1), -1, -5))


def make_revision(now: float | None = None) -> str:
    """Return a new revision, which is safe in file names and URLs, and sorts by time.

    It has 32 characters and begins like a ULID in lower case: 10 characters for the milliseconds since 1970, then 22
    characters with 110 random bits. The names of declared thumbnails contain the first 18 characters of the original's
    revision, so 70 random bits of it stay secret.

    Args:
        now: Seconds since 1970; ``None`` for the current time.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    return _base32(milliseconds, TIME_CHARS) + _base32(secrets.randbits(5 * RANDOM_CHARS), RANDOM_CHARS)


def guess_extension(mimetype: str) -> str | None:
    """Return the extension that SQLAlchemy-ImageAttach used for a MIME type, with its dot; ``None`` if it used none.

    SQLAlchemy-ImageAttach looked types up in the MIME database of the machine, which may have contained more types.
    """
    return LEGACY_EXTENSIONS.get(mimetype)


@dataclass(frozen=True, slots=True)
class ImageKey:
    """The key of one immutable file.

    Args:
        object_type: The kind of image, one path segment; by default the name of the table, with ``-`` instead of ``_``.
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
                f"digit or '_' and not ending with '.', got {self.object_type!r:.80}"
            )
        if RESERVED.fullmatch(self.object_type):
            raise InvalidKeyError(
                f"object_type: expected a name that Windows does not reserve for a device, got {self.object_type!r}"
            )
        if self.object_id is not None and type(self.object_id) is not int:
            raise InvalidKeyError(f"object_id: expected an int, got {self.object_id!r:.80}")
        if self.object_id is not None and self.object_id.bit_length() > _MAX_ID_BITS:
            raise InvalidKeyError(f"object_id: expected at most {_MAX_ID_BITS} bits, got {self.object_id.bit_length()}")
        for label, side in (("width", self.width), ("height", self.height)):
            if type(side) is not int or not 0 < side <= _MAX_SIDE:
                raise InvalidKeyError(f"{label}: expected pixels from 1 to {_MAX_SIDE}, got {side!r:.80}")
        check_mimetype(self.mimetype)
        if self.revision is not None:
            most = _MAX_DERIVED if self.object_type.endswith(DERIVED) else _MAX_REVISION
            valid = isinstance(self.revision, str) and _REVISION.fullmatch(self.revision)
            if not valid or len(self.revision) > most:
                raise InvalidKeyError(
                    f"revision: expected 8 to {most} letters, digits, '_' and '-', beginning with a letter or digit, "
                    f"got {self.revision!r:.80}"
                )

    def file_name(self) -> str:
        """Return the name under which the built-in stores keep the file.

        The name is ``object_type/rrrrr/rr/revision.WIDTHxHEIGHT.ext``. The directories are the first seven characters
        of the revision, which encode the time of the upload. The outer directory contains the files of nine hours, and
        the inner one those of 33 seconds, so names sort by age.

        Raises:
            InvalidKeyError: The key has no revision.
        """
        revision = self.revision
        if revision is None:
            raise InvalidKeyError(f"key: expected a revision, which is part of the file name, got {self!r}")
        shard = f"{revision[:5]}/{revision[5:7]}"
        return f"{self.object_type}/{shard}/{revision}.{self.width}x{self.height}{extension(self.mimetype)}"
