"""A parser of URL paths, which accepts only those that can name a servable file. Does no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ...._names import LEGACY_EXTENSIONS
from ....exc import InvalidKeyError
from ....key import EXTENSIONS, ImageKey, file_name
from .._paths import check_path

__all__ = ["TYPES", "ServableFile", "parse_path"]

TYPES: Final = {
    ".jpeg": "image/jpeg",
    **{extension: mimetype for table in (EXTENSIONS, LEGACY_EXTENSIONS) for mimetype, extension in table.items()},
}
"""MIME types by extension. The extension is reliable, because it was chosen according to the file's content."""

_UNKNOWN_TYPE: Final = "application/octet-stream"
_TYPE_OF: Final = {extension: mimetype for mimetype, extension in EXTENSIONS.items()}
_MAX_CHARS: Final = 400
_NAME: Final = re.compile(
    r"(?P<type>[A-Za-z0-9_][A-Za-z0-9._~-]*)/(?P<shard>[A-Za-z0-9_-]+)/(?P<subshard>[A-Za-z0-9_-]+)/"
    r"(?P<stem>[A-Za-z0-9_-]+)\.(?P<width>[1-9][0-9]{0,9})x(?P<height>[1-9][0-9]{0,9})(?P<extension>\.[a-z]{3,5}|None)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ServableFile:
    """A file that may be served if it exists.

    Attributes:
        name: The name within the store.
        etag: The strong entity tag, made from the revision; ``None`` in the predecessor's layout, where files can
            change.
        mimetype: The MIME type.
        inline: Whether a browser may display the file; other files are downloaded.
    """

    name: str
    etag: str | None
    mimetype: str
    inline: bool

    @property
    def filename(self) -> str:
        """The file name for downloads; it consists of letters, digits and ``._-``."""
        return self.name.rpartition("/")[2]


@lru_cache(4096)
def parse_path(path: str) -> ServableFile | None:
    """Return the file that a path names, or ``None`` if no file of a store can have that name.

    Only names that the store itself gives to images are accepted. No such name starts with a dot, has an empty, ``.``
    or ``..`` segment, contains a character that a URL must escape, or is too long for a file system.
    """
    found = _NAME.fullmatch(path) if len(path) <= _MAX_CHARS else None
    if found is None:
        return None
    extension = found["extension"] or ""
    try:
        check_path(path)
        if _is_revisioned(found, extension):
            mimetype, etag = TYPES.get(extension, _UNKNOWN_TYPE), f'"{found["stem"]}"'
        elif (extension in TYPES or extension == "None") and _is_legacy(found):
            mimetype, etag = TYPES.get(extension, _UNKNOWN_TYPE), None
        else:
            return None
    except InvalidKeyError:
        return None
    return ServableFile(path, etag, mimetype, mimetype.startswith("image/") and mimetype != "image/svg+xml")


def _is_revisioned(found: re.Match[str], extension: str) -> bool:
    mimetype = _TYPE_OF.get(extension, None if extension else _UNKNOWN_TYPE)
    if mimetype is None:
        return False
    try:
        key = ImageKey(found["type"], None, int(found["width"]), int(found["height"]), mimetype, found["stem"])
    except InvalidKeyError:  # the name may be one of the predecessor's layout
        return False
    return file_name(key) == found[0]


def _is_legacy(found: re.Match[str]) -> bool:
    try:
        number = int(found["stem"])
    except ValueError:
        return False
    segments = str(number % 1000), str(number // 1000), str(number)
    return segments == (found["shard"], found["subshard"], found["stem"])
