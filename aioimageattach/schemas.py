"""Pydantic models of images, for JSON APIs. Needs Pydantic 2, which FastAPI brings along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from typing_extensions import TypeVar

from ._declared.html import compatible, fallback_of, srcset_of
from .entity import BaseImageSet, Image
from .exc import NoOriginalError
from .store import Store

__all__ = ["ImageOut", "ImageSetOut", "PictureOut", "ThumbnailOut"]


class ImageOut(BaseModel):
    """An image: a row, or the original of an image set.

    A field for several pictures is ``list[ImageOut]``, and one for a picture that may be missing is
    :data:`ImageSetOut`. Subclasses add fields, which are read from the image's attributes of the same names::

        class PhotoOut(ImageOut):
            caption: str

    The URL is that of the current store; ``model_validate(..., context={"store": store})`` names another one.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(from_attributes=True)

    url: Annotated[str, Field(json_schema_extra={"format": "uri-reference"})]
    """Where the file is."""
    width: Annotated[int, Field(ge=1)]
    """Width of the displayed picture, in pixels."""
    height: Annotated[int, Field(ge=1)]
    """Height of the displayed picture, in pixels."""
    mimetype: Annotated[str, Field(examples=["image/jpeg"])]
    """Type of the file."""
    alt: str
    """What the picture shows, in words; may be empty."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, BaseImageSet):
            value = _original(value)
            if value is None:
                raise NoOriginalError(
                    f"{cls.__name__}: the image set is empty; declare the field as ImageSetOut[{cls.__name__}]"
                )
        if isinstance(value, Image):
            return cls.values_of(value, (info.context or {}).get("store"))
        return value

    @classmethod
    def values_of(cls, image: Image, store: Store | None) -> dict[str, Any]:
        """Return the value of each field; override it for fields that are not attributes of the image.

        Args:
            image: The image.
            store: Its store; ``None`` for the current one.
        """
        names = [name for name in cls.model_fields if name != "url" and hasattr(image, name)]
        return {"url": image.locate(store), **{name: getattr(image, name) for name in names}}


class ThumbnailOut(BaseModel):
    """A declared thumbnail, in one format."""

    src: Annotated[str, Field(json_schema_extra={"format": "uri-reference"})]
    """Where the file for programs that cannot choose is."""
    srcset: str
    """The files to choose from, as in the HTML attribute of that name."""
    width: Annotated[int, Field(ge=1)]
    """Width of the file at ``src``, in pixels."""
    height: Annotated[int, Field(ge=1)]
    """Height of the file at ``src``, in pixels."""


class PictureOut(BaseModel):
    """A picture as its declared thumbnails show it: an image set, or the row of an original.

    It does not say where the original is. A field for several pictures is ``list[PictureOut]``, and one for a picture
    that may be missing is ``ImageSetOut[PictureOut]``.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(from_attributes=True)

    width: Annotated[int, Field(ge=1)]
    """Width of the displayed original, in pixels."""
    height: Annotated[int, Field(ge=1)]
    """Height of the displayed original, in pixels."""
    alt: str
    """What the picture shows, in words; may be empty."""
    colour: str | None
    """The dominant colour, such as ``"#1e90ff"``, if the class has the mixin ``Placeholder``."""
    placeholder: str | None
    """The thumbhash, in Base64, if the class has the mixin ``Placeholder``."""
    thumbnails: dict[str, ThumbnailOut]
    """The declared thumbnails by name."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, BaseImageSet):
            value = value.require_original()
        if not isinstance(value, Image):
            return value
        store = (info.context or {}).get("store")
        return {
            "width": value.width,
            "height": value.height,
            "alt": value.alt,
            "colour": getattr(value, "dominant_colour", None),
            "placeholder": getattr(value, "thumbhash", None),
            "thumbnails": dict(_thumbnails(value, store)),
        }


def _thumbnails(image: Image, store: Store | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in image.__thumbnails__:
        candidates = image.candidates(name, store=store)
        shown = fallback_of(candidates)
        if shown is not None:
            srcset = srcset_of(compatible(candidates))
            yield name, {"src": shown.url, "srcset": srcset, "width": shown.width, "height": shown.height}


def _original(value: Any) -> Any:
    return value.original if isinstance(value, BaseImageSet) else value


M = TypeVar("M", bound=ImageOut | PictureOut, default=ImageOut)

ImageSetOut = Annotated[M | None, BeforeValidator(_original)]
"""The original of an image set, or ``null`` if no picture is attached; ``ImageSetOut[PhotoOut]`` for a subclass."""
