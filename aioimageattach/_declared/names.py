"""File names of declared thumbnails. Does no I/O.

A thumbnail is named after its original and its declaration: ``OBJECT_TYPE.t/.../PUBLIC-NAME[-FRAMING]-TAG.WxH.EXT``.

- PUBLIC is the first part of the original's revision. It identifies the original. The rest stays secret.
- NAME is the name of the declaration.
- FRAMING is the crop box of the row, and its focal point if the thumbnail is cropped to an aspect ratio.
- TAG is a keyed hash of twelve characters, with the whole revision as the key, so that names cannot be forged. The
  first five characters prove that a name of this thumbnail with this crop box was once issued for this image. The
  other seven are a hash of the recipe and the framing, so that a different recipe gets a different name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from .._names import DERIVED, FRAMING, LEGACY_EXTENSIONS, SANDBOX, revision_of
from ..exc import InvalidKeyError
from ..key import ImageKey
from .framing import WHOLE, Framing

__all__ = [
    "NAME",
    "DerivedName",
    "derived_type",
    "legacy_key",
    "legacy_revision",
    "original_type",
    "path_of",
    "picture_of",
    "public_of",
    "stem_of",
]

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,15}", re.ASCII)
"""Valid names of thumbnails. They cannot contain ``-``, which separates the parts of a file name."""

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_LEGACY_MARK: Final = "o"  # not in _DIGITS, so it cannot begin a revision of `make_revision`
_LEGACY_CHARS: Final = 16
_LEGACY_END: Final = ".legacy-layout"  # as long as the secret part of other revisions
_LEGACY_TYPES: Final = tuple(sorted(LEGACY_EXTENSIONS))
_PUBLIC: Final = 18
_SECRET: Final = 14  # 70 bits
_SHORTEST: Final = 8
_CHECK: Final = 5  # 25 bits
_LOOK: Final = 7  # 35 bits
_STEM: Final = re.compile(
    rf"(?P<public>[A-Za-z0-9][A-Za-z0-9_-]{{{_SHORTEST - 1},{_PUBLIC - 1}}})-(?P<name>{NAME.pattern})"
    rf"(?:-(?P<framing>{FRAMING}))?-(?P<tag>[0-9a-z]{{{_CHECK + _LOOK}}})(?P<mark>{SANDBOX})?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class DerivedName:
    """The parts of a thumbnail's revision.

    Args:
        public: The first part of the original's revision.
        name: Name of the declaration.
        framing: Crop box and focal point.
        tag: Keyed hash; see the module docstring.
        sandbox: ``True`` if the original is in the upper store of an overlay.
    """

    public: str
    name: str
    framing: Framing
    tag: str
    sandbox: bool

    @classmethod
    def parse(cls, revision: str) -> DerivedName | None:
        """Parse the revision of a thumbnail; return ``None`` if it is not one."""
        found = _STEM.fullmatch(revision)
        framing = None if found is None else Framing.parse(found["framing"] or "")
        if found is None or framing is None:
            return None
        return cls(found["public"], found["name"], framing, found["tag"], found["mark"] is not None)

    @classmethod
    def of_file(cls, name: str) -> DerivedName | None:
        """Parse the file name of a thumbnail; return ``None`` if it is not one."""
        return None if original_type(name.partition("/")[0]) is None else cls.parse(revision_of(name) or "")

    def belongs_to(self, revision: str) -> bool:
        """Return whether the name was issued for the original with the given revision, under any recipe.

        The crop box is the one that it was issued with; the focal point may be another one.
        """
        same = self.sandbox == revision.endswith(SANDBOX) and public_of(revision) == self.public
        return same and compare_digest(_check_of(revision, self.name, self.framing), self.tag[:_CHECK])


def legacy_revision(key: ImageKey) -> str | None:
    """Return a substitute for the revision of an original in the layout of SQLAlchemy-ImageAttach.

    Its public part encodes the identifier, the size and the MIME type, so that a server can locate the file. It has no
    secret part, because the names of such originals can be guessed anyway.

    Returns:
        ``None`` if the identifier is too large, for example a UUID, or if the size or the MIME type cannot be encoded.
    """
    number = key.object_id
    if number is None or not 0 <= number < 1 << 35 or max(key.width, key.height) >= 1 << 20:
        return None
    if key.mimetype not in _LEGACY_TYPES:
        return None
    parts = ((number, 7), (key.width, 4), (key.height, 4), (_LEGACY_TYPES.index(key.mimetype), 1))
    return _LEGACY_MARK + "".join(_base32(*part) for part in parts) + _LEGACY_END


def legacy_key(object_type: str, public: str) -> ImageKey | None:
    """Return the key of the original from a public part of :func:`legacy_revision`; ``None`` if it is not one."""
    digits = [_DIGITS.find(char) for char in public[1:]]
    if not public.startswith(_LEGACY_MARK) or len(digits) != _LEGACY_CHARS or min(digits) < 0:
        return None
    parts = (digits[:7], digits[7:11], digits[11:15])
    object_id, width, height = (int("".join(f"{digit:05b}" for digit in part), 2) for part in parts)
    if digits[15] >= len(_LEGACY_TYPES) or not (width and height):
        return None
    return ImageKey(object_type, object_id, width, height, _LEGACY_TYPES[digits[15]])


def derived_type(object_type: str) -> str:
    """Return the object type of the thumbnails for an object type of originals."""
    return object_type + DERIVED


def original_type(object_type: str) -> str | None:
    """Return the object type of the originals for an object type of thumbnails; ``None`` if it is not one."""
    found = object_type.removesuffix(DERIVED)
    return found if found and found != object_type else None


def public_of(revision: str) -> str | None:
    """Return the part of an original's revision that its thumbnails' names contain; ``None`` if it is too short."""
    plain = revision.removesuffix(SANDBOX)
    chars = min(_PUBLIC, len(plain) - _SECRET)
    return plain[:chars] if chars >= _SHORTEST else None


def stem_of(revision: str, name: str, look: str, framing: Framing = WHOLE) -> str:
    """Return the revision of a thumbnail.

    Args:
        revision: Revision of the original.
        name: Name of the declaration.
        look: Description of the processing, apart from size and format.
        framing: Crop box, and the focal point if the result depends on it.

    Raises:
        InvalidKeyError: The original's revision is too short to keep enough of its characters secret.
    """
    public = public_of(revision)
    if public is None:
        raise InvalidKeyError(
            f"revision: expected at least {_SHORTEST + _SECRET} characters, so that enough of them stay secret in the "
            f"names of declared thumbnails; got {len(revision.removesuffix(SANDBOX))}"
        )
    text = framing.text
    tag = _check_of(revision, name, framing) + _code(revision, f"{name} {look} {text}", _LOOK)
    mark = SANDBOX if revision.endswith(SANDBOX) else ""
    return f"{public}-{name}-{text}-{tag}{mark}" if text else f"{public}-{name}-{tag}{mark}"


def path_of(object_type: str, stem: str) -> str:
    """Return the common prefix of the file names of a thumbnail; see :meth:`aioimageattach.key.ImageKey.file_name`.

    Args:
        object_type: Object type of the original.
        stem: Revision of the thumbnail.
    """
    return f"{object_type}{DERIVED}/{stem[:5]}/{stem[5:7]}/{stem}"


def picture_of(object_type: str, public: str) -> str:
    """Return the common prefix of the names of all thumbnails of an image. URL signatures cover this prefix."""
    return f"{object_type}{DERIVED}/{public}"


def _check_of(revision: str, name: str, framing: Framing) -> str:
    return _code(revision, name if framing.box is None else f"{name} {framing.without_point().text}", _CHECK)


@lru_cache(4096)
def _code(revision: str, text: str, chars: int) -> str:
    digest = blake2b(text.encode(), key=revision.encode(), digest_size=8).digest()
    return _base32(int.from_bytes(digest) >> (64 - 5 * chars), chars)


def _base32(number: int, chars: int) -> str:
    return "".join(_DIGITS[number >> shift & 31] for shift in range(5 * (chars - 1), -1, -5))
