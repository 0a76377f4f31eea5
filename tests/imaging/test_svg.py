"""SVG: the cost is calculated before painting, and nothing outside of the document is read."""

from __future__ import annotations

import base64
import io
import socket
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageChops, ImageStat

from aioimageattach.exc import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from aioimageattach.imaging import ImageLimits, Recipe, probe, render
from aioimageattach.imaging._decode import paintable
from aioimageattach.imaging._header import inspect
from aioimageattach.imaging._structure import Clock
from aioimageattach.imaging._svg import examine
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
    """Edges are sharp after scaling: nearly no pixel is between the two colours."""
    image = painted(photos.SVG, width)
    assert image.size == (width, width // 2)
    colours = image.getcolors(10_000)
    assert colours is not None
    counts = {colour: count for count, colour in colours}
    clean = counts[(10, 100, 200, 255)] + counts[(255, 215, 0, 255)]
    assert clean > width * width // 2 - 8 * width


def test_transparent_parts_stay_transparent() -> None:
    """Transparent parts stay transparent."""
    image = painted(svg('<rect width="50" height="80" fill="red"/>'))
    assert image.getpixel((25, 40)) == (255, 0, 0, 255)
    assert image.getpixel((75, 40)) == (0, 0, 0, 0)


def test_sizes_may_follow_from_the_view_box() -> None:
    """A drawing without width and height has those of its view box."""
    data = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 32"><circle r="9"/></svg>'
    assert (probe(data, LIMITS).width, probe(data, LIMITS).height) == (64, 32)


def nested(kind: str) -> bytes:
    """Return a drawing with eleven levels of ten references each: a hundred thousand million rectangles."""
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
def test_nested_references_are_counted(kind: str) -> None:
    """Elements count once for each time they are painted, by any kind of reference."""
    with pytest.raises(ImageTooLargeError, match="max_elements"):
        probe(nested(kind), LIMITS)


def test_every_reference_of_an_element_counts() -> None:
    """The fill and the mask of an element count; an element without references counts as one."""
    patterns = "".join(f'<pattern id="{name}" width="1" height="1">{"<rect/>" * 20}</pattern>' for name in "pm")
    body = patterns + '<circle r="1" fill="url(#p)" mask="url(#m)"/>' * 30
    count = 2 + 2 * 21 + 30 * (1 + 21 + 21)
    with pytest.raises(ImageTooLargeError) as caught:
        probe(svg(body), replace(LIMITS, max_elements=count - 1))
    assert caught.value.actual == count
    assert probe(svg(body), replace(LIMITS, max_elements=count)).width == 100


def test_rules_for_all_elements_are_counted_for_each() -> None:
    """A rule whose selector is not a single class counts for every element."""
    pattern = '<pattern id="p" width="1" height="1">' + "<rect/>" * 300 + "</pattern>"
    body = "<style>rect.x{fill:url(#p)} .a{color:red}</style>" + pattern + "<circle r='1'/>" * 300
    with pytest.raises(ImageTooLargeError, match="max_elements"):
        probe(svg(body), LIMITS)


def test_style_sheets_are_read_once() -> None:
    """Nested rules are found, and invalid ones take time in proportion to their length, not hours."""
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


def test_circular_and_dangling_references() -> None:
    """Circular and dangling references paint nothing."""
    body = (
        '<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/><use href="#nowhere"/></g><rect width="9" height="9"/>'
    )
    assert probe(svg(body), LIMITS).width == 100


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<g/>" * 60_000, "at most 50,000 elements"),
        ("<g>" * 300 + "</g>" * 300, "at most 200 nested elements"),
        ("<g/>" * 600_000, r"at most 50,000 elements \(max_elements\), got 600,001"),
        ("<!--" + "x" * 10_000_000 + "-->", "max_metadata"),
        ("<style>" + "x" * 1_000_001 + "</style>", "style sheets have at most 1,000,000"),
        (
            "<style>.a{fill:" + "url(#x)" * 2_000 + "}</style>" + "<g class='a a'/>" * 20_000,
            r"\(max_elements\), got more",
        ),
    ],
)
def test_documents_beyond_the_limits_are_refused(body: str, message: str) -> None:
    """Too many elements, too deep nesting and too much text are rejected."""
    with pytest.raises(ImageTooLargeError, match=message):
        probe(svg(body), LIMITS)


def test_filters_are_limited_by_the_pixels_they_work_on() -> None:
    """The cost is filter steps times pixels: a small thumbnail is allowed, a large one is not."""
    steps = '<feGaussianBlur stdDeviation="3"/>' * 60
    data = svg(f'<filter id="f">{steps}</filter><rect width="90" height="70" filter="url(#f)"/>', size=(4000, 3000))
    assert painted(data, 100).size == (100, 75)
    with pytest.raises(ImageTooLargeError, match="expected filters of an SVG"):
        painted(data, 4000)


def test_canvases_are_limited() -> None:
    """A drawing is painted as a whole: the lower limit applies to its canvas."""
    with pytest.raises(ImageTooLargeError, match="max_memory"):
        painted(photos.SVG, 16_000)


@pytest.mark.parametrize("limits", [LIMITS, replace(LIMITS, max_pixels=250_000), replace(LIMITS, max_side=600)])
def test_a_small_part_is_enlarged_if_the_canvas_is_limited(limits: ImageLimits) -> None:
    """A part is painted as sharply as the limits allow, and then enlarged to the wanted size."""
    (rendering,) = render(
        photos.SVG, [Recipe(width=480, crop=(0.45, 0.49, 0.01, 0.02))], limits
    )  # the edge of the disc
    red = Image.open(io.BytesIO(rendering.blob)).convert("RGB").getchannel("R")
    assert red.size == (480, 480)
    assert [red.getpixel((x, 240)) for x in (5, 475)] == [pytest.approx(255, abs=15), pytest.approx(10, abs=15)]


def test_a_part_of_costly_filters() -> None:
    """The scale of a part is limited by filters, too. Without any canvas within the limits, an error remains."""
    steps = '<feGaussianBlur stdDeviation="3"/>' * 60
    data = svg(f'<filter id="f">{steps}</filter><rect width="90" height="70" filter="url(#f)"/>', size=(4000, 3000))
    (rendering,) = render(data, [Recipe(width=400, crop=(0.5, 0.5, 0.1, 0.1))], LIMITS)
    assert (rendering.width, rendering.height) == (400, 300)
    with pytest.raises(ImageTooLargeError, match="max_memory"):
        paintable((100, 100), inspect(memoryview(photos.SVG), LIMITS), replace(LIMITS, max_memory=7))


def image(data: bytes, kind: str = "image/png") -> str:
    return f'<image width="50" height="50" xlink:href="data:{kind};base64,{base64.b64encode(data).decode()}"/>'


def test_embedded_images_are_painted() -> None:
    """A small photograph may be embedded in Base64 or as escaped bytes."""
    red = photos.saved(Image.new("RGB", (5, 5), (255, 0, 0)), "PNG")
    assert painted(svg(image(red))).getpixel((25, 25)) == (255, 0, 0, 255)
    escaped = "".join(f"%{byte:02x}" for byte in red)
    body = f'<image width="50" height="50" xlink:href="data:image/png,{escaped}"/><a xlink:href="data:text/html,x"/>'
    assert painted(svg(body)).size == (100, 80)


def test_limits_of_embedded_images() -> None:
    """Embedded images have the same limits, which also apply to all of them together."""
    head = struct_header(30_000, 30_000)
    with pytest.raises(ImageTooLargeError, match="max_pixels"):
        probe(svg(image(photos.png_file(head, b""))), LIMITS)
    large = photos.saved(Image.new("1", (4000, 4000)), "PNG")
    with pytest.raises(ImageTooLargeError, match="an SVG with embedded images that take at most"):
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
def test_external_references_are_rejected(body: str, head: str) -> None:
    """Other documents, style sheets, entities and other data are rejected."""
    data = svg(body, head="<?xml version='1.0'?>" + head if head else "")
    with pytest.raises(UnsupportedImageError, match=r"expected an SVG with|data in the SVG"):
        probe(data, LIMITS)


def test_short_entities_of_drawing_programs_are_accepted() -> None:
    """Namespaces declared as entities are common and harmless."""
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
    """XML that is not well-formed, invalid Base64 and unknown encodings are rejected."""
    with pytest.raises(UnreadableImageError):
        probe(data, LIMITS)


def test_nothing_outside_is_read(tmp_path: Path) -> None:
    """No file and no network is accessed: a listening socket gets no connection, a file's pixels do not appear."""
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


NS = 'xmlns="http://www.w3.org/2000/svg"'


def red(data: bytes, width: int) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """Return the size of a thumbnail, and the box of its opaque red pixels."""
    picture = painted(data, width)
    mask = Image.merge("RGB", [picture.getchannel("R"), picture.getchannel("A"), picture.getchannel("G")])
    lit = mask.point(lambda value: 255 * (value > 128)).split()
    return picture.size, ImageChops.multiply(lit[0], lit[1]).getbbox()


@pytest.mark.parametrize(
    ("text", "natural", "width", "size", "box"),
    [  # sources: CSS Values 4 for units; CSS Images 3, section 5, and SVG 2, section 8, for sizes
        (f'<svg {NS} width="100" height="100"><rect width="1in" height="1in" fill="red"/></svg>',
         (100, 100), 300, (300, 300), (0, 0, 288, 288)),
        (f'<svg {NS} width="2in" height="1in"><rect x="96" width="96" height="96" fill="red"/></svg>',
         (192, 96), 192, (192, 96), (96, 0, 192, 96)),
        (f'<svg {NS} width="25.4mm" height="2.54cm"><rect width="72pt" height="6pc" fill="red"/></svg>',
         (96, 96), 96, (96, 96), (0, 0, 96, 96)),
        (f'<svg {NS} width="10em" height="5rem" viewBox="0 0 2 1"><rect width="1" height="1" fill="red"/></svg>',
         (160, 80), 160, (160, 80), (0, 0, 80, 80)),
        (f'<svg {NS} viewBox="0 0 2.5 1"><circle cx="1.25" cy=".5" r=".5" fill="red"/></svg>',
         (5, 2), 300, (300, 120), (90, 0, 210, 120)),
        (f'<svg {NS} width="24.5" height="16.4"><rect width="24.5" height="16.4" fill="red"/></svg>',
         (196, 131), 300, (300, 201), (0, 0, 300, 201)),
        (f'<svg {NS}><rect width="30" height="30" fill="red"/></svg>', (300, 150), 300, (300, 150), (0, 0, 30, 30)),
        (f'<svg {NS} width="300"><rect width="100" height="50" fill="red"/></svg>',
         (300, 150), 600, (600, 300), (0, 0, 200, 100)),
        (f'<svg {NS} height="50" viewBox="0 0 20 10"><rect width="10" height="10" fill="red"/></svg>',
         (100, 50), 200, (200, 100), (0, 0, 100, 100)),
        (f'<svg {NS} width="50" viewBox="0 0 20 10"><rect width="10" height="10" fill="red"/></svg>',
         (50, 25), 200, (200, 100), (0, 0, 100, 100)),
        (f'<svg {NS} width="100%" height="100%" viewBox="0 0 20 10"><rect width="5" height="10" fill="red"/></svg>',
         (20, 10), 200, (200, 100), (0, 0, 50, 100)),
        (f'<svg {NS} width="200" height="100" viewBox="0 0 10 10"><rect width="10" height="10" fill="red"/></svg>',
         (200, 100), 200, (200, 100), (50, 0, 150, 100)),
        (f'<svg {NS} width="9" height="6" viewBox="1 2 NaN 4"><rect width="9" height="6" fill="red"/></svg>',
         (9, 6), 90, (90, 60), (0, 0, 90, 60)),
    ],
)  # fmt: skip
def test_sizes_are_those_of_css(
    text: str, natural: tuple[int, int], width: int, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    """Sizes are calculated at 96 dpi with exact proportions, with and without sizes and view boxes."""
    found = probe(text.encode(), LIMITS)
    assert natural == (found.width, found.height)
    assert (size, box) == red(text.encode(), width)


@pytest.mark.parametrize("side", ["1000000000", "2147483648", "4294967296", "1e20", "1e400", "30001"])
def test_huge_sides_are_refused(side: str) -> None:
    """Huge numbers are not misread."""
    for text in (f'width="{side}" height="10"', f'width="10" height="{side}"', f'viewBox="0 0 {side} 10"'):
        data = f"<svg {NS} {text}/>".encode()
        if side == "1e400" and "viewBox" in text:
            assert probe(data, LIMITS).width == 300  # an infinite view box is ignored
        else:
            with pytest.raises(ImageTooLargeError, match="max_side"):
                probe(data, LIMITS)


def test_extreme_proportions_are_kept() -> None:
    """A line of 30,000 pixels is one pixel wide."""
    found = probe(f'<svg {NS} width="0.001" height="30000"/>'.encode(), LIMITS)
    assert (found.width, found.height) == (1, 30_000)
    found = probe(f'<svg {NS} width="0.0001" height="0.9"/>'.encode(), LIMITS)
    assert (found.width, found.height) == (1, 1)


@pytest.mark.parametrize("text", ['width="0" height="10"', 'height="0"'])
def test_drawings_without_a_size_are_unreadable(text: str) -> None:
    """A drawing without a size is rejected, as browsers do not display it."""
    with pytest.raises(UnreadableImageError, match="a width or height of 0"):
        probe(f"<svg {NS} {text}/>".encode(), LIMITS)


REST = f'<svg {NS} width="40" height="40"><title>Ж</title><rect width="40" height="40" fill="red"/></svg>'


@pytest.mark.parametrize(
    "data",
    [
        ("\ufeff" + f'<?xml version="1.0" encoding="UTF-16"?>{REST}').encode("utf-16-le"),
        ("\ufeff" + f'<?xml version="1.0" encoding="UTF-16"?>{REST}').encode("utf-16-be"),
        f'<?xml version="1.0" encoding="windows-1251"?>{REST}'.encode("cp1251"),
        f'<?xml version="1.0" encoding="koi8-r"?>{REST}'.encode("koi8-r"),
        b"\xef\xbb\xbf" + REST.encode(),
        f"<!--{'x' * 400_000}-->{REST}".encode(),
        f'<?xml version="1.0"?><?a b?>\n<!-- c --><?d e?>{REST}'.encode(),
        f'<!DOCTYPE svg [<!ENTITY r "red"><!-- "]>" -->]>{REST.replace("red", "&r;")}'.encode(),
    ],
)
def test_all_forms_of_xml_are_read(data: bytes) -> None:
    """Encodings, long comments, instructions and declarations before the root are accepted."""
    assert painted(data, 40).getcolors() == [(1600, (255, 0, 0, 255))]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "JPEG"])
def test_orientation_and_colours_of_embedded_images(file_format: str) -> None:
    """Images of all formats are painted like in browsers, with their profile and orientation."""
    picture = Image.new("RGB", (10, 20), (0, 0, 200))
    picture.paste((200, 50, 50), (0, 0, 10, 10))
    options: dict[str, object] = (
        {} if file_format == "GIF" else {"exif": photos.exif(6), "icc_profile": photos.DISPLAY_P3}
    )
    if file_format == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    data = photos.saved(picture, file_format, **options)
    found = painted(svg(image(data).replace('"50"', '"80"')), 100)
    upper, right = found.getpixel((40, 20)), found.getpixel((70, 40))
    assert isinstance(upper, tuple)
    assert isinstance(right, tuple)
    if file_format == "GIF":  # 40 wide in a box of 80: centred
        assert upper == pytest.approx((200, 50, 50, 255), abs=8)
    else:  # rotated to the right: the red is on the right, and stronger
        assert right == pytest.approx((218, 24, 41, 255), abs=12)


def test_scripts_and_addresses_are_removed() -> None:
    """The renderer receives neither scripts nor addresses."""
    body = (
        '<script>x<g id="a"/></script><a xlink:href="data:text/html,x"><rect width="9" height="9" fill="red"/></a>'
        '<use xlink:href="other.svg#a"/><rect width="5" height="5" style="fill:url(x.svg#b)"/>'
    )
    seen: list[bytes] = []
    drawing = examine(memoryview(svg(body)), LIMITS, seen.append, Clock(9))
    text = drawing.document(10, 8, lambda data: "").decode()
    assert "script" not in text
    assert "other.svg" not in text
    assert "data:" not in text
    assert ElementTree.fromstring(text).get("width") == "10"


@pytest.mark.parametrize(
    ("count", "size", "primitive"),
    [
        (3_000, (150, 75), '<feDropShadow dx="2" dy="1" stdDeviation="30"/>'),
        (5_000, (600, 300), '<feGaussianBlur stdDeviation="30"/>'),
        (500, (600, 300), '<feTurbulence numOctaves="10" baseFrequency=".5"/>'),
        (500, (600, 300), '<feMorphology radius="50"/><feOffset dx="1"/>'),
        (500, (600, 300), f'<feConvolveMatrix order="9" kernelMatrix="{"1 " * 81}"/>'),
        (5, (1_000, 1_000), f'<feConvolveMatrix order="100,x" kernelMatrix="{"1 " * 10_000}"/>'),
        (10_000, (600, 300), "<feMerge><feMergeNode/></feMerge>"),
    ],
)
def test_filters_that_take_long_are_refused(count: int, size: tuple[int, int], primitive: str) -> None:
    """The cost of a step is given per pixel; the first of these took 13 seconds, others a minute."""
    shape = '<rect width="80%" height="80%" filter="url(#f)"/>' * count
    with pytest.raises(ImageTooLargeError, match="expected filters of an SVG"):
        painted(svg(f'<filter id="f">{primitive}</filter>{shape}', size=size), size[0])


@pytest.mark.parametrize("where", ["style", "attribute", "sheet"])
def test_filter_functions_are_counted(where: str) -> None:
    """CSS has filter functions without elements (Filter Effects 1, section 5)."""
    shape = {
        "style": '<rect width="9" height="9" style="filter: blur(30px) drop-shadow(1px 1px 9px red)"/>',
        "attribute": '<rect width="9" height="9" filter="blur(30px) sepia(1)"/>',
        "sheet": '<rect width="9" height="9" class="a"/>',
    }[where]
    sheet = "<style>.a{filter:blur(30px) blur(20px)}</style>"
    body = sheet + shape * 3_000
    assert painted(svg(sheet + shape * 3), 100).size == (100, 80)
    with pytest.raises(ImageTooLargeError, match="expected filters of an SVG"):
        painted(svg(body, size=(200, 200)), 200)


def test_usual_filters_are_painted() -> None:
    """Some shadows, lights and masks of a drawing program are accepted."""
    body = (
        '<filter id="f"><feDropShadow dx="2" stdDeviation="3"/><feDiffuseLighting><fePointLight x="5" z="9"/>'
        '</feDiffuseLighting><feTurbulence numOctaves="x"/></filter><mask id="m"><rect width="9" height="9"/></mask>'
        + '<rect width="50" height="50" filter="url(#f)" mask="url(#m)"/>'
        * 9
    )
    assert painted(svg(body), 300).size == (300, 240)


def test_texts_that_expand_are_rejected() -> None:
    """Text that entities expand beyond the limit is rejected."""
    head = f'<!DOCTYPE svg [<!ENTITY a "{"x" * 250}">]>'
    with pytest.raises(ImageTooLargeError, match="characters"):
        probe(svg("&a;" * 9_000, head=head), replace(LIMITS, max_metadata=100_000))


def test_prefixes_are_resolved() -> None:
    """A prefixed root element is accepted if its prefix denotes SVG."""
    body = '<s:svg xmlns:s="{}" width="40" height="40"><s:rect width="40" height="40" fill="red"/></s:svg>'
    assert painted(body.format("http://www.w3.org/2000/svg").encode(), 40).getcolors() == [(1600, (255, 0, 0, 255))]
    with pytest.raises(UnreadableImageError, match="namespace"):
        probe(body.format("http://www.example.com/").encode(), LIMITS)


def test_another_renderer_agrees() -> None:
    """resvg renders common drawings identically."""
    resvg = pytest.importorskip("resvg_py")
    for text in (
        photos.SVG.decode(),
        f'<svg {NS} width="2in" height="1in"><circle cx="1in" cy=".5in" r="30" fill="red" stroke="#123" '
        'stroke-width="3mm"/></svg>',
        f'<svg {NS} viewBox="0 0 40 20"><defs><linearGradient id="g"><stop/><stop offset="1" stop-color="red"/>'
        '</linearGradient></defs><rect x="4" y="2" width="30" height="16" rx="5" fill="url(#g)" '
        'transform="rotate(5 20 10)"/></svg>',
    ):
        found = painted(text.encode(), 240)
        expected = Image.open(io.BytesIO(resvg.svg_to_bytes(svg_string=text, width=240, dpi=96)))
        assert expected.size == found.size
        assert max(ImageStat.Stat(ImageChops.difference(expected.convert("RGBA"), found)).mean) < 3
