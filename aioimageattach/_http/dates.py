"""HTTP dates (RFC 9110, section 5.6.7)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final

__all__ = ["format_date", "parse_date"]

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SHORT_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME: Final = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMATS: Final = tuple(
    map(
        re.compile,
        (
            f"{_SHORT_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
            f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
            f"{_SHORT_DAY} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})",
        ),
    )
)
_MAX_YEARS_AHEAD: Final = 50


def format_date(seconds: int) -> str:
    """Return a date in the preferred format, such as ``Sun, 06 Nov 1994 08:49:37 GMT``.

    Args:
        seconds: Since 1970.
    """
    return formatdate(seconds, usegmt=True)


def parse_date(text: str, *, year: int) -> int | None:
    """Return a date in any of the three formats that a recipient must accept, in seconds since 1970.

    Args:
        text: The value of a header.
        year: The current year. A two-digit year is taken to be at most 50 years ahead of it.

    Returns:
        ``None`` if the value is not a date; the RFC says to ignore the header then.
    """
    found = next(filter(None, (pattern.fullmatch(text) for pattern in _FORMATS)), None)
    if found is None:
        return None
    full_year = int(found["year"])
    if len(found["year"]) == 2:
        full_year += year // 100 * 100
        if full_year > year + _MAX_YEARS_AHEAD:
            full_year -= 100
    try:
        moment = datetime(
            full_year,
            _MONTHS.index(found["month"]) + 1,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            min(int(found["second"]), 59),  # datetime has no leap seconds
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(moment.timestamp())
