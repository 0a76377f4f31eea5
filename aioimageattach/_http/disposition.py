"""The ``Content-Disposition`` header of downloads (RFC 6266, with the encoding of RFC 8187)."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

__all__ = ["MAX_FILENAME", "attachment", "check_filename"]

MAX_FILENAME: Final = 200
"""Maximum length of the file name of a download, in characters."""

_ATTR_CHAR: Final = "!#$&+^`|"  # the characters of RFC 8187 that quote() would escape
_UNQUOTABLE: Final = frozenset('"\\%')


def check_filename(filename: str) -> str:
    """Return the file name of a download unchanged if it is valid.

    Raises:
        ValueError: The name is empty, too long, or consists of dots and spaces, or it contains a slash, a backslash, or
            an unprintable character: a control character, a lone surrogate, or one that changes the text direction.
    """
    is_str = isinstance(filename, str)
    if not is_str or not filename.isprintable() or not filename.strip(". ") or not {"/", "\\"}.isdisjoint(filename):
        raise ValueError(f"download: expected a file name such as 'cat.jpg', got {filename!r:.80}")
    if len(filename) > MAX_FILENAME:
        raise ValueError(f"download: expected a file name of at most {MAX_FILENAME} characters, got {len(filename)}")
    return filename


def attachment(filename: str) -> str:
    """Return the value of a ``Content-Disposition`` header that makes browsers save a file under a name.

    The value is printable ASCII, and the file name cannot terminate it or inject a parameter: ``filename`` replaces all
    unsafe characters, and ``filename*`` percent-encodes them.

    Raises:
        ValueError: See :func:`check_filename`.
    """
    fallback = "".join(char if char.isascii() and char not in _UNQUOTABLE else "_" for char in check_filename(filename))
    return f"attachment; filename=\"{fallback}\"; filename*=UTF-8''{quote(filename, safe=_ATTR_CHAR)}"
