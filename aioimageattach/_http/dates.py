"""HTTP dates (RFC 9110, section 5.6.7): strict for request headers, tolerant for response headers."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from typing import Final

__all__ = ["format_date", "parse_date", "read_date"]

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_SHORT_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH: Final = f"({'|'.join(_MONTHS)})"
_TIME: Final = "([0-9]{2}):([0-9]{2}):([0-9]{2})"
_IMF_FIXDATE: Final = re.compile(f"{_SHORT_DAY}, ([0-9]{{2}}) {_MONTH} ([0-9]{{4}}) {_TIME} GMT")
_RFC_850: Final = re.compile(f"{_LONG_DAY}, ([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_TIME} GMT")
_ASCTIME: Final = re.compile(f"{_SHORT_DAY} {_MONTH} ([ 0-9][0-9]) {_TIME} ([0-9]{{4}})")
_MAX_YEARS_AHEAD: Final = 50


def format_date(seconds: int) -> str:
    """Format a date in the preferred format, such as ``Sun, 06 Nov 1994 08:49:37 GMT``.

    Args:
        seconds: The date, in seconds since 1970.
    """
    return formatdate(seconds, usegmt=True)


def parse_date(text: str, *, year: int | None = None) -> int | None:
    """Parse a date in any of the three formats that a recipient must accept.

    Args:
        text: The value of a header.
        year: The current year; defaults to that of the system clock. A two-digit year is at most 50 years ahead of it.

    Returns:
        The date, in seconds since 1970, or ``None`` if the value is not a date; the RFC requires ignoring such a
        header.
    """
    moment = _parse(text, time.gmtime().tm_year if year is None else year)
    return None if moment is None else int(moment.timestamp())


def read_date(text: str) -> datetime:
    """Parse a date in a response; also accept formats that only e-mail allows, such as a numeric time zone.

    Raises:
        ValueError: The value is not a date.
    """
    moment = _parse(text, None)
    if moment is not None:
        return moment
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"expected an HTTP date, got {text!r:.40}") from error


def _parse(text: str, current_year: int | None) -> datetime | None:
    """Parse one of the three formats; return ``None`` for a two-digit year if the current year is not given."""
    if found := _IMF_FIXDATE.fullmatch(text):
        day, month, year, hour, minute, second = found.groups()
    elif found := _ASCTIME.fullmatch(text):
        month, day, hour, minute, second, year = found.groups()
    elif current_year is not None and (found := _RFC_850.fullmatch(text)):
        day, month, short_year, hour, minute, second = found.groups()
        year = current_year // 100 * 100 + int(short_year)
        if year > current_year + _MAX_YEARS_AHEAD:
            year -= 100
    else:
        return None
    try:
        clock = int(hour), int(minute), min(int(second), 59)  # datetime does not support leap seconds
        return datetime(int(year), _MONTHS[month], int(day), *clock, tzinfo=UTC)
    except ValueError:
        return None
