"""How image classes are mapped: which rows are one image set, and where their owner's key is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from sqlalchemy import BindParameter, Column, ColumnElement, event, inspect
from sqlalchemy.orm import Mapper, RelationshipProperty
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, False_, Grouping, True_

from ..exc import DeclarationError

__all__ = [
    "SIZE",
    "Attachment",
    "attachment_of",
    "attachments_to",
    "discriminators",
    "identity_attributes",
    "mapper_of",
    "plant",
]

SIZE: Final = ("width", "height", "variant")
"""The attributes of the primary key that tell the images of one set apart."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """The relationship from an owner class to its images, in terms of attributes and columns.

    Args:
        relationship: The relationship.
        pairs: Attributes of the owner that are copied to its images, with the attributes of the image that keep them.
        constants: Attributes of the image that the join condition compares with a value, with these values. They tell
            two attachments of one image class apart.
    """

    relationship: RelationshipProperty[Any]
    pairs: tuple[tuple[str, str], ...]
    constants: Mapping[str, Any]

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
    def places(self) -> tuple[str, ...]:
        """The attributes of the image that say which set it is in, besides :attr:`constants`: owner, discriminators."""
        return (*(name for _, name in self.pairs), *self.discriminators)

    @property
    def discriminators(self) -> tuple[str, ...]:
        """The attributes of the image's primary key that tell the image sets of one owner apart."""
        return discriminators(self.image, *(name for _, name in self.pairs), *self.constants)

    def takes(self, values: Mapping[str, Any]) -> bool:
        """Return whether an image with these attributes meets the constants of the join condition."""
        return all(values.get(name) == value for name, value in self.constants.items())

    def check(self) -> None:
        """Refuse an attachment whose images could not be told from those of another one.

        Raises:
            DeclarationError: Another attachment leads to the same images.
        """
        keys = set(identity_attributes(self.image))
        for other in map(_attachment, _relationships_to(self.image.class_)):
            related = self.owner.isa(other.owner) or other.owner.isa(self.owner)
            if other.relationship is self.relationship or other.image is not self.image or not related:
                continue  # the images of a subclass are images of its base class, too: that is meant
            told_apart = [
                name
                for name in self.constants.keys() & other.constants.keys() & keys
                if self.constants[name] != other.constants[name]
            ]
            same = {name for _, name in self.pairs} & {name for _, name in other.pairs}
            if same and not told_apart:
                raise DeclarationError(
                    f"{self.relationship} and {other.relationship} attach the same {self.image.class_.__name__}: one "
                    "would replace the pictures of the other. Give each an image class of its own, or add a column to "
                    "the primary key, and let the primaryjoin of each compare it with another value, such as "
                    "`and_(User.id == foreign(Picture.user_id), Picture.kind == 'avatar')`"
                )


_attachments: WeakKeyDictionary[Mapper[Any], list[str]] = WeakKeyDictionary()
_discriminators: WeakKeyDictionary[Mapper[Any], dict[tuple[str, ...], tuple[str, ...]]] = WeakKeyDictionary()


def mapper_of(cls: type[Any]) -> Mapper[Any]:
    """Return the mapper of a class."""
    return cast("Mapper[Any]", inspect(cls))


def identity_attributes(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the names of the primary key's attributes."""
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def plant(mapper: Mapper[Any], name: str) -> None:
    """Note that the relationship of that name leads from an owner to its images."""
    _attachments.setdefault(mapper, []).append(name)


def attachment_of(relationship: RelationshipProperty[Any]) -> Attachment:
    """Return what is known of a relationship from an owner to its images.

    Raises:
        DeclarationError: Its join condition is not a conjunction of equalities.
    """
    found = relationship.info.get(Attachment)
    if found is None:
        found = relationship.info[Attachment] = _attachment(relationship)
        try:
            found.check()
        except DeclarationError as error:
            found = relationship.info[Attachment] = error
    if isinstance(found, DeclarationError):
        raise found.with_traceback(None)
    return cast("Attachment", found)


def _attachment(relationship: RelationshipProperty[Any]) -> Attachment:
    image = relationship.mapper
    pairs = tuple(
        (relationship.parent.get_property_by_column(local).key, image.get_property_by_column(remote).key)
        for local, remote in relationship.local_remote_pairs or ()
    )
    return Attachment(relationship, pairs, dict(_constants(relationship, relationship.primaryjoin)))


def _constants(relationship: RelationshipProperty[Any], clause: Any) -> Iterator[tuple[str, Any]]:
    """The columns of the image that a join condition compares with a value, each with that value."""
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
    elif isinstance(clause, (True_, False_)):
        return
    else:
        raise DeclarationError(
            f"{relationship}: expected a primaryjoin of equalities joined by and_(), got {clause}; a new image must "
            "satisfy it, so it has to say which value each column has"
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
    """Return the attachments whose images are of that class, in an order that is the same in each process."""
    return sorted(map(attachment_of, _relationships_to(cls)), key=lambda one: str(one.relationship))


def _relationships_to(cls: type[Any]) -> Iterator[RelationshipProperty[Any]]:
    for owner, names in list(_attachments.items()):
        for name in names if owner.configured else ():  # others have no instances, and may be declared wrongly
            relationship = owner.relationships[name]
            if issubclass(cls, relationship.mapper.class_):
                yield relationship


@event.listens_for(Mapper, "after_configured")
def _check() -> None:
    for owner, names in list(_attachments.items()):
        for name in names if owner.configured else ():
            relationship = owner.relationships[name]
            if Attachment not in relationship.info:  # refused once here, and again wherever it is used
                attachment_of(relationship)


def discriminators(mapper: Mapper[Any], *owner: str) -> tuple[str, ...]:
    """Return the attributes of the primary key that tell the image sets of one owner apart.

    They are those besides the owner's, size and variant that the database does not fill in by itself.
    """
    memo = _discriminators.setdefault(mapper, {})
    if owner not in memo:
        memo[owner] = tuple(
            key
            for column, key in ((column, mapper.get_property_by_column(column).key) for column in mapper.primary_key)
            if key not in SIZE and key not in owner and column.default is None and column.server_default is None
        )
    return memo[owner]
