"""Rules of the directory store: allowed names, the predecessor's layout, unfinished files, URLs. Does no I/O."""

from __future__ import annotations

import os
import secrets
from os import getcwd  # does no disk I/O; imported by name because detectors of blocking calls patch os.getcwd
from typing import Final
from urllib.parse import quote

from ..._names import check_name
from ...exc import InvalidKeyError
from ...key import ImageKey, guess_extension

__all__ = [
    "SIDE_PREFIX",
    "SYSTEM_DIRECTORIES",
    "absolute_path",
    "check_path",
    "guess_extension",
    "legacy_name",
    "side_name",
    "url",
]

SIDE_PREFIX: Final = ".aioimageattach-"
"""Prefix of the names of unfinished files, on file systems that do not support unnamed files."""

SYSTEM_DIRECTORIES: Final = frozenset(
    {
        "#recycle",
        "$RECYCLE.BIN",
        ".Spotlight-V100",
        ".Trashes",
        ".fseventsd",
        ".snapshot",
        ".snapshots",
        ".zfs",
        "@eaDir",
        "System Volume Information",
        "lost+found",
    }
)
"""Directories that systems and file servers create in the root of a volume, some of them readable only by root."""

_MAX_SEGMENT: Final = 255


def absolute_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a directory, without a trailing slash.

    A relative path would refer to another directory after a call of ``chdir``.

    Raises:
        ValueError: The path is empty.
    """
    text = os.fspath(path)
    if not text:
        raise ValueError("path: expected a directory, got an empty str; use '.' for the working directory")
    if not os.path.isabs(text):
        text = os.path.join(getcwd(), text)
    return text.rstrip("/") or "/"


def check_path(name: str) -> str:
    """Return the name unchanged if the store can contain a file with that name.

    Raises:
        InvalidKeyError: The name is not valid for any store, has a segment that is longer than 255 bytes or starts like
            an unfinished file, or is in a system directory (see :data:`SYSTEM_DIRECTORIES`).
    """
    check_name(name)
    segments = name.split("/")
    if segments[0] in SYSTEM_DIRECTORIES:
        raise InvalidKeyError(f"name: expected no system directory such as {segments[0]!r}, got {name!r:.80}")
    for segment in segments:
        size = len(segment.encode())
        if size > _MAX_SEGMENT:
            raise InvalidKeyError(
                f"name: expected segments of at most {_MAX_SEGMENT} bytes, got {size} in {name!r:.80}"
            )
        if segment.startswith(SIDE_PREFIX):
            raise InvalidKeyError(
                f"name: expected no segment that begins with {SIDE_PREFIX!r}, which is reserved, got {name!r:.80}"
            )
    return name


def side_name() -> str:
    """Return an unguessable name for an unfinished file."""
    return SIDE_PREFIX + secrets.token_hex(16)


def legacy_name(key: ImageKey) -> str:
    """Return the name that SQLAlchemy-ImageAttach gave to the file of a key.

    Raises:
        InvalidKeyError: The key has no ``object_id``, which is part of that name.
    """
    number = key.object_id
    if number is None:
        raise InvalidKeyError(f"key: expected an object_id, which is part of the name without a revision, got {key!r}")
    leaf = f"{number}.{key.width}x{key.height}{guess_extension(key.mimetype)}"
    return f"{key.object_type}/{number % 1000}/{number // 1000}/{leaf}"


def url(base_url: str, name: str) -> str:
    """Return the URL of a name below a base URL that ends with a slash."""
    return base_url + quote(name, safe="/")
