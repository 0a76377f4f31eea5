"""Headers that are signed, and headers that are none."""

from __future__ import annotations

import pytest

from aioimageattach.stores.s3._signing.headers import collapsed, lowered, stripped


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "a"),
        ("a b", "a b"),
        ("a  b", "a b"),
        ("a\tb", "a b"),
        ('"a   b \t c"', '"a b c"'),
        ("a\xa0\xa0b", "a\xa0\xa0b"),
    ],
)
def test_runs_of_blanks_are_one_space(value: str, expected: str) -> None:
    """Spaces and tabs, and no others."""
    assert collapsed({"x": value}) == [expected]


def test_names_are_in_lower_case() -> None:
    """In their order."""
    assert lowered(("Content-Type", "x")) == ("content-type", "x")


def test_blanks_around_values_are_stripped() -> None:
    """Those inside stay."""
    assert stripped({"Content-Type": " image/png\t", "x": "a  b", "y": "|"}) == ["image/png", "a  b", "|"]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"a": "1\r\nX-Evil: secret"}, "the value of a has a control character"),
        ({"a": "secret\x00"}, "the value of a has a control character"),
        ({"a": "secret\ud800"}, "the value of a has a control character"),
        ({"a:b": "secret"}, "'a:b' is no name"),
        ({"": "secret"}, "'' is no name"),
        ({"é": "secret"}, "is no name"),
        ({"A": "secret", "a": "secret"}, "a stands there twice"),
    ],
)
def test_headers_that_would_break_a_request_are_refused(headers: dict[str, str], message: str) -> None:
    """Nothing may add a line to a request; the message names the header alone."""
    with pytest.raises(ValueError, match=message) as caught:
        zip(lowered(tuple(headers)), stripped(headers), strict=True)
    assert "secret" not in str(caught.value)
