"""SVG: calculate the cost of painting before a renderer reads the file, and rewrite the document for the renderer.

The document is rewritten in UTF-8 without scripts, comments, declarations, entities and URLs of other documents. It
has the needed size in pixels, so that the renderer does not have to round the size or interpret units.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from ..exc import ImageError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from ._limits import ImageLimits
from ._structure import Clock
from ._vector import whole_size

__all__ = ["Drawing", "examine"]

_URL: Final = re.compile(r"url\(\s*['\"]?#([^'\")\s]{1,200})")
_CLASS: Final = re.compile(r"\s*\.([\w-]+)\s*")
_IMPORT: Final = re.compile(r"@import[^;]{0,40}data:", re.IGNORECASE)
_PICTURES: Final = re.compile(r"\s*data:image/(?:png|jpe?g|gif|webp)\s*[;,]", re.IGNORECASE)
_FUNCTION: Final = re.compile(
    r"\b(?:blur|drop-shadow|brightness|contrast|grayscale|hue-rotate|invert|saturate|sepia)\("
)
_PRIMITIVE: Final = re.compile(r"fe[A-Z]")
_SPECIAL: Final = re.compile(r'[&<>"\n\r\t]')
_LENGTH: Final = re.compile(
    r"\s*([+]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(px|pt|pc|in|cm|mm|q|em|rem|ex|ch)?\s*", re.IGNORECASE
)
_UNITS: Final = {
    "": 1.0,
    "px": 1.0,
    "pt": 96 / 72,
    "pc": 16.0,
    "in": 96.0,
    "cm": 96 / 2.54,
    "mm": 96 / 25.4,
    "q": 96 / 101.6,
    "em": 16.0,
    "rem": 16.0,
    "ex": 8.0,
    "ch": 8.0,
}
"""CSS pixels per unit of length (CSS Values 4, section 6)."""
_DEFAULT_SIZE: Final = (300.0, 150.0)  # CSS 2.2, section 10.3.2
_SAME: Final = 1 / 400  # largest relative difference of aspect ratios that count as equal
_STEPS: Final = {
    "feConvolveMatrix": 100,
    "feDisplacementMap": 1_200,
    "feDropShadow": 400,
    "feFlood": 30,
    "feGaussianBlur": 300,
    "feImage": 30,
    "feMergeNode": 40,
    "feMorphology": 6_000,
    "feOffset": 30,
    "feTile": 30,
    "feTurbulence": 200,
    "mask": 20,
}
"""Cost of a filter step or a mask, in nanoseconds per pixel of the canvas, measured with librsvg 2.61."""
_OTHER_STEP: Final = 150
_LIGHTS: Final = ("feDistantLight", "fePointLight", "feSpotLight", "feFunc")
_FUNCTION_ID: Final = "filter function"
_CHEAP: Final = frozenset({"linearGradient", "radialGradient", "stop"})
_LONGEST_SHEET: Final = 1_000_000
_REFERENCES: Final = 4  # per element that is allowed: fill, stroke, a filter, a mask
_DEEPEST: Final = 200  # the renderer's XML parser stops at 256
_MANY: Final = 10**12
_BLOCK: Final = 65_536
_NAMESPACE: Final = "http://www.w3.org/2000/svg"
_XINCLUDE: Final = "http://www.w3.org/2001/XInclude"
_ROOT_SIZE: Final = frozenset({"width", "height", "viewBox", "preserveAspectRatio", "x", "y"})
_MIMETYPE: Final = "image/svg+xml"


@dataclass(slots=True)
class _Element:
    """An element. The lists are created on demand, because most elements have neither children nor references."""

    name: str
    classes: Sequence[str] = ()
    children: list[_Element] | None = None
    references: list[str] | None = None
    cost: int | None = None
    step: int = 0
    filters: int = 0

    def refer(self, names: Sequence[str]) -> None:
        if self.references is None:
            self.references = [*names]
        else:
            self.references += names

    def weigh(self, parts: Sequence[_Element] = ()) -> None:
        """Set the cost of the element, including the given parts."""
        own = 0 if self.name in _CHEAP else 1
        self.cost = min(_MANY, own + sum(part.cost or 0 for part in parts))
        self.filters = min(_MANY, self.step + sum(part.filters for part in parts))


def _step(name: str, attributes: dict[str, str]) -> int:
    """Return the cost that an element adds to a filter, in nanoseconds per pixel."""
    if not _PRIMITIVE.match(name) and name != "mask":
        return 0
    if name.startswith(_LIGHTS):
        return 0
    step = _STEPS.get(name, _OTHER_STEP)
    if name == "feTurbulence":
        step += 100 * int(min(max(_number(attributes.get("numOctaves"), 1), 1), 10))
    elif name == "feConvolveMatrix":
        sides = [min(_number(side, 3), 1_000) for side in attributes.get("order", "3").replace(",", " ").split()[:2]]
        step += int(16 * max([3, *sides]) ** 2)
    return step


def _number(text: str | None, default: float) -> float:
    try:
        number = float(text or default)
    except ValueError:
        return default
    return number if math.isfinite(number) else default


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG that has passed all checks and can be painted.

    Args:
        width: Natural width in whole pixels. For a small drawing, width and height are multiplied to preserve the
            aspect ratio.
        height: Natural height in whole pixels, likewise.
        filters: Cost of the filters, in nanoseconds per pixel of the canvas.
        parts: The document after the attributes of its root element: text, and images to embed.
    """

    width: int
    height: int
    filters: int
    root: str
    attributes: str
    parts: tuple[str | bytes, ...]

    def document(self, width: int, height: int, embed: Callable[[bytes], str]) -> bytes:
        """Return the document to paint at the given size.

        Args:
            width: Width in pixels.
            height: Height in pixels.
            embed: Converts an embedded image to a ``data:`` URL that the renderer can read.
        """
        head = f'<{self.root} width="{width}" height="{height}"{self.attributes}'
        body = "".join(part if isinstance(part, str) else embed(part) for part in self.parts)
        return (head + body).encode()


def _natural(attributes: dict[str, str]) -> tuple[float, float, tuple[float, float, float, float]]:
    """Return the width, the height and the view box, in CSS pixels (SVG 2, section 8; CSS Images 3, section 5)."""
    numbers = [_number(part, math.nan) for part in attributes.get("viewBox", "").replace(",", " ").split()]
    box = None
    if len(numbers) == 4 and all(map(math.isfinite, numbers)) and numbers[2] > 0 and numbers[3] > 0:
        box = numbers[0], numbers[1], numbers[2], numbers[3]
    sides: list[float | None] = []
    for name in ("width", "height"):
        found = _LENGTH.fullmatch(attributes.get(name, ""))
        sides.append(float(found[1]) * _UNITS[(found[2] or "").lower()] if found else None)
    width, height = sides
    if width == 0 or height == 0:
        raise UnreadableImageError(f"expected a valid {_MIMETYPE} file, got one with a width or height of 0")
    if box is not None:
        if width is None and height is None:
            width, height = box[2], box[3]
        elif width is None:
            width = (height or 0) * box[2] / box[3]
        elif height is None:
            height = width * box[3] / box[2]
    width, height = width or _DEFAULT_SIZE[0], height or _DEFAULT_SIZE[1]
    return width, height, box or (0, 0, width, height)


class _Document:
    """Collects the elements of an SVG and the references between them, and rewrites the document."""

    def __init__(self, limits: ImageLimits, check_picture: Callable[[bytes], None], clock: Clock) -> None:
        self._limits = limits
        self._check_picture = check_picture
        self._clock = clock
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.EntityDeclHandler = self._entity
        self._parser.ProcessingInstructionHandler = self._instruction
        self._root = _Element("")
        self._path = [self._root]
        self._skipped = 0
        self._including: set[str] = set()
        self._elements: list[_Element] = []
        self._by_id: dict[str, _Element] = {_FUNCTION_ID: _Element(_FUNCTION_ID, step=_STEPS["feGaussianBlur"])}
        self._styles: list[str] = []
        self._styled = 0
        self._size = 0
        self._out: list[str | bytes] = []
        self.root_name = ""
        self.root_attributes: dict[str, str] = {}

    def read(self, data: bytes) -> _Element:
        try:
            for at in range(0, len(data), _BLOCK):
                self._clock.check()
                self._parser.Parse(data[at : at + _BLOCK], at + _BLOCK >= len(data))
        except ImageError:
            raise
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise UnreadableImageError(
                f"expected a valid {_MIMETYPE} file, got one that is not well-formed XML"
            ) from error
        self._apply_styles("".join(self._styles))
        return self._root

    def parts(self) -> tuple[str | bytes, ...]:
        """Return the rewritten document, without the start of its root element."""
        joined: list[str | bytes] = []
        texts: list[str] = []
        for part in self._out:
            if isinstance(part, str):
                texts.append(part)
            else:
                joined += "".join(texts), part
                texts = []
        return (*joined, "".join(texts))

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > 2 * self._limits.max_metadata:  # entities can make it longer than the file
            raise ImageTooLargeError(
                f"expected an SVG of at most {2 * self._limits.max_metadata:,} characters "
                "after its entities are replaced, got more",
                limit=2 * self._limits.max_metadata,
            )
        self._out.append(text)

    def _apply_styles(self, sheet: str) -> None:
        """Add the references of each style rule to the elements that it may select.

        For a selector of a single class, these are the elements of the class; for any other selector, all elements.
        """
        if _IMPORT.search(sheet):
            raise UnsupportedImageError("expected an SVG without imports in its style sheet, got one that imports data")
        by_class: dict[str, list[str]] = {}
        everywhere: list[str] = []
        for rule in sheet.split("}"):
            head, _, body = rule.rpartition("{")
            names = _names(body)
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
        local = name.rpartition(":")[2]
        if _XINCLUDE in attributes.values():
            self._including.update(label.partition(":")[2] for label, value in attributes.items() if value == _XINCLUDE)
        if self._including and name.rpartition(":")[0] in self._including:
            raise UnsupportedImageError(
                "expected an SVG without other documents, got one that includes some (XInclude)"
            )
        if len(self._path) == _DEEPEST:
            raise ImageTooLargeError(
                f"expected an SVG with at most {_DEEPEST} nested elements, got more", limit=_DEEPEST
            )
        element, parent = _Element(local, step=_step(local, attributes)), self._path[-1]
        if parent.children is None:
            parent.children = [element]
        else:
            parent.children.append(element)
        self._elements.append(element)
        self._path.append(element)
        if self._skipped or local == "script":
            self._skipped += 1
            return
        if len(self._path) == 2:
            self.root_name, self.root_attributes = name, attributes
        else:
            self._write(f"<{name}")
        for label, value in attributes.items():
            self._attribute(element, label, value)
        self._write(">")

    def _attribute(self, element: _Element, label: str, value: str) -> None:
        local = label.rpartition(":")[2]
        if len(self._path) == 2 and local in _ROOT_SIZE:
            return
        if local == "id":
            self._by_id.setdefault(value, element)
        elif local == "class":
            element.classes = value.split()
        elif local == "href":
            target = value.strip()
            if target.startswith("#"):
                element.refer([target[1:]])
            elif target[:5].lower() == "data:" and element.name != "a":
                self._write(f' {label}="')
                self._out.append(self._picture(target))
                self._write('"')
                return
            else:
                return  # a URL of another document
        elif "(" in value and (names := _names(value)):
            element.refer(names)
        self._write(f" {label}={quoteattr(value)}" if _SPECIAL.search(value) else f' {label}="{value}"')

    def _picture(self, address: str) -> bytes:
        if not _PICTURES.match(address):
            raise UnsupportedImageError(f"expected PNG, JPEG, GIF or WebP data in the SVG, got {address[:40]!r}")
        head, _, body = address.partition(",")
        try:
            plain = urllib.parse.unquote_to_bytes(body)
            data = base64.b64decode(plain) if head.rstrip().lower().endswith("base64") else plain
        except (binascii.Error, ValueError) as error:
            raise UnreadableImageError("expected valid Base64 for the images in the SVG, got damaged data") from error
        self._check_picture(data)
        return data

    def _end(self, name: str) -> None:
        self._path.pop()
        if self._skipped:
            self._skipped -= 1
        else:
            self._write(f"</{name}>")

    def _text(self, text: str) -> None:
        if self._skipped:
            return
        self._write(escape(text))
        if self._path[-1].name == "style":
            self._styles.append(text)
            self._styled += len(text)
            if self._styled > _LONGEST_SHEET:
                raise ImageTooLargeError(
                    f"expected an SVG whose style sheets have at most {_LONGEST_SHEET:,} characters, got more",
                    limit=_LONGEST_SHEET,
                )

    def _instruction(self, target: str, _: str) -> None:
        if target == "xml-stylesheet":
            raise UnsupportedImageError(
                "expected an SVG without external style sheets, got an xml-stylesheet instruction"
            )

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
        # drawing programs declare their namespaces as short entities of plain text, so these are allowed
        if value is None or len(value) > 256 or "&" in value or "<" in value or "%" in value:
            raise UnsupportedImageError(
                f"expected an SVG with short entities of plain text, got the entity {name[:40]!r}"
            )


def _too_many(limits: ImageLimits, count: int) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"expected an SVG that paints at most {limits.max_elements:,} elements (max_elements), "
        f"got {'more' if count >= _MANY else format(count, ',')}",
        limit=limits.max_elements,
        actual=count,
    )


def _count(document: _Document, root: _Element) -> None:
    """Set the cost of each element, including everything that it paints. Circular references paint nothing."""
    pending: list[tuple[_Element, bool]] = [(root, False)]
    visiting: set[int] = set()
    while pending:
        element, counted = pending.pop()
        parts = element.children or []
        if element.references:
            parts = parts + [found for name in element.references if (found := document.find(name)) is not None]
        if counted:
            visiting.discard(id(element))
            element.weigh(parts)
        elif element.cost is None and id(element) not in visiting:
            visiting.add(id(element))
            pending.append((element, True))
            for part in parts:
                if part.children is None and part.references is None:
                    part.weigh()
                elif part.cost is None:
                    pending.append((part, False))


def _names(value: str) -> list[str]:
    """Return the references in a property or a rule: identifiers of elements, and filter functions."""
    return _URL.findall(value) + [_FUNCTION_ID] * len(_FUNCTION.findall(value))


def examine(view: memoryview, limits: ImageLimits, check_picture: Callable[[bytes], None], clock: Clock) -> Drawing:
    """Check the cost of painting an SVG, and return the drawing to paint.

    An element counts once for each time it is painted: by ``use``, patterns, masks, markers and so on.

    Args:
        view: The file.
        limits: The limits. ``max_elements``, ``max_side`` and ``max_metadata`` apply, the latter to the whole text.
        check_picture: Called with each embedded image; raises an error if the image must not be painted.
        clock: Limits the CPU time that reading takes.

    Raises:
        UnreadableImageError: The file is not well-formed XML, or has no usable size.
        UnsupportedImageError: The file contains unsupported references: entities, other documents, or embedded data
            that is not a supported image.
        ImageTooLargeError: The drawing exceeds a limit.
    """
    if len(view) > limits.max_metadata:
        raise ImageTooLargeError(
            f"expected an SVG of at most {limits.max_metadata:,} bytes (max_metadata), got {len(view):,}",
            limit=limits.max_metadata,
            actual=len(view),
        )
    data = bytes(view)
    starts = data.count(b"<") - data.count(b"</") - data.count(b"<!")
    if starts > limits.max_elements:  # also counts tags in comments, but needs no parsing
        raise _too_many(limits, starts)
    document = _Document(limits, check_picture, clock)
    root = document.read(data)
    prefix = document.root_name.rpartition(":")[0]
    if document.root_attributes.get(f"xmlns:{prefix}" if prefix else "xmlns") != _NAMESPACE:
        raise UnreadableImageError(
            f"expected an XML document in the namespace {_NAMESPACE}, got one in another namespace"
        )
    _count(document, root)
    painted = root.cost or 0
    if painted > limits.max_elements:
        raise _too_many(limits, painted)
    width, height, box = _natural(document.root_attributes)
    sides = whole_size(width, height, limits, "an SVG")
    proportions = document.root_attributes.get("preserveAspectRatio", "")
    if abs(width * box[3] / (height * box[2]) - 1) <= _SAME:
        proportions = "none"  # stretch to the canvas of whole pixels, so that it has no transparent edges
    attributes = ' viewBox="{:.9g} {:.9g} {:.9g} {:.9g}"'.format(*box)
    if proportions:
        attributes += f" preserveAspectRatio={quoteattr(proportions)}"
    return Drawing(*sides, root.filters, document.root_name, attributes, document.parts())
