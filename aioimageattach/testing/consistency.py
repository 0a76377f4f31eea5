"""The two things that may never be, and may not stay: rows without files, and files without rows."""

from __future__ import annotations

from typing import Any

from ..context import resolve_store
from ..exc import DeclarationError
from ..inventory import Sessions, kinds, references
from ..maintenance import verify
from ..store import KeyedStore, Store

__all__ = ["assert_consistent"]


async def assert_consistent(sessions: Sessions, target: Any, store: Store | None = None) -> None:
    """Assert that each committed row has its file, byte for byte, and that no other file is in the store.

    Only files count whose names begin as those of the rows do, or of their classes. What rows shared (``dedupe=True``)
    and none names any more counts too: a sweep alone removes it.

    Args:
        sessions: What makes sessions: a sessionmaker, or a session like those.
        target: The declarative base, or one class.
        store: Where the files are; ``None`` for the current store, or that of the sessions. A :class:`KeyedStore`.

    Raises:
        AssertionError: It is not so; the message names the rows and files.
    """
    found = resolve_store(store, session=sessions)
    if not isinstance(found, KeyedStore):
        raise DeclarationError(f"{found!r} cannot be listed: assert_consistent needs a KeyedStore")
    named = set[str]()
    object_types = set[str]()
    for kind in kinds(target):
        object_types |= kind.object_types or frozenset()
        async for reference in references(sessions, kind):
            object_types.add(reference.object_type)
            if reference.damage is None:
                named.add(reference.name_in(found))
    problems = [
        f"{flaw.reference.cls.__name__} {flaw.reference.identity!r}: {flaw.problem}: "
        f"{flaw.reference.damage or flaw.reference.name_in(found)}"
        async for flaw in verify(sessions, target, found, deep=True)
    ]
    for object_type in sorted(object_types):
        problems += [
            f"no row names {info.name}"
            async for info in found.list_objects(f"{object_type}/")
            if info.name not in named
        ]
    if problems:
        raise AssertionError("\n".join([f"{len(problems)} problems in {found!r}:", *problems]))
