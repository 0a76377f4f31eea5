"""The header that names a download (RFC 6266, with the encoding of RFC 8187)."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

__all__ = ["MAX_FILENAME", "attachment", "check_filename"]

MAX_FILENAME: Final = 200
"""Largest number of characters in the name of a download."""

_ATTR_CHAR: Final = "!#$&+^`|"  # those of RFC 8187 that quote() would escape
_UNQUOTABLE: Final = frozenset('"\\%')


def check_filename(filename: str) -> str:
    """Return a name that a file may be downloaded under.

    Raises:
        ValueError: It is empty, too long, or only dots and spaces, or it contains a slash, a backslash, or a character
            that cannot be displayed: a control character, half of a surrogate pair, or one that reverses the text.
    """
    is_str = isinstance(filename, str)
    if not is_str or not filename.isprintable() or not filename.strip(". ") or not {"/", "\\"}.isdisjoint(filename):
        raise ValueError(f"download: expected the name of a file, such as 'cat.jpg', got {filename!r:.80}")
    if len(filename) > MAX_FILENAME:
        raise ValueError(f"download: expected a name of at most {MAX_FILENAME} characters, got {len(filename)}")
    return filename


def attachment(filename: str) -> str:
    """Return the value of a ``Content-Disposition`` header that lets a browser save a file under a name.

    The value is printable ASCII, and the name cannot end it or add a parameter: a fallback replaces all other
    characters, and the name itself is percent-encoded.

    Raises:
        ValueError: See :func:`check_filename`.
    """
    fallback = "".join(char if char.isascii() and char not in _UNQUOTABLE else "_" for char in check_filename(filename))
    return f"attachment; filename=\"{fallback}\"; filename*=UTF-8''{quote(filename, safe=_ATTR_CHAR)}"
