"""Validation of attachments when the mappers are configured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty

from ..exc import DeclarationError, InvalidKeyError
from ..key import ImageKey
from ._columns import is_unique
from ._image import NEEDED, Image
from ._mapping import (
    SIZE,
    Attachment,
    attachment_of,
    default_of,
    describe,
    discriminators,
    identity_attributes,
    new_attachments,
    relationships_to,
)
from ._references import object_types


@event.listens_for(Mapper, "after_configured")
def _configured() -> None:
    errors = [error for relationship in list(new_attachments()) if (error := _check(relationship)) is not None]
    for error in errors:  # the other errors are raised when their attachments are used
        raise error


def _check(relationship: RelationshipProperty[Any]) -> DeclarationError | None:
    """Return the error of an invalid attachment, and record it for all later uses of the attachment."""
    try:
        for problem in _problems(relationship):
            raise DeclarationError(f"{relationship}: {problem}")
    except DeclarationError as error:
        relationship.info[Attachment] = error
        return error
    return None


def _problems(relationship: RelationshipProperty[Any]) -> Iterator[str]:
    cls, owner = relationship.mapper.class_, relationship.parent.class_
    if not issubclass(cls, Image):
        yield f"expected a class with the mixin Image, got {cls.__name__}"
    if relationship.direction is not RelationshipDirection.ONETOMANY:
        yield (
            f"expected a one-to-many relationship, but the foreign key is a column of {owner.__name__}; remove it and "
            f"the argument foreign_keys, and add to {cls.__name__} a foreign key to {owner.__name__} that is part of "
            "its primary key"
        )
    yield from _problems_of_rows(relationship.mapper)
    attachment = attachment_of(relationship)
    yield from _problems_of_keys(attachment)
    yield from _problems_of_position(attachment)
    yield from _problems_of_neighbours(attachment)


def _problems_of_rows(image: Mapper[Any]) -> Iterator[str]:
    name = image.class_.__name__
    missing = sorted((NEEDED | {"byte_size", "sha256"}).difference(image.column_attrs.keys()))
    if missing:
        yield f"expected the columns of Image in the table of {name}, which has no {', '.join(missing)}; add them"
    outside = [side for side in SIZE if side not in identity_attributes(image)]
    if outside:
        yield f"expected {', '.join(outside)} to be part of the primary key of {name}"
    for kind in object_types(image.self_and_descendants) or ():
        try:
            ImageKey(kind, None, 1, 1, "image/png")
        except InvalidKeyError as error:
            yield f"stores do not accept the table name of {name}; rename the table, or override object_type: {error}"


def _problems_of_keys(attachment: Attachment) -> Iterator[str]:
    image, name = attachment.image, attachment.image.class_.__name__
    keys = set(identity_attributes(image))
    others = discriminators(image, *(name for _, name in attachment.pairs), *attachment.constants)
    if attachment.options.many and not others:
        yield (
            f"the primary key of {name} does not distinguish the images of one owner; add a column to it, such as "
            "`photo_id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)`, or declare the attachment "
            "without uselist=True. A column whose value the database generates does not help, because the value is "
            "unknown before the flush"
        )
    unknown = [other for other in others if default_of(image, other) is None]
    if not attachment.options.many and unknown:
        yield (
            f"the value of {', '.join(unknown)}, part of the primary key of {name}, is unknown for a new image; "
            "declare the attachment with uselist=True if an owner has several images, compare the column with a "
            "value in the primaryjoin, or give it a default"
        )
    if keys <= {*SIZE, *attachment.constants}:
        yield (f"the primary key of {name} does not distinguish the images of two owners; add the foreign key to it")


def _problems_of_position(attachment: Attachment) -> Iterator[str]:
    """Yield a problem if a unique position is NOT NULL: an image and its replacement share it within a flush."""
    image, name = attachment.image, attachment.position
    column = None if name is None else image.columns[name]
    if column is not None and not column.nullable and is_unique(image, column):
        yield (
            f"expected a nullable position, got {image.class_.__name__}.{name}, which is NOT NULL and unique, although "
            "thumbnails have no position, and a replaced image passes its position on to the new one; declare it as "
            f"`{name}: Mapped[int | None]`, or remove the unique constraint"
        )


def _problems_of_neighbours(attachment: Attachment) -> Iterator[str]:
    """Yield a problem for each other attachment whose images are indistinguishable from those of this one."""
    keys = set(identity_attributes(attachment.image))
    for other in map(describe, relationships_to(attachment.image.class_)):
        related = attachment.owner.isa(other.owner) or other.owner.isa(attachment.owner)
        if other.relationship is attachment.relationship or other.image is not attachment.image or not related:
            continue  # images of a subclass are intentionally images of its base class, too
        told_apart = [
            name
            for name in attachment.constants.keys() & other.constants.keys() & keys
            if attachment.constants[name] != other.constants[name]
        ]
        same = {name for _, name in attachment.pairs} & {name for _, name in other.pairs}
        if same and not told_apart:
            yield (
                f"{other.relationship} also attaches {attachment.image.class_.__name__}, so the two attachments would "
                "replace each other's images. Use a separate image class for each, or add a column to the primary "
                "key and compare it with a different value in each primaryjoin, such as "
                "`and_(User.id == foreign(Picture.user_id), Picture.kind == 'avatar')`"
            )
