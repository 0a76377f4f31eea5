"""Presigned URLs and forms. Does no I/O; the clock and the credentials are passed in."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from .v4 import MAX_EXPIRES_IN

__all__ = ["PostForm", "Window"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PostForm:
    """The data of an HTML form with which a browser uploads a file.

    Args:
        url: The URL that the form is posted to.
        fields: The fields of the form, which must precede the field ``file``.
    """

    url: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Window:
    """The lifetime of signed URLs, and the time for which a URL stays the same so that caches can reuse it.

    Args:
        expires_in: Minimum lifetime of a URL, in seconds.
        width: How long a URL stays the same at most, in seconds; 0 means a new URL each time. ``None`` means
            ``expires_in``, or less if the sum would exceed seven days. The URLs of different names change at different
            times.

    Raises:
        ValueError: A number is out of range, or the sum exceeds seven days.
    """

    expires_in: int
    width: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.expires_in <= MAX_EXPIRES_IN:
            raise ValueError(f"url_expires_in: expected 1 to {MAX_EXPIRES_IN} seconds, got {self.expires_in!r}")
        most = MAX_EXPIRES_IN - self.expires_in
        if self.width is None:
            object.__setattr__(self, "width", min(self.expires_in, most))
        elif not 0 <= self.width <= most:
            raise ValueError(f"url_window: expected 0 to {most} seconds with url_expires_in, got {self.width!r}")

    def begin(self, now: datetime, name: str) -> tuple[datetime, int]:
        """Return the time at which the URL of a name becomes valid, and its lifetime in seconds."""
        width = self.width or 0
        if not width:
            return now, self.expires_in
        seconds = int((now - _EPOCH).total_seconds())
        # Without the shift, all URLs would change at the same moment, and all cached files would be fetched again.
        shift = zlib.crc32(name.encode()) % width
        return _EPOCH + timedelta(seconds=(seconds - shift) // width * width + shift), self.expires_in + width
