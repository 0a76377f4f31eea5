"""What painting an SVG would cost, counted before a renderer sees it."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

from ..exc import ImageError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from .limits import ImageLimits

__all__ = ["examine"]

_URL: Final = re.compile(r"url\(\s*['\"]?#([^'\")\s]{1,200})")
_CLASS: Final = re.compile(r"\s*\.([\w-]+)\s*")
_IMPORT: Final = re.compile(r"@import[^;]{0,40}data:", re.IGNORECASE)
_PICTURES: Final = re.compile(r"\s*data:image/(?:png|jpe?g|gif|webp)\s*[;,]", re.IGNORECASE)
_PRIMITIVE: Final = re.compile(r"fe[A-Z]")
_CHEAP: Final = frozenset({"linearGradient", "radialGradient", "stop"})
_LONGEST_SHEET: Final = 1_000_000
_REFERENCES: Final = 4  # for each element that is allowed: fill, stroke, a filter, a mask
_DEEPEST: Final = 200  # the XML reader behind the renderer stops at 256
_MANY: Final = 10**12
_MIMETYPE: Final = "image/svg+xml"


@dataclass(slots=True)
class _Element:
    """An element; most have neither children nor references, and so no lists of them either."""

    name: str
    classes: Sequence[str] = ()
    children: list[_Element] | None = None
    references: list[str] | None = None
    cost: int | None = None
    filters: int = 0

    def refer(self, names: Sequence[str]) -> None:
        if self.references is None:
            self.references = [*names]
        else:
            self.references += names

    def weigh(self, parts: Sequence[_Element] = ()) -> None:
        """Fill in what it costs, with these parts."""
        own = 0 if self.name in _CHEAP else 1
        self.cost = min(_MANY, own + sum(part.cost or 0 for part in parts)) if parts else own
        primitive = 1 if _PRIMITIVE.match(self.name) else 0
        self.filters = min(_MANY, primitive + sum(part.filters for part in parts)) if parts else primitive


class _Document:
    """Collects the elements of an SVG and what refers to what."""

    def __init__(self, limits: ImageLimits, check_picture: Callable[[bytes], None]) -> None:
        self._limits = limits
        self._check_picture = check_picture
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.EntityDeclHandler = self._entity
        self._parser.ProcessingInstructionHandler = self._instruction
        self._root = _Element("")
        self._path = [self._root]
        self._elements: list[_Element] = []
        self._by_id: dict[str, _Element] = {}
        self._styles: list[str] = []
        self._styled = 0

    def read(self, data: bytes) -> _Element:
        try:
            self._parser.Parse(data, True)
        except ImageError:
            raise
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise UnreadableImageError(f"expected {_MIMETYPE}, but it is no well-formed XML") from error
        self._apply_styles("".join(self._styles))
        return self._root

    def _apply_styles(self, sheet: str) -> None:
        """Give elements the references of the rules that may select them: by class, else all."""
        if _IMPORT.search(sheet):
            raise UnsupportedImageError("the SVG's style sheet imports data, which is never followed")
        by_class: dict[str, list[str]] = {}
        everywhere: list[str] = []
        for rule in sheet.split("}"):
            head, _, body = rule.rpartition("{")
            names = _URL.findall(body)
            for selector in head.rpartition("{")[2].split(",") if names else ():
                one = _CLASS.fullmatch(selector)
                (by_class.setdefault(one[1], []) if one else everywhere).extend(names)
        left = _REFERENCES * self._limits.max_elements
        for element in self._elements:
            for names in (everywhere, *(by_class.get(name, []) for name in dict.fromkeys(element.classes))):
                left -= len(names)
                if left < 0:
                    raise _too_many(self._limits, _MANY)
                if names:
                    element.refer(names)

    def find(self, identifier: str) -> _Element | None:
        return self._by_id.get(identifier)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if namespace == "http://www.w3.org/2001/XInclude":
            raise UnsupportedImageError("the SVG includes other documents (XInclude), which is never followed")
        if len(self._path) == _DEEPEST:
            raise ImageTooLargeError(f"the SVG nests more than {_DEEPEST} elements", limit=_DEEPEST)
        element, parent = _Element(local), self._path[-1]
        if parent.children is None:
            parent.children = [element]
        else:
            parent.children.append(element)
        self._elements.append(element)
        self._path.append(element)
        for label, value in attributes.items():
            self._attribute(element, label.rpartition(" ")[2], value)

    def _attribute(self, element: _Element, label: str, value: str) -> None:
        if label == "id":
            self._by_id.setdefault(value, element)
        elif label == "class":
            element.classes = value.split()
        elif label == "href":
            target = value.strip()
            if target.startswith("#"):
                element.refer([target[1:]])
            elif target[:5].lower() == "data:":
                self._picture(element, target)
        elif "url(" in value:
            element.refer(_URL.findall(value))

    def _picture(self, element: _Element, address: str) -> None:
        if element.name == "a":
            return
        if not _PICTURES.match(address):
            raise UnsupportedImageError(f"the SVG holds data of a kind that is not painted: {address[:40]!r}")
        head, _, body = address.partition(",")
        try:
            plain = urllib.parse.unquote_to_bytes(body)
            data = base64.b64decode(plain) if head.rstrip().lower().endswith("base64") else plain
        except (binascii.Error, ValueError) as error:
            raise UnreadableImageError("the SVG holds a picture that is not readable") from error
        self._check_picture(data)

    def _end(self, _: str) -> None:
        self._path.pop()

    def _text(self, text: str) -> None:
        if self._path[-1].name == "style":
            self._styles.append(text)
            self._styled += len(text)
            if self._styled > _LONGEST_SHEET:
                raise ImageTooLargeError(
                    f"the SVG has style sheets of more than {_LONGEST_SHEET:,} characters", limit=_LONGEST_SHEET
                )

    def _instruction(self, target: str, _: str) -> None:
        if target == "xml-stylesheet":
            raise UnsupportedImageError("the SVG names a style sheet outside of it, which is never followed")

    def _entity(
        self,
        name: str,
        _is_parameter: bool,
        value: str | None,
        _base: str | None,
        _system: str | None,
        _public: str | None,
        _notation: str | None,
    ) -> None:
        # drawing programs declare their namespaces so: short, and of plain text
        if value is None or len(value) > 256 or "&" in value or "<" in value or "%" in value:
            raise UnsupportedImageError(f"the SVG declares the entity {name[:40]!r}, which is not followed")


def _too_many(limits: ImageLimits, count: int) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"the SVG paints {'many' if count >= _MANY else format(count, ',')} elements: "
        f"{limits.max_elements:,} are allowed (max_elements)",
        limit=limits.max_elements,
        actual=count,
    )


def _count(document: _Document, root: _Element) -> None:
    """Fill in what each element costs with all that it paints; what refers to itself paints nothing."""
    pending: list[tuple[_Element, bool]] = [(root, False)]
    entered: set[int] = set()
    while pending:
        element, counted = pending.pop()
        parts = element.children or []
        if element.references:
            parts = parts + [found for name in element.references if (found := document.find(name)) is not None]
        if counted:
            entered.discard(id(element))
            element.weigh(parts)
        elif element.cost is None and id(element) not in entered:
            entered.add(id(element))
            pending.append((element, True))
            for part in parts:
                if part.children is None and part.references is None:
                    part.weigh()
                elif part.cost is None:
                    pending.append((part, False))


def examine(view: memoryview, limits: ImageLimits, check_picture: Callable[[bytes], None]) -> int:
    """Refuse an SVG that would take too long to paint, and return how many filter steps it paints.

    Elements count as often as they are painted: by ``use``, patterns, masks, markers and the like.

    Args:
        view: The file.
        limits: ``max_elements`` and ``max_metadata`` hold, the latter for the whole text.
        check_picture: Is called with each picture inside, and raises if it may not be painted.

    Raises:
        UnreadableImageError: It is no well-formed XML.
        UnsupportedImageError: It holds what is never followed: entities, other documents, data of other kinds.
        ImageTooLargeError: It is beyond the limits.
    """
    if len(view) > limits.max_metadata:
        raise ImageTooLargeError(
            f"the SVG has {len(view):,} bytes: {limits.max_metadata:,} are allowed (max_metadata)",
            limit=limits.max_metadata,
            actual=len(view),
        )
    data = bytes(view)
    starts = data.count(b"<") - data.count(b"</") - data.count(b"<!")
    if starts > limits.max_elements:  # also of those in comments, but without reading it
        raise _too_many(limits, starts)
    document = _Document(limits, check_picture)
    root = document.read(data)
    _count(document, root)
    painted = root.cost or 0
    if painted > limits.max_elements:
        raise _too_many(limits, painted)
    return root.filters
