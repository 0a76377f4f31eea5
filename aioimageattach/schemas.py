"""Pydantic models of images, for JSON APIs. Needs Pydantic 2, which FastAPI brings along."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from typing_extensions import TypeVar

from .entity import BaseImageSet, Image
from .exc import NoOriginalError
from .store import Store

__all__ = ["ImageOut", "ImageSetOut"]


class ImageOut(BaseModel):
    """An image: a row, or the original of an image set.

    A field for several pictures is ``list[ImageOut]``, and one for a picture that may be missing is
    :data:`ImageSetOut`. Subclasses add fields, which are read from the image's attributes of the same names::

        class PhotoOut(ImageOut):
            caption: str

    The URL is that of the current store; ``model_validate(..., context={"store": store})`` names another one.
    """

    model_config = ConfigDict(from_attributes=True)

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


def _original(value: Any) -> Any:
    return value.original if isinstance(value, BaseImageSet) else value


M = TypeVar("M", bound=ImageOut, default=ImageOut)

ImageSetOut = Annotated[M | None, BeforeValidator(_original)]
"""The original of an image set, or ``null`` if no picture is attached; ``ImageSetOut[PhotoOut]`` for a subclass."""
