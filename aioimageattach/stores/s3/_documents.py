"""The XML bodies of requests. Does no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from ...exc import InvalidKeyError

__all__ = ["MAX_DELETES", "MAX_PARTS", "Part", "build_complete", "build_delete", "is_writable"]

MAX_DELETES: Final = 1000
"""Largest number of keys that one request can delete."""

MAX_PARTS: Final = 10_000
"""Largest number of parts in a multipart upload."""

_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_UNWRITABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ENTITIES: Final = {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


@dataclass(frozen=True, slots=True)
class Part:
    """An uploaded part.

    Args:
        number: From 1 to 10,000.
        etag: The ETag as the server returned it, with or without quotes.
        checksum: The algorithm, such as ``"crc32"``, and the checksum in base64, if the upload uses checksums.
    """

    number: int
    etag: str
    checksum: tuple[str, str] | None = None


def _document(root: str, content: Iterable[str]) -> bytes:
    declaration = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{declaration}<{root} xmlns="{_NAMESPACE}">{"".join(content)}</{root}>'.encode()


def is_writable(key: str) -> bool:
    """Return whether XML can represent a key."""
    return _UNWRITABLE.search(key) is None


def build_delete(keys: Sequence[str]) -> bytes:
    """Return the body of a request that deletes up to 1,000 keys; the server reports only the failures.

    Raises:
        InvalidKeyError: A key contains a control character that XML cannot represent; delete it in a separate request.
        ValueError: There are no keys, or too many.
    """
    if not 0 < len(keys) <= MAX_DELETES:
        raise ValueError(f"keys: expected 1 to {MAX_DELETES:,}, got {len(keys):,}")
    for key in keys:
        if not is_writable(key):
            raise InvalidKeyError(f"key: expected characters that XML can represent, got {key!r:.80}", name=key)
    objects = (f"<Object><Key>{escape(key, _ENTITIES)}</Key></Object>" for key in keys)
    return _document("Delete", ["<Quiet>true</Quiet>", *objects])


def build_complete(parts: Iterable[Part]) -> bytes:
    """Return the body of a request that completes a multipart upload.

    Args:
        parts: The parts in any order; they are sorted by number.

    Raises:
        ValueError: There are no parts or too many, or a number is repeated or out of range.
    """
    ordered = sorted(parts, key=lambda part: part.number)
    numbers = {part.number for part in ordered}
    if not ordered or len(numbers) != len(ordered) or min(numbers) < 1 or max(numbers) > MAX_PARTS:
        raise ValueError(f"parts: expected at least one, with distinct numbers from 1 to {MAX_PARTS:,}")
    return _document("CompleteMultipartUpload", map(_part, ordered))


def _part(part: Part) -> str:
    etag = escape(part.etag.strip('"'))
    checksum = ""
    if part.checksum is not None:
        tag = f"Checksum{part.checksum[0].upper()}"
        checksum = f"<{tag}>{escape(part.checksum[1])}</{tag}>"
    return f'<Part><PartNumber>{part.number}</PartNumber><ETag>"{etag}"</ETag>{checksum}</Part>'
