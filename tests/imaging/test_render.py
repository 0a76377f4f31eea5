"""Thumbnails of real images: size, colours, orientation, formats, animations and callables."""

from __future__ import annotations

import io
import mmap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pyvips
from PIL import Image, ImageChops, ImageFilter, ImageStat

from aioimageattach.exc import DeclarationError, ImageTooLargeError, ProcessingError, UnreadableImageError
from aioimageattach.imaging import ImageLimits, Recipe, Rendering, probe, render
from aioimageattach.imaging._limits import KNOWN_TYPES
from aioimageattach.imaging._recipe import FORMATS, KERNELS
from tests import photos

ALL = ImageLimits(types=KNOWN_TYPES)
COMPLETE = ImageLimits(types=KNOWN_TYPES, verify="complete")


def one(data: bytes, limits: ImageLimits = ALL, **arguments: Any) -> Rendering:
    (rendering,) = render(data, [Recipe(**arguments)], limits)
    return rendering


def picture(rendering: Rendering) -> Image.Image:
    image = Image.open(io.BytesIO(rendering.blob))
    assert (rendering.width, rendering.height) == image.size
    assert rendering.mimetype == Image.MIME[image.format or ""]
    image.load()
    return image


def difference(first: Image.Image, second: Image.Image) -> float:
    """Return the mean difference of two images, 0 to 255."""
    assert first.size == second.size
    return sum(ImageStat.Stat(ImageChops.difference(first.convert("RGB"), second.convert("RGB"))).mean) / 3


@pytest.mark.parametrize("name", photos.NAMES)
def test_thumbnails_look_like_the_photograph(name: str) -> None:
    """Thumbnails of all photographs match those of an independent program."""
    rendering = one(photos.photo(name), width=150, format="png")
    expected = photos.opened(name).resize((150, rendering.height), Image.Resampling.LANCZOS)
    assert difference(expected, picture(rendering)) < 2.5
    saved = one(photos.photo(name), width=150)
    assert saved.mimetype == "image/jpeg"
    assert difference(expected, picture(saved)) < 8


@pytest.mark.parametrize("size", [(150, 113), (300, 225), (1200, 900)])
def test_large_photographs_lose_no_visible_detail(size: tuple[int, int]) -> None:
    """Shrinking while decoding loses no visible detail, and the profile is applied."""
    (rendering,) = render(photos.large(), [Recipe(width=size[0], format="png")])
    expected = one(photos.large(), width=size[0], format="png", preprocess=lambda image: image)
    assert size == picture(rendering).size
    assert difference(picture(expected), picture(rendering)) < 1.5


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, file_format: str) -> None:
    """The thumbnail is upright for every orientation, and contains no orientation."""
    data = photos.oriented(orientation, file_format)
    expected = photos.opened("chelsea").resize((90, 60), Image.Resampling.LANCZOS)
    plain, covered, cubic = render(
        data,
        [
            Recipe(width=90, format="png"),
            Recipe(width=50, height=60, format="png"),
            Recipe(width=90, filter="cubic", format="png"),
        ],
        ALL,
    )
    assert difference(expected, picture(plain)) < 3
    assert difference(expected.crop((20, 0, 70, 60)), picture(covered)) < 6
    assert difference(expected, picture(cubic)) < 4
    assert not picture(plain).getexif()


@pytest.mark.parametrize("target", sorted(FORMATS))
@pytest.mark.parametrize(
    "make",
    [
        photos.cmyk,
        photos.grey,
        photos.transparent_png,
        photos.deep_png,
        photos.palette_png,
        photos.animated_gif,
        photos.webp,
        photos.avif,
        photos.tiff,
        lambda: photos.SVG,
        photos.pdf,
    ],
)
def test_every_type_and_every_format(make: Callable[[], bytes], target: str) -> None:
    """Every kind of original has thumbnails of every format, of the requested size."""
    data = make()
    found = probe(data, ALL)
    rendering = one(data, width=40, format=target)
    assert (40, round(found.height * 40 / found.width + 1e-9)) == picture(rendering).size
    assert FORMATS[target] == rendering.mimetype


def test_metadata_is_left_out() -> None:
    """A thumbnail contains no location, profile or text of the original."""
    for target in ("jpeg", "png", "webp", "avif"):
        rendering = one(photos.large(), width=40, format=target)
        assert photos.GPS[0] not in rendering.blob
        assert b"Example Phones" not in rendering.blob
        info = picture(rendering).info
        assert not {"exif", "icc_profile", "xmp", "comment"} & {key for key, value in info.items() if value}


def test_a_wide_profile_is_converted_to_srgb() -> None:
    """The same values in Display P3 are a stronger red, which is clipped in sRGB."""
    plain = photos.saved(Image.new("RGB", (40, 40), (200, 60, 60)), "PNG")
    tagged = photos.saved(Image.new("RGB", (40, 40), (200, 60, 60)), "PNG", icc_profile=photos.DISPLAY_P3)
    for arguments in ({"width": 20}, {"width": 20, "filter": "linear"}):
        assert picture(one(plain, **arguments)).getpixel((9, 9)) == (200, 60, 60)
        red, green, blue = picture(one(tagged, **arguments)).getpixel((9, 9))  # type: ignore[misc]
        assert red > 210
        assert green < 50
        assert blue < 58


def test_16_bit_and_transparent_pictures() -> None:
    """16-bit values are rounded to 8 bits, and half transparent pixels stay half transparent."""
    image = picture(one(photos.deep_png(), width=80))
    assert image.mode == "RGBA"
    for seen, expected in zip(image.getpixel((40, 50)), (129, 78, 156, 128), strict=True):  # type: ignore[arg-type]
        assert abs(seen - expected) <= 2
    assert image.getpixel((40, 10))[3] == 255  # type: ignore[index]


def test_transparent_parts_become_the_background_in_jpeg() -> None:
    """JPEG has no alpha, so transparent parts have the background colour, even in grey images."""
    clear = photos.saved(Image.new("RGBA", (30, 20), (9, 9, 9, 0)), "PNG")
    assert picture(one(clear, width=10, format="jpeg")).getpixel((5, 3)) == (255, 255, 255)
    red, green, blue = picture(one(clear, width=10, format="jpeg", background=(255, 0, 0))).getpixel((5, 3))  # type: ignore[misc]
    assert (red > 250, green < 5, blue < 5) == (True, True, True)
    grey = photos.saved(Image.new("LA", (30, 20), (9, 0)), "PNG")
    assert picture(one(grey, width=10, format="jpeg", background=(100, 100, 100))).getpixel((5, 3)) == 100


def test_edges_of_transparent_parts_are_not_darkened() -> None:
    """Colours are weighted by alpha: a white disc on transparent black has white edges, with every kernel."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (0, 0, 31, 64))
    for kernel in ("lanczos3", "linear", "cubic"):
        small = picture(one(photos.saved(image, "PNG"), width=8, filter=kernel))
        seen = [small.getpixel((x, 4)) for x in range(8)]
        assert all(min(pixel[:3]) > 250 for pixel in seen if pixel[3] > 8)  # type: ignore[index]


def test_contain_adds_bars_of_the_background() -> None:
    """The whole image is centred, and the rest is background."""
    image = picture(
        one(photos.photo("coffee"), width=60, height=60, fit="contain", format="png", background=(9, 99, 200))
    )
    assert image.size == (60, 60)
    assert (9, 99, 200) == image.getpixel((30, 5)) == image.getpixel((30, 55))
    middle = photos.opened("coffee").resize((60, 40), Image.Resampling.LANCZOS)
    assert difference(middle, image.crop((0, 10, 60, 50))) < 3


@pytest.mark.parametrize(("background", "mode"), [((7, 7, 7), "L"), ((200, 0, 0), "RGB")])
def test_bars_of_grey_pictures(background: tuple[int, int, int], mode: str) -> None:
    """A grey image stays grey unless its bars have a colour."""
    image = picture(one(photos.grey(), width=60, height=30, fit="contain", format="png", background=background))
    assert mode == image.mode
    assert background == image.convert("RGB").getpixel((3, 15))


def test_bars_of_transparent_pictures_are_opaque() -> None:
    """The bars are opaque, even if the image is transparent."""
    image = picture(one(photos.transparent_png(), width=60, height=60, fit="contain"))
    assert image.getpixel((30, 3)) == (255, 255, 255, 255)


def test_fill_stretches() -> None:
    """The whole image is stretched to the box."""
    image = picture(one(photos.photo("coffee"), width=80, height=20, fit="fill", format="png"))
    assert difference(photos.opened("coffee").resize((80, 20), Image.Resampling.LANCZOS), image) < 3


def stripes() -> bytes:
    """Return an image of 90 x 90 as displayed, with nine areas of different greys: 20 to 180, row by row."""
    image = Image.new("L", (90, 90))
    for number in range(9):
        image.paste(20 + 20 * number, (number % 3 * 30, number // 3 * 30, number % 3 * 30 + 30, number // 3 * 30 + 30))
    return photos.saved(image, "PNG")


@pytest.mark.parametrize(
    ("gravity", "wide", "high"),
    [
        (None, (80, 100, 120), (40, 100, 160)),
        ("centre", (80, 100, 120), (40, 100, 160)),
        ("north", (20, 40, 60), (40, 100, 160)),
        ("bottom", (140, 160, 180), (40, 100, 160)),
        ("east", (80, 100, 120), (60, 120, 180)),
        ("southwest", (140, 160, 180), (20, 80, 140)),
        ((0.9, 0.1), (20, 40, 60), (60, 120, 180)),
    ],
)
def test_gravity(gravity: Any, wide: tuple[int, ...], high: tuple[int, ...]) -> None:
    """A wide and a high crop of nine squares keep the expected ones."""
    for filter_name in (None, "linear"):
        across = picture(one(stripes(), width=30, height=10, gravity=gravity, filter=filter_name, format="png"))
        assert wide == tuple(across.getpixel((x, 5)) for x in (5, 15, 25))
        down = picture(one(stripes(), width=10, height=30, gravity=gravity, filter=filter_name, format="png"))
        assert high == tuple(down.getpixel((5, y)) for y in (5, 15, 25))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_gravity_and_crop_boxes_are_those_of_the_displayed_picture(orientation: int, file_format: str) -> None:
    """For every orientation, alone and with others, the result equals Pillow's crop of the upright image."""
    data = photos.oriented(orientation, file_format)
    upright = photos.opened("chelsea")
    recipes = {
        Recipe(width=80, height=80, gravity=(0.8, 0.3), format="png"): (151, 0, 451, 300),
        Recipe(width=120, height=40, gravity="north", format="png"): (0, 0, 451, 150),
        Recipe(width=60, crop=(0.25, 0.1, 0.5, 0.4), format="png"): (113, 30, 338, 150),
        Recipe(width=50, height=50, crop=(0.25, 0.1, 0.5, 0.4), gravity="east", format="png"): (218, 30, 338, 150),
    }
    together = render(data, list(recipes), ALL)
    for rendering, (recipe, box) in zip(together, recipes.items(), strict=True):
        for seen in (picture(rendering), picture(render(data, [recipe], ALL)[0])):
            expected = upright.crop(box).resize(seen.size, Image.Resampling.LANCZOS)
            blurred = [
                each.filter(ImageFilter.GaussianBlur(2)) for each in (expected, seen)
            ]  # half a pixel may be missing
            assert difference(*blurred) < 4


@pytest.mark.parametrize("gravity", ["attention", "entropy"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_smart_crops(gravity: Any, side: str, orientation: int) -> None:
    """A face at the end of a grey wall is found, for every orientation, alone, with others, and in a crop box."""
    wall = Image.new("RGB", (900, 300), (120, 120, 120))
    face = photos.opened("astronaut").crop((150, 0, 330, 180)).resize((300, 300))
    wall.paste(face, (0 if side == "left" else 600, 0))
    stored = wall.rotate({1: 0, 6: 90, 8: 270}[orientation], expand=True)
    data = photos.saved(stored, "JPEG", quality=95, exif=photos.exif(orientation))
    recipe = Recipe(width=100, height=100, gravity=gravity, format="png")
    alone = render(data, [recipe])[0]
    shared = render(data, [Recipe(width=300), recipe, Recipe(width=100, filter="cubic")])[1]
    crop = (0.0, 0.0, 0.5, 1.0) if side == "left" else (0.5, 0.0, 0.5, 1.0)
    within = render(data, [Recipe(width=100, height=100, gravity=gravity, crop=crop, format="png")])[0]
    for rendering in (alone, shared, within):
        seen = picture(rendering)
        outer = [seen.crop((0, 0, 20, 100)), seen.crop((80, 0, 100, 100))]
        assert all(max(ImageStat.Stat(part.convert("L")).stddev) > 5 for part in outer)  # the face fills the thumbnail


def test_smart_crops_of_animations() -> None:
    """All frames of an animation are cropped at the same position."""
    frames = []
    for number in range(4):
        frame = Image.new("RGB", (300, 100), (90, 90, 90))
        frame.paste(photos.opened("astronaut").crop((150, 0, 330, 180)).resize((90, 90)), (200, 5))
        frame.paste((255, 0, 0), (200 + number * 20, 92, 208 + number * 20, 98))
        frames.append(frame)
    first, *rest = frames
    data = photos.saved(first, "WEBP", save_all=True, append_images=rest, duration=80, lossless=True)
    image = picture(one(data, width=80, height=80, gravity="attention", animated=True, quality=100))
    seen = []
    for number in range(4):
        image.seek(number)
        seen.append(image.convert("RGB").crop((20, 20, 60, 60)))
    assert all(difference(seen[0], frame) < 2 for frame in seen)
    assert ImageStat.Stat(seen[0].convert("L")).stddev[0] > 10


def test_large_thumbnails_of_small_parts() -> None:
    """A large thumbnail of a hundredth of the image is decoded at the file's own size, with others or alone."""
    tiny = Recipe(width=500, crop=(0.5, 0.5, 0.01, 0.01), format="png")
    plain = Recipe(width=300, format="png")
    first, second, third = render(photos.large(), [tiny, plain, Recipe(width=150, format="png")])
    assert picture(first).size == (500, 375)
    assert picture(second).size == (300, 225)
    assert difference(picture(first), photos.grained().crop((2000, 1500, 2040, 1530)).resize((500, 375))) < 12
    assert difference(picture(second), picture(render(photos.large(), [plain])[0])) < 1.5
    assert difference(picture(third), picture(render(photos.large(), [Recipe(width=150, format="png")])[0])) < 1.5


def test_nothing_is_enlarged_on_request() -> None:
    """No thumbnail has more pixels than its original, with every fit; drawings are painted larger."""
    recipes = [
        Recipe(width=9000, enlarge=False),
        Recipe(ratio=3, enlarge=False),
        Recipe(width=900, height=900, enlarge=False),
        Recipe(width=900, height=900, fit="contain", enlarge=False),
        Recipe(width=900, height=900, fit="fill", enlarge=False),
        Recipe(width=900, height=900, fit="inside", enlarge=False),
    ]
    sizes = [picture(rendering).size for rendering in render(photos.photo("chelsea"), recipes)]
    assert sizes == [(451, 300), (451, 300), (300, 300), (451, 451), (300, 300), (451, 300)]
    assert picture(one(photos.SVG, width=480, enlarge=False)).size == (480, 240)


def test_a_thumbnail_of_the_originals_own_size_is_not_the_original() -> None:
    """A thumbnail in the original's size has the same pixels, but no location, no profile, and 8 bits."""
    [same] = render(photos.png(), [Recipe(ratio=1)])
    image = picture(same)
    assert image.size == (451, 300)
    assert photos.GPS[0] not in same.blob
    assert b"private" not in same.blob
    assert not image.info.get("icc_profile")
    assert same.blob != photos.png()
    assert one(photos.deep_png(), ratio=1).blob[24] == 8  # bit depth in IHDR


@pytest.mark.parametrize("target", sorted(FORMATS))
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 3)])
def test_extreme_proportions(size: tuple[int, int], target: str) -> None:
    """A line of pixels has thumbnails in every format and fit."""
    data = photos.saved(Image.new("RGB", size, (10, 200, 30)), "PNG")
    recipes = [Recipe(width=5, height=5, fit=fit, format=target) for fit in ("cover", "contain", "fill", "inside")]  # type: ignore[arg-type]
    recipes += [Recipe(ratio=0.01, format=target), Recipe(width=4, height=4, crop=(0.4, 0.4, 0.1, 0.1), format=target)]
    recipes += [Recipe(width=5, height=4, gravity=name, format=target) for name in ("attention", "entropy")]  # type: ignore[arg-type]
    for rendering in render(data, recipes):
        assert min(picture(rendering).size) >= 1
        assert max(picture(rendering).size) <= 30


@pytest.mark.parametrize("name", KERNELS)
def test_filters_resize_exactly(name: str) -> None:
    """Each filter produces the requested size, when reducing and when enlarging."""
    for width in (33, 700):
        image = picture(one(photos.photo("chelsea"), width=width, filter=name))
        expected = photos.opened("chelsea").resize(image.size, Image.Resampling.BICUBIC)
        assert difference(expected, image) < 12


def test_quality() -> None:
    """A higher quality gives larger files, and the defaults are in between."""
    for target in ("jpeg", "webp", "avif"):
        low, usual, high = (
            len(one(photos.photo("coffee"), width=200, format=target, quality=quality).blob)
            for quality in (20, None, 95)
        )
        assert low < usual < high


def test_results_have_the_requested_order() -> None:
    """One decode gives all results, in the requested order, including duplicates."""
    recipes = [
        Recipe(width=60),
        Recipe(width=240),
        Recipe(width=60, height=60),
        Recipe(width=60, filter="nearest"),
        Recipe(width=60),
        Recipe(height=30, format="png"),
    ]
    done = render(photos.large(6), recipes)
    assert recipes == [rendering.recipe for rendering in done]
    assert [picture(item).size for item in done] == [(60, 80), (240, 320), (60, 60), (60, 80), (60, 80), (23, 30)]
    assert done[0].blob == done[4].blob
    assert render(photos.large(), []) == []


def test_sharing_a_decode() -> None:
    """Thumbnails made from a larger one are as good as those made alone."""
    widths = (600, 300, 150)
    together = render(photos.large(), [Recipe(width=width, format="png") for width in widths])
    for width, rendering in zip(widths, together, strict=True):
        assert difference(picture(one(photos.large(), width=width, format="png")), picture(rendering)) < 1.5


def test_covers_of_lines() -> None:
    """A strip is cropped before it is resized, because at that scale it would have gigapixels."""
    data = photos.saved(Image.new("RGB", (2, 20_000), (1, 2, 3)), "PNG")
    first, second = render(data, [Recipe(width=500, height=500), Recipe(width=400, height=400)])
    assert picture(first).size == (500, 500)
    assert picture(second).size == (400, 400)


@pytest.mark.parametrize("make", [photos.animated_gif, photos.animated_webp])
@pytest.mark.parametrize("target", ["gif", "webp"])
def test_animations_are_kept_on_request(make: Callable[[], bytes], target: str) -> None:
    """All frames are kept with their durations and resized separately; otherwise only the first one is kept."""
    moving, still = render(make(), [Recipe(width=80, animated=True, format=target), Recipe(width=80, format=target)])
    image = picture(moving)
    assert image.n_frames == 5  # type: ignore[attr-defined]
    assert image.info["loop"] == 0
    original = Image.open(io.BytesIO(make()))
    for frame in range(5):
        image.seek(frame)
        original.seek(frame)
        image.load()
        assert image.info["duration"] == 80
        assert difference(original.convert("RGB").resize((80, 54), Image.Resampling.LANCZOS), image) < 12
    assert getattr(picture(still), "n_frames", 1) == 1


def test_crops_and_callables_with_animations() -> None:
    """Crops and callables are applied to each frame."""
    seen: list[tuple[int, int]] = []

    def note(image: pyvips.Image) -> pyvips.Image:
        seen.append((image.width, image.height))
        return image.fliphor()

    moving = one(photos.animated_gif(), width=40, height=40, animated=True, format="webp", postprocess=note)
    assert picture(moving).n_frames == 5  # type: ignore[attr-defined]
    assert seen == [(40, 40)] * 5


def test_animated_with_still_images() -> None:
    """A photograph is not animated, and an animation becomes a still image in a format without animation."""
    assert one(photos.photo("rocket"), width=20, animated=True).mimetype == "image/jpeg"
    assert getattr(picture(one(photos.webp(), width=20, animated=True)), "n_frames", 1) == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ImageLimits(max_animated_frames=4), "max_animated_frames"),
        (ImageLimits(max_pixels=5 * 320 * 214 - 1), "5 frames of 320 x 214"),
    ],
)
def test_animations_have_limits(limits: ImageLimits, message: str) -> None:
    """Frames, and the pixels of all frames, are limited; a thumbnail of the first frame is still possible."""
    with pytest.raises(ImageTooLargeError, match=message):
        one(photos.animated_gif(), limits, width=20, animated=True)
    assert one(photos.animated_gif(), limits, width=20).width == 20


def test_frames_of_different_sizes_are_refused() -> None:
    """Callables must return frames of equal size."""
    sizes = iter(range(10, 20))
    with pytest.raises(ProcessingError, match="the same size and number of bands"):
        one(photos.animated_gif(), width=40, animated=True, postprocess=lambda image: image.crop(0, 0, next(sizes), 10))


def test_preprocess_gets_the_whole_upright_picture() -> None:
    """``preprocess`` can read the whole upright image repeatedly, and its result is resized."""
    seen = []

    def face(image: pyvips.Image) -> pyvips.Image:
        seen.append(
            (image.width, image.height, image.interpretation, image.format, round(image.avg()), round(image.max()))
        )
        return image.crop(100, 50, 200, 100)

    rendering = one(photos.oriented(6), width=50, preprocess=face, format="png")
    assert [entry[:4] for entry in seen] == [(451, 300, "srgb", "uchar")]
    assert picture(rendering).size == (50, 25)
    expected = photos.opened("chelsea").crop((100, 50, 300, 150)).resize((50, 25), Image.Resampling.LANCZOS)
    assert difference(expected, picture(rendering)) < 5


def test_the_result_of_postprocess_is_saved() -> None:
    """The result of ``postprocess`` is saved, with any size and colours."""
    rendering = one(
        photos.photo("chelsea"), width=50, postprocess=lambda image: image.colourspace("b-w").embed(2, 2, 60, 40)
    )
    assert picture(rendering).size == (60, 40)
    assert picture(rendering).mode == "L"
    deep = one(photos.photo("chelsea"), width=50, format="png", postprocess=lambda image: image.colourspace("rgb16"))
    assert difference(picture(one(photos.photo("chelsea"), width=50, format="png")), picture(deep)) < 1


@pytest.mark.parametrize("label", ["preprocess", "postprocess"])
def test_results_of_callables_are_checked(label: str) -> None:
    """A result that is not an image, cannot be computed or is too large raises an error of this library."""
    data = photos.photo("chelsea")
    with pytest.raises(DeclarationError, match=f"{label}: expected a callable that returns a pyvips.Image, got None"):
        one(data, width=10, **{label: lambda image: None})
    with pytest.raises(ProcessingError, match=f"{label}: libvips could not compute"):
        one(data, width=10, **{label: lambda image: image.crop(0, 0, 10_000, 10)})
    with pytest.raises(ImageTooLargeError, match="max_side"):
        one(data, width=10, **{label: lambda image: image.embed(0, 0, 31_000, 1)})


def test_errors_of_callables_pass_through() -> None:
    """Errors raised by the user's code propagate unchanged."""

    def fail(image: pyvips.Image) -> pyvips.Image:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        one(photos.photo("chelsea"), width=10, postprocess=fail)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize(
    "make",
    [
        lambda: photos.photo("coffee"),
        photos.progressive,
        photos.png,
        lambda: photos.saved(photos.opened("coffee"), "GIF"),
        photos.webp,
        photos.avif,
        photos.tiff,
    ],
)
def test_truncated_pictures_are_rejected_on_request(make: Callable[[], bytes], share: float) -> None:
    """With ``verify="complete"``, a truncated file raises an error when it is attached and rendered."""
    data = make()
    assert probe(data, COMPLETE).frames == 1
    for read in (lambda cut: probe(cut, COMPLETE), lambda cut: one(cut, COMPLETE, width=400)):
        with pytest.raises(UnreadableImageError):
            read(data[: int(len(data) * share)])


def test_thumbnails_have_limits_too() -> None:
    """A thumbnail beyond the limits is rejected."""
    with pytest.raises(ImageTooLargeError, match="expected a thumbnail of at most"):
        one(photos.photo("chelsea"), ImageLimits(max_side=500), width=501)


def test_time_is_limited() -> None:
    """Decoding that takes too long is stopped, and the error states the limit in seconds."""
    with pytest.raises(ImageTooLargeError, match=r"within 0.001 seconds") as caught:
        one(photos.large(), ImageLimits(timeout=0.001), width=2000)
    assert caught.value.limit == 0.001
    assert one(photos.photo("chelsea"), ImageLimits(timeout=None), width=40).width == 40


def test_the_timer_ends_with_the_work() -> None:
    """The timer thread ends with the work."""
    before = threading.active_count()
    for _ in range(5):
        one(photos.photo("chelsea"), width=40)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
    assert before == threading.active_count()


def test_mapped_files_can_be_closed_afterwards(tmp_path: Path) -> None:
    """No reference to the file remains after rendering."""
    path = tmp_path / "large.jpg"
    path.write_bytes(photos.large())
    for _ in range(3):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert render(mapped, [Recipe(width=100)])[0].width == 100  # type: ignore[arg-type]
            assert not mapped.closed
        assert one(photos.photo("chelsea"), width=50).width == 50


def test_concurrent_threads() -> None:
    """Concurrent images, valid and damaged, each get the right result."""
    good, broken = photos.photo("coffee"), photos.photo("rocket")[:20_000]
    expected = one(good, width=64).blob

    def work(number: int) -> bytes | None:
        try:
            return one(broken if number % 3 == 0 else good, COMPLETE, width=64).blob
        except UnreadableImageError:
            return None

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(30)))
    assert [None if number % 3 == 0 else expected for number in range(30)] == results
