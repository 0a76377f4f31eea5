"""The HTML of images."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from typing import Any

import markupsafe
import pytest

from aioimageattach._declared.html import Html, Links, background, fallback_element, img_element, picture_element
from aioimageattach._declared.srcset import Ladder, Step
from aioimageattach.exc import DeclarationError
from aioimageattach.imaging import Recipe

AVIF = Step(Recipe(width=320), 320, 240, "image/avif", ".320x240.avif")
SMALL = Step(Recipe(width=320), 320, 240, "image/webp", ".320x240.webp")
LARGE = Step(Recipe(width=640), 640, 480, "image/webp", ".640x480.webp")
FALLBACK = Step(Recipe(width=640), 640, 480, "image/jpeg", ".640x480.jpg")


def links(*formats: tuple[Step, ...]) -> Links:
    """Return files with their URLs, which are escaped."""
    ladder = Ladder(formats, FALLBACK)
    return Links(ladder, FALLBACK, {one.tail: f"/t/a{one.tail}?x=1&amp;y=2" for one in ladder.steps})


class Elements(HTMLParser):
    """Collects elements and their attributes."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.found.append((tag, dict(attrs)))


def img(*offered: Step, alt: str = "", colour: str | None = None, **attributes: Any) -> dict[str, str | None]:
    """Return the attributes of an element."""
    [(tag, found)] = Elements(
        img_element(links(offered), offered, sizes="50vw", alt=alt, colour=colour, attributes=attributes)
    ).found
    assert tag == "img"
    return found


def test_a_browser_chooses_by_width() -> None:
    """The browser gets the files with their widths, and the displayed width."""
    assert img(SMALL, LARGE, alt='A "cat" & <dog>') == {
        "src": "/t/a.640x480.jpg?x=1&y=2",
        "srcset": "/t/a.320x240.webp?x=1&y=2 320w, /t/a.640x480.webp?x=1&y=2 640w",
        "sizes": "50vw",
        "width": "640",
        "height": "480",
        "alt": 'A "cat" & <dog>',
        "loading": "lazy",
        "decoding": "async",
    }


def test_without_a_choice_there_are_no_widths() -> None:
    """HTML forbids ``sizes`` without a choice of widths."""
    assert img(FALLBACK).keys() & {"srcset", "sizes"} == set()
    assert img().keys() & {"srcset", "sizes"} == set()
    assert img(SMALL)["srcset"] == "/t/a.320x240.webp?x=1&y=2"
    assert "sizes" not in img(SMALL)


def test_a_picture_of_a_fixed_width() -> None:
    """The width is that of ``sizes``, whichever file is loaded, so that the layout does not shift."""
    [(_, found)] = Elements(img_element(links(), (), sizes="50px", alt="", colour=None, attributes={})).found
    assert (found["width"], found["height"]) == ("50", "38")


def test_attributes_are_passed_through() -> None:
    """They take precedence, and names that are not Python identifiers have an alternative spelling."""
    found = img(class_="card", data_id=7, hidden=True, itemprop=None, draggable=False, loading="eager", decoding=None)
    assert (found["class"], found["data-id"], found["hidden"], found["loading"]) == ("card", "7", None, "eager")
    assert found.keys() & {"itemprop", "draggable", "decoding"} == set()
    assert img(**{"class": '"><script>'})["class"] == '"><script>'
    assert (img(width=7)["width"], img(alt='"', src="/b")["src"]) == ("7", "/b")
    with pytest.raises(DeclarationError, match="the name of an HTML attribute"):
        img(**{"onload x": "1"})


def test_what_is_urgent_is_not_loaded_lazily() -> None:
    """With ``fetchpriority="high"`` the image is not loaded lazily."""
    found = img(fetchpriority="high")
    assert found["fetchpriority"] == "high"
    assert "loading" not in found
    assert img(fetchpriority="low")["loading"] == "lazy"


def test_the_background_goes_before_other_styles() -> None:
    """A style of the application may override it."""
    assert img(colour="#1e90ff")["style"] == "background-color:#1e90ff"
    assert img(colour="#1e90ff", style="border:0")["style"] == "background-color:#1e90ff;border:0"


def test_a_picture_offers_each_format() -> None:
    """Each format is offered by type, in the given order, before the fallback element."""
    html = picture_element(links((AVIF,), (SMALL, LARGE), (FALLBACK,)), "50vw", "<img>")
    assert Elements(html).found == [
        ("picture", {}),
        ("source", {"type": "image/avif", "srcset": "/t/a.320x240.avif?x=1&y=2"}),
        (
            "source",
            {
                "type": "image/webp",
                "srcset": "/t/a.320x240.webp?x=1&y=2 320w, /t/a.640x480.webp?x=1&y=2 640w",
                "sizes": "50vw",
            },
        ),
        ("img", {}),
    ]
    assert html.endswith("<img></picture>")


def test_a_picture_for_none() -> None:
    """The fallback image has the attributes of the call."""
    assert Elements(fallback_element("/none.svg", "Nobody", {"class_": "card"})).found == [
        ("img", {"src": "/none.svg", "alt": "Nobody", "loading": "lazy", "decoding": "async", "class": "card"})
    ]


def test_templates_do_not_escape_markup() -> None:
    """The markup is already escaped."""
    html = Html("<img>")
    assert markupsafe.escape(html) == "<img>"
    assert type(html.__html__()) is str


def thumbhash(header: int) -> str:
    """Return the beginning of a ThumbHash, in Base64."""
    return base64.b64encode(header.to_bytes(3, "little") + b"rest").decode()


@pytest.mark.parametrize(
    ("colour", "hash_", "mimetype", "expected"),
    [
        ("#1e90ff", None, "image/jpeg", "#1e90ff"),
        ("#1e90ff", thumbhash(0), "image/png", "#1e90ff"),
        ("#1e90ff", thumbhash(1 << 23), "image/png", None),
        ("#1e90ff", None, "image/png", None),
        ("#1e90ff", "", "image/png", None),
        ("#1e90ff", "?", "image/png", None),
        ("#1e90ff", "\xe4", "image/png", None),
        (None, thumbhash(0), "image/jpeg", None),
        ("red;x:y", None, "image/jpeg", None),
    ],
)
def test_only_opaque_pictures_have_a_background(
    colour: str | None, hash_: str | None, mimetype: str, expected: str | None
) -> None:
    """The background of a transparent image would be visible after it is loaded."""
    assert background(colour, hash_, mimetype) == expected
