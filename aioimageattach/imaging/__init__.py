"""Image processing: limits, headers, sizes, thumbnails, previews and metadata.

This package does not depend on a database, a store or an event loop. Every function is synchronous and takes buffers;
call it in a worker thread. Importing the package does not load any decoder: libvips is loaded with the first image.
"""

from __future__ import annotations

from ._limits import ImageLimits
from ._metadata import strip_metadata
from ._probe import Probe, probe
from ._recipe import Recipe
from ._render import Rendering, render

__all__ = [
    "ImageLimits",
    "Probe",
    "Recipe",
    "Rendering",
    "probe",
    "render",
    "strip_metadata",
]
