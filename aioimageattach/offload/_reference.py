"""What the column of an offloaded value holds: the value itself, or the name of its file, which says all about it."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from ..exc import DamagedValueError, DeclarationError
from ..key import check_name, make_revision, revision_time
from ._codec import Compression, bound, extension_of

__all__ = [
    "INLINE_MARKS",
    "MAX_OBJECT_TYPE",
    "Inline",
    "Reference",
    "check_kind",
    "check_object_type",
    "format_inline",
    "make_reference",
    "parse",
    "parse_name",
]

MAX_OBJECT_TYPE: Final = 80
"""Characters that an object type may have, so that a reference fits into ``VARCHAR(255)``."""

_REVISION_CHARS: Final = 26  # the names of large values are no secrets, and have to fit into a column

_TEXT: Final = "="
_BASE64: Final = "#"
_FILE: Final = "@"
INLINE_MARKS: Final = (_TEXT, _BASE64)
"""What a column begins with if it holds the value itself."""

_OBJECT_TYPE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]*", re.ASCII)
_NAME: Final = re.compile(
    r"(?P<object_type>[^/]+)/(?P<five>[0-9a-z]{5})/"
    r"(?:(?P<two>[0-9a-z]{2})/(?P<revision>(?P=five)(?P=two)[0-9a-z]{19})|shared)"
    r"\.(?P<size>0|[1-9][0-9]{0,14})\.(?P<stored>0|[1-9][0-9]{0,14})\.(?P<sha256>[0-9a-f]{64})"
    r"(?P<kind>\.[a-z0-9]{1,12})(?:\.(?P<compression>gz|zst))?",
    re.ASCII,
)
_KIND: Final = re.compile(r"\.[a-z0-9]{1,12}", re.ASCII)
_COMPRESSIONS: Final[dict[str | None, Compression | None]] = {None: None, "gz": "gzip", "zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Reference:
    """A file, as its name describes it.

    Args:
        name: The name in the store.
        object_type: What the name begins with.
        size: Bytes of the value.
        stored: Bytes of the file.
        sha256: Fingerprint of the value, 64 hexadecimal digits.
        kind: What is in it, by a file name extension.
        compression: What was done to it.
        shared: Whether several rows may name it.
    """

    name: str
    object_type: str
    size: int
    stored: int
    sha256: str
    kind: str
    compression: Compression | None
    shared: bool

    def __str__(self) -> str:
        return f"{_FILE}{self.name}"

    @property
    def since(self) -> float:
        """When the file was put at the earliest, as the name tells: seconds since 1970."""
        start = len(self.object_type) + 1
        revision = self.name[start : start + 5] + "0" * 21
        moment = revision_time(revision)
        return 0.0 if moment is None else moment.timestamp()


@dataclass(frozen=True, slots=True)
class Inline:
    """A value that stands in the row."""

    data: bytes


def check_object_type(object_type: str) -> str:
    """Return an object type if names may begin with it.

    Raises:
        DeclarationError: It is not so.
    """
    if len(object_type) > MAX_OBJECT_TYPE or not _OBJECT_TYPE.fullmatch(object_type) or object_type.endswith("."):
        raise DeclarationError(
            f"object_type: expected at most {MAX_OBJECT_TYPE} letters, digits, '_', '-', '.' and '~', beginning with a "
            f"letter, a digit or '_' and not ending with '.': got {object_type!r:.120}; name another"
        )
    return object_type


def check_kind(kind: str) -> str:
    """Return a file name extension if names may have it.

    Raises:
        DeclarationError: It is not so.
    """
    if not _KIND.fullmatch(kind) or kind[1:] in _COMPRESSIONS:
        raise DeclarationError(
            f"kind: expected a dot and at most 12 small letters and digits, such as '.msgpack', got {kind!r:.80}"
        )
    return kind


def make_reference(
    object_type: str, *, size: int, stored: int, sha256: str, kind: str, compression: Compression | None, shared: bool
) -> Reference:
    """Return a new reference.

    The name is ``object_type/rrrrr/rr/revision.size.stored.sha256.kind``: in order of time, as those of images, and
    never the same again. One that is to be shared is ``object_type/rrrrr/shared.size.stored.sha256.kind``: the same for
    the same content within nine hours.

    Args:
        object_type: What the name begins with.
        size: Bytes of the value.
        stored: Bytes of the file.
        sha256: Fingerprint of the value.
        kind: What is in it, by a file name extension with its dot.
        compression: What was done to it.
        shared: Whether other rows may name it.
    """
    revision = make_revision()[:_REVISION_CHARS]
    own = "shared" if shared else f"{revision[5:7]}/{revision}"
    ending = f"{kind}{extension_of(compression)}"
    name = f"{object_type}/{revision[:5]}/{own}.{size}.{stored}.{sha256}{ending}"
    return Reference(check_name(name), object_type, size, stored, sha256, kind, compression, shared)


def format_inline(data: bytes) -> str:
    """Return what the column holds of a value that stays in the row: the text itself where it is one."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # which PostgreSQL does not take
        return _BASE64 + base64.b64encode(data).decode()
    return _TEXT + text


def parse_name(name: str) -> Reference | None:
    """Return what a file's name says; ``None`` where it is none of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    size, stored = int(match["size"]), int(match["stored"])
    compression = _COMPRESSIONS[match["compression"]]
    if stored > bound(size) or (compression is None and stored != size):
        return None
    return Reference(
        name,
        match["object_type"],
        size,
        stored,
        match["sha256"],
        match["kind"],
        compression,
        match["revision"] is None,
    )


def parse(raw: str, object_type: str) -> Reference | Inline:
    """Return what a column holds.

    What stands in a row is not trusted: a name that is not one of this column's is neither read nor deleted.

    Args:
        raw: The text in the row.
        object_type: What this column's names begin with.

    Raises:
        DamagedValueError: It is nothing that this library writes there, or the name of another column's file.
    """
    if raw.startswith(_TEXT):
        return Inline(raw[1:].encode(errors="surrogatepass"))
    if raw.startswith(_BASE64):
        try:
            return Inline(base64.b64decode(raw[1:], validate=True))
        except binascii.Error as error:
            raise DamagedValueError(f"the column {object_type} holds broken base64: {error}") from error
    if raw.startswith(_FILE):
        found = parse_name(raw[1:])
        if found is not None and found.object_type == object_type:
            return found
    what = repr(raw[:200]) if raw.startswith(_FILE) else f"{len(raw):,} characters"  # which may be nobody's business
    raise DamagedValueError(
        f"the column {object_type} holds {what}, which is no reference to one of its files: it was not written by "
        "this column, and is neither read nor deleted"
    )
