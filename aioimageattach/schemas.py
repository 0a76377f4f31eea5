"""Pydantic models of images, for JSON APIs. Requires Pydantic 2, which FastAPI installs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from typing_extensions import TypeVar

from .entity import BaseImageSet, Image
from .entity._derived import declarations_of
from .entity._markup import links_of
from .exc import NoOriginalError
from .store import Store

__all__ = ["ImageOut", "ImageSetOut", "PictureOut", "ThumbnailOut"]


class _FromImage(BaseModel):
    """A model of an image: a row, or the original of an image set."""

    model_config: ClassVar[ConfigDict] = ConfigDict(from_attributes=True)

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
    @abstractmethod
    def values_of(cls, image: Image, store: Store | None) -> dict[str, Any]:
        """Return the value of each field by name."""


class ImageOut(_FromImage):
    """An image: a row, or the original of an image set.

    Declare a field for several images as ``list[ImageOut]``, and a field for an optional image as
    :data:`ImageSetOut`. Subclasses can add fields, which are read from the image's attributes of the same names::

        class PhotoOut(ImageOut):
            caption: str

    The current store builds the URL. To use another store, pass it as
    ``model_validate(..., context={"store": store})``.
    """

    url: Annotated[str, Field(json_schema_extra={"format": "uri-reference"})]
    """URL of the file."""
    width: Annotated[int, Field(ge=1)]
    """Width of the displayed image, in pixels."""
    height: Annotated[int, Field(ge=1)]
    """Height of the displayed image, in pixels."""
    mimetype: Annotated[str, Field(examples=["image/jpeg"])]
    """MIME type of the file."""
    alt: str
    """Alternative text; may be empty."""

    @classmethod
    def values_of(cls, image: Image, store: Store | None) -> dict[str, Any]:
        """Return the value of each field by name. Override this for fields that are not attributes of the image.

        Args:
            image: The image to read.
            store: The store of the image; ``None`` means the current store.
        """
        names = [name for name in cls.model_fields if name != "url" and hasattr(image, name)]
        return {"url": image.locate(store), **{name: getattr(image, name) for name in names}}


class ThumbnailOut(BaseModel):
    """A declared thumbnail in one format."""

    src: Annotated[str, Field(json_schema_extra={"format": "uri-reference"})]
    """URL of the fallback file, for clients that do not support ``srcset``."""
    srcset: str
    """Value of the HTML attribute ``srcset``."""
    width: Annotated[int, Field(ge=1)]
    """Width of the file at ``src``, in pixels."""
    height: Annotated[int, Field(ge=1)]
    """Height of the file at ``src``, in pixels."""


class PictureOut(_FromImage):
    """An image and its declared thumbnails, read from an image set or from the row of an original.

    It does not contain the URL of the original. Declare a field for several images as ``list[PictureOut]``, and a
    field for an optional image as ``ImageSetOut[PictureOut]``. Subclasses can add fields, as for :class:`ImageOut`.
    """

    width: Annotated[int, Field(ge=1)]
    """Width of the displayed original, in pixels."""
    height: Annotated[int, Field(ge=1)]
    """Height of the displayed original, in pixels."""
    alt: str
    """Alternative text; may be empty."""
    colour: str | None
    """Dominant colour, such as ``"#1e90ff"``, if the class has the mixin ``Placeholder``."""
    placeholder: str | None
    """ThumbHash in Base64, if the class has the mixin ``Placeholder``."""
    thumbnails: dict[str, ThumbnailOut]
    """Declared thumbnails by name."""

    @classmethod
    def values_of(cls, image: Image, store: Store | None) -> dict[str, Any]:
        """Return the value of each field by name. Override this for fields that are not attributes of the image.

        Args:
            image: The original to read.
            store: The store of the original; ``None`` means the current store.
        """
        return {name: getattr(image, name) for name in cls.model_fields if hasattr(image, name)} | {
            "colour": getattr(image, "dominant_colour", None),
            "placeholder": getattr(image, "thumbhash", None),
            "thumbnails": dict(_thumbnails(image, store)),
        }


def _thumbnails(image: Image, store: Store | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, declaration in declarations_of(type(image)).items():
        links = links_of(image, declaration, store)
        if links is not None:
            shown, srcset = links.shown, links.srcset(links.ladder.compatible)
            yield name, {"src": links.url, "srcset": srcset, "width": shown.width, "height": shown.height}


def _original(value: Any) -> Any:
    return value.original if isinstance(value, BaseImageSet) else value


M = TypeVar("M", bound=ImageOut | PictureOut, default=ImageOut)

ImageSetOut = Annotated[M | None, BeforeValidator(_original)]
"""The original of an image set, or ``null`` if no image is attached; ``ImageSetOut[PhotoOut]`` for a subclass."""
