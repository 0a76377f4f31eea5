"""HTTP dates (RFC 9110, 5.6.7)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final

__all__ = ["format_date", "parse_date"]

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SHORT: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME: Final = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS: Final = tuple(
    map(
        re.compile,
        (
            f"{_SHORT}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
            f"{_LONG}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
            f"{_SHORT} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})",
        ),
    )
)
_FUTURE: Final = 50


def format_date(seconds: int) -> str:
    """Return a date in the one form that is sent, such as ``Sun, 06 Nov 1994 08:49:37 GMT``.

    Args:
        seconds: Since 1970.
    """
    return formatdate(seconds, usegmt=True)


def parse_date(text: str, *, year: int) -> int | None:
    """Return the seconds since 1970 of a date in any of the three forms that have to be understood.

    Args:
        text: The value of a header.
        year: The present one: where a date has two digits for it, it is at most 50 years ahead.

    Returns:
        ``None`` where it is no date, and the header is to be ignored.
    """
    found = next(filter(None, (form.fullmatch(text) for form in _FORMS)), None)
    if found is None:
        return None
    years = int(found["year"])
    if len(found["year"]) == 2:
        years += year // 100 * 100
        if years > year + _FUTURE:
            years -= 100
    try:
        moment = datetime(
            years,
            _MONTHS.index(found["month"]) + 1,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            min(int(found["second"]), 59),  # a leap second is a second of that minute
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(moment.timestamp())
