"""Which files are shown, and what their names alone tell about them. No disk is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ....exc import InvalidKeyError
from ....key import EXTENSIONS, LEGACY_EXTENSIONS, ImageKey, file_name

__all__ = ["TYPES", "Shown", "shown"]

TYPES: Final = {
    ".jpeg": "image/jpeg",
    **{extension: mimetype for table in (EXTENSIONS, LEGACY_EXTENSIONS) for mimetype, extension in table.items()},
}
"""What a file is, by the extension that the store gave it. A client's word is never asked."""

_OTHER: Final = "application/octet-stream"
_TYPE_OF: Final = {extension: mimetype for mimetype, extension in EXTENSIONS.items()}
_MAX_CHARS: Final = 400
_NAME: Final = re.compile(
    r"(?P<kind>[A-Za-z0-9_][A-Za-z0-9._~-]*)/(?P<above>[A-Za-z0-9_-]+)/(?P<folder>[A-Za-z0-9_-]+)/"
    r"(?P<stem>[A-Za-z0-9_-]+)\.(?P<width>[1-9][0-9]{0,9})x(?P<height>[1-9][0-9]{0,9})(?P<extension>\.[a-z]{3,5}|None)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A file that may be shown, if it is there.

    Attributes:
        name: Within the store.
        tag: The strong entity tag, of the revision; ``None`` in the old layout, where files may change.
        mimetype: What it is.
        inline: Whether a browser may show it in a window of its own; otherwise it is to be saved.
    """

    name: str
    tag: str | None
    mimetype: str
    inline: bool

    @property
    def filename(self) -> str:
        """What it is to be saved as: letters, digits and ``._-`` only."""
        return self.name.rpartition("/")[2]


@lru_cache(4096)
def shown(path: str) -> Shown | None:
    """Return the file of a path, or ``None`` where no file of a store that may be shown has that name.

    Only names that the store itself gives to pictures are; none of these begins with a dot, has an empty or dotted
    segment, or a character that a URL has to escape.
    """
    found = _NAME.fullmatch(path) if len(path) <= _MAX_CHARS else None
    if found is None:
        return None
    extension = found["extension"] or ""
    if _is_revisioned(found, extension):
        mimetype, tag = TYPES.get(extension, _OTHER), f'"{found["stem"]}"'
    elif (extension in TYPES or extension == "None") and _is_legacy(found):
        mimetype, tag = TYPES.get(extension, _OTHER), None
    else:
        return None
    return Shown(path, tag, mimetype, mimetype.startswith("image/") and mimetype != "image/svg+xml")


def _is_revisioned(found: re.Match[str], extension: str) -> bool:
    mimetype = _TYPE_OF.get(extension, None if extension else _OTHER)
    if mimetype is None:
        return False
    try:
        key = ImageKey(found["kind"], None, int(found["width"]), int(found["height"]), mimetype, found["stem"])
    except InvalidKeyError:
        return False
    return file_name(key) == found[0]


def _is_legacy(found: re.Match[str]) -> bool:
    try:
        number = int(found["stem"])
    except ValueError:
        return False
    segments = str(number % 1000), str(number // 1000), str(number)
    return segments == (found["above"], found["folder"], found["stem"])
