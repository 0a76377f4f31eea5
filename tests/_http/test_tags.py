"""Entity tags."""

from __future__ import annotations

import pytest

from aioimageattach._http.tags import is_tag, matches


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
def test_a_list_has_a_strong_tag(header: str, strong: bool, weak: bool) -> None:
    """As RFC 9110 compares them; a list that is broken counts up to there."""
    assert matches(header, '"a"', weak=False) is strong
    assert matches(header, '"a"', weak=True) is weak


@pytest.mark.parametrize(("header", "weak"), [('"a"', True), ('W/"a"', True), ('"b"', False)])
def test_a_weak_tag_matches_nothing_strongly(header: str, weak: bool) -> None:
    """Only for caches it is as good as the strong one."""
    assert matches(header, 'W/"a"', weak=False) is False
    assert matches(header, 'W/"a"', weak=True) is weak


def test_a_long_list_is_read_once() -> None:
    """Neither many tags nor many blanks take more than a pass."""
    assert matches('"x", ' * 100_000 + '"a"', '"a"', weak=True)
    assert not matches(" " * 1_000_000 + "x", '"a"', weak=True)


@pytest.mark.parametrize(
    ("text", "is_one"), [('"a"', True), ('W/"a"', True), ('""', True), ("a", False), ('"a"b"', False)]
)
def test_what_a_tag_is(text: str, is_one: bool) -> None:
    """A text in quotes without quotes in it."""
    assert is_tag(text) is is_one
