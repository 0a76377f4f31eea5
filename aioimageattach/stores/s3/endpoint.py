"""Where a bucket is: the URLs of its objects, in both styles, at any endpoint. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from .urls import quote_key

__all__ = ["AWS", "BASE_URL_FORMAT", "Endpoint"]

AWS: Final = "https://s3.{region}.amazonaws.com"
"""The endpoints of Amazon; ``{region}`` stands for the region's name."""

BASE_URL_FORMAT: Final = "https://{0}.s3.amazonaws.com"
"""The base of public URLs of a bucket at Amazon, without a slash at its end."""

_BUCKET: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){1,253}[A-Za-z0-9]", re.ASCII)
_TEMPLATE: Final = re.compile(r"https?://[A-Za-z0-9._~:\[\]{}-]+(?:/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A bucket at a server.

    Args:
        bucket: Its name.
        template: The server's URL; ``{region}`` in it stands for the region's name.
        path_style: Whether the bucket is the first part of the path instead of the host; ``None`` means that it is at
            every server but Amazon's, and there only when its name has a dot, which the certificates do not cover.

    Raises:
        ValueError: The bucket or the URL is not of that form.
    """

    bucket: str
    template: str = AWS
    path_style: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.bucket, str) or not _BUCKET.fullmatch(self.bucket):
            raise ValueError(
                f"bucket: expected 3 to 255 letters, digits, '.', '-' and '_', without '..': got {self.bucket!r:.80}"
            )
        bare = self.template.replace("{region}", "region").rstrip("/")
        if not _TEMPLATE.fullmatch(bare) or "{" in bare or not urlsplit(bare).hostname or "/." in bare:
            raise ValueError(
                "endpoint_url: expected http(s)://host[:port][/path] without a user and a query, such as "
                f"'https://s3.{{region}}.example.com': got {self.template.rpartition('@')[2]!r:.120}"
            )
        object.__setattr__(self, "template", self.template.rstrip("/"))
        if self.path_style is None:
            object.__setattr__(self, "path_style", not self.is_aws or "." in self.bucket)

    @property
    def is_aws(self) -> bool:
        """Whether the server is Amazon's own."""
        return self.template == AWS

    @property
    def has_region(self) -> bool:
        """Whether the region's name is part of the URL."""
        return "{region}" in self.template

    @property
    def is_encrypted(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.template.startswith("https:")

    def bucket_url(self, region: str) -> str:
        """Return the URL of the bucket, without a slash at its end."""
        base = self.template.replace("{region}", region)
        if self.path_style:
            return f"{base}/{self.bucket}"
        scheme, _, rest = base.partition("://")
        return f"{scheme}://{self.bucket}.{rest}"

    def url(self, region: str, key: str | None = None, query: str = "") -> str:
        """Return the URL of an object, or of the bucket itself, as it is signed and sent.

        Raises:
            InvalidKeyError: No URL can carry the key.
        """
        url = self.bucket_url(region)
        if key is not None:
            url = f"{url}/{quote_key(key)}"
        elif not self.path_style:
            url = f"{url}/"
        return f"{url}?{query}" if query else url

    def redirected(self, url: str, location: str) -> str | None:
        """Return where to send a request again that a server redirects; ``None`` where it leads away.

        It leads away unless it keeps the path and the query, does not give up TLS, and the host is this server's or one
        below its domain.

        Args:
            url: Where the request was sent.
            location: Where the server says it belongs.
        """
        old, new = urlsplit(url), urlsplit(location)
        # Where the region is part of the host, what stands behind it is what all regions have in common.
        common = self.template.rpartition("{region}.")[2] if self.has_region else self.template.partition("://")[2]
        domain = urlsplit(f"//{common}").hostname or ""
        host = new.hostname or ""
        if host != domain and not host.endswith(f".{domain}"):
            return None
        if new.username is not None or (new.scheme, new.port, new.path, new.query) != (
            old.scheme,
            old.port,
            old.path,
            old.query,
        ):
            return None
        return f"{new.scheme}://{new.netloc}{url.partition('://')[2].removeprefix(old.netloc)}"
