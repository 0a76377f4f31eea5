"""Check that every row has its file, and that every file has a row."""

from __future__ import annotations

from typing import Any

from .._inventory import Sessions, kinds, references
from ..context._current import resolve_store
from ..exc import DeclarationError
from ..maintenance import verify
from ..store import KeyedStore, Store

__all__ = ["assert_consistent"]


async def assert_consistent(sessions: Sessions, target: Any, store: Store | None = None) -> None:
    """Assert that each committed row has its file, byte for byte, and that the store has no orphaned files.

    Only files under the object types of the rows and their classes are checked. A file that several rows shared
    (``dedupe=True``) counts as orphaned once no row refers to it, although only a sweep deletes such files.

    Args:
        sessions: A sessionmaker, or a session configured like those of the application.
        target: The declarative base, or one class.
        store: The :class:`~aioimageattach.store.KeyedStore` of the files; ``None`` for the current store or that of the
            sessions.

    Raises:
        AssertionError: A file is missing, damaged or orphaned; the message names the rows and files.
        DeclarationError: The store is not a ``KeyedStore``.
    """
    found = resolve_store(store, session=sessions)
    if not isinstance(found, KeyedStore):
        raise DeclarationError(f"assert_consistent: expected a KeyedStore, whose files can be listed, got {found!r}")
    named = set[str]()
    object_types = set[str]()
    for kind in kinds(target):
        object_types |= kind.object_types or frozenset()
        async for reference in references(sessions, kind):
            object_types.add(reference.object_type)
            if reference.damage is None:
                named.add(reference.name_in(found))
    problems = [
        f"{mismatch.reference.cls.__name__} {mismatch.reference.identity!r}: {mismatch.problem}: "
        f"{mismatch.reference.damage or mismatch.reference.name_in(found)}"
        async for mismatch in verify(sessions, target, found, deep=True)
    ]
    for object_type in sorted(object_types):
        problems += [
            f"no row refers to {info.name}"
            async for info in found.list_objects(f"{object_type}/")
            if info.name not in named
        ]
    if problems:
        raise AssertionError("\n".join([f"{len(problems)} problems in {found!r}:", *problems]))
