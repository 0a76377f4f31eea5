"""Compare renderings of your own files with those of other decoders: ``python -m tests.fuzz.corpus FOLDER...``.

Each file below the folders is read with all types allowed, and reduced to a width of 64 pixels. It is *accepted* or
*rejected*, with the error; an accepted one is compared with Pillow, pillow-heif (HEIC) or resvg (SVG, if it is
installed), and listed if it is *rendered differently*.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image, ImageChops, ImageCms, ImageFile, ImageFilter, ImageOps, ImageStat

from aioimageattach.exc import ImageError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from aioimageattach.imaging._limits import KNOWN_TYPES

LIMITS: Final = ImageLimits(types=KNOWN_TYPES)
SIDE: Final = 64
MOST_DIFFERENCE: Final = 12.0
"""Largest accepted mean difference of two renderings in any colour, 0 to 255."""
SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".apng", ".gif", ".webp", ".avif", ".avifs", ".heic", ".heif", ".hif", ".tif"}
    | {".tiff", ".svg", ".bmp", ".ico", ".jp2", ".psd"}
)


def files(folders: list[str]) -> Iterator[Path]:
    """Yield files with the extension of an image, once per content."""
    seen: set[bytes] = set()
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                if data not in seen:
                    seen.add(data)
                    yield path


def by_others(data: bytes, mimetype: str, size: tuple[int, int]) -> Image.Image | None:
    """Return the image at this size, rendered by another decoder; ``None`` if that does not read it either."""
    try:
        if mimetype == "image/svg+xml":
            import resvg_py

            png = resvg_py.svg_to_bytes(svg_string=data.decode(), width=size[0], height=size[1], dpi=96)
            return Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize(size)
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return in_srgb(ImageOps.exif_transpose(picture)).resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
    except Exception:  # each decoder has its own errors for files that it does not read
        return None


def in_srgb(picture: Image.Image) -> Image.Image:
    """Return the image with its colour profile applied, if lcms can do so, and premultiplied alpha."""
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    profile = picture.info.get("icc_profile")
    if profile and picture.mode in ("RGB", "RGBA", "CMYK", "L"):
        try:
            picture = ImageCms.profileToProfile(  # type: ignore[assignment]
                picture.convert("RGB") if picture.mode == "RGBA" else picture,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
            )
        except ImageCms.PyCMSError:
            pass
    picture = picture.convert("RGB")
    if alpha is not None:
        picture.putalpha(alpha)
    return picture.convert("RGBA")


def difference(first: Image.Image, second: Image.Image) -> float:
    """Return the difference of two images on white, ignoring shifts by one pixel."""

    def on_white(picture: Image.Image) -> Image.Image:
        canvas = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(canvas, picture.convert("RGBA")).convert("RGB").filter(ImageFilter.BoxBlur(1))

    return max(ImageStat.Stat(ImageChops.difference(on_white(first), on_white(second))).mean)


def examine(data: bytes) -> tuple[str, str]:
    """Return the result for a file in one word, and the reason."""
    try:
        found = probe(data, LIMITS)
    except UnsupportedImageError as error:
        return "refused: not read here", str(error)
    except UnreadableImageError as error:
        return "refused: broken", str(error)
    except ImageError as error:
        return "refused: too large", str(error)
    try:
        (made,) = render(data, [Recipe(width=min(SIDE, found.width), format="png")], LIMITS)
    except ImageError as error:
        return "accepted, without a thumbnail", str(error)
    shown = Image.open(io.BytesIO(made.blob)).convert("RGBA")
    expected = by_others(data, found.mimetype, shown.size)
    if expected is None:
        return "accepted, not read by others", found.mimetype
    value = difference(shown, expected)
    if value > MOST_DIFFERENCE:
        return "rendered differently", f"{found.mimetype}, {value:.0f} of 255"
    return "accepted, rendered alike", found.mimetype


def main(folders: list[str]) -> int:
    """Print the files that are rendered differently, and the number of files of each kind."""
    warnings.simplefilter("ignore")
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    Image.MAX_IMAGE_PIXELS = None
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        print("pillow-heif is not installed: HEIC is not compared")
    counts: Counter[str] = Counter()
    for path in files(folders):
        verdict, why = examine(path.read_bytes())
        counts[verdict] += 1
        if verdict != "accepted, rendered alike":
            print(f"{verdict}: {path}: {why}")
    print()
    for verdict, count in counts.most_common():
        print(f"{count:7,} {verdict}")
    print(f"{counts.total():7,} files")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
