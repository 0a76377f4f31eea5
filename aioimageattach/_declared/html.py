"""HTML elements for pictures. Does no I/O."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any, Final

from ..exc import DeclarationError
from ..imaging._geometry import nearest

__all__ = [
    "Candidate",
    "Html",
    "background",
    "compatible",
    "fallback_element",
    "fallback_of",
    "img_element",
    "picture_element",
    "srcset_of",
]

_ATTRIBUTE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*", re.ASCII)
_DEFAULTS: Final[Mapping[str, Any]] = {"loading": "lazy", "decoding": "async"}
_PIXELS: Final = re.compile(r"([1-9][0-9]{0,4})px", re.ASCII)
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}", re.ASCII)
_OPAQUE: Final = frozenset({"image/jpeg", "image/heic"})
_HAS_ALPHA: Final = 1 << 23  # in the header of a ThumbHash


class Html(str):
    """Markup that template engines do not escape again, like :class:`markupsafe.Markup`."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return the markup."""
        return str(self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One file of a thumbnail, from which a browser can choose.

    Args:
        url: URL of the file.
        width: Width in pixels.
        height: Height in pixels.
        mimetype: MIME type, such as ``"image/webp"``.
        fallback: ``True`` for the file for clients that do not support ``srcset``.
    """

    url: str
    width: int
    height: int
    mimetype: str
    fallback: bool = False


def srcset_of(candidates: Sequence[Candidate]) -> str:
    """Return the value of the HTML attribute ``srcset``, not escaped. A single file is listed without its width."""
    if len(candidates) == 1:
        return candidates[0].url
    return ", ".join([f"{one.url} {one.width}w" for one in candidates])


def _choice_attributes(candidates: Sequence[Candidate], sizes: str | None) -> dict[str, Any]:
    """Return the attributes ``srcset`` and ``sizes``. HTML allows ``sizes`` only if ``srcset`` contains widths."""
    return {"srcset": srcset_of(candidates), "sizes": sizes if len(candidates) > 1 else None}


def fallback_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the file for clients that do not support ``srcset``; ``None`` if there are no files."""
    return next((one for one in candidates if one.fallback), None)


def compatible(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the files of the last format, which most clients support, for contexts that can offer only one format."""
    offered = [one for one in candidates if not one.fallback] or candidates
    return [one for one in candidates if one.mimetype == offered[-1].mimetype]


def background(colour: str | None, thumbhash: str | None, mimetype: str) -> str | None:
    """Return the background colour to show until a picture is loaded; ``None`` if the picture may be transparent.

    Args:
        colour: Dominant colour of the picture.
        thumbhash: ThumbHash of the picture in Base64. One of its bits is set if the picture has an alpha channel.
        mimetype: MIME type of the original.
    """
    if colour is None or not _COLOUR.fullmatch(colour):
        return None
    if mimetype in _OPAQUE:
        return colour
    try:
        header = int.from_bytes(base64.b64decode(thumbhash or "", validate=True)[:3], "little")
    except (binascii.Error, ValueError):
        return None
    return None if not thumbhash or header & _HAS_ALPHA else colour


def img_element(
    shown: Candidate,
    others: Sequence[Candidate],
    *,
    sizes: str | None,
    alt: str,
    colour: str | None,
    attributes: Mapping[str, Any],
) -> Html:
    """Return an ``<img>`` element.

    Args:
        shown: The file for the attribute ``src``.
        others: The files for the attribute ``srcset``, all of one format. If there are none, or only ``shown``, the
            attribute is omitted.
        sizes: The attribute ``sizes``; required if there are several files. If it is a length in pixels, it also sets
            the attributes ``width`` and ``height``.
        alt: The attribute ``alt``.
        colour: The background colour.
        attributes: Other attributes, which take precedence.
    """
    own: dict[str, Any] = {"src": shown.url}
    if others and list(others) != [shown]:
        own |= _choice_attributes(others, sizes)
    width, height = _displayed_size(shown, sizes)
    own |= {"width": width, "height": height, "alt": alt, **_DEFAULTS}
    given = _by_attribute_name(attributes)
    if given.get("fetchpriority") == "high":
        del own["loading"]
    if colour is not None:
        given["style"] = ";".join(filter(None, (f"background-color:{colour}", given.get("style"))))
    return Html(f"<img{_format_attributes(own | given)}>")


def fallback_element(url: str, alt: str, attributes: Mapping[str, Any]) -> Html:
    """Return the ``<img>`` element of the placeholder for a missing picture."""
    return Html(f"<img{_format_attributes({'src': url, 'alt': alt, **_DEFAULTS} | _by_attribute_name(attributes))}>")


def picture_element(candidates: Sequence[Candidate], sizes: str | None, img: str) -> Html:
    """Return a ``<picture>`` element.

    Args:
        candidates: The files, grouped by format, the preferred format first.
        sizes: The attribute ``sizes`` of each ``<source>`` element.
        img: The ``<img>`` element.
    """
    sources = [
        f"<source{_format_attributes({'type': mimetype, **_choice_attributes(list(group), sizes)})}>"
        for mimetype, group in groupby(candidates, key=lambda one: one.mimetype)
    ]
    return Html(f"<picture>{''.join(sources)}{img}</picture>")


def _displayed_size(shown: Candidate, sizes: str | None) -> tuple[int, int]:
    """Return the attributes ``width`` and ``height``: the file's size, scaled to ``sizes`` if that is in pixels."""
    fixed = _PIXELS.fullmatch(sizes or "")
    if fixed is None:
        return shown.width, shown.height
    width = int(fixed[1])
    return width, nearest(shown.height * width, shown.width)


def _by_attribute_name(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Convert keyword names to HTML attribute names: ``class_`` to ``class``, ``data_id`` to ``data-id``."""
    given: dict[str, Any] = {}
    for name, value in attributes.items():
        html_name = name.rstrip("_").replace("_", "-")
        if not _ATTRIBUTE.fullmatch(html_name):
            raise DeclarationError(f"expected the name of an HTML attribute, got {name!r:.80}")
        given[html_name] = value
    return given


def _format_attributes(attributes: Mapping[str, Any]) -> str:
    """Format attributes as HTML. ``True`` is written without a value; ``None`` and ``False`` are omitted."""
    return "".join(
        [
            f" {name}" if value is True else f' {name}="{escape(str(value))}"'
            for name, value in attributes.items()
            if value is not None and value is not False
        ]
    )
