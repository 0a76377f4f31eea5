"""Drawings: what they cost is known before they are painted, and nothing outside of them is read."""

from __future__ import annotations

import base64
import io
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from aioimageattach.exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from tests import photos

LIMITS = ImageLimits().allow("image/svg+xml")


def svg(body: str, *, size: tuple[int, int] = (100, 80), head: str = "") -> bytes:
    return (
        f'{head}<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'xmlns:xi="http://www.w3.org/2001/XInclude" width="{size[0]}" height="{size[1]}">{body}</svg>'
    ).encode()


def painted(data: bytes, width: int = 100, limits: ImageLimits = LIMITS) -> Image.Image:
    (rendering,) = render(data, [Recipe(width=width)], limits)
    assert rendering.mimetype == "image/png"
    return Image.open(io.BytesIO(rendering.blob)).convert("RGBA")


@pytest.mark.parametrize("width", [24, 240, 960])
def test_drawings_are_painted_at_the_size_needed(width: int) -> None:
    """Enlarged or shrunk, edges stay sharp: nearly no pixel is between the two colours."""
    image = painted(photos.SVG, width)
    assert image.size == (width, width // 2)
    colours = image.getcolors(10_000)
    assert colours is not None
    counts = {colour: count for count, colour in colours}
    clean = counts[(10, 100, 200, 255)] + counts[(255, 215, 0, 255)]
    assert clean > width * width // 2 - 8 * width


def test_clear_parts_stay_clear() -> None:
    """Where nothing is painted, the thumbnail is clear."""
    image = painted(svg('<rect width="50" height="80" fill="red"/>'))
    assert image.getpixel((25, 40)) == (255, 0, 0, 255)
    assert image.getpixel((75, 40)) == (0, 0, 0, 0)


def test_sizes_may_follow_from_the_view_box() -> None:
    """A drawing without width and height has those of its view box."""
    data = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 32"><circle r="9"/></svg>'
    assert (probe(data, LIMITS).width, probe(data, LIMITS).height) == (64, 32)


def nested(kind: str) -> bytes:
    """Eleven floors of ten references each: a hundred thousand million rectangles."""
    pattern = '<pattern id="a{}" width="1" height="1">'
    head, item, tail = {
        "use": ('<g id="a{}">', '<use xlink:href="#a{}"/>', "</g>"),
        "pattern": (pattern, '<rect width="5" height="5" fill="url(#a{})"/>', "</pattern>"),
        "style": (pattern, '<rect class="x c{}" width="5" height="5"/>', "</pattern>"),
        "mask": ('<mask id="a{}">', '<rect width="5" height="5" style="mask:url( \'#a{}\' )"/>', "</mask>"),
    }[kind]
    sheet = "".join(f".y , .c{number}{{fill:url(#a{number})}}" for number in range(11))
    body = f"<style>{sheet}</style>" + head.format(0) + '<rect width="5" height="5"/>' + tail
    for floor in range(1, 12):
        body += head.format(floor) + item.format(floor - 1) * 10 + tail
    return svg(body + item.format(11))


@pytest.mark.parametrize("kind", ["use", "pattern", "style", "mask"])
def test_references_upon_references_are_counted(kind: str) -> None:
    """Elements count as often as they are painted, by whatever they are referred to."""
    with pytest.raises(ImageTooLargeError, match="max_elements"):
        probe(nested(kind), LIMITS)


def test_every_reference_of_an_element_counts() -> None:
    """Its fill and its mask, whichever attributes name them; an element without any counts as one."""
    patterns = "".join(f'<pattern id="{name}" width="1" height="1">{"<rect/>" * 20}</pattern>' for name in "pm")
    body = patterns + '<circle r="1" fill="url(#p)" mask="url(#m)"/>' * 30
    count = 2 + 2 * 21 + 30 * (1 + 21 + 21)
    with pytest.raises(ImageTooLargeError) as caught:
        probe(svg(body), replace(LIMITS, max_elements=count - 1))
    assert caught.value.actual == count
    assert probe(svg(body), replace(LIMITS, max_elements=count)).width == 100


def test_rules_for_all_elements_are_counted_for_each() -> None:
    """A rule that is not for one class may hold anywhere."""
    pattern = '<pattern id="p" width="1" height="1">' + "<rect/>" * 300 + "</pattern>"
    body = "<style>rect.x{fill:url(#p)} .a{color:red}</style>" + pattern + "<circle r='1'/>" * 300
    with pytest.raises(ImageTooLargeError, match="max_elements"):
        probe(svg(body), LIMITS)


def test_style_sheets_are_read_once() -> None:
    """Rules in rules are found, and what is no rule costs no more than its length: else a megabyte would take hours."""
    pattern = '<pattern id="p" width="1" height="1">' + "<rect/>" * 300 + "</pattern>"
    sheet = "a" * 900_000 + "} @media screen { .a { fill: url(#p) } }"
    with pytest.raises(ImageTooLargeError, match="max_elements"):
        probe(svg(f"<style>{sheet}</style>" + pattern + '<circle r="1" class="a"/>' * 300), LIMITS)
    assert probe(svg(f"<style>{'a' * 999_000}</style>"), LIMITS).width == 100


def test_gradients_are_cheap() -> None:
    """Thousands of shapes may share a gradient."""
    gradient = '<linearGradient id="g">' + '<stop offset="0"/>' * 20 + "</linearGradient>"
    body = "<style>.a{fill:url(#g)}</style>" + gradient + '<rect class="a" width="9" height="9"/>' * 3000
    assert probe(svg(body), LIMITS).width == 100


def test_circles_and_loose_ends_paint_nothing() -> None:
    """What refers to itself, or to what is not there, does no harm."""
    body = (
        '<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/><use href="#nowhere"/></g><rect width="9" height="9"/>'
    )
    assert probe(svg(body), LIMITS).width == 100


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<g/>" * 60_000, "50,000 are allowed"),
        ("<g>" * 300 + "</g>" * 300, "nests more than 200"),
        ("<g/>" * 600_000, "600,001 elements: 50,000 are allowed"),
        ("<!--" + "x" * 10_000_000 + "-->", "max_metadata"),
        ("<style>" + "x" * 1_000_001 + "</style>", "style sheets of more than 1,000,000"),
        ("<style>.a{fill:" + "url(#x)" * 2_000 + "}</style>" + "<g class='a a'/>" * 20_000, "paints many elements"),
    ],
)
def test_documents_beyond_the_limits_are_refused(body: str, message: str) -> None:
    """Too many elements, too deep, too much text."""
    with pytest.raises(ImageTooLargeError, match=message):
        probe(svg(body), LIMITS)


def test_filters_are_limited_by_the_pixels_they_work_on() -> None:
    """Filter steps times pixels is the work: what a small thumbnail may do, a large one may not."""
    steps = '<feGaussianBlur stdDeviation="3"/>' * 60
    data = svg(f'<filter id="f">{steps}</filter><rect width="90" height="70" filter="url(#f)"/>', size=(4000, 3000))
    assert painted(data, 100).size == (100, 75)
    with pytest.raises(ImageTooLargeError, match="filters of the SVG"):
        painted(data, 4000)


def test_canvases_are_limited() -> None:
    """A drawing is painted as a whole: its canvas has the lower limit."""
    with pytest.raises(ImageTooLargeError, match="max_memory"):
        painted(photos.SVG, 16_000)


def image(data: bytes, kind: str = "image/png") -> str:
    return f'<image width="50" height="50" xlink:href="data:{kind};base64,{base64.b64encode(data).decode()}"/>'


def test_pictures_inside_are_painted() -> None:
    """A small photograph may stand in a drawing, in base64 or as escaped bytes."""
    red = photos.saved(Image.new("RGB", (5, 5), (255, 0, 0)), "PNG")
    assert painted(svg(image(red))).getpixel((25, 25)) == (255, 0, 0, 255)
    escaped = "".join(f"%{byte:02x}" for byte in red)
    body = f'<image width="50" height="50" xlink:href="data:image/png,{escaped}"/><a xlink:href="data:text/html,x"/>'
    assert painted(svg(body)).size == (100, 80)


def test_pictures_inside_have_limits() -> None:
    """A bomb is a bomb inside of a drawing, and many pictures count together."""
    head = struct_header(30_000, 30_000)
    with pytest.raises(ImageTooLargeError, match="max_pixels"):
        probe(svg(image(photos.png_file(head, b""))), LIMITS)
    large = photos.saved(Image.new("1", (4000, 4000)), "PNG")
    with pytest.raises(ImageTooLargeError, match="the SVG holds pictures"):
        probe(svg(image(large) * 3), LIMITS)
    with pytest.raises(UnsupportedImageError, match="image/tiff"):
        probe(svg(image(photos.tiff())), LIMITS)


def struct_header(width: int, height: int) -> bytes:
    return width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))


@pytest.mark.parametrize(
    ("body", "head"),
    [
        ('<xi:include href="file:///etc/passwd" parse="text"/>', ""),
        ('<image xlink:href="data:image/svg+xml,&lt;svg/>"/>', ""),
        ('<use href="data:text/xml,x"/>', ""),
        ("<style>@import url(data:text/css,x);</style>", ""),
        ("", '<?xml-stylesheet href="x.css"?>'),
        ("", '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
        ("", '<!DOCTYPE svg [<!ENTITY a "x"><!ENTITY b "&a;&a;">]>'),
        ("", f'<!DOCTYPE svg [<!ENTITY a "{"x" * 300}">]>'),
    ],
)
def test_what_is_never_followed_is_refused(body: str, head: str) -> None:
    """Other documents, style sheets, entities and data of other kinds."""
    data = svg(body, head="<?xml version='1.0'?>" + head if head else "")
    with pytest.raises(UnsupportedImageError, match="the SVG"):
        probe(data, LIMITS)


def test_short_entities_of_drawing_programs_are_let_through() -> None:
    """Namespaces declared as entities are common, and harmless."""
    head = '<!DOCTYPE svg [<!ENTITY ns_svg "http://www.w3.org/2000/svg">]>'
    assert probe(svg("<?note x?><text>&ns_svg;</text>", head=head), LIMITS).width == 100


@pytest.mark.parametrize(
    "data",
    [
        svg("<g>"),
        svg(f'<image xlink:href="data:image/png;base64,{"A"}"/>'),
        b'<?xml version="1.0" encoding="nonsense"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        b'<?xml version="1.0" encoding="utf-7"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    ],
)
def test_broken_drawings_are_unreadable(data: bytes) -> None:
    """XML that is not well-formed, pictures that are no base64, encodings that do not exist."""
    with pytest.raises(UnreadableImageError):
        probe(data, LIMITS)


def test_nothing_outside_is_read(tmp_path: Path) -> None:
    """Neither files nor the network: a listening socket sees no visitor, a file's pixels do not show."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(photos.saved(Image.new("RGB", (9, 9), (255, 0, 0)), "PNG"))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        port = server.getsockname()[1]
        addresses = [secret.as_uri(), str(secret), f"http://127.0.0.1:{port}/x.png", "//127.0.0.1/x.png"]
        body = "".join(f'<image width="100" height="80" xlink:href="{address}"/>' for address in addresses)
        sheet = f'<style>@import url("http://127.0.0.1:{port}/x.css");</style>'
        picture = painted(svg(sheet + body))
        with pytest.raises(TimeoutError):
            server.accept()
    assert picture.getcolors() == [(8000, (0, 0, 0, 0))]
