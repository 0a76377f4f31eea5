"""Read the originals of a class and the files of their thumbnails in the same order, to find missing files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import ColumnElement, Row
from sqlalchemy.orm import Mapper

from .._declared.framing import WHOLE, Framing
from .._declared.names import derived_type, path_of, public_of
from .._inventory import PAGE, FileReference, Reader
from .._inventory.declared import DeclaredKind
from .._inventory.kind import Part
from ..entity._derived import MARKS, framing_in
from ..entity._mapping import mapper_of
from ..store import KeyedStore, ObjectInfo

__all__ = ["OriginalKind", "OriginalReference", "ThumbnailFiles", "written_columns"]

_FAR: Final = 2 * PAGE
"""Number of files after which starting a new listing is cheaper than reading on."""


_WRITTEN: Final = (MARKS, "thumbhash", "dominant_colour")


def written_columns(mapper: Mapper[Any]) -> list[str]:
    """Return the attributes of an original that are written when its thumbnails have been made.

    They must be in the same table as the revision, by which the row is found.
    """
    columns = mapper.columns
    return [name for name in _WRITTEN if name in columns and columns[name].table is columns["revision"].table]


@dataclass(frozen=True, slots=True)
class OriginalReference(FileReference):
    """The row of an original.

    Args:
        framing: The crop box and the focal point.
        marks: The marks, separated by spaces; see :class:`~aioimageattach.entity.ThumbnailMarks`.
        lacks_placeholder: ``True`` if the columns of :class:`~aioimageattach.entity.Placeholder` can be filled in.
    """

    framing: Framing = WHOLE
    marks: str | None = None
    lacks_placeholder: bool = False

    @property
    def revision(self) -> str | None:
        """The revision; ``None`` if SQLAlchemy-ImageAttach wrote the row, or the row has no valid key."""
        return None if self.key is None else self.key.revision


class OriginalKind(DeclaredKind):
    """The originals of an image class.

    Args:
        mapper: The mapper of the class.
        conditions: Further conditions on the rows.
        start_after: Only revisions after this one.
    """

    def __init__(self, mapper: Mapper[Any], conditions: Sequence[ColumnElement[bool]], start_after: str) -> None:
        super().__init__(mapper)
        self._conditions = conditions
        self._start_after = start_after

    def where(self) -> list[ColumnElement[bool]]:
        """Return the conditions on the rows."""
        return [*super().where(), *self._conditions]

    def parts(self) -> Sequence[Part]:
        """Return the rows with a revision after the given one, then the rows without a revision."""
        first, last = super().parts()
        return Part((*first.where, first.order[0] > self._start_after), first.order, first.stable), last

    def reference(self, reader: Reader, row: Row[Any]) -> OriginalReference:
        """Return the file of an original, and the other values of its row that matter here."""
        found, values = super().reference(reader, row), self.values_of(row)
        can_fill = values["revision"] is not None and "thumbhash" in written_columns(mapper_of(found.cls))
        same = {field.name: getattr(found, field.name) for field in fields(FileReference)}
        return OriginalReference(
            **same,
            framing=framing_in(found.cls, values),
            marks=values.get(MARKS),
            lacks_placeholder=can_fill and values["thumbhash"] is None,
        )


class ThumbnailFiles:
    """The existing thumbnail files of an object type, listed lazily in the order of the originals.

    Args:
        store: The store.
        object_type: The object type of the originals.
    """

    def __init__(self, store: KeyedStore, object_type: str) -> None:
        self._store = store
        self._object_type = object_type
        self._listing: AsyncIterator[ObjectInfo] | None = None
        self._next: ObjectInfo | None = None
        self._last = ""

    async def of(self, revision: str) -> list[str]:
        """Return the names of the files of one original. Calls in the order of the revisions are fastest."""
        prefix = path_of(self._object_type, f"{public_of(revision)}-")
        if self._listing is None or prefix <= self._last:
            await self._open(prefix)
        self._last = prefix
        for _ in range(_FAR):
            if self._next is None or self._next.name >= prefix:
                break
            await self._advance()
        else:
            await self._open(prefix)
        found: list[str] = []
        while self._next is not None and self._next.name.startswith(prefix):
            found.append(self._next.name)
            await self._advance()
        return found

    async def aclose(self) -> None:
        """End the listing."""
        close = getattr(self._listing, "aclose", None)
        if close is not None:
            await close()

    async def _open(self, start_after: str) -> None:
        await self.aclose()
        self._listing = self._store.list_objects(f"{derived_type(self._object_type)}/", start_after=start_after)
        await self._advance()

    async def _advance(self) -> None:
        self._next = await anext(self._listing, None) if self._listing is not None else None
