"""HTML of pictures: plain functions of values. Does no I/O."""

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
_HAS_ALPHA: Final = 1 << 23  # in the header of a thumbhash


class Html(str):
    """Markup that template engines do not escape again, as :class:`markupsafe.Markup`."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return the markup."""
        return str(self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One file of a thumbnail, which a browser can choose.

    Args:
        url: Of the file.
        width: In pixels.
        height: In pixels.
        mimetype: Such as ``"image/webp"``.
        fallback: Whether this is the file for programs that cannot choose.
    """

    url: str
    width: int
    height: int
    mimetype: str
    fallback: bool = False


def srcset_of(candidates: Sequence[Candidate]) -> str:
    """Return the value of the HTML attribute ``srcset``, which is not escaped; without widths if there is one file."""
    if len(candidates) == 1:
        return candidates[0].url
    return ", ".join([f"{one.url} {one.width}w" for one in candidates])


def _choice(candidates: Sequence[Candidate], sizes: str | None) -> dict[str, Any]:
    """The attributes by which a browser chooses; HTML allows ``sizes`` only if there are widths."""
    return {"srcset": srcset_of(candidates), "sizes": sizes if len(candidates) > 1 else None}


def fallback_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the file for programs that cannot choose; ``None`` if there are no files."""
    return next((one for one in candidates if one.fallback), None)


def compatible(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the files of one format, for where only one can be offered: the last, which most programs know."""
    offered = [one for one in candidates if not one.fallback] or candidates
    return [one for one in candidates if one.mimetype == offered[-1].mimetype]


def background(colour: str | None, thumbhash: str | None, mimetype: str) -> str | None:
    """Return the colour to show until a picture is loaded: none if something could be seen through the picture.

    Args:
        colour: The dominant colour.
        thumbhash: In Base64; it says whether the picture is opaque.
        mimetype: Of the original.
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
        shown: The file for browsers that do not choose.
        others: Those to choose from, of one format; none, or one, for no ``srcset``.
        sizes: The attribute; needed if there are several. If it is a length in pixels, it is the picture's width, too.
        alt: The attribute.
        colour: The background.
        attributes: Other attributes, which take precedence.
    """
    own: dict[str, Any] = {"src": shown.url}
    if others and list(others) != [shown]:
        own |= _choice(others, sizes)
    width, height = _displayed(shown, sizes)
    own |= {"width": width, "height": height, "alt": alt, **_DEFAULTS}
    given = _given(attributes)
    if given.get("fetchpriority") == "high":
        del own["loading"]
    if colour is not None:
        given["style"] = ";".join(filter(None, (f"background-color:{colour}", given.get("style"))))
    return Html(f"<img{_written(own | given)}>")


def fallback_element(url: str, alt: str, attributes: Mapping[str, Any]) -> Html:
    """Return the ``<img>`` element of the picture that is shown where there is none."""
    return Html(f"<img{_written({'src': url, 'alt': alt, **_DEFAULTS} | _given(attributes))}>")


def picture_element(candidates: Sequence[Candidate], sizes: str | None, img: str) -> Html:
    """Return a ``<picture>`` element.

    Args:
        candidates: The files; those of one format next to each other, the best format first.
        sizes: The attribute of each ``<source>``.
        img: The ``<img>`` element.
    """
    sources = [
        f"<source{_written({'type': mimetype, **_choice(list(group), sizes)})}>"
        for mimetype, group in groupby(candidates, key=lambda one: one.mimetype)
    ]
    return Html(f"<picture>{''.join(sources)}{img}</picture>")


def _displayed(shown: Candidate, sizes: str | None) -> tuple[int, int]:
    """The attributes ``width`` and ``height``: those of the file, or as many CSS pixels as ``sizes`` says."""
    fixed = _PIXELS.fullmatch(sizes or "")
    if fixed is None:
        return shown.width, shown.height
    width = int(fixed[1])
    return width, nearest(shown.height * width, shown.width)


def _given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a call, named as in HTML: ``class_`` is ``class``, ``data_id`` is ``data-id``."""
    given: dict[str, Any] = {}
    for name, value in attributes.items():
        html_name = name.rstrip("_").replace("_", "-")
        if not _ATTRIBUTE.fullmatch(html_name):
            raise DeclarationError(f"expected the name of an HTML attribute, got {name!r:.80}")
        given[html_name] = value
    return given


def _written(attributes: Mapping[str, Any]) -> str:
    """Write attributes: ``True`` has no value, ``None`` and ``False`` are left out."""
    return "".join(
        [
            f" {name}" if value is True else f' {name}="{escape(str(value))}"'
            for name, value in attributes.items()
            if value is not None and value is not False
        ]
    )
