"""Find thumbnails in the loaded rows of an image set."""

from __future__ import annotations

from typing import Any, Final, TypeVar, overload

from sqlalchemy.exc import NoResultFound

from ..imaging._recipe import FULL_SIZE, Fit, Gravity, Recipe
from ..store import Store
from ._collection import newest
from ._image import Image
from ._looks import describe, find, focus, look_of_row, match, variant_of
from ._view import ImageView

__all__ = ["ThumbnailFinder"]

I = TypeVar("I", bound=Image)  # noqa: E741
D = TypeVar("D")

_NO_DEFAULT: Final = object()


class ThumbnailFinder(ImageView[I]):
    """The part of an image set that finds thumbnails. It does no query and no I/O."""

    __slots__ = ()

    @overload
    def find_thumbnail(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        ratio: float | None = None,
        fit: Fit | None = None,
        enlarge: bool = True,
        gravity: Gravity | tuple[float, float] | None = None,
        crop: tuple[float, float, float, float] | None = None,
        format: str | None = None,
        variant: str | None = None,
        store: Store | None = None,
    ) -> I: ...
    @overload
    def find_thumbnail(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        ratio: float | None = None,
        fit: Fit | None = None,
        enlarge: bool = True,
        gravity: Gravity | tuple[float, float] | None = None,
        crop: tuple[float, float, float, float] | None = None,
        format: str | None = None,
        variant: str | None = None,
        store: Store | None = None,
        default: D,
    ) -> I | D: ...
    def find_thumbnail(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        ratio: float | None = None,
        fit: Fit | None = None,
        enlarge: bool = True,
        gravity: Gravity | tuple[float, float] | None = None,
        crop: tuple[float, float, float, float] | None = None,
        format: str | None = None,
        variant: str | None = None,
        store: Store | None = None,
        default: Any = _NO_DEFAULT,
    ) -> Any:
        """Return the thumbnail with the given size and look from the loaded rows; never the original.

        Pass the same values that the thumbnail was made with.

        Args:
            width: Width in pixels; without ``height``, any height matches.
            height: Height in pixels; without ``width``, any width matches.
            ratio: As for :meth:`generate_thumbnail`; requires the original.
            fit: As for :meth:`generate_thumbnail`.
            enlarge: As for :meth:`generate_thumbnail`.
            gravity: As for :meth:`generate_thumbnail`.
            crop: As for :meth:`generate_thumbnail`.
            format: As for :meth:`generate_thumbnail`.
            variant: As for :meth:`generate_thumbnail`.
            store: Ignored; accepted because the other methods of an image set take a store.
            default: The value to return if there is no such thumbnail, instead of raising an error.

        Raises:
            NoResultFound: There is no such thumbnail, and ``default`` is not given.
            NotLoadedError: The rows are not loaded.
        """
        recipe = Recipe(
            width=width,
            height=height,
            ratio=ratio,
            fit=fit,
            enlarge=enlarge,
            gravity=gravity,
            crop=crop,
            format=format,
            variant=variant,
        )
        images = self.images
        original = newest(images)
        found = find(images, original, focus(recipe, original))
        if found is None and {fit, gravity, crop, variant} == {None} and width is not None and height is not None:
            plain = focus(Recipe(width=width, format=format), original)
            look = plain.look("" if original is None else original.mimetype)
            found = match(images, original, width, height, variant_of(original, look, (width, height)))
        if found is not None:
            return found
        if default is not _NO_DEFAULT:
            return default
        raise NoResultFound(f"{self!r} has no thumbnail with {describe(recipe)}; create it with generate_thumbnail()")

    @overload
    def find_nearest_thumbnail(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        format: str | None = None,
        variant: str | None = None,
    ) -> I: ...
    @overload
    def find_nearest_thumbnail(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        format: str | None = None,
        variant: str | None = None,
        default: D,
    ) -> I | D: ...
    def find_nearest_thumbnail(
        self,
        width: int | None = None,
        height: int | None = None,
        *,
        format: str | None = None,
        variant: str | None = None,
        default: Any = _NO_DEFAULT,
    ) -> Any:
        """Return the smallest thumbnail that is large enough; never the original. Only loaded rows are searched.

        Only thumbnails of the whole image, or of the original's crop box, are considered, unless ``variant`` names a
        look.

        Args:
            width: The minimum width in pixels; ``None`` means any.
            height: The minimum height in pixels; ``None`` means any.
            format: The format that the thumbnail was made with.
            variant: The name of the look.
            default: The value to return if no thumbnail is large enough, such as the original, instead of raising an
                error.

        Raises:
            NoResultFound: No thumbnail is large enough, and ``default`` is not given.
            NotLoadedError: The rows are not loaded.
        """
        images = self.images
        original = newest(images)
        mimetype = "" if original is None else original.mimetype
        look = focus(Recipe(width=1, format=format, variant=variant), original).look(mimetype)
        looks = {look} if look else {look, FULL_SIZE}
        found = [
            row
            for row in images
            if not row.original
            and (row.variant in looks or look_of_row(row, original) in looks)
            and row.width >= (width or 0)
            and row.height >= (height or 0)
        ]
        if found:
            return min(found, key=lambda row: row.width * row.height)
        if default is not _NO_DEFAULT:
            return default
        size = ", ".join(f"{name}>={side}" for name, side in (("width", width), ("height", height)) if side is not None)
        raise NoResultFound(
            f"{self!r} has no thumbnail with {size or 'this look'}; create it with generate_thumbnail()"
        )
