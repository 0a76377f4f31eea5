"""A parser of URL paths, which accepts only those that can name a servable file. Does no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ...._filenames import UNKNOWN_TYPE, clean_filename, parse_attachment_name
from ...._http.disposition import attachment
from ...._names import EXTENSIONS, LEGACY_EXTENSIONS
from ....exc import InvalidKeyError
from ....key import ImageKey
from .._paths import check_path

__all__ = ["TYPES", "ServableFile", "parse_path"]

TYPES: Final = {
    ".jpeg": "image/jpeg",
    **{extension: mimetype for table in (EXTENSIONS, LEGACY_EXTENSIONS) for mimetype, extension in table.items()},
}
"""MIME types by extension. The extension is reliable, because it was chosen according to the file's content."""

_TYPE_OF: Final = {extension: mimetype for mimetype, extension in EXTENSIONS.items()}
_MAX_CHARS: Final = 512
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
        inline: ``True`` if a browser may display the file; other files are downloaded.
        attached_as: The file name of an attached file; ``None`` for an image.
    """

    name: str
    etag: str | None
    mimetype: str
    inline: bool
    attached_as: str | None = None

    @property
    def object_type(self) -> str:
        """The first segment of the name."""
        return self.name.partition("/")[0]

    @property
    def filename(self) -> str:
        """The last segment of the name."""
        return self.name.rpartition("/")[2]

    @property
    def content_disposition(self) -> bytes | None:
        """The value of ``Content-Disposition``; ``None`` if a browser may display the file."""
        if self.inline:
            return None
        if self.attached_as is not None:
            return attachment(self.attached_as).encode()
        return f'attachment; filename="{self.filename}"'.encode()


@lru_cache(4096)
def parse_path(path: str) -> ServableFile | None:
    """Return the file that a path names, or ``None`` if no file of a store can have that name.

    Only names that the library itself gives to images and attached files are accepted. No such name starts with a dot,
    has an empty, ``.`` or ``..`` segment, contains a control character, or is too long for a file system.
    """
    if len(path) > _MAX_CHARS:
        return None
    found = _NAME.fullmatch(path)
    if found is None:
        return _attached_file(path)
    extension = found["extension"] or ""
    try:
        check_path(path)
        if _is_revisioned(found, extension):
            mimetype, etag = TYPES.get(extension, UNKNOWN_TYPE), f'"{found["stem"]}"'
        elif (extension in TYPES or extension == "None") and _is_legacy(found):
            mimetype, etag = TYPES.get(extension, UNKNOWN_TYPE), None
        else:
            return None
    except InvalidKeyError:
        return None
    return ServableFile(path, etag, mimetype, _is_inline(mimetype))


def _is_inline(mimetype: str) -> bool:
    return mimetype.startswith("image/") and mimetype != "image/svg+xml"


def _attached_file(path: str) -> ServableFile | None:
    found = parse_attachment_name(path)
    if found is None or clean_filename(found.filename) != found.filename:
        return None
    try:
        ImageKey(found.object_type, None, 1, 1, found.served_type, found.revision)  # has the same object types
        check_path(path)
    except InvalidKeyError:
        return None
    mimetype = found.served_type
    return ServableFile(path, f'"{found.revision}"', mimetype, _is_inline(mimetype), found.filename)


def _is_revisioned(found: re.Match[str], extension: str) -> bool:
    mimetype = _TYPE_OF.get(extension, None if extension else UNKNOWN_TYPE)
    if mimetype is None:
        return False
    try:
        key = ImageKey(found["type"], None, int(found["width"]), int(found["height"]), mimetype, found["stem"])
    except InvalidKeyError:  # the name may be one of the predecessor's layout
        return False
    return key.file_name() == found[0]


def _is_legacy(found: re.Match[str]) -> bool:
    try:
        number = int(found["stem"])
    except ValueError:
        return False
    segments = str(number % 1000), str(number // 1000), str(number)
    return segments == (found["shard"], found["subshard"], found["stem"])
