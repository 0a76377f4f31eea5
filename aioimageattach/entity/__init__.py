"""Image rows, image sets, and the attachment that connects them to an owner."""

from __future__ import annotations

from ..key import VECTOR_TYPES
from . import _declaration as _declaration  # checks attachments when mappers are configured
from . import _flush as _flush  # registers its handler of the session's flushes
from ._attachment import image_attachment
from ._image import Image
from ._imageset import BaseImageSet
from ._mixins import CropBox, FocalPoint, Placeholder, ThumbnailMarks
from ._multiple import ImageSubset, MultipleImageSet
from ._single import ImageSet, SingleImageSet

__all__ = [
    "VECTOR_TYPES",
    "BaseImageSet",
    "CropBox",
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
