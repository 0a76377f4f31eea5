"""URLs and forms that carry a signature, by calculation alone. The clock and the credentials are passed in."""

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
    """What a browser needs to upload a file by a form.

    Args:
        url: Where the form is sent to.
        fields: What it has to have, before the field ``file``.
    """

    url: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Window:
    """How long a URL lives, and how long it stays the same, so that caches find it again.

    Args:
        expires_in: For how many seconds a URL is valid at least.
        width: For how many seconds it stays the same at most; ``None`` means as long as it is valid at least, if that
            is possible. Each name changes at a moment of its own. 0 means a new URL each time.

    Raises:
        ValueError: A number is out of range: together they may be seven days.
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
        """Return when a URL is to begin to be valid, and for how many seconds."""
        width = self.width or 0
        if not width:
            return now, self.expires_in
        seconds = int((now - _EPOCH).total_seconds())
        # Else all URLs would change at the same moment, and all caches would be empty.
        shift = zlib.crc32(name.encode()) % width
        return _EPOCH + timedelta(seconds=(seconds - shift) // width * width + shift), self.expires_in + width
