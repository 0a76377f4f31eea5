"""Mixins that give an image class more columns: a focal point, and what to show until the picture is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from sqlalchemy import Float, String, Text
from sqlalchemy.orm import Mapped, mapped_column, validates
from sqlalchemy.orm.attributes import instance_state, set_attribute, set_committed_value

from ..imaging._options import fractions
from ..imaging._preview import Preview
from ._image import Image

__all__ = [
    "FocalPoint",
    "Placeholder",
    "ThumbnailMarks",
    "fill_missing",
    "focal_point_of",
    "keep_preview",
    "wants_preview",
]

_COLUMNS: Final = ("focal_x", "focal_y", "thumbhash", "dominant_colour", "thumbnail_marks")


class FocalPoint:
    """Mixin of an image class: the point of an original that its crops keep in view.

    ::

        class UserPicture(Base, Image, FocalPoint):
            ...

        user.picture.original.focal_point = 0.4, 0.25

    Thumbnails with ``fit="cover"`` keep this point in the middle, as far as the edges of the picture allow it, whatever
    ``gravity`` their recipe has. A thumbnail belongs to the point that it was made with: after a change
    ``generate_thumbnail`` makes a new one. Only the row of an original has a point.
    """

    if TYPE_CHECKING:
        focal_x: Mapped[float | None]
        """Distance from the left edge of the displayed picture, as a fraction of its width."""
        focal_y: Mapped[float | None]
        """Distance from the top edge of the displayed picture, as a fraction of its height."""
    else:  # un-annotated at run time, for the reason that Image gives
        focal_x = mapped_column(Float, nullable=True, sort_order=20)
        focal_y = mapped_column(Float, nullable=True, sort_order=21)

    @property
    def focal_point(self) -> tuple[float, float] | None:
        """Both fractions, from the left and from the top; ``None`` if the picture has no focal point.

        Raises:
            NotLoadedError: The row's columns are expired.
        """
        cast("Image", self)._require_loaded("focal_x", "focal_y")
        x, y = self.__dict__.get("focal_x"), self.__dict__.get("focal_y")
        return None if x is None or y is None else (x, y)

    @focal_point.setter
    def focal_point(self, point: tuple[float, float] | None) -> None:
        x, y = (None, None) if point is None else fractions("focal point", point, 2)
        set_attribute(self, "focal_x", x)
        set_attribute(self, "focal_y", y)

    @validates("focal_x", "focal_y")
    def _check_fraction(self, name: str, value: Any) -> float | None:
        return None if value is None else fractions(name, (value,), 1)[0]


class Placeholder:
    """Mixin of an image class: what to show of a picture until it is loaded.

    The columns of an original are filled together with its first thumbnail, from the same decode, or when it is
    attached, if the class says so::

        class UserPicture(Base, Image, Placeholder):
            __placeholder_on_attach__ = True
    """

    __placeholder_on_attach__: ClassVar[bool] = False
    """Whether originals are decoded for it when they are attached with ``from_file`` or ``from_blob``."""

    if TYPE_CHECKING:
        thumbhash: Mapped[str | None]
        """The picture blurred to at most 28 bytes, in Base64; see https://evanw.github.io/thumbhash/."""
        dominant_colour: Mapped[str | None]
        """Such as ``"#1e90ff"``; ``None`` also for a picture that is transparent everywhere."""
    else:
        thumbhash = mapped_column(String(40), nullable=True, sort_order=22)
        dominant_colour = mapped_column(String(7), nullable=True, sort_order=23)


class ThumbnailMarks:
    """Mixin of an image class: which of the declared thumbnails of an original are all stored.

    URLs of such thumbnails are those of the store, so that browsers and CDNs need not ask the server of thumbnails. A
    mark counts only for the very files that are declared, and in the store in which they were put. It is set by
    ``generate_thumbnails()`` without arguments.
    """

    if TYPE_CHECKING:
        thumbnail_marks: Mapped[str | None]
        """One word for each thumbnail; ``None`` if none has a mark."""
    else:
        thumbnail_marks = mapped_column(Text, nullable=True, sort_order=24)


def fill_missing(row: Image) -> None:
    """Note that the columns of the mixins are NULL which a new row was inserted without.

    SQLAlchemy would load them later, and a page that shows the picture right after its upload cannot wait.
    """
    columns = instance_state(row).mapper.columns
    for name in _COLUMNS:
        if name in columns and name not in row.__dict__ and columns[name].server_default is None:
            set_committed_value(row, name, None)


def focal_point_of(row: Image | None) -> tuple[float, float] | None:
    """Return the focal point of an original; ``None`` if it has none, or its class has no column for it."""
    return row.focal_point if isinstance(row, FocalPoint) else None


def wants_preview(row: Image) -> bool:
    """Return whether an original has yet to be given a preview."""
    state = instance_state(row)
    if not isinstance(row, Placeholder) or not (state.key is None or "thumbhash" in state.dict):
        return False  # the application has deferred the column
    return state.dict.get("thumbhash") is None


def keep_preview(row: Image, preview: Preview | None) -> None:
    """Let an original have a preview, unless there is none."""
    if preview is not None:
        set_attribute(row, "thumbhash", preview.thumbhash)
        set_attribute(row, "dominant_colour", preview.colour)
