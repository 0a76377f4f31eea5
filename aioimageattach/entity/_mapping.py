"""The mapping of image classes: the attributes that identify an image set and its owner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from functools import partial
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from sqlalchemy import BindParameter, Column, ColumnDefault, ColumnElement, Integer, UnaryExpression, inspect
from sqlalchemy.orm import Mapper, RelationshipProperty
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, False_, Grouping, True_

from ..exc import DeclarationError

__all__ = [
    "SIZE",
    "Attachment",
    "AttachmentOptions",
    "attachment_of",
    "attachments_to",
    "default_of",
    "describe",
    "discriminators",
    "identity_attributes",
    "identity_without_size",
    "mapper_of",
    "new_attachments",
    "register_attachment",
    "relationships_to",
]

SIZE: Final = ("width", "height", "variant")
"""The primary key attributes that distinguish the images of one set."""

_ASCENDING: Final = (operators.asc_op, operators.nulls_first_op, operators.nulls_last_op)


@dataclass(frozen=True, slots=True)
class AttachmentOptions:
    """The arguments of an attachment that are not those of its relationship.

    Args:
        many: ``True`` if an owner has many images.
        max_pictures: The maximum number of images per owner; ``None`` means no limit.
    """

    many: bool = False
    max_pictures: int | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """The relationship from an owner class to its images, in terms of attributes and columns.

    Args:
        relationship: The relationship.
        pairs: Attributes of the owner that are copied to its images, each with its counterpart in the image.
        constants: Attributes of the image that the join condition compares with a value, with these values. They
            distinguish two attachments of the same image class.
        options: The other arguments of the attachment.
        position: The attribute of the image that ``order_by`` begins with, if it is an integer of the application.
    """

    relationship: RelationshipProperty[Any]
    pairs: tuple[tuple[str, str], ...]
    constants: Mapping[str, Any]
    options: AttachmentOptions
    position: str | None = None

    @property
    def owner(self) -> Mapper[Any]:
        """The mapper of the owner."""
        return self.relationship.parent

    @property
    def image(self) -> Mapper[Any]:
        """The mapper of the images."""
        return self.relationship.mapper

    @property
    def owner_columns(self) -> list[Column[Any]]:
        """The columns of the owner that are copied to its images."""
        return [cast("Column[Any]", local) for local, _ in self.relationship.local_remote_pairs or ()]

    @property
    def set_attributes(self) -> tuple[str, ...]:
        """The attributes of the image that identify its set, besides :attr:`constants`: owner and discriminators."""
        return (*(name for _, name in self.pairs), *self.discriminators)

    @property
    def discriminators(self) -> tuple[str, ...]:
        """The primary key attributes of the image that distinguish the image sets of one owner."""
        if not self.options.many:
            return ()
        return discriminators(self.image, *(name for _, name in self.pairs), *self.constants)

    def accepts(self, values: Mapping[str, Any]) -> bool:
        """Return whether an image with these attributes meets the constants of the join condition."""
        return all(values.get(name) == value for name, value in self.constants.items())


_attachments: WeakKeyDictionary[Mapper[Any], list[str]] = WeakKeyDictionary()
_identities: WeakKeyDictionary[Mapper[Any], tuple[str, ...]] = WeakKeyDictionary()
_discriminators: WeakKeyDictionary[Mapper[Any], dict[tuple[str, ...], tuple[str, ...]]] = WeakKeyDictionary()


def mapper_of(cls: type[Any]) -> Mapper[Any]:
    """Return the mapper of a class."""
    return cast("Mapper[Any]", inspect(cls))


def identity_attributes(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the names of the primary key's attributes."""
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def register_attachment(
    mapper: Mapper[Any], relationship: RelationshipProperty[Any], options: AttachmentOptions
) -> None:
    """Register a relationship from an owner to its images."""
    relationship.info[AttachmentOptions] = options
    _attachments.setdefault(mapper, []).append(relationship.key)


def new_attachments() -> Iterator[RelationshipProperty[Any]]:
    """Yield the relationships of configured mappers that :func:`attachment_of` has not processed yet."""
    for relationship in _configured():
        if Attachment not in relationship.info:
            yield relationship


def attachment_of(relationship: RelationshipProperty[Any]) -> Attachment:
    """Return the attachment of a relationship from an owner to its images.

    Raises:
        DeclarationError: Its declaration is invalid.
    """
    found = relationship.info.get(Attachment)
    if found is None:
        found = relationship.info[Attachment] = describe(relationship)
    if isinstance(found, DeclarationError):
        raise found.with_traceback(None)
    return cast("Attachment", found)


def describe(relationship: RelationshipProperty[Any]) -> Attachment:
    """Return the attachment of a relationship, without checking its declaration.

    Raises:
        DeclarationError: Its join condition is not a conjunction of equalities.
    """
    image = relationship.mapper
    pairs = tuple(
        (relationship.parent.get_property_by_column(local).key, image.get_property_by_column(remote).key)
        for local, remote in relationship.local_remote_pairs or ()
    )
    constants = dict(_constants(relationship, relationship.primaryjoin))
    return Attachment(relationship, pairs, constants, relationship.info[AttachmentOptions], _position(relationship))


def _position(relationship: RelationshipProperty[Any]) -> str | None:
    first: Any = next(iter(relationship.order_by or ()), None)
    while isinstance(first, UnaryExpression) and first.modifier in _ASCENDING:
        first = first.element
    column = None if first is None else _plain(first)
    if not isinstance(column, Column) or column.primary_key or not isinstance(column.type, Integer):
        return None
    names = (prop.key for prop in relationship.mapper.column_attrs if prop.columns[0] is column)
    return next((name for name in names if name != "byte_size"), None)


def _constants(relationship: RelationshipProperty[Any], clause: Any) -> Iterator[tuple[str, Any]]:
    """Return the columns of the image that a join condition compares with a value, each with that value."""
    while isinstance(clause, Grouping):
        clause = clause.element
    if isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            yield from _constants(relationship, part)
    elif isinstance(clause, BinaryExpression) and clause.operator in (operators.eq, operators.is_):
        sides = (clause.left, clause.right)
        for column, value in (sides, sides[::-1]):
            constant = _value(value)
            if constant is not None and isinstance(column, ColumnElement):
                yield relationship.mapper.get_property_by_column(_plain(column)).key, constant[0]
    else:
        raise DeclarationError(
            f"{relationship}: expected a primaryjoin of equalities joined by and_(), because the column values of a "
            f"new image are derived from it, got {clause}"
        )


def _plain(column: Any) -> Column[Any]:
    return cast("Column[Any]", column._deannotate() if hasattr(column, "_deannotate") else column)


def _value(clause: object) -> tuple[Any] | None:
    if isinstance(clause, BindParameter):
        return (clause.effective_value,)
    if isinstance(clause, (True_, False_)):
        return (isinstance(clause, True_),)
    return None


def attachments_to(cls: type[Any]) -> list[Attachment]:
    """Return the attachments whose images are of the class, in an order that is the same in every process."""
    return sorted(map(attachment_of, relationships_to(cls)), key=lambda one: str(one.relationship))


def relationships_to(cls: type[Any]) -> Iterator[RelationshipProperty[Any]]:
    """Yield the relationships of configured mappers that lead to images of the class."""
    for relationship in _configured():
        if issubclass(cls, relationship.mapper.class_):
            yield relationship


def _configured() -> Iterator[RelationshipProperty[Any]]:
    """Yield the relationships of configured mappers; other mappers have no instances, and may be invalid."""
    for owner, names in list(_attachments.items()):
        # registry.dispose() marks mappers as configured, although their relationships may not be.
        if owner.configured and inspect(owner.class_, raiseerr=False) is owner:
            yield from (owner.relationships[name] for name in names)


def identity_without_size(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the primary key attributes that all images of a set share and that distinguish image sets.

    Attributes with a default are included only if an owner has many images; otherwise they only identify the row.
    """
    if mapper not in _identities:
        many = any(one.info[AttachmentOptions].many for one in relationships_to(mapper.class_))
        names = discriminators(mapper)
        _identities[mapper] = names if many else tuple(name for name in names if default_of(mapper, name) is None)
    return _identities[mapper]


def discriminators(mapper: Mapper[Any], *others: str) -> tuple[str, ...]:
    """Return the primary key attributes, besides width, height and variant, whose values are known before a flush.

    The values of the others come from the database, or from a function that needs the context of a statement.
    """
    memo = _discriminators.setdefault(mapper, {})
    if others not in memo:
        memo[others] = tuple(
            key
            for column, key in zip(mapper.primary_key, identity_attributes(mapper), strict=True)
            if key not in SIZE and key not in others and not _is_generated(mapper, column, key)
        )
    return memo[others]


def default_of(mapper: Mapper[Any], name: str) -> Callable[[], Any] | None:
    """Return a callable for the default of an attribute that needs no database; ``None`` if it has no such default."""
    column = mapper.column_attrs[name].columns[0]
    default: Any = column.default if isinstance(column, Column) else None
    if default is None:
        fields = getattr(mapper.class_, "__dataclass_fields__", {})
        factory = getattr(fields.get(name), "default_factory", MISSING)
        return None if factory is MISSING else cast("Callable[[], Any]", factory)
    if default.is_scalar:
        return lambda: default.arg
    # SQLAlchemy wraps functions without arguments; the others are called with the context of a statement
    module = getattr(getattr(default, "arg", None), "__globals__", {}).get("__name__")
    return partial(default.arg, None) if module == ColumnDefault.__module__ else None


def _is_generated(mapper: Mapper[Any], column: ColumnElement[Any], name: str) -> bool:
    """Return whether the value of a column is known only once its row is inserted."""
    return isinstance(column, Column) and (
        column.server_default is not None
        or column.autoincrement is True
        or (column.default is not None and default_of(mapper, name) is None)
    )
