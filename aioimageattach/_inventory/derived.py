"""The files of declared thumbnails. No row names them, but they are needed as long as their original has a row."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import select

from .._declared.names import DerivedName, derived_type, legacy_key, original_type, public_of
from ..entity._derived import declarations_of
from ..store import KeyedStore
from .images import ImageKind
from .kind import PAGE, Kind
from .kinds import kinds, related
from .reader import Reader

__all__ = ["DerivedKind", "with_derived"]

_LAST = "z" * 64


class DerivedKind(ImageKind):
    """The files of the declared thumbnails of an image class."""

    @property
    def object_types(self) -> frozenset[str] | None:
        """The object types of the originals, with the suffix for thumbnails; ``None`` if they depend on the row."""
        found = super().object_types
        return None if found is None else frozenset(map(derived_type, found))

    def can_have(self, name: str) -> bool:
        """Return whether the name is that of a declared thumbnail."""
        return DerivedName.of_file(name) is not None

    def named(self, reader: Reader, names: Collection[str], store: KeyedStore) -> set[str]:
        """Return the names whose originals have rows; one query reads a range of revisions."""
        parsed = {name: found for name in names if (found := DerivedName.of_file(name)) is not None}
        known = {name for name, found in parsed.items() if legacy_key("x", found.public) is not None}  # may over-report
        parsed = {name: found for name, found in parsed.items() if name not in known}
        if not parsed:
            return known
        by_public: dict[str, list[tuple[str, DerivedName]]] = {}
        for name, found in parsed.items():
            by_public.setdefault(found.public.casefold(), []).append((name, found))
        first, last = min(found.public for found in parsed.values()), max(found.public for found in parsed.values())
        query = select(self.source).where(self.source.between(first, (last + _LAST)[:64]))
        with reader.connection.execution_options(yield_per=PAGE).execute(query) as result:
            for revision in result.scalars():
                public = public_of(revision)
                for name, found in by_public.get(public.casefold(), ()) if public is not None else ():
                    if found.belongs_to(revision):
                        known.add(name)
        return known


def with_derived(types: dict[str, list[Kind]], target: Any) -> dict[str, list[Kind]]:
    """Return object types and their kinds of files, with the object types of their declared thumbnails added.

    Args:
        types: Object types with the kinds of files that have them. They may include object types of thumbnails.
        target: The declarative base or class to which they belong.
    """
    found = dict(types)
    for object_type in types:
        originals = original_type(object_type)
        own = any(kind.object_types is not None for kind in types[object_type])
        if originals is not None and not own:
            parts = [kind for kind in related(target) if kind.object_types is None or originals in kind.object_types]
            found[object_type] = _derived(parts)
        elif any(_declares(kind) for kind in kinds(target) if object_type in (kind.object_types or types)):
            found[derived_type(object_type)] = _derived(types[object_type])
    return found


def _derived(parts: list[Kind]) -> list[Kind]:
    return [DerivedKind(kind.mapper) for kind in parts if isinstance(kind, ImageKind)]


def _declares(kind: Kind) -> bool:
    mappers = kind.mapper.self_and_descendants if isinstance(kind, ImageKind) else ()
    return any(declarations_of(mapper.class_) for mapper in mappers)
