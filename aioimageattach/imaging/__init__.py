"""Pictures in, pictures out: limits, sizes, headers, thumbnails, metadata.

Nothing here knows of a database, a store or an event loop: every function is synchronous and takes buffers, and belongs
into a worker thread. Importing it loads no decoder; libvips comes with the first picture.
"""

from __future__ import annotations

from ._limits import DEFAULT_LIMITS, ImageLimits
from ._metadata import strip_metadata
from ._preview import Preview
from ._probe import Probe, probe
from ._recipe import Fit, Gravity, Recipe
from ._render import Rendering, render, render_with_preview

__all__ = [
    "DEFAULT_LIMITS",
    "Fit",
    "Gravity",
    "ImageLimits",
    "Preview",
    "Probe",
    "Recipe",
    "Rendering",
    "probe",
    "render",
    "render_with_preview",
    "strip_metadata",
]
