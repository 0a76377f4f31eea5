"""Declarations of a class, and the files that follow from them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._declared import srcset
from aioimageattach._declared.framing import WHOLE
from aioimageattach._declared.srcset import Declaration, Srcset, declarations
from aioimageattach.exc import DeclarationError
from aioimageattach.imaging import ImageLimits, Recipe
from aioimageattach.imaging._limits import DEFAULT_LIMITS


def declared(what: Srcset | Recipe, limits: ImageLimits = DEFAULT_LIMITS) -> Declaration:
    """Return one declaration."""
    return declarations({"card": what}, "Photo", limits)["card"]


def tails(what: Srcset | Recipe, size: tuple[int, int] = (4000, 3000), mimetype: str = "image/jpeg") -> list[str]:
    """Return the ends of the file names of an original."""
    return [step.tail[1:] for step in declared(what).ladder(*size, mimetype).steps]


def widths(*declared: int, own: int, **options: Any) -> list[int]:
    """Return the widths of an original's files."""
    what = Srcset(declared, fallback=None, **options)
    return [int(tail.partition("x")[0]) for tail in tails(what, (own, own))]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (4000, [320, 640, 1280]),
        (1280, [320, 640, 1280]),
        (1279, [320, 640, 1279]),
        (704, [320, 640, 704]),
        (703, [320, 703]),
        (640, [320, 640]),
        (351, [351]),
        (200, [200]),
        (1, [1]),
    ],
)
def test_no_file_is_larger_than_the_original(own: int, expected: list[int]) -> None:
    """Wider files are omitted in favour of the original's own width, which also replaces a slightly smaller one."""
    assert widths(640, 320, 1280, own=own) == expected


@given(
    size=st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
    wanted=st.lists(st.integers(1, 5000), min_size=1, max_size=6, unique=True),
    aspect=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
    crop=st.none() | st.just((0.25, 0.1, 0.5, 0.5)),
)
def test_no_side_is_larger_than_the_original(
    size: tuple[int, int],
    wanted: list[int],
    aspect: tuple[int, int] | None,
    crop: tuple[float, float, float, float] | None,
) -> None:
    """Every declaration has a file; each has the size in its name, and none exceeds the original."""
    what = Srcset(wanted, aspect=aspect, crop=crop, fallback=None)
    declaration = declared(what)
    steps = declaration.ladder(*size, "image/jpeg").steps
    part = what.recipe.part(size)
    for step in steps:
        assert step.width <= part.width
        assert step.height <= part.height
        recipe = declaration.recipe_of(step, WHOLE)
        assert recipe.target(size, original="image/jpeg") == (step.width, step.height)
    assert len({step.width for step in steps}) == len(steps)
    assert [step.width for step in steps] == sorted(step.width for step in steps)
    assert steps


def test_vector_images_have_all_widths() -> None:
    """Vector images have no pixels that would limit the size."""
    assert tails(Srcset([320, 640], fallback="png"), (100, 50), "image/svg+xml") == [
        "320x160.webp",
        "640x320.webp",
        "640x320.png",
    ]


def test_a_shape_is_cut_out() -> None:
    """All files have the shape; the widest is as wide as the original allows."""
    assert tails(Srcset([48, 96], aspect=(2, 2))) == ["48x48.webp", "96x96.webp", "96x96.jpg"]
    assert tails(Srcset([300, 600], aspect=(3, 2)), (1000, 333)) == ["300x200.webp", "500x333.webp", "500x333.jpg"]


def test_formats_come_in_the_declared_order() -> None:
    """The best format comes first, each sorted by width; another file is for programs without these formats."""
    what = Srcset([320, 640, 1280, 1920], formats=["avif", "webp"])
    assert tails(what)[:5] == ["320x240.avif", "640x480.avif", "1280x960.avif", "1920x1440.avif", "320x240.webp"]
    ladder = declared(what).ladder(4000, 3000, "image/jpeg")
    assert ladder.fallback is not None
    assert ladder.fallback.tail == ".1280x960.jpg"
    assert {step.mimetype for step in ladder.compatible} == {"image/webp"}


def test_the_fallback_may_be_one_of_the_formats() -> None:
    """No additional file is made; by default, the middle file of the last format is the fallback."""
    for what in (Srcset([320, 640], formats=["webp", "jpg"]), Srcset([320, 640], formats=["jpeg"], fallback=None)):
        ladder = declared(what).ladder(4000, 3000, "image/jpeg")
        assert ladder.fallback is not None
        assert ladder.fallback.tail == ".640x480.jpg"
        assert [step is ladder.fallback for step in ladder.steps].count(True) == 1
        assert [step.tail for step in ladder.compatible] == [".320x240.jpg", ".640x480.jpg"]
        assert ladder.sources == ladder.formats


def test_the_fallback_alone_is_not_offered_as_a_format() -> None:
    """Browsers that support no other format load it anyway."""
    ladder = declared(Srcset([320], formats=["avif", "jpeg"])).ladder(4000, 3000, "image/jpeg")
    assert [[step.tail for step in steps] for steps in ladder.sources] == [[".320x240.avif"]]
    assert ladder.compatible == ladder.sources[0]
    alone = declared(Recipe(width=320)).ladder(4000, 3000, "image/jpeg")
    assert (alone.sources, alone.compatible) == ((), alone.steps)


@pytest.mark.parametrize(
    ("formats", "fallback", "expected"),
    [
        (["avif", "webp"], "jpeg", ["320x240.webp", "640x480.webp"]),
        (["avif"], "jpeg", ["320x240.webp", "640x480.webp"]),
        (["gif"], None, ["320x240.gif", "640x480.gif"]),
    ],
)
def test_animations_have_animated_formats_only(formats: list[str], fallback: str | None, expected: list[str]) -> None:
    """Browsers are not offered still images of an animation; other originals have all formats."""
    what = Srcset([320, 640], formats=formats, fallback=fallback, animated=True)
    assert tails(what, mimetype="image/gif") == expected
    assert "320x240.avif" in tails(Srcset([320], formats=["avif"], animated=True))


def test_a_recipe_is_one_file() -> None:
    """It is never larger than the original, whatever the recipe allows for thumbnails with rows."""
    what = Recipe(width=1200, height=630, format="jpeg")
    assert tails(what) == ["1200x630.jpg"]
    assert tails(what, (600, 400)) == ["600x315.jpg"]
    assert tails(Recipe(width=800), (600, 400), "image/png") == ["600x400.png"]
    assert tails(Recipe(ratio=0.5)) == ["2000x1500.jpg"]


def test_files_that_cannot_be_are_left_out() -> None:
    """WebP has no sides of 20,000 pixels, and a class may allow less; such files are not offered."""
    assert tails(Srcset([100, 300]), (300, 30_000)) == ["100x10000.webp", "100x10000.jpg"]
    narrow = ImageLimits(max_side=500)
    none = declared(Recipe(width=501), narrow).ladder(4000, 3000, "image/jpeg")
    assert (none.steps, none.fallback, none.compatible) == ((), None, ())
    assert declared(Srcset([501]), narrow).ladder(4000, 3000, "image/jpeg").steps == ()
    webp = declared(Srcset([300], formats=["jpeg"], fallback="webp")).ladder(300, 30_000, "image/jpeg")
    assert webp.fallback is not None
    assert webp.fallback.tail == ".300x30000.jpg"


def test_ladders_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of an original are calculated once per page, and requests for all sizes do not fill the memory."""
    monkeypatch.setattr(srcset, "_KEPT", 3)
    one = declared(Srcset([320]))
    assert one.ladder(100, 100, "image/jpeg") is one.ladder(100, 100, "image/jpeg")
    for width in range(1, 20):
        one.ladder(width, 100, "image/jpeg")
    assert len(one._ladders) <= 3


@pytest.mark.parametrize(
    ("what", "look"),
    [
        (Srcset([320], sizes="48px", formats=["avif"]), ""),
        (Srcset([320], aspect=(4, 2), gravity=(0.25, 0.5)), "aspect2x1.at25-50"),
        (
            Srcset([320], aspect=(1, 1), gravity="attention", quality=50, animated=True),
            "aspect1x1.attention.animated.q50",
        ),
        (
            Srcset([320], crop=(0, 0, 0.5, 0.5), filter="mitchell", variant="grey"),
            "crop0000000013881388.mitchell.as-grey",
        ),
        (Recipe(width=320, height=200, fit="contain", background=(0, 128, 255)), "contain.bg0080ff"),
        (Recipe(width=320, format="webp"), ""),
    ],
)
def test_looks_do_not_change(what: Srcset | Recipe, look: str) -> None:
    """The words that describe the processing are part of file names, without widths and formats."""
    assert declared(what).look == look


def test_declarations_are_told_apart() -> None:
    """A mark is valid only for exactly the declared files."""
    same = [Srcset([320, 640]), Srcset((640, 320), formats=("webp",), sizes="48px")]
    others = [
        Srcset([320]),
        Srcset([320, 640], formats=["avif"]),
        Srcset([320, 640], fallback=None),
        Srcset([320, 640], quality=50),
        Recipe(width=320),
        Recipe(width=640),
        Recipe(width=640, format="webp"),
    ]
    assert len({declared(what).digest for what in same}) == 1
    assert len({declared(what).digest for what in (*same, *others)}) == 1 + len(others)
    assert declared(same[0]).sizes is None
    assert declared(same[1]).sizes == "48px"
    assert declared(others[-1]).sizes is None
    assert "card" in repr(declared(same[0]))


def test_only_what_is_cropped_has_a_focal_point() -> None:
    """Otherwise a change of the point would rename files without need."""
    assert [
        declared(what).crops
        for what in (Srcset([1]), Srcset([1], aspect=(1, 1)), Recipe(width=1), Recipe(width=1, height=1))
    ] == [False, True, False, True]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"widths": []}, DeclarationError, "widths: expected a list"),
        ({"widths": "320"}, DeclarationError, "widths: expected a list"),
        ({"widths": 320}, DeclarationError, "widths: expected a list"),
        ({"widths": [320, 320]}, ValueError, "widths: expected different values"),
        ({"widths": [0]}, ValueError, "widths: expected 1 to"),
        ({"widths": [320], "formats": []}, DeclarationError, "formats: expected a list"),
        ({"widths": [320], "formats": ["jpg", "jpeg"]}, ValueError, "formats: expected different values"),
        ({"widths": [320], "formats": ["bmp"]}, ValueError, "format: expected one of"),
        ({"widths": [320], "fallback": "bmp"}, ValueError, "format: expected one of"),
        ({"widths": [320], "sizes": 48}, DeclarationError, "sizes: expected a str"),
        ({"widths": [320], "aspect": "1:1"}, DeclarationError, "aspect: expected width and height"),
        ({"widths": [320], "aspect": (1,)}, DeclarationError, "aspect: expected width and height"),
        ({"widths": [320], "aspect": (0, 1)}, ValueError, "aspect: expected 1 to"),
        ({"widths": [320], "gravity": "north"}, DeclarationError, "gravity: expected an aspect"),
        ({"widths": [320], "quality": 101}, ValueError, "quality: expected 1 to 100"),
    ],
)
def test_mistakes_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """Each mistake is rejected with the expected value."""
    with pytest.raises(error, match=message):
        Srcset(**arguments)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([Srcset([320])], "expected a dict"),
        ({"Card": Srcset([320])}, "expected names of 1 to 16"),
        ({"a-card": Srcset([320])}, "expected names of 1 to 16"),
        ({7: Srcset([320])}, "expected names of 1 to 16"),
        ({"card": [320]}, "expected a Srcset or a Recipe"),
        ({"card": Srcset([320], preprocess=print)}, "expected a variant"),
        ({"card": Recipe(width=320, postprocess=print)}, "expected a variant"),
    ],
)
def test_declarations_that_cannot_work_are_refused(found: Any, message: str) -> None:
    """The error names the class and what to write instead."""
    with pytest.raises(DeclarationError, match=rf"Photo\.__thumbnails__.*{message}"):
        declarations(found, "Photo", DEFAULT_LIMITS)


def test_a_callable_with_a_name_is_accepted() -> None:
    """The name is part of the look."""
    assert declared(Srcset([320], postprocess=print, variant="sepia")).look == "as-sepia"
    assert declared(Recipe(width=320, preprocess=print, variant="sepia")).look == "as-sepia"
