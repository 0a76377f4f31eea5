"""HTML elements for images. Does no I/O."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from ..exc import DeclarationError
from ..imaging._geometry import nearest
from .srcset import Ladder, Step

__all__ = ["Candidate", "Html", "Links", "background", "fallback_element", "img_element", "picture_element"]

_ATTRIBUTE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*", re.ASCII)
_DEFAULTS: Final = {"loading": ' loading="lazy"', "decoding": ' decoding="async"'}
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


@dataclass(frozen=True, slots=True)
class Links:
    """The files of a thumbnail with their URLs.

    Args:
        ladder: The files.
        shown: The file for clients that do not support ``srcset``.
        urls: The URLs by the end of the file name; those for elements are escaped.
    """

    ladder: Ladder
    shown: Step
    urls: Mapping[str, str]

    @property
    def url(self) -> str:
        """URL of the file for clients that do not support ``srcset``."""
        return self.urls[self.shown.tail]

    def candidates(self) -> tuple[Candidate, ...]:
        """Return all files."""
        return tuple(
            [
                Candidate(self.urls[one.tail], one.width, one.height, one.mimetype, one is self.shown)
                for one in self.ladder.steps
            ]
        )

    def srcset(self, steps: Sequence[Step]) -> str:
        """Return the value of the HTML attribute ``srcset``, not escaped. A single file is listed without its width."""
        urls = self.urls
        if len(steps) == 1:
            return urls[steps[0].tail]
        return ", ".join([f"{urls[one.tail]} {one.width}w" for one in steps])


def background(colour: str | None, thumbhash: str | None, mimetype: str) -> str | None:
    """Return the background colour to show until an image is loaded; ``None`` if the image may be transparent.

    Args:
        colour: Dominant colour of the image.
        thumbhash: ThumbHash of the image in Base64. One of its bits is set if the image has an alpha channel.
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
    links: Links,
    offered: Sequence[Step],
    *,
    sizes: str | None,
    alt: str,
    colour: str | None,
    attributes: Mapping[str, Any],
) -> Html:
    """Return an ``<img>`` element.

    Args:
        links: The thumbnail, with escaped URLs. Its fallback file is the attribute ``src``.
        offered: The files for the attribute ``srcset``, all of one format. If there are none, or only the fallback
            file, the attribute is omitted.
        sizes: The attribute ``sizes``; required if there are several files. If it is a length in pixels, it also sets
            the attributes ``width`` and ``height``.
        alt: The attribute ``alt``.
        colour: The background colour.
        attributes: Other attributes, which take precedence.
    """
    own = {"src": f' src="{links.url}"'}
    if offered and offered != (links.shown,):
        own["srcset"] = _format_choice(links, offered, sizes)
    width, height = _displayed_size(links.shown, sizes)
    own |= {"width": f' width="{width}"', "height": f' height="{height}"', "alt": f' alt="{escape(alt)}"', **_DEFAULTS}
    given = _by_attribute_name(attributes)
    if given.get("fetchpriority") == "high":
        del own["loading"]
    if colour is not None:
        given["style"] = ";".join(filter(None, (f"background-color:{colour}", given.get("style"))))
    return _img(own, given)


def fallback_element(url: str, alt: str, attributes: Mapping[str, Any]) -> Html:
    """Return the ``<img>`` element of the placeholder for a missing image."""
    own = {"src": f' src="{escape(url)}"', "alt": f' alt="{escape(alt)}"', **_DEFAULTS}
    return _img(own, _by_attribute_name(attributes))


def picture_element(links: Links, sizes: str | None, img: str) -> Html:
    """Return a ``<picture>`` element.

    Args:
        links: The thumbnail, with escaped URLs.
        sizes: The attribute ``sizes`` of each ``<source>`` element.
        img: The ``<img>`` element.
    """
    elements = [
        f'<source type="{steps[0].mimetype}"{_format_choice(links, steps, sizes)}>' for steps in links.ladder.sources
    ]
    return Html(f"<picture>{''.join(elements)}{img}</picture>")


def _displayed_size(shown: Step, sizes: str | None) -> tuple[int, int]:
    """Return the attributes ``width`` and ``height``: the file's size, scaled to ``sizes`` if that is in pixels."""
    fixed = _PIXELS.fullmatch(sizes or "")
    if fixed is None:
        return shown.width, shown.height
    width = int(fixed[1])
    return width, nearest(shown.height * width, shown.width)


def _format_choice(links: Links, steps: Sequence[Step], sizes: str | None) -> str:
    """Format the attributes ``srcset`` and ``sizes``. HTML allows ``sizes`` only if ``srcset`` contains widths."""
    srcset = f' srcset="{links.srcset(steps)}"'
    return srcset if sizes is None or len(steps) == 1 else f'{srcset} sizes="{escape(sizes)}"'


def _by_attribute_name(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Convert keyword names to HTML attribute names: ``class_`` to ``class``, ``data_id`` to ``data-id``."""
    given: dict[str, Any] = {}
    for name, value in attributes.items():
        html_name = name.rstrip("_").replace("_", "-")
        if not _ATTRIBUTE.fullmatch(html_name):
            raise DeclarationError(f"expected the name of an HTML attribute, got {name!r:.80}")
        given[html_name] = value
    return given


def _img(own: Mapping[str, str], given: Mapping[str, Any]) -> Html:
    """Return an ``<img>`` element with formatted attributes, and with those of the caller, which take precedence."""
    attributes = {**own, **{name: _format(name, value) for name, value in given.items()}}
    return Html(f"<img{''.join(attributes.values())}>")


def _format(name: str, value: Any) -> str:
    """Format an attribute. ``True`` is written without a value; ``None`` and ``False`` are omitted."""
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
