"""Mixins that add columns to an image class: focal point, crop box, placeholder, and marks of stored thumbnails."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, cast

from sqlalchemy import Float, String, Text
from sqlalchemy.orm import Mapped, mapped_column, validates
from sqlalchemy.orm.attributes import flag_modified, instance_state, set_attribute

from .._declared.framing import BOX, POINT, Framing
from ..imaging._options import Crop, checked_area, checked_fractions
from ..imaging._preview import Preview
from ._image import Image

__all__ = [
    "CropBox",
    "FocalPoint",
    "Placeholder",
    "ThumbnailMarks",
    "crop_box_of",
    "focal_point_of",
    "set_values",
    "values_of",
    "wants_preview",
]


class FocalPoint:
    """Mixin for image classes that stores a focal point: the point of an original that cropped thumbnails keep.

    ::

        class UserPicture(Base, Image, FocalPoint):
            ...

        user.picture.original.focal_point = 0.4, 0.25

    Thumbnails with ``fit="cover"`` are centred on this point as far as the edges of the image allow. The point
    overrides the ``gravity`` of their recipe. After the point has changed, ``generate_thumbnail`` makes a new
    thumbnail, and thumbnails made for the previous point are no longer found. Only rows of originals have a focal
    point.
    """

    if TYPE_CHECKING:
        focal_x: Mapped[float | None]
        """Distance from the left edge of the displayed image, as a fraction of its width."""
        focal_y: Mapped[float | None]
        """Distance from the top edge of the displayed image, as a fraction of its height."""
    else:  # not annotated at run time, for the reason given in Image
        focal_x = mapped_column(Float, nullable=True, sort_order=20)
        focal_y = mapped_column(Float, nullable=True, sort_order=21)

    @property
    def focal_point(self) -> tuple[float, float] | None:
        """The focal point, as fractions of width and height from the top left; ``None`` if it is not set.

        Raises:
            NotLoadedError: The row's columns are expired.
        """
        cast("Image", self)._require_loaded(*POINT)
        x, y = self.__dict__.get("focal_x"), self.__dict__.get("focal_y")
        return None if x is None or y is None else (x, y)

    @focal_point.setter
    def focal_point(self, point: tuple[float, float] | None) -> None:
        x, y = (None, None) if point is None else checked_fractions("focal point", point, 2)
        _set_together(self, {"focal_x": x, "focal_y": y})

    @validates(*POINT)
    def _check_fraction(self, name: str, value: Any) -> float | None:
        return _checked_fraction(name, value)


class CropBox:
    """Mixin for image classes that stores a crop box: the part of an original that all thumbnails show.

    ::

        class UserPicture(Base, Image, CropBox):
            ...

        user.picture.original.crop_box = 0.1, 0, 0.8, 0.95

    Sizes, aspect ratios and the ``crop`` of recipes refer to this part, and no declared thumbnail is larger than it.
    After the box has changed, declared thumbnails have other names, ``generate_thumbnail`` makes a new thumbnail, and
    thumbnails made for the previous box are no longer found. Only rows of originals have a crop box.
    """

    if TYPE_CHECKING:
        crop_left: Mapped[float | None]
        """Distance of the box from the left edge of the displayed image, as a fraction of its width."""
        crop_top: Mapped[float | None]
        """Distance of the box from the top edge of the displayed image, as a fraction of its height."""
        crop_width: Mapped[float | None]
        """Width of the box, as a fraction of that of the displayed image."""
        crop_height: Mapped[float | None]
        """Height of the box, as a fraction of that of the displayed image."""
    else:  # not annotated at run time, for the reason given in Image
        crop_left = mapped_column(Float, nullable=True, sort_order=25)
        crop_top = mapped_column(Float, nullable=True, sort_order=26)
        crop_width = mapped_column(Float, nullable=True, sort_order=27)
        crop_height = mapped_column(Float, nullable=True, sort_order=28)

    @property
    def crop_box(self) -> Crop | None:
        """Left, top, width and height of the box, as fractions of width and height; ``None`` for the whole image.

        File names contain the box in hundredths. Therefore its edges are rounded inwards to multiples of 0.01 when
        it is set, and thumbnails do not show more than the given box. A narrower box is widened to 0.01.

        Raises:
            NotLoadedError: The row's columns are expired.
        """
        cast("Image", self)._require_loaded(*BOX)
        return Framing.of(self.__dict__).crop

    @crop_box.setter
    def crop_box(self, box: Crop | None) -> None:
        values: Mapping[str, float] = {} if box is None else dict(zip(BOX, checked_area("crop box", box), strict=True))
        rounded = Framing.of(values).crop or (None,) * len(BOX)
        _set_together(self, dict(zip(BOX, rounded, strict=True)))

    @validates(*BOX)
    def _check_box(self, name: str, value: Any) -> float | None:
        return _checked_fraction(name, value)


class Placeholder:
    """Mixin for image classes: a blurred preview and a dominant colour to show until an image is loaded.

    The columns of an original are filled in when its first thumbnails are made, from the same decode. A
    :class:`~aioimageattach.thumbnails.ThumbnailServer` has no database, so it does not fill them in. Set
    ``__placeholder_on_attach__`` to fill them in when the original is attached::

        class UserPicture(Base, Image, Placeholder):
            __placeholder_on_attach__ = True
    """

    __placeholder_on_attach__: ClassVar[bool] = False
    """``True`` to fill them in when an original is attached with ``from_file``, ``from_blob`` or ``from_url``."""

    if TYPE_CHECKING:
        thumbhash: Mapped[str | None]
        """ThumbHash of the image, at most 28 bytes, in Base64; see https://evanw.github.io/thumbhash/."""
        dominant_colour: Mapped[str | None]
        """The dominant colour, such as ``"#1e90ff"``; ``None`` also if the image is completely transparent."""
    else:
        thumbhash = mapped_column(String(40), nullable=True, sort_order=22)
        dominant_colour = mapped_column(String(7), nullable=True, sort_order=23)


class ThumbnailMarks:
    """Mixin for image classes that records, as marks, which declared thumbnails have all their files in the store.

    The URLs of marked thumbnails point directly to the store, so that browsers and CDNs bypass the thumbnail server.
    The files must therefore be served at the base URL of the store. A mark is valid only for the current declaration
    and for the store that contains the files. The marks are set by ``generate_thumbnails()`` without arguments, by
    :class:`~aioimageattach.thumbnails.ThumbnailWorker` and :class:`~aioimageattach.taskiq.ThumbnailTasks` with
    ``sessions``, and by :func:`~aioimageattach.thumbnails.backfill`.
    """

    if TYPE_CHECKING:
        thumbnail_marks: Mapped[str | None]
        """The marks, separated by spaces, one for each thumbnail; ``None`` if no thumbnail is marked."""
    else:
        thumbnail_marks = mapped_column(Text, nullable=True, sort_order=24)


def _checked_fraction(name: str, value: Any) -> float | None:
    return None if value is None else checked_fractions(name, (value,), 1)[0]


def crop_box_of(row: Image | None) -> Crop | None:
    """Return the crop box of an original; ``None`` if it has none, or if its class lacks the mixin."""
    return row.crop_box if isinstance(row, CropBox) else None


def focal_point_of(row: Image | None) -> tuple[float, float] | None:
    """Return the focal point of an original; ``None`` if it has none, or if its class lacks the mixin.

    Values that another program has written may be outside of the image.
    """
    point = row.focal_point if isinstance(row, FocalPoint) else None
    if point is None or not all(map(isfinite, point)):
        return None
    x, y = (min(max(part, 0.0), 1.0) for part in point)
    return x, y


def wants_preview(row: Image) -> bool:
    """Return whether the preview of an original is missing and can be stored in its row."""
    state = instance_state(row)
    if not isinstance(row, Placeholder) or not (state.key is None or "thumbhash" in state.dict):
        return False  # the application has deferred the column
    return state.dict.get("thumbhash") is None


def values_of(preview: Preview | None) -> dict[str, str | None]:
    """Return the columns that contain a preview, if there is one."""
    return {} if preview is None else {"thumbhash": preview.thumbhash, "dominant_colour": preview.colour}


def set_values(row: Image, values: Mapping[str, str | None]) -> None:
    """Set attributes of an original."""
    for name, value in values.items():
        set_attribute(row, name, value)


def _set_together(row: Any, values: Mapping[str, float | None]) -> None:
    """Set attributes, so that an UPDATE writes all of them if one has changed.

    SQLAlchemy writes only the changed ones. Two sessions that change different ones would leave a mixture in the row.
    """
    is_changed = any(row.__dict__.get(name, ...) != value for name, value in values.items())
    for name, value in values.items():
        set_attribute(row, name, value)
        if is_changed:
            flag_modified(row, name)
