"""Kinds: the kinds of files that rows name, and how the rows of each kind are read."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, cast

from sqlalchemy import (
    CHAR,
    Column,
    ColumnElement,
    Double,
    Enum,
    Float,
    Row,
    Table,
    Text,
    bindparam,
    func,
    inspect,
    select,
    type_coerce,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapper, Session, configure_mappers, make_transient_to_detached, registry
from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.orm.mapper import _all_registries

from ..entity import Image
from ..entity.references import object_types
from ..exc import DamagedValueError, DeclarationError, ImageAttachError, InvalidKeyError
from ..key import ImageKey, revision_of
from ..offload.columns import columns_of, settings_of
from ..offload.reference import INLINE_MARKS, parse_name
from ..offload.reference import Reference as ValueReference
from ..store import KeyedStore
from .reader import Reader

__all__ = ["PAGE", "FileReference", "ImageKind", "Kind", "Part", "StoredKind", "kinds", "related"]

PAGE: Final = 1000
"""Number of rows or names per statement."""

_LEGACY: Final = re.compile(r"([^/]+/-?\d+/(?:-?\d+/-?\d+\.)?\d+x\d+)(?:\.\w+|None)", re.ASCII)
"""``object_type/id/WxH.ext`` in buckets, ``object_type/id%1000/id//1000/id.WxH.ext`` in directories."""


@dataclass(frozen=True, slots=True)
class FileReference:
    """One file that a committed row names.

    Args:
        cls: The mapped class of the row, the most derived one.
        identity: The primary key of the row.
        object_type: The object type, with which the file's name begins; empty if the row does not determine it.
        key: Identifies the file in a store; ``None`` if the row contains the name itself.
        name: The name that the row contains; ``None`` if the name is derived from the key.
        mimetype: The MIME type of the file.
        size: The size in bytes; ``None`` if the row does not contain it.
        sha256: The SHA-256 of the file, 64 hexadecimal digits; ``None`` if the row does not contain it.
        reproducible: Whether the file can be made again from another one.
        created_at: When the row was created; ``None`` if the row does not contain it.
        content: The facts in the name of an offloaded value; ``None`` for an image.
        damage: Why no valid file name can be derived from the row; ``None`` if one can.
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
    content: ValueReference | None = None
    damage: ImageAttachError | None = None

    def name_in(self, store: KeyedStore) -> str:
        """Return the name of the file in a store.

        Raises:
            InvalidKeyError: The store cannot have such a file, or no name can be derived from the row.
            DamagedValueError: The row of an offloaded value contains no valid name.
        """
        if self.damage is not None:
            raise self.damage
        return store.name_of(self.key) if self.key is not None else cast("str", self.name)


class Kind(ABC):
    """The files that one attribute of a mapped class and of its subclasses names.

    Args:
        mapper: The mapper of the class.
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
        """The object types of the files; ``None`` if they depend on the row."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that contain the rows."""
        found = dict.fromkeys(table for one in _family(self.mapper) for table in one.tables)
        return tuple(table for table in found if isinstance(table, Table))

    @property
    @abstractmethod
    def source(self) -> Column[Any]:
        """The column whose values name the files."""

    @property
    def place(self) -> str:
        """The source column as ``table.column``; equal for two kinds that read the same column."""
        table = self.source.table  # with concrete inheritance, a subquery of a union
        return f"{getattr(table, 'fullname', table.description)}.{self.source.name}"

    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """Return the parts in which :class:`Scan` reads the rows."""

    @abstractmethod
    def reference(self, reader: Reader, row: Row[Any]) -> FileReference:
        """Return the file that a row names; the row was read by :meth:`select`."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Whether a file of this kind can have this name; files with other names belong to other programs."""

    @abstractmethod
    def named(self, reader: Reader, names: Collection[str], store: KeyedStore) -> set[str]:
        """Return those of some names in a store that rows name; may over-report."""

    def where(self) -> list[ColumnElement[bool]]:
        """Return the conditions that select the kind's rows from a shared table."""
        concrete = any(mapper.concrete for mapper in self.mapper.self_and_descendants if mapper is not self.mapper)
        if self.mapper.polymorphic_on is None or not (self.mapper.single or concrete):
            return []
        return [self.mapper.polymorphic_on.in_([mapper.polymorphic_identity for mapper in _family(self.mapper)])]

    def select(
        self,
        reader: Reader,
        *where: ColumnElement[bool],
        order: Sequence[ColumnElement[Any]] = (),
        limit: int | None = None,
    ) -> Sequence[Row[Any]]:
        """Return rows with all columns that :meth:`reference` needs, followed by the values of ``order``."""
        columns = [column.label(f"c{number}") for number, column in enumerate(self._columns().values())]
        extra = [column.label(f"o{number}") for number, column in enumerate(order)]
        query = select(*columns, *extra).select_from(self.mapper.selectable).where(*self.where(), *where)
        return reader.connection.execute(query.order_by(*order).limit(limit)).all()

    def find(self, reader: Reader, *where: ColumnElement[bool], limit: int) -> list[FileReference]:
        """Return the files that the selected rows name."""
        return [self.reference(reader, row) for row in self.select(reader, *where, limit=limit)]

    def at(self, identity: Sequence[Any]) -> list[ColumnElement[bool]]:
        """Return the conditions for the row with a primary key."""
        return [
            column == bindparam(None, value, column.type)
            for column, value in zip(self.primary_key, identity, strict=True)
        ]

    def count(self, reader: Reader, *where: ColumnElement[bool]) -> int:
        """Return the number of rows."""
        query = select(func.count()).select_from(self.mapper.selectable).where(*self.where(), *where)
        return cast("int", reader.connection.scalar(query))

    @property
    def primary_key(self) -> list[ColumnElement[Any]]:
        """The columns of the primary key, as :meth:`select` reads them."""
        return [self.column(column) for column in self.mapper.primary_key]

    def column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column of a table as :meth:`select` reads it."""
        found = self.mapper.selectable.corresponding_column(cast("Any", column))
        return cast("ColumnElement[Any]", found)

    def _columns(self) -> Mapping[str, ColumnElement[Any]]:
        """Return the columns to read, by attribute; the empty attribute is the discriminator of the row's class."""
        found: dict[str, ColumnElement[Any]] = {}
        for prop in self.mapper.column_attrs:
            column = self.mapper.selectable.corresponding_column(cast("Any", prop.columns[0]))
            if column is not None:  # otherwise it is an expression, which the row loads if it is needed
                found[prop.key] = column
        if self.mapper.polymorphic_on is not None:
            found[""] = self.column(self.mapper.polymorphic_on)
            if found[""] is None:
                found[""] = self.mapper.polymorphic_on
        return found

    def _values(self, row: Row[Any]) -> dict[str, Any]:
        return dict(zip(self._columns(), row, strict=False))

    def _mapper_of(self, values: Mapping[str, Any]) -> Mapper[Any] | None:
        """Return the mapper of a row; ``None`` if no imported class has the row's polymorphic identity."""
        if "" not in values:
            return self.mapper
        return self.mapper.polymorphic_map.get(values[""])

    def _identity(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(values[self.mapper.get_property_by_column(column).key] for column in self.mapper.primary_key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cls.__name__}>"


@dataclass(frozen=True, slots=True)
class Part:
    """Rows with an order in which they can be read page by page.

    Args:
        where: Conditions in addition to those of the kind.
        order: The columns to sort by; their values are unique.
        stable: Whether a row never moves to an earlier position, so that a scan cannot miss it.
    """

    where: tuple[ColumnElement[bool], ...]
    order: tuple[ColumnElement[Any], ...]
    stable: bool

    def sortable(self, dialect: str) -> tuple[ColumnElement[Any], ...]:
        """Return the order as expressions that the database sorts in the same order as it compares them.

        MySQL sorts an ENUM by its index and compares it as a string, and it returns FLOATs with fewer digits.
        """
        return tuple(_sortable(column, dialect) for column in self.order)


def _sortable(column: ColumnElement[Any], dialect: str) -> ColumnElement[Any]:
    if dialect not in ("mysql", "mariadb"):
        return column
    if isinstance(column.type, Enum):
        return sql_cast(column, CHAR)
    if isinstance(column.type, Float):
        return sql_cast(column, Double)
    return column


class ImageKind(Kind):
    """The files of an image class."""

    @property
    def object_types(self) -> frozenset[str] | None:
        """The object types of the classes; ``None`` if they depend on the row."""
        return object_types(_family(self.mapper))

    @property
    def source(self) -> Column[Any]:
        """The column of the revision."""
        return self.mapper.columns["revision"]

    def parts(self) -> Sequence[Part]:
        """Return two parts: rows with a revision, which never decreases, and rows without one, by primary key."""
        revision = self.column(self.source)
        return (
            Part((revision.is_not(None),), (revision,), stable=True),
            Part((revision.is_(None),), tuple(self.primary_key), stable=False),
        )

    def reference(self, reader: Reader, row: Row[Any]) -> FileReference:
        """Return the file of an image."""
        values = self._values(row)
        mapper, kind = self._mapper_of(values), values.pop("", None)
        key, object_type, reproducible = None, "", not values["original"]
        damage: ImageAttachError | None = None
        if mapper is None:
            damage = InvalidKeyError(f"expected a polymorphic identity of an imported class, got {kind!r}")
        else:
            try:
                image = _instance(reader.session, mapper, values)
                object_type, key, reproducible = image.object_type, image.key, image.reproducible
            except SQLAlchemyError:
                raise
            except Exception as error:  # an invalid value, or an error in a property of the application
                damage = error if isinstance(error, ImageAttachError) else InvalidKeyError(f"{error!r}")
                damage = damage.with_traceback(None)
        return FileReference(
            cls=self.cls if mapper is None else mapper.class_,
            identity=self._identity(values),
            object_type=object_type,
            key=key,
            name=None,
            mimetype=values["mimetype"],
            size=values["byte_size"],
            sha256=values["sha256"],
            reproducible=reproducible,
            created_at=_aware(values["created_at"]),
            damage=damage,
        )

    def knows(self, name: str) -> bool:
        """Whether the name is one of a built-in store or of SQLAlchemy-ImageAttach."""
        return revision_of(name) is not None or _legacy_stem(name) is not None

    def named(self, reader: Reader, names: Collection[str], store: KeyedStore) -> set[str]:
        """Return the names whose revision, or whose legacy name regardless of the extension, belongs to a row."""
        revisions = {name: revision for name in names if (revision := revision_of(name)) is not None}
        found = {one.casefold() for one in _matching(reader, self.source, revisions.values())}
        known = {name for name, revision in revisions.items() if revision.casefold() in found}
        stems = {name: stem for name in names if (stem := _legacy_stem(name)) is not None}
        if stems:
            ours = self._legacy_stems(reader, set(stems.values()), store)
            known.update(name for name, stem in stems.items() if stem in ours)
        return known

    def _legacy_stems(self, reader: Reader, stems: set[str], store: KeyedStore) -> set[str]:
        """Return those of some legacy names, without extensions, that rows have; reads all rows without a revision.

        Raises:
            InvalidKeyError: A row has no valid name, so its file cannot be distinguished from an orphan.
        """
        found = set[str]()
        for number, row in enumerate(self._without_revision(reader), 1):
            reference = self.reference(reader, row)
            if reference.damage is not None or reference.key is None:
                raise InvalidKeyError(
                    f"the file of {reference.cls.__name__} {reference.identity!r} cannot be distinguished from an "
                    f"orphan, because its row has no valid name: {reference.damage}"
                ) from reference.damage
            found.update(
                stem for name in store.names_of(reference.key) if (stem := _legacy_stem(name)) in stems and stem
            )
            if number % PAGE == 0:
                reader.session.expunge_all()
        return found

    def _without_revision(self, reader: Reader) -> Iterator[Row[Any]]:
        """Read all rows without a revision with one statement; neither their order nor concurrent changes matter."""
        query = select(*(column.label(f"c{n}") for n, column in enumerate(self._columns().values())))
        query = query.select_from(self.mapper.selectable).where(*self.where(), self.column(self.source).is_(None))
        with reader.connection.execution_options(yield_per=PAGE).execute(query) as result:
            yield from result


class StoredKind(Kind):
    """The files of one offloaded attribute.

    Args:
        mapper: The mapper of the class that declares the attribute.
        key: The name of the attribute.
    """

    def __init__(self, mapper: Mapper[Any], key: str) -> None:
        super().__init__(mapper)
        self.key: str = key
        self._object_type: str = settings_of(self.source).object_type or ""

    @property
    def object_types(self) -> frozenset[str]:
        """The one object type with which all names begin."""
        return frozenset({self._object_type})

    @property
    def source(self) -> Column[Any]:
        """The column of the attribute."""
        return columns_of(self.mapper)[self.key]

    def parts(self) -> Sequence[Part]:
        """Return one part, by primary key."""
        return (Part((), tuple(self.primary_key), stable=False),)

    def reference(self, reader: Reader, row: Row[Any]) -> FileReference:
        """Return the file of a row's value."""
        values = self._values(row)
        mapper = self._mapper_of(values) or self.mapper
        content, damage = None, None
        try:
            name = values[self.key].name
            content = None if name is None else parse_name(name)
        except DamagedValueError as error:
            damage = error.with_traceback(None)
        plain = content is not None and content.compression is None
        return FileReference(
            cls=mapper.class_,
            identity=self._identity(values),
            object_type=self._object_type,
            key=None,
            name=None if content is None else content.name,
            mimetype=settings_of(self.source).cls.mimetype if plain else "application/octet-stream",
            size=None if content is None else content.stored,
            sha256=content.sha256 if content is not None and plain else None,
            reproducible=False,
            created_at=None,
            content=content,
            damage=damage,
        )

    def knows(self, name: str) -> bool:
        """Whether the name belongs to a file of this attribute."""
        found = parse_name(name)
        return found is not None and found.object_type == self._object_type

    def named(self, reader: Reader, names: Collection[str], store: KeyedStore) -> set[str]:
        """Return the names that rows contain; fast if the column is declared with ``index=True``."""
        column = type_coerce(self.source, Text())
        found = set[str]()
        wanted = iter([str(content) for name in names if (content := parse_name(name)) is not None])
        while batch := list(islice(wanted, PAGE)):
            query = select(column).where(column.in_(batch))
            found.update(raw[1:] for raw in reader.connection.scalars(query))
        return found

    def where(self) -> list[ColumnElement[bool]]:
        """Return the conditions for rows whose value is in a file, not inline."""
        column = self.column(self.source)
        raw = type_coerce(column, Text())
        return [*super().where(), column.is_not(None), *(raw.not_like(f"{mark}%") for mark in INLINE_MARKS)]

    def _columns(self) -> Mapping[str, ColumnElement[Any]]:
        found = super()._columns()
        wanted = {self.key, "", *(self.mapper.get_property_by_column(one).key for one in self.mapper.primary_key)}
        return {key: column for key, column in found.items() if key in wanted}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cls.__name__}.{self.key}>"


def kinds(target: Any) -> tuple[Kind, ...]:
    """Return each kind of file that rows of some classes and their subclasses name, each once.

    Args:
        target: A declarative base for all its classes, a mapped class, or a :class:`sqlalchemy.orm.registry`.

    Raises:
        DeclarationError: The target is none of these, or none of its classes has files, perhaps because the modules
            with such classes are not imported yet.
    """
    own = _registry(target)
    configure_mappers()
    found = _kinds_of(own, object if isinstance(target, registry) else target)
    if not found:
        raise DeclarationError(
            f"expected mapped classes with images or offloaded columns, but {_describe(target)} has none; import the "
            "modules with such classes first"
        )
    return tuple(found)


def _kinds_of(own: registry, base: type[Any] = object) -> list[Kind]:
    """Return the kinds of file of those classes of a registry that are subclasses of a base."""
    mappers = sorted(own.mappers, key=lambda mapper: (mapper.class_.__module__, mapper.class_.__qualname__))
    below = [one for one in mappers if issubclass(one.class_, base)]
    found: list[Kind] = [ImageKind(one) for one in _roots([one for one in below if issubclass(one.class_, Image)])]
    return found + [StoredKind(mapper, key) for mapper in below for key in _declared(mapper, below)]


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


def _family(mapper: Mapper[Any]) -> list[Mapper[Any]]:
    """Return a mapper, and its descendants whose rows are in its tables."""
    found = [mapper]
    for other in mapper.self_and_descendants:
        if other.inherits in found and not other.concrete:
            found.append(other)
    return found


def _instance(session: Session, mapper: Mapper[Any], values: Mapping[str, Any]) -> Any:
    """Return an object for a row that a Core statement returned; the session loads other columns if they are needed."""
    instance = mapper.class_manager.new_instance()
    instance_dict(instance).update({key: value for key, value in values.items() if key in mapper.column_attrs})
    make_transient_to_detached(instance)
    session.add(instance)
    return instance


def _matching(reader: Reader, column: ColumnElement[Any], values: Collection[str]) -> Iterator[str]:
    """Yield those of some values, or of their lower-case forms, that a column contains."""
    wanted = iter({*values, *map(str.casefold, values)})
    while batch := list(islice(wanted, PAGE)):
        yield from reader.connection.scalars(select(column).where(column.in_(batch)))


def _aware(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _registry(target: Any) -> registry:
    mapper = None if isinstance(target, registry) else inspect(target, raiseerr=False)
    found = mapper.registry if isinstance(mapper, Mapper) else target
    for name in ("registry", "_sa_registry"):  # SQLModel has the second only
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


def _legacy_stem(name: str) -> str | None:
    """Return a legacy name without its extension, which depended on the machine; ``None`` for other names."""
    match = _LEGACY.fullmatch(name)
    return None if match is None else match[1]
