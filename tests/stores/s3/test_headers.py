"""The headers that a signature covers."""

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
    """Runs of spaces and tabs become one space, and other characters do not."""
    assert collapsed({"x": value}) == [expected]


def test_names_are_in_lower_case() -> None:
    """Names are converted to lower case and keep their order."""
    assert lowered(("Content-Type", "x")) == ("content-type", "x")


def test_blanks_around_values_are_stripped() -> None:
    """Blanks at both ends of a value are removed, and those inside are kept."""
    assert stripped({"Content-Type": " image/png\t", "x": "a  b", "y": "|"}) == ["image/png", "a  b", "|"]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"a": "1\r\nX-Evil: secret"}, "expected no control character in the value of a"),
        ({"a": "secret\x00"}, "expected no control character in the value of a"),
        ({"a": "secret\ud800"}, "expected no control character in the value of a"),
        ({"a:b": "secret"}, "expected the name of a header, got 'a:b'"),
        ({"": "secret"}, "expected the name of a header, got ''"),
        ({"é": "secret"}, "expected the name of a header"),
        ({"A": "secret", "a": "secret"}, "expected each name once, got a again"),
    ],
)
def test_headers_that_would_break_a_request_are_refused(headers: dict[str, str], message: str) -> None:
    """A value cannot inject a line into a request, and the message contains only the name of the header."""
    with pytest.raises(ValueError, match=message) as caught:
        zip(lowered(tuple(headers)), stripped(headers), strict=True)
    assert "secret" not in str(caught.value)
