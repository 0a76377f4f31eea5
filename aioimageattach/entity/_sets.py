"""Which rows are one image set in the database, and what a flush has to do about the others of a set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import inspect, select
from sqlalchemy.orm import Mapper, RelationshipProperty, Session

from ..exc import NoOriginalError
from ..transaction.rows import FileRow, record_of

__all__ = ["discriminators", "mapper_of", "owner_columns", "plant", "settle"]

SIZE = frozenset({"width", "height", "variant"})

_attachments: WeakKeyDictionary[Mapper[Any], list[str]] = WeakKeyDictionary()
_discriminators: WeakKeyDictionary[Mapper[Any], dict[tuple[str, ...], tuple[str, ...]]] = WeakKeyDictionary()


def mapper_of(cls: type[Any]) -> Mapper[Any]:
    """Return the mapper of a class."""
    return cast("Mapper[Any]", inspect(cls))


def plant(mapper: Mapper[Any], name: str) -> None:
    """Note that the relationship of that name leads from an owner to its images."""
    _attachments.setdefault(mapper, []).append(name)


def owner_columns(cls: type[Any], relationship: RelationshipProperty[Any]) -> dict[str, str]:
    """Return the image's attributes that hold the owner's key, with the owner's attributes they are copied from."""
    mapper = mapper_of(cls)
    return {
        mapper.get_property_by_column(remote).key: relationship.parent.get_property_by_column(local).key
        for local, remote in relationship.local_remote_pairs
    }


def discriminators(mapper: Mapper[Any], *owner: str) -> tuple[str, ...]:
    """Return the attributes of the primary key that tell apart the image sets of one owner.

    They are those besides the owner's, size and look that the database does not fill in by itself.
    """
    memo = _discriminators.setdefault(mapper, {})
    if owner not in memo:
        memo[owner] = tuple(
            key
            for column, key in ((column, mapper.get_property_by_column(column).key) for column in mapper.primary_key)
            if key not in SIZE and key not in owner and column.default is None and column.server_default is None
        )
    return memo[owner]


def _attached(cls: type[Any]) -> Iterator[RelationshipProperty[Any]]:
    for owner, names in list(_attachments.items()):
        for name in names if owner.configured else ():  # others have no instances, and may be declared wrongly
            relationship = owner.relationships[name]
            if issubclass(cls, relationship.mapper.class_):
                yield relationship


def settle(session: Session, cls: type[Any], rows: Sequence[Any]) -> list[FileRow]:
    """Bring the sets of some rows in order before they are inserted or deleted.

    A new original, or the deletion of one, makes every row of its set go that the database has by now, also those of
    other transactions. A new thumbnail is refused where the original it was made from is no longer there.

    First the original is locked, or the owner where there is none, each by its whole key: of two transactions the
    second waits for the first. Then the set is read, with locks only where somebody was first: MySQL, at its default
    isolation level, would lock the gaps beside the set too, and two owners beside each other could wait for one
    another. There a set can keep a row of a transaction that was over before this one waited; at READ COMMITTED none.

    Returns:
        The rows that have to go, as they are in the database.

    Raises:
        NoOriginalError: The original of a new thumbnail was replaced or deleted meanwhile.
    """
    gone: list[FileRow] = []
    relationships = list(_attached(cls))
    with session.no_autoflush:
        for row in rows:
            _check_source(session, row)
        for relationship in relationships:
            owner = owner_columns(cls, relationship)
            names = (*owner, *discriminators(mapper_of(cls), *owner))
            sets: dict[tuple[Any, ...], list[Any]] = {}
            for row in rows:
                values = tuple(row.__dict__.get(name) for name in names)
                if row.__dict__.get("original") and None not in values:
                    sets.setdefault(values, []).append(row)
            doomed: dict[tuple[Any, ...], list[Any]] = {}
            for row in session.deleted:
                if isinstance(row, cls):
                    doomed.setdefault(tuple(row.__dict__.get(name) for name in names), []).append(row)
            for values in sorted(sets, key=repr):
                key = dict(zip(names, values, strict=True))
                found = _lock(session, cls, relationship, key, sets[values], doomed.get(values, []))
                stores = [store for row in sets[values] if (store := record_of(row).store) is not None]
                for row in found:
                    record = record_of(row)
                    record.store = record.store or next(iter(stores), None)
                gone += found
        deleted = session.deleted
        leaving = [*gone, *(row for row in rows if row in deleted)]
        for relationship in relationships:
            for row in leaving:
                _leave(session, relationship, row)
    return gone


def _leave(session: Session, relationship: RelationshipProperty[Any], row: Any) -> None:
    """Take a row that is deleted out of its owner's collection: deleting the owner would try to delete it again."""
    mapper = relationship.parent
    columns = owner_columns(type(row), relationship)
    values = {name: row.__dict__.get(attribute) for attribute, name in columns.items()}
    key = [values.get(mapper.get_property_by_column(column).key) for column in mapper.primary_key]
    owner = None if None in key else session.identity_map.get(mapper.identity_key_from_primary_key(tuple(key)))
    rows = [] if owner is None else owner.__dict__.get(relationship.key, [])
    for number, other in enumerate(rows):
        if other is row:
            rows.pop(number)
            break


def _lock(
    session: Session,
    cls: type[Any],
    relationship: RelationshipProperty[Any],
    key: dict[str, Any],
    originals: Sequence[Any],
    doomed: Sequence[Any],
) -> list[FileRow]:
    query = select(cls).where(*(getattr(cls, name) == value for name, value in key.items()))
    known = [(row, row.key) for row in originals if any(row is other for other in doomed)]
    unchanged = [_again(session, row, read=False) is not None and row.key == before for row, before in known]
    if not any(unchanged):
        pairs = [
            (local, key[mapper_of(cls).get_property_by_column(remote).key])
            for local, remote in relationship.local_remote_pairs
        ]
        owner = select(*(local for local, _ in pairs)).where(*(local == value for local, value in pairs))
        session.execute(owner.with_for_update(key_share=True))
    if not all(unchanged):
        query = query.with_for_update()
    found = list(session.scalars(query.execution_options(populate_existing=True)))
    present = {id(row) for row in found}
    for row in doomed:
        if id(row) not in present:
            session.expunge(row)  # somebody else was first: a DELETE would find nothing and warn
    return found


def _again(session: Session, row: Any, *, read: bool) -> Any:
    """Lock a row and read it anew; ``None`` where it is gone."""
    mapper = mapper_of(type(row))
    identity = zip(mapper.primary_key, inspect(row).identity, strict=True)
    query = select(type(row)).where(*(column == value for column, value in identity))
    return session.scalars(query.with_for_update(read=read).execution_options(populate_existing=True)).first()


def _check_source(session: Session, row: Any) -> None:
    source = record_of(row).source
    if source is None or row not in session.new or inspect(source.row).key is None:
        return
    found = _again(session, source.row, read=True)
    if found is None or found.key != source.key:
        raise NoOriginalError(
            f"the original that a new {type(row).__name__} was made from was replaced or deleted meanwhile; "
            "roll back, or make the thumbnail anew"
        )
