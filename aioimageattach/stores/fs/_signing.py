"""URLs that are signed and that expire (HMAC-SHA-256). Does no I/O."""

from __future__ import annotations

import hmac
import time
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from ..._http.disposition import attachment, check_filename

__all__ = ["SignedUrl", "UrlSigner"]

_MIN_SECRET: Final = 16
_MAX_QUERY: Final = 4000


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """What a valid signed URL allows.

    Attributes:
        seconds_left: How long the URL stays valid.
        filename: The name to download the file under; ``None`` if the URL does not ask for a download.
    """

    seconds_left: int
    filename: str | None

    @property
    def content_disposition(self) -> bytes | None:
        """The header for the download."""
        return None if self.filename is None else attachment(self.filename).encode()


class UrlSigner:
    """Signs the URLs of files, and verifies them.

    A URL stays the same for a while, so that browsers can cache the file, and is valid for at least ``expires_in``
    seconds from the moment that it is made.

    Args:
        secret: At least 16 bytes, known to all processes of the application and to nobody else. Of several secrets, the
            first signs and all are accepted, so that a secret can be replaced.
        expires_in: How long a URL is valid at least, in seconds.
        window: How long a URL stays the same at most, in seconds; ``None`` means ``expires_in``.
        clock: Returns the current time, in seconds since 1970.

    Raises:
        ValueError: A secret is too short, or a number is out of range.
    """

    def __init__(
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        expires_in: int = 3600,
        window: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        found = [secret] if isinstance(secret, (str, bytes)) else list(secret)
        self._secrets = [one.encode() if isinstance(one, str) else one for one in found]
        if not self._secrets or any(len(one) < _MIN_SECRET for one in self._secrets):
            raise ValueError(f"url_secret: expected at least {_MIN_SECRET} bytes; secrets.token_urlsafe() makes one")
        if expires_in < 1:
            raise ValueError(f"url_expires_in: expected at least 1 second, got {expires_in!r}")
        if window is not None and window < 0:
            raise ValueError(f"url_window: expected at least 0 seconds, got {window!r}")
        self._expires_in = expires_in
        self._window = expires_in if window is None else window
        self._clock = clock

    def sign(self, name: str, *, download: str | None = None) -> str:
        """Return the query string that makes the URL of a file valid.

        Args:
            name: The name of the file within the store.
            download: The name to download the file under; ``None`` lets the browser display it.

        Raises:
            ValueError: ``download`` is not a file name.
        """
        fields = {"expires": str(self._expires(name))}
        if download is not None:
            fields["download"] = check_filename(download)
        signature = _signature(self._secrets[0], name, fields)
        if download is None:  # nothing has to be quoted, and a page may have hundreds of them
            return f"expires={fields['expires']}&signature={signature}"
        return urlencode({**fields, "signature": signature}, quote_via=quote)

    def verify(self, name: str, query: bytes) -> SignedUrl | None:
        """Return what the query string of a URL allows, or ``None`` if it is not valid, or no longer."""
        if len(query) > _MAX_QUERY:
            return None
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
            fields = dict(pairs)
            signature = fields.pop("signature").encode("ascii")
            left = int(fields["expires"]) - int(self._clock())
        except (KeyError, ValueError):
            return None
        if len(fields) + 1 != len(pairs) or left <= 0:
            return None
        if not any(hmac.compare_digest(_signature(one, name, fields).encode(), signature) for one in self._secrets):
            return None
        return SignedUrl(left, fields.get("download"))

    def _expires(self, name: str) -> int:
        now = int(self._clock())
        window = self._window
        if window == 0:
            return now + self._expires_in
        # Each name has its own moment of change; otherwise all caches would be empty at the same time.
        shift = zlib.crc32(name.encode()) % window
        return (now - shift) // window * window + shift + window + self._expires_in


def _signature(secret: bytes, name: str, fields: dict[str, str]) -> str:
    # A length before each part, so that no two lists of parts are the same bytes.
    parts = [name, *(text for pair in sorted(fields.items()) for text in pair)]
    message = b"".join(b"%d:%s" % (len(part.encode()), part.encode()) for part in parts)
    return urlsafe_b64encode(hmac.digest(secret, message, "sha256")).rstrip(b"=").decode()
