"""Conditional requests, for each row of the table in RFC 9110."""

from __future__ import annotations

import pytest

from aioimageattach._http.conditions import Version, evaluate, is_etag, matches, range_applies
from aioimageattach._http.dates import format_date

NOW = 1_700_000_000
STRONG = Version('"a"', NOW)
WEAK = Version('W/"a"', NOW)
BEFORE, SAME, AFTER = (format_date(NOW + offset) for offset in (-1, 0, 1))


def headers(found: dict[str, str]) -> dict[bytes, str]:
    return {name.encode(): value for name, value in found.items()}


@pytest.mark.parametrize(
    ("found", "strong", "weak"),
    [
        ({}, 200, 200),
        ({"if-none-match": '"a"'}, 304, 304),
        ({"if-none-match": 'W/"a"'}, 304, 304),
        ({"if-none-match": '"b"'}, 200, 200),
        ({"if-none-match": "*"}, 304, 304),
        ({"if-none-match": "nonsense"}, 200, 200),
        ({"if-modified-since": BEFORE}, 200, 200),
        ({"if-modified-since": SAME}, 304, 304),
        ({"if-modified-since": AFTER}, 304, 304),
        ({"if-modified-since": "nonsense"}, 200, 200),
        ({"if-none-match": '"b"', "if-modified-since": AFTER}, 200, 200),
        ({"if-match": '"a"'}, 200, 412),
        ({"if-match": 'W/"a"'}, 412, 412),
        ({"if-match": '"b"'}, 412, 412),
        ({"if-match": '"b", "a"'}, 200, 412),
        ({"if-match": "*"}, 200, 200),
        ({"if-match": "nonsense"}, 412, 412),
        ({"if-unmodified-since": BEFORE}, 412, 412),
        ({"if-unmodified-since": SAME}, 200, 200),
        ({"if-unmodified-since": AFTER}, 200, 200),
        ({"if-unmodified-since": "nonsense"}, 200, 200),
        ({"if-match": "*", "if-unmodified-since": BEFORE}, 200, 200),
        ({"if-match": "*", "if-none-match": '"a"'}, 304, 304),
        ({"if-unmodified-since": BEFORE, "if-none-match": '"a"'}, 412, 412),
        ({"range": "bytes=0-1"}, 200, 200),
    ],
)
def test_the_status(found: dict[str, str], strong: int, weak: int) -> None:
    """Tags take precedence over dates, If-Match over If-None-Match, and invalid dates are ignored."""
    assert evaluate(headers(found), STRONG, year=2026) == strong
    assert evaluate(headers(found), WEAK, year=2026) == weak


@pytest.mark.parametrize(
    ("value", "strong"),
    [
        (None, True), ('"a"', True), ('W/"a"', False), ('"b"', False), (SAME, True), (BEFORE, False), (AFTER, False),
        ("nonsense", False), ('"a", "b"', False), ("", False), ("*", False),
    ],
)  # fmt: skip
def test_if_range(value: str | None, strong: bool) -> None:
    """A range applies only to exactly the same version; otherwise the whole file is sent."""
    found = {} if value is None else {b"if-range": value}
    assert range_applies(found, STRONG, year=2026) is strong
    assert range_applies(found, WEAK, year=2026) is (value is None)


@pytest.mark.parametrize(
    ("header", "strong", "weak"),
    [
        ('"a"', True, True),
        ('W/"a"', False, True),
        ('"b"', False, False),
        ('"b", "a"', True, True),
        ('"b",W/"a"', False, True),
        (' ,, "b" ,\t"a" , ', True, True),
        ('"b, "a"', False, False),
        ('"b""a"', False, False),
        ('x"a"', False, False),
        ('w/"a"', False, False),
        ('"a', False, False),
        ("a", False, False),
        ("", False, False),
        ('"x,y", "a"', True, True),
        ('"A"', False, False),
        ('"\xff", "a"', True, True),
        ('"\x01", "a"', False, False),
    ],
)
def test_lists_of_tags(header: str, strong: bool, weak: bool) -> None:
    """Tags are compared as in RFC 9110; an invalid list is read up to the first error."""
    assert matches(header, '"a"', weak=False) is strong
    assert matches(header, '"a"', weak=True) is weak


@pytest.mark.parametrize(("header", "weak"), [('"a"', True), ('W/"a"', True), ('"b"', False)])
def test_a_weak_tag_never_matches_strongly(header: str, weak: bool) -> None:
    """A weak tag equals the strong one only in a weak comparison."""
    assert matches(header, 'W/"a"', weak=False) is False
    assert matches(header, 'W/"a"', weak=True) is weak


def test_a_long_list_is_read_once() -> None:
    """Many tags and long runs of blanks are parsed in one pass."""
    assert matches('"x", ' * 100_000 + '"a"', '"a"', weak=True)
    assert not matches(" " * 1_000_000 + "x", '"a"', weak=True)


@pytest.mark.parametrize(
    ("text", "is_one"), [('"a"', True), ('W/"a"', True), ('""', True), ("a", False), ('"a"b"', False)]
)
def test_valid_entity_tags(text: str, is_one: bool) -> None:
    """An entity tag is a quoted string that contains no quotes."""
    assert is_etag(text) is is_one
