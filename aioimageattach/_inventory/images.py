"""The files of an image class."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Row, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapper, Session, make_transient_to_detached
from sqlalchemy.orm.attributes import instance_dict

from .._batches import batched
from .._names import revision_of
from ..entity._references import object_types
from ..exc import ImageAttachError, InvalidKeyError
from ..store import KeyedStore
from .kind import PAGE, FileReference, Kind, Part, family
from .reader import Reader

__all__ = ["ImageKind"]

_LEGACY: Final = re.compile(r"([^/]+/-?\d+/(?:-?\d+/-?\d+\.)?\d+x\d+)(?:\.\w+|None)", re.ASCII)
"""``object_type/id/WxH.ext`` in buckets, ``object_type/id%1000/id//1000/id.WxH.ext`` in directories."""


class ImageKind(Kind):
    """The files of an image class."""

    @property
    def object_types(self) -> frozenset[str] | None:
        """The object types of the classes; ``None`` if they depend on the row."""
        return object_types(family(self.mapper))

    @property
    def source(self) -> Column[Any]:
        """The column of the revision."""
        return self.mapper.columns["revision"]

    def parts(self) -> Sequence[Part]:
        """Return two parts: rows with a revision, in its order, and rows without one, in order of the primary key."""
        revision = self.column(self.source)
        return (
            Part((revision.is_not(None),), (revision,), stable=True),
            Part((revision.is_(None),), tuple(self.primary_key), stable=False),
        )

    def reference(self, reader: Reader, row: Row[Any]) -> FileReference:
        """Return the file of an image."""
        values = self.values_of(row)
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

    def can_have(self, name: str) -> bool:
        """Return ``True`` if a built-in store or SQLAlchemy-ImageAttach can generate the name."""
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
        """Return the legacy names, without extensions, that belong to rows. Reads all rows without a revision.

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
        query = select(*(column.label(f"c{n}") for n, column in enumerate(self.columns.values())))
        query = query.select_from(self.selectable).where(*self.where(), self.column(self.source).is_(None))
        with reader.connection.execution_options(yield_per=PAGE).execute(query) as result:
            yield from result


def _instance(session: Session, mapper: Mapper[Any], values: Mapping[str, Any]) -> Any:
    """Return an object for a row that a Core statement returned; the session loads other columns if they are needed."""
    instance = mapper.class_manager.new_instance()
    instance_dict(instance).update({key: value for key, value in values.items() if key in mapper.column_attrs})
    make_transient_to_detached(instance)
    session.add(instance)
    return instance


def _matching(reader: Reader, column: ColumnElement[Any], values: Collection[str]) -> Iterator[str]:
    """Yield the values, or their lower-case forms, that a column contains."""
    for batch in batched({*values, *map(str.casefold, values)}, PAGE):
        yield from reader.connection.scalars(select(column).where(column.in_(batch)))


def _aware(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _legacy_stem(name: str) -> str | None:
    """Return a legacy name without its extension, which depended on the machine; ``None`` for other names."""
    match = _LEGACY.fullmatch(name)
    return None if match is None else match[1]
