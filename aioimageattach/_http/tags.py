"""Entity tags (RFC 9110, 8.8.3): the names of versions."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_tag", "matches"]

_TAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_LIST: Final = re.compile(rf"[ \t,]*({_TAG.pattern})[ \t]*(?=,|$)")


def is_tag(text: str) -> bool:
    """Whether a value is a tag, weak or strong."""
    return _TAG.fullmatch(text) is not None


def matches(header: str, tag: str, *, weak: bool) -> bool:
    """Whether a list of tags has this one in it.

    Args:
        header: The value of ``If-Match`` or ``If-None-Match`` that is not ``*``. It counts as far as it is a list.
        tag: The tag of the present version, weak or strong.
        weak: How to compare (8.8.3.2): whether a weak tag is as good as a strong one, or matches nothing.
    """
    wanted = tag.removeprefix("W/")
    if not weak and wanted != tag:
        return False
    position = 0
    while found := _LIST.match(header, position):
        one = found[1]
        if one == wanted or (weak and one[2:] == wanted and one.startswith("W/")):
            return True
        position = found.end()
    return False
