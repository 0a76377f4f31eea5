"""The files that committed rows name: what verifying, sweeping and moving stand on.

Rows are read a page at a time, each page in a short session of its own, so that work of hours keeps no transaction
open and sees what is committed meanwhile. The statements name tables, not classes: what an application adds to its
queries, such as a filter for rows that count as deleted, hides no file.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar, cast

from sqlalchemy import (
    LABEL_STYLE_TABLENAME_PLUS_COL,
    Column,
    ColumnElement,
    Table,
    Text,
    and_,
    func,
    inspect,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Mapper, Session, configure_mappers, lazyload, registry, undefer
from sqlalchemy.sql.base import ExecutableOption

from .entity import Image
from .exc import DamagedValueError, DeclarationError
from .key import ImageKey, revision_of
from .offload.columns import columns_of, settings_of
from .offload.reference import Reference as StoredReference
from .offload.reference import parse_name
from .store import KeyedStore

__all__ = [
    "PAGE",
    "ImageKind",
    "Kind",
    "Reference",
    "Sessions",
    "StoredKind",
    "ask",
    "count",
    "kinds",
    "named",
    "opened",
    "references",
    "related",
    "reread",
]

R = TypeVar("R")

PAGE: Final = 1000
"""How many rows, or names, one statement is about."""

Sessions: TypeAlias = async_sessionmaker[Any] | AsyncSession
"""What makes sessions. An ``AsyncSession`` stands for others of its kind: its own transaction is neither used nor seen,
unless it is bound to a connection."""

_LEGACY: Final = re.compile(r"([^/]+/-?\d+/(?:-?\d+/-?\d+\.)?\d+x\d+)(?:\.\w+|None)", re.ASCII)
"""``object_type/id/WxH.ext`` in buckets, ``object_type/id%1000/id//1000/id.WxH.ext`` in directories."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One file that a committed row names.

    Args:
        cls: The mapped class of the row, the most derived one.
        identity: Its primary key.
        object_type: What kind of file this is to the store; names begin with it.
        key: What the store knows the file by; ``None`` where the row keeps the name itself.
        name: The name that the row keeps; ``None`` where it follows from the key.
        mimetype: The file's type.
        size: In bytes; ``None`` where the row does not say.
        sha256: Fingerprint of the file, 64 hexadecimal digits; ``None`` where the row does not say.
        reproducible: Whether the file can be made again from another one.
        created_at: When the row was made; ``None`` where it does not say.
        content: What the name says of an offloaded value; ``None`` for an image.
        damage: Why what the row holds of an offloaded value is not the name of any file; ``None`` where it is.
    """

    cls: type[Any]
    identity: tuple[Any, ...]
    object_type: str
    key: ImageKey | None
    name: str | None
    mimetype: str
    size: int | None
    sha256: str | None
    reproducible: bool
    created_at: datetime | None
    content: StoredReference | None = None
    damage: DamagedValueError | None = None

    def name_in(self, store: KeyedStore) -> str:
        """Return the name of the file in a store.

        Raises:
            InvalidKeyError: No file of that store can have it.
            DamagedValueError: The row holds no name of a file.
        """
        if self.damage is not None:
            raise self.damage
        return store.name_of(self.key) if self.key is not None else cast("str", self.name)


class Kind(ABC):
    """The files that one attribute of one mapped class names, with those of the classes derived from it.

    Its methods take a plain ``Session`` and are called over SQLAlchemy's bridge, so that rows may load what they need.

    Args:
        mapper: Of the class.
    """

    def __init__(self, mapper: Mapper[Any]) -> None:
        self.mapper: Mapper[Any] = mapper

    @property
    def cls(self) -> type[Any]:
        """The mapped class."""
        return self.mapper.class_

    @property
    @abstractmethod
    def object_types(self) -> frozenset[str] | None:
        """What the names of its files begin with; ``None`` where that depends on the row."""

    @abstractmethod
    def reference(self, row: Any) -> Reference | None:
        """Return the file that a row names, if it names one."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Whether a file of this kind may have such a name; what has another is somebody else's."""

    @abstractmethod
    def named(self, session: Session, names: Collection[str], store: KeyedStore) -> set[str]:
        """Return those of some names in a store that rows name; in doubt more."""

    def where(self) -> list[ColumnElement[bool]]:
        """Return what tells the rows from others in the same table."""
        concrete = any(mapper.concrete for mapper in self.mapper.self_and_descendants if mapper is not self.mapper)
        if self.mapper.polymorphic_on is None or not (self.mapper.single or concrete):
            return []
        return [self.mapper.polymorphic_on.in_([mapper.polymorphic_identity for mapper in _family(self.mapper)])]

    def page(
        self, session: Session, after: tuple[Any, ...] | None, limit: int, *more: ColumnElement[bool]
    ) -> Sequence[Any]:
        """Return the rows that follow on a primary key, in its order, without anything that would be loaded with them.

        Args:
            session: Reads them.
            after: The primary key; ``None`` for the first rows.
            limit: How many rows at most.
            more: What else has to be true of them.
        """
        columns = [self.column(column) for column in self.mapper.primary_key]
        query = select(self.mapper.selectable).where(*self.where(), *more).order_by(*columns).limit(limit)
        if after is not None:
            query = query.where(_beyond(columns, after))
        statement = select(self.cls).from_statement(query.set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL))
        return session.scalars(statement.options(*self.options())).all()

    def options(self) -> tuple[ExecutableOption, ...]:
        """Return how :meth:`page` loads the rows."""
        return (lazyload("*"),)

    def count(self, session: Session) -> int:
        """Return the number of rows."""
        query = select(func.count()).select_from(self.mapper.selectable).where(*self.where())
        return cast("int", session.scalar(query, bind_arguments={"mapper": self.mapper}))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cls.__name__}>"

    def column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column of a table as :meth:`page` selects it."""
        found = self.mapper.selectable.corresponding_column(cast("Any", column))
        return cast("ColumnElement[Any]", found)


class ImageKind(Kind):
    """The files of a class of images."""

    @property
    def object_types(self) -> frozenset[str] | None:
        """The names that the classes give; ``None`` where one has to look at a row to tell."""
        found = set[str]()
        for mapper in _family(self.mapper):
            cls: Any = mapper.class_
            if cls.object_type is Image.object_type:
                found.add(str(mapper.local_table.description).replace("_", "-"))
                continue
            try:
                found.add(cls.__new__(cls).object_type)
            except Exception:  # it asked for a column, and there is no row
                return None
        return frozenset(found)

    def reference(self, row: Any) -> Reference:
        """Return the file of an image."""
        return Reference(
            cls=type(row),
            identity=_identity(row),
            object_type=row.object_type,
            key=row.key,
            name=None,
            mimetype=row.mimetype,
            size=row.byte_size,
            sha256=row.sha256,
            reproducible=row.reproducible,
            created_at=row.created_at,
        )

    def knows(self, name: str) -> bool:
        """Whether it is a name of a built-in store, or of SQLAlchemy-ImageAttach."""
        return revision_of(name) is not None or _legacy_stem(name) is not None

    def named(self, session: Session, names: Collection[str], store: KeyedStore) -> set[str]:
        """Return those of some names whose revision, or old name whatever its extension, is that of a row."""
        revisions = {name: revision for name in names if (revision := revision_of(name)) is not None}
        column = self.mapper.columns["revision"]
        found = set[str]()
        wanted = iter({*revisions.values(), *map(str.casefold, revisions.values())})
        while batch := list(islice(wanted, PAGE)):
            query = select(column).where(column.in_(batch))
            found.update(one.casefold() for one in session.scalars(query, bind_arguments={"mapper": self.mapper}))
        known = {name for name, revision in revisions.items() if revision.casefold() in found}
        stems = {name: stem for name in names if (stem := _legacy_stem(name)) is not None}
        if stems:
            ours = self._legacy(session, set(stems.values()), store)
            known.update(name for name, stem in stems.items() if stem in ours)
        return known

    def _legacy(self, session: Session, stems: set[str], store: KeyedStore) -> set[str]:
        """Those of some old names without their extensions that rows have; each row without a revision is read."""
        found = set[str]()
        unrevised = self.column(self.mapper.columns["revision"]).is_(None)
        after = None
        while rows := self.page(session, after, PAGE, unrevised):
            found.update(stem for row in rows if (stem := _legacy_stem(store.name_of(row.key))) in stems)
            after = _identity(rows[-1])
            session.expunge_all()
        return found


class StoredKind(Kind):
    """The files of one offloaded attribute.

    Args:
        mapper: Of the class that declares it.
        key: The attribute.
    """

    def __init__(self, mapper: Mapper[Any], key: str) -> None:
        super().__init__(mapper)
        self.key: str = key
        self._stored: Column[Any] = columns_of(mapper)[key]
        self._object_type: str = settings_of(self._stored).object_type or ""

    @property
    def object_types(self) -> frozenset[str]:
        """The one that all its names begin with."""
        return frozenset({self._object_type})

    def reference(self, row: Any) -> Reference | None:
        """Return the file of a row's value; ``None`` for one that stands in the row."""
        handle = row.__dict__.get(self.key)
        try:
            name = None if handle is None else handle.name
        except DamagedValueError as error:
            return self._reference(row, None, error.with_traceback(None))
        content = None if name is None else parse_name(name)
        return None if content is None else self._reference(row, content)

    def _reference(
        self, row: Any, content: StoredReference | None, damage: DamagedValueError | None = None
    ) -> Reference:
        plain = content is not None and content.compression is None
        return Reference(
            cls=type(row),
            identity=_identity(row),
            object_type=self._object_type,
            key=None,
            name=None if content is None else content.name,
            mimetype=settings_of(self._stored).cls.mimetype if plain else "application/octet-stream",
            size=None if content is None else content.stored,
            sha256=content.sha256 if content is not None and plain else None,
            reproducible=False,
            created_at=None,
            content=content,
            damage=damage,
        )

    def knows(self, name: str) -> bool:
        """Whether it is a name of this attribute's files."""
        found = parse_name(name)
        return found is not None and found.object_type == self._object_type

    def named(self, session: Session, names: Collection[str], store: KeyedStore) -> set[str]:
        """Return those of some names that stand in rows; with ``index=True`` an index finds them."""
        column = type_coerce(self._stored, Text())
        found = set[str]()
        wanted = iter([str(content) for name in names if (content := parse_name(name)) is not None])
        while batch := list(islice(wanted, PAGE)):
            query = select(column).where(column.in_(batch))
            found.update(raw[1:] for raw in session.scalars(query, bind_arguments={"mapper": self.mapper}))
        return found

    def where(self) -> list[ColumnElement[bool]]:
        """Return what tells the rows that have a value from others."""
        return [*super().where(), self.column(self._stored).is_not(None)]

    def options(self) -> tuple[ExecutableOption, ...]:
        """Load the attribute, also where it is declared to be deferred."""
        return (lazyload("*"), undefer(getattr(self.cls, self.key)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cls.__name__}.{self.key}>"


def kinds(target: Any) -> tuple[Kind, ...]:
    """Return each kind of file that rows of some classes name, with those of derived classes, none twice.

    Args:
        target: A declarative base for all its classes, a mapped class, or a :class:`sqlalchemy.orm.registry`.

    Raises:
        DeclarationError: It is nothing of that, or no class of it has files: those that have are not imported yet.
    """
    configure_mappers()
    mappers = sorted(
        _registry(target).mappers, key=lambda mapper: (mapper.class_.__module__, mapper.class_.__qualname__)
    )
    below = mappers if isinstance(target, registry) else [one for one in mappers if issubclass(one.class_, target)]
    found: list[Kind] = [ImageKind(one) for one in _roots([one for one in below if issubclass(one.class_, Image)])]
    found += [StoredKind(mapper, key) for mapper in below for key in _declared(mapper, below)]
    if not found:
        raise DeclarationError(
            f"no mapped class of {_called(target)} has files; import the modules with the classes that have them first"
        )
    return tuple(found)


def related(target: Any) -> tuple[Kind, ...]:
    """Return the kinds of file of the target's whole registry: whatever else may have files of the same names."""
    return kinds(_registry(target))


async def references(
    sessions: Sessions, kind: Kind, *, after: tuple[Any, ...] | None = None, page: int = PAGE
) -> AsyncIterator[Reference]:
    """Iterate over the files that committed rows of a kind name, in order of primary key, in constant memory.

    Args:
        sessions: Makes a session for each page.
        kind: Which files.
        after: Go on after the row of this primary key, as :attr:`Reference.identity` gives it.
        page: How many rows one statement fetches.
    """

    def read(session: Session) -> tuple[list[Reference], tuple[Any, ...] | None]:
        rows = kind.page(session, after, page)
        found = [reference for row in rows if (reference := kind.reference(row)) is not None]
        return found, _identity(rows[-1]) if rows else None

    while True:
        found, after = await ask(sessions, read)
        for reference in found:
            yield reference
        if after is None:
            return


async def reread(sessions: Sessions, kind: Kind, identity: tuple[Any, ...]) -> Reference | None:
    """Return the file that the committed row of a primary key names now, if there is one."""

    def read(session: Session) -> Reference | None:
        columns = [kind.column(column) for column in kind.mapper.primary_key]
        rows = kind.page(session, None, 1, *(one == value for one, value in zip(columns, identity, strict=True)))
        return kind.reference(rows[0]) if rows else None

    return await ask(sessions, read)


async def named(sessions: Sessions, kind: Kind, names: Collection[str], store: KeyedStore) -> set[str]:
    """Return those of some names that committed rows of a kind name; see :meth:`Kind.named`."""
    return await ask(sessions, lambda session: kind.named(session, names, store))


async def count(sessions: Sessions, kind: Kind) -> int:
    """Return the number of rows of a kind, whether all of them name a file or not."""
    return await ask(sessions, kind.count)


async def ask(sessions: Sessions, question: Callable[[Session], R]) -> R:
    """Return what a function says that is given a session of its own, in which rows may load what they need.

    Raises:
        DeclarationError: It is a session over shards.
    """
    async with opened(sessions) as session:
        if isinstance(session.sync_session, ShardedSession):
            raise DeclarationError(
                "a session over shards gives rows in no order; go through the shards one by one, with sessions of each"
            )
        return await session.run_sync(question)


def opened(sessions: Sessions) -> AsyncSession:
    """Return a new session."""
    if not isinstance(sessions, AsyncSession):
        return cast("AsyncSession", sessions())
    binds = dict(getattr(sessions, "binds", None) or {})  # the older line has it only where some are given
    return type(sessions)(sessions.bind, binds=binds, sync_session_class=type(sessions.sync_session))


def _identity(row: Any) -> tuple[Any, ...]:
    return tuple(inspect(row).identity)


def _beyond(columns: Sequence[ColumnElement[Any]], after: Sequence[Any]) -> ColumnElement[bool]:
    """Greater in order of several columns, in words that every database finds an index for."""
    first, *rest = columns
    if not rest:
        return cast("ColumnElement[bool]", first > after[0])
    return and_(first >= after[0], or_(first > after[0], _beyond(rest, after[1:])))


def _registry(target: Any) -> registry:
    mapper = None if isinstance(target, registry) else inspect(target, raiseerr=False)
    found = mapper.registry if isinstance(mapper, Mapper) else target
    for name in ("registry", "_sa_registry"):  # SQLModel has the second only
        found = getattr(found, name, found)
    if not isinstance(found, registry):
        raise DeclarationError(f"expected a declarative base, a mapped class or a registry, got {_called(target)}")
    return found


def _called(target: Any) -> str:
    return target.__name__ if isinstance(target, type) else repr(target)


def _family(mapper: Mapper[Any]) -> list[Mapper[Any]]:
    """A mapper, and those below it whose rows stand in its tables."""
    found = [mapper]
    for other in mapper.self_and_descendants:
        if other.inherits in found and not other.concrete:
            found.append(other)
    return found


def _roots(mappers: Collection[Mapper[Any]]) -> list[Mapper[Any]]:
    """Those whose rows do not stand in the tables of another."""
    return [
        one for one in mappers if isinstance(one.local_table, Table) and (one.concrete or one.inherits not in mappers)
    ]


def _declared(mapper: Mapper[Any], mappers: Collection[Mapper[Any]]) -> list[str]:
    """The offloaded attributes of a mapper that are not those of one above it."""
    above = None if mapper.concrete or mapper.inherits not in mappers else mapper.inherits
    inherited = {} if above is None else columns_of(above)
    return [key for key in columns_of(mapper) if key not in inherited]


def _legacy_stem(name: str) -> str | None:
    """An old name without its extension, which depended on the machine; ``None`` where it is no such name."""
    match = _LEGACY.fullmatch(name)
    return None if match is None else match[1]
