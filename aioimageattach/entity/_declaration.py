"""Validation of attachments when the mappers are configured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty

from ..exc import DeclarationError, InvalidKeyError
from ..key import ImageKey
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
            f"the foreign key is on the side of {owner.__name__}; leave it out, with foreign_keys, and give "
            f"{cls.__name__} a foreign key to {owner.__name__} as part of its primary key"
        )
    yield from _problems_of_rows(relationship.mapper)
    attachment = attachment_of(relationship)
    yield from _problems_of_keys(attachment)
    yield from _problems_of_neighbours(attachment)


def _problems_of_rows(image: Mapper[Any]) -> Iterator[str]:
    name = image.class_.__name__
    missing = sorted((NEEDED | {"byte_size", "sha256"}).difference(image.column_attrs.keys()))
    if missing:
        yield f"the table of {name} has no {', '.join(missing)}; add the columns that Image has"
    outside = [side for side in SIZE if side not in identity_attributes(image)]
    if outside:
        yield f"{', '.join(outside)} of {name} must be part of its primary key"
    for kind in object_types(image.self_and_descendants) or ():
        try:
            ImageKey(kind, None, 1, 1, "image/png")
        except InvalidKeyError as error:
            yield f"no store accepts the name of the table of {name}; rename it, or define object_type: {error}"


def _problems_of_keys(attachment: Attachment) -> Iterator[str]:
    image, name = attachment.image, attachment.image.class_.__name__
    keys = set(identity_attributes(image))
    others = discriminators(image, *(name for _, name in attachment.pairs), *attachment.constants)
    if attachment.options.many and not others:
        yield (
            f"{name} cannot tell several pictures of one owner apart: give it another column in its primary key, such "
            "as `photo_id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)`, or declare the attachment "
            "without uselist=True. A column that the database fills in cannot: its value is not known before the flush"
        )
    unknown = [other for other in others if default_of(image, other) is None]
    if not attachment.options.many and unknown:
        yield (
            f"nothing says which value a picture has in {', '.join(unknown)}, part of the primary key of {name}; "
            "declare the attachment with uselist=True for several pictures of one owner, let the primaryjoin compare "
            "the column with a value, or give it a default"
        )
    if keys <= {*SIZE, *attachment.constants}:
        yield (
            f"the primary key of {name} does not tell the pictures of two owners apart; make its foreign key part of it"
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
                f"{other.relationship} attaches the same {attachment.image.class_.__name__}: one would replace the "
                "pictures of the other. Give each an image class of its own, or add a column to the primary key, and "
                "let the primaryjoin of each compare it with another value, such as "
                "`and_(User.id == foreign(Picture.user_id), Picture.kind == 'avatar')`"
            )
