"""The pure rules of the directory: which names it can hold, the old layout, side files, URLs."""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import quote

from ...exc import InvalidKeyError
from ...key import ImageKey, check_name, guess_extension

__all__ = ["SIDE_PREFIX", "check_path", "guess_extension", "legacy_name", "side_name", "url"]

SIDE_PREFIX: Final = ".aioimageattach-"
"""How the names of unfinished files begin, where the file system cannot keep a file without a name."""

_MAX_SEGMENT: Final = 255


def check_path(name: str) -> str:
    """Return the name if the directory may have a file of it.

    Raises:
        InvalidKeyError: It is no name (see :func:`~aioimageattach.key.check_name`), a segment of it is longer than 255
            bytes, or it looks like an unfinished file.
    """
    check_name(name)
    for segment in name.split("/"):
        size = len(segment.encode())
        if size > _MAX_SEGMENT:
            raise InvalidKeyError(f"name {name!r:.80}: a segment has {size} bytes, {_MAX_SEGMENT} are allowed")
        if segment.startswith(SIDE_PREFIX):
            raise InvalidKeyError(f"name {name!r:.80}: segments beginning with {SIDE_PREFIX!r} are reserved")
    return name


def side_name() -> str:
    """Return a name that nobody can guess for an unfinished file."""
    return SIDE_PREFIX + secrets.token_hex(16)


def legacy_name(key: ImageKey) -> str:
    """Return the name that SQLAlchemy-ImageAttach gave the file of a key.

    Raises:
        InvalidKeyError: The key has no ``object_id``, which that name is made of.
    """
    number = key.object_id
    if number is None:
        raise InvalidKeyError(f"the old layout needs an object_id: {key!r}")
    leaf = f"{number}.{key.width}x{key.height}{guess_extension(key.mimetype)}"
    return f"{key.object_type}/{number % 1000}/{number // 1000}/{leaf}"


def url(base_url: str, name: str) -> str:
    """Return the URL of a name below a base URL that ends with a slash."""
    return base_url + quote(name, safe="/")
