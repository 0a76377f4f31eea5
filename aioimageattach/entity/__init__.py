"""Image rows, image sets, and the attachment that gives them to an owner."""

from __future__ import annotations

from ..key import VECTOR_TYPES
from . import declaration as declaration  # checks attachments when mappers are configured
from . import flush as flush  # registers its handler of the session's flushes
from .attachment import image_attachment
from .image import Image
from .imageset import BaseImageSet
from .mixins import FocalPoint, Placeholder, ThumbnailMarks
from .multiple import ImageSubset, MultipleImageSet
from .single import ImageSet, SingleImageSet

__all__ = [
    "VECTOR_TYPES",
    "BaseImageSet",
    "FocalPoint",
    "Image",
    "ImageSet",
    "ImageSubset",
    "MultipleImageSet",
    "Placeholder",
    "SingleImageSet",
    "ThumbnailMarks",
    "image_attachment",
]
