"""Find the kinds of files that the rows of mapped classes name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Table, inspect
from sqlalchemy.orm import Mapper, configure_mappers, registry
from sqlalchemy.orm.mapper import _all_registries

from ..entity import Image
from ..exc import DeclarationError
from ..offload._columns import columns_of
from .images import ImageKind
from .kind import Kind
from .values import StoredKind

__all__ = ["kinds", "related"]


def kinds(target: Any) -> tuple[Kind, ...]:
    """Return the kinds of files that rows of the target's classes and of their subclasses name, each once.

    Args:
        target: A declarative base for all its classes, a mapped class, or a :class:`sqlalchemy.orm.registry`.

    Raises:
        DeclarationError: The target is none of these, or none of its classes has files, perhaps because the modules
            that define them have not been imported yet.
    """
    own = _registry(target)
    configure_mappers()
    found = _kinds_of(own, object if isinstance(target, registry) else target)
    if not found:
        raise DeclarationError(
            f"expected mapped classes with images or offloaded columns, got {_describe(target)}, which has none; "
            "import the modules with such classes first"
        )
    return tuple(found)


def related(target: Any) -> tuple[Kind, ...]:
    """Return the kinds of file of all mapped classes in the process, those of the target's own registry first.

    Two declarative bases may have tables of the same name in two schemas, and so files of the same object type.
    """
    own = _registry(target)
    configure_mappers()
    # SQLAlchemy has no public list of all registries.
    others = sorted(
        _all_registries() - {own}, key=lambda one: sorted(mapper.class_.__qualname__ for mapper in one.mappers)
    )
    found: dict[tuple[type[Kind], str], Kind] = {}
    for one in (own, *others):
        for kind in _kinds_of(one):
            found.setdefault((type(kind), kind.place), kind)
    return tuple(found.values())


def _kinds_of(own: registry, base: type[Any] = object) -> list[Kind]:
    """Return the kinds of files of a registry's classes that are subclasses of ``base``."""
    mappers = sorted(own.mappers, key=lambda mapper: (mapper.class_.__module__, mapper.class_.__qualname__))
    below = [one for one in mappers if issubclass(one.class_, base)]
    found: list[Kind] = [ImageKind(one) for one in _roots([one for one in below if issubclass(one.class_, Image)])]
    return found + [StoredKind(mapper, key) for mapper in below for key in _declared(mapper, below)]


def _registry(target: Any) -> registry:
    mapper = None if isinstance(target, registry) else inspect(target, raiseerr=False)
    found = mapper.registry if isinstance(mapper, Mapper) else target
    for name in ("registry", "_sa_registry"):  # SQLModel has only the second one
        found = getattr(found, name, found)
    if not isinstance(found, registry):
        raise DeclarationError(f"expected a declarative base, a mapped class or a registry, got {_describe(target)}")
    return found


def _describe(target: Any) -> str:
    return target.__name__ if isinstance(target, type) else repr(target)


def _roots(mappers: Collection[Mapper[Any]]) -> list[Mapper[Any]]:
    """Return the mappers whose rows are not in the tables of another mapper."""
    return [
        one for one in mappers if isinstance(one.local_table, Table) and (one.concrete or one.inherits not in mappers)
    ]


def _declared(mapper: Mapper[Any], mappers: Collection[Mapper[Any]]) -> list[str]:
    """Return the offloaded attributes of a mapper that it does not inherit."""
    above = None if mapper.concrete or mapper.inherits not in mappers else mapper.inherits
    inherited = {} if above is None else columns_of(above)
    return [key for key in columns_of(mapper) if key not in inherited]
