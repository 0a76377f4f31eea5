"""The looks of thumbnails: the name for the recipe of a thumbnail, and the search for it among loaded rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ..imaging._options import NAMES
from ..imaging._recipe import FULL_SIZE, Recipe
from ._image import Image
from ._mixins import crop_box_of, focal_point_of

__all__ = [
    "applied",
    "as_recipes",
    "describe",
    "find",
    "focus",
    "look_of",
    "look_of_row",
    "match",
    "variant_of",
]

I = TypeVar("I", bound=Image)  # noqa: E741


def as_recipes(recipes: Sequence[int | Recipe], *, enlarge: bool) -> list[Recipe]:
    """Convert widths in pixels to recipes; keep recipes as they are."""
    return [recipe if isinstance(recipe, Recipe) else Recipe(width=recipe, enlarge=enlarge) for recipe in recipes]


def focus(recipe: Recipe, original: Image | None) -> Recipe:
    """Apply the crop box and the focal point of the original, if it has them, to a recipe."""
    box, point = crop_box_of(original), focal_point_of(original)
    recipe = recipe if box is None else recipe.with_crop_box(box)
    return recipe if point is None else recipe.with_focal_point(point)


def applied(recipes: Sequence[Recipe], original: Image | None) -> list[Recipe]:
    """Apply the original's crop box and focal point to recipes.

    Recipes that make the same thumbnail become the same object.
    """
    recipes = [focus(recipe, original) for recipe in recipes]
    if original is None:
        return recipes
    size, mimetype = original.size, original.mimetype
    first: dict[tuple[tuple[int, int], str], Recipe] = {}
    return [
        first.setdefault((recipe.layout(size, mimetype).target, recipe.look(mimetype, size)), recipe)
        for recipe in recipes
    ]


def variant_of(original: Image | None, look: str, size: tuple[int, int]) -> str:
    """Return the variant of a thumbnail, which must differ from the original's if both have the same size."""
    return FULL_SIZE if not look and original is not None and original.size == size else look


def look_of(original: Image | None, mimetype: str) -> str:
    """Return the look of a plain thumbnail with the given MIME type that was made elsewhere."""
    if original is None:
        return ""
    plain = Recipe(width=1)
    if mimetype in (original.mimetype, plain.mimetype(original.mimetype)):
        return plain.look(original.mimetype)
    return NAMES.get(mimetype, "")


def look_of_row(row: Image, original: Image | None) -> str:
    """Return the look of a thumbnail. SQLAlchemy-ImageAttach left the variant empty for every MIME type."""
    return row.variant or look_of(original, row.mimetype)


def find(images: Sequence[I], original: I | None, recipe: Recipe) -> I | None:
    """Return the thumbnail that a recipe would make, if it exists."""
    if original is None:
        return None if recipe.ratio is not None else match(images, None, recipe.width, recipe.height, recipe.look(""))
    width, height = recipe.layout(original.size, original.mimetype).target
    both = recipe.ratio is not None or recipe.fit is not None
    return match(
        images,
        original,
        width if both or recipe.width is not None else None,
        height if both or recipe.height is not None else None,
        recipe.look(original.mimetype, original.size),
    )


def match(images: Sequence[I], original: I | None, width: int | None, height: int | None, look: str) -> I | None:
    """Return the thumbnail with the given size and look.

    If there is none and ``original`` is given, return one that SQLAlchemy-ImageAttach made, without a variant.
    """
    unnamed: list[I] = []
    for row in images:
        values = row.__dict__  # the values are loaded, and this is many times faster than attribute access
        same = width in (None, values["width"]) and height in (None, values["height"])
        if same and not values["original"]:
            if values["variant"] == look:
                return row
            if not values["variant"]:
                unnamed.append(row)
    if original is None:
        return None
    return next((row for row in unnamed if look_of(original, row.mimetype) == look), None)


def describe(recipe: Recipe) -> str:
    names = ("width", "height", "ratio", "fit", "gravity", "crop", "format", "variant")
    words = ((name, getattr(recipe, name)) for name in names)
    return ", ".join(f"{name}={value!r}" for name, value in words if value is not None)
