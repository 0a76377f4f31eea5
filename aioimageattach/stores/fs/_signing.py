"""Signed URLs with an expiry time (HMAC-SHA-256). Does no I/O."""

from __future__ import annotations

import hmac
import time
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, Self
from urllib.parse import parse_qsl, quote, urlencode

from ..._http.disposition import attachment, check_filename

__all__ = ["SignedUrl", "UrlSigner"]

_MIN_SECRET: Final = 16
_MAX_QUERY: Final = 4000


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """The permissions that a valid signed URL grants.

    Attributes:
        seconds_left: The remaining lifetime of the URL, in seconds.
        filename: The file name of the download; ``None`` if the URL does not request a download.
    """

    seconds_left: int
    filename: str | None

    @property
    def content_disposition(self) -> bytes | None:
        """The value of ``Content-Disposition``; ``None`` if the URL does not request a download."""
        return None if self.filename is None else attachment(self.filename).encode()


class UrlSigner:
    """A signer that signs the URLs of files and verifies them.

    Each URL is reused for some time, so that browsers can cache the file. It stays valid for at least ``expires_in``
    seconds after :meth:`sign` returns it.

    Args:
        secret: A secret of at least 16 bytes, shared only by the processes of the application. To rotate secrets, pass
            several: the first one signs, and all are accepted.
        expires_in: Minimum lifetime of a URL, in seconds.
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
            raise ValueError(
                f"url_secret: expected at least {_MIN_SECRET} bytes, got fewer; generate one with "
                "secrets.token_urlsafe()"
            )
        if expires_in < 1:
            raise ValueError(f"url_expires_in: expected at least 1 second, got {expires_in!r}")
        if window is not None and window < 0:
            raise ValueError(f"url_window: expected at least 0 seconds, got {window!r}")
        self._expires_in = expires_in
        self._window = expires_in if window is None else window
        self._clock = clock

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "secrets of URLs cannot be pickled, because they do not belong in files and queues: create the store or "
            "the server in the process that uses it"
        )

    def sign(self, name: str, *, download: str | None = None) -> str:
        """Return the query string that makes the URL of a file valid.

        Args:
            name: The name of the file within the store.
            download: The file name of the download; ``None`` lets the browser display the file.

        Raises:
            ValueError: ``download`` is not a valid file name.
        """
        fields = {"expires": str(self._expires(name))}
        if download is not None:
            fields["download"] = check_filename(download)
        signature = _signature(self._secrets[0], name, fields)
        if download is None:  # nothing needs quoting; this is faster, and a page may have hundreds of URLs
            return f"expires={fields['expires']}&signature={signature}"
        return urlencode({**fields, "signature": signature}, quote_via=quote)

    def verify(self, name: str, query: bytes) -> SignedUrl | None:
        """Return the permissions that the query string of a URL grants, or ``None`` if it is invalid or has expired."""
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
        # The URLs of different names change at different times, so that caches do not refetch all files at once.
        shift = zlib.crc32(name.encode()) % window
        return (now - shift) // window * window + shift + window + self._expires_in


def _signature(secret: bytes, name: str, fields: dict[str, str]) -> str:
    # Prefix each part with its length, so that different lists of parts never yield the same bytes.
    parts = [name, *(text for pair in sorted(fields.items()) for text in pair)]
    message = b"".join(b"%d:%s" % (len(part.encode()), part.encode()) for part in parts)
    return urlsafe_b64encode(hmac.digest(secret, message, "sha256")).rstrip(b"=").decode()
