"""HTTP dates."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._http.dates import format_date, parse_date, read_date

MOMENT = 784111777  # the example of RFC 9110


@given(st.integers(0, 253402300799))
def test_formatted_dates_are_parsed(seconds: int) -> None:
    """A formatted date up to the year 9999 is parsed unchanged, also by the standard library."""
    text = format_date(seconds)
    assert parse_date(text, year=2026) == seconds
    assert email.utils.parsedate_to_datetime(text).timestamp() == seconds


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_three_formats_are_parsed(text: str) -> None:
    """All three formats that a recipient must accept are parsed."""
    assert parse_date(text, year=2026) == MOMENT


@pytest.mark.parametrize(("digits", "year"), [("76", 2076), ("77", 1977), ("26", 2026), ("00", 2000)])
def test_two_digits_are_at_most_fifty_years_ahead(digits: str, year: int) -> None:
    """A two-digit year that would be more than 50 years ahead belongs to the previous century."""
    two = parse_date(f"Sunday, 01-Mar-{digits} 00:00:00 GMT", year=2026)
    assert two == parse_date(f"Sun, 01 Mar {year} 00:00:00 GMT", year=2026)


def test_a_leap_second() -> None:
    """A leap second is treated as the preceding second."""
    assert parse_date("Sat, 31 Dec 2016 23:59:60 GMT", year=2026) == parse_date(
        "Sat, 31 Dec 2016 23:59:59 GMT", year=2026
    )


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "now", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 +0000", "06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT", "sun, 06 nov 1994 08:49:37 gmt", " Sun, 06 Nov 1994 08:49:37 GMT",
    ],
)  # fmt: skip
def test_invalid_dates(text: str) -> None:
    """An invalid date is parsed as ``None``, so that the header can be ignored."""
    assert parse_date(text, year=2026) is None


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 09:49:37 +0100", "6 Nov 1994 08:49:37 -0000",
        "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
    ],
)  # fmt: skip
def test_dates_of_servers(text: str) -> None:
    """Formats that only e-mail allows are accepted, and the result is in UTC."""
    assert read_date(text) == datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "Sun, 40 Nov 1994 08:49:37 GMT", "31 Dec 9999 23:59:59 -2359"])
def test_invalid_dates_of_servers(text: str) -> None:
    """An invalid date in a response raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        read_date(text)
