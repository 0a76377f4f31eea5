"""Endpoints: the URLs of a bucket's objects on any server, in virtual-hosted and path style. Does no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from .._signing.urls import quote_key

__all__ = ["BASE_URL_FORMAT", "Endpoint", "dns_suffix"]

BASE_URL_FORMAT: Final = "https://{0}.s3.amazonaws.com"
"""The base of public URLs of a bucket at Amazon whose region is unknown, without a trailing slash.

It works for regions that existed before March 2019, but not for later ones.
"""

_DOMAIN: Final = "amazonaws.com"
_SUFFIXES: Final = {
    "cn-": "amazonaws.com.cn",
    "eu-isoe-": "cloud.adc-e.uk",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
}
"""The domain of each partition, by the prefix of its region names; all other regions use ``amazonaws.com``."""

_BUCKET: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){1,253}[A-Za-z0-9]", re.ASCII)
_HOST_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII)
_TEMPLATE: Final = re.compile(r"https?://[A-Za-z0-9._~:\[\]{}-]+(?:/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)?", re.ASCII)

_MULTI_REGION: Final = (
    "expected a bucket of one region; multi-region access points require Signature Version 4A, which is not "
    "supported; use one of its buckets, or the alias of an access point in one region"
)
_UNSUPPORTED: Final = {
    "--x-s3": "expected a general purpose bucket; directory buckets require sessions, which are not supported",
    "--op-s3": "expected a general purpose bucket; S3 on Outposts is another service, which is not supported",
    "--table-s3": "expected a general purpose bucket; table buckets contain no objects",
    ".mrap": _MULTI_REGION,
}
"""Suffixes of bucket names at Amazon that do not denote a general purpose bucket, with the error message for each."""


def dns_suffix(region: str) -> str:
    """Return the domain of the AWS partition that a region belongs to."""
    return next((suffix for start, suffix in _SUFFIXES.items() if region.startswith(start)), _DOMAIN)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A bucket on a server.

    Args:
        bucket: The name of the bucket.
        template: The server's URL; ``{region}`` in it is replaced by the region. ``None`` means Amazon.
        path_style: ``True`` if the bucket is the first part of the path instead of the host name. ``None`` means path
            style on all servers except Amazon's; at Amazon, only if TLS certificates do not cover a host with the
            bucket's name.
        dual_stack: Amazon only: use a host that also has IPv6 addresses.
        fips: Amazon only: use a host with FIPS-validated cryptography.
        accelerate: Amazon only: route requests through the nearest edge location, which must be enabled for the bucket.

    Raises:
        ValueError: The bucket or the URL is malformed, or the options are incompatible.
    """

    bucket: str
    template: str | None = None
    path_style: bool | None = None
    dual_stack: bool = False
    fips: bool = False
    accelerate: bool = False

    def __post_init__(self) -> None:
        self._check_bucket()
        if self.template is None:
            self._check_amazon()
        else:
            object.__setattr__(self, "template", self.template.rstrip("/"))
            self._check_server(self.template.rstrip("/"))
        if self.path_style is None:
            object.__setattr__(self, "path_style", not (self.is_aws and _HOST_LABEL.fullmatch(self.bucket)))

    def _check_bucket(self) -> None:
        if isinstance(self.bucket, str) and self.bucket.startswith("arn:"):
            if self.bucket.endswith(".mrap"):
                raise ValueError(f"bucket: {_MULTI_REGION}; got {self.bucket!r:.120}")
            raise ValueError(
                "bucket: expected a name, got an ARN; use the access point's alias instead, which ends in '-s3alias'"
            )
        if not isinstance(self.bucket, str) or not _BUCKET.fullmatch(self.bucket):
            raise ValueError(
                f"bucket: expected 3 to 255 letters, digits, '.', '-' and '_', without '..', got {self.bucket!r:.80}"
            )

    def _check_amazon(self) -> None:
        for suffix, problem in _UNSUPPORTED.items():
            if self.bucket.endswith(suffix):
                raise ValueError(f"bucket: {problem}; got {self.bucket!r}")
        fits_host = _HOST_LABEL.fullmatch(self.bucket) is not None
        if self.path_style is False and not fits_host and not _HOST_LABEL.fullmatch(self.bucket.replace(".", "-")):
            raise ValueError(
                f"path_style: expected True or None, because the bucket {self.bucket!r} cannot be part of a host name"
            )
        if self.accelerate and (self.fips or self.path_style or not fits_host):
            raise ValueError(
                "accelerate: expected a bucket of lower-case letters, digits and '-', without fips and path_style"
            )

    def _check_server(self, template: str) -> None:
        bare = template.replace("{region}", "region")
        parts = urlsplit(bare) if _TEMPLATE.fullmatch(bare) else None
        if parts is None or "{" in bare or not parts.hostname or "/." in bare:
            raise ValueError(
                "endpoint_url: expected http(s)://host[:port][/path] without a user and a query, such as "
                f"'https://s3.{{region}}.example.com', got {template.rpartition('@')[2]!r:.120}"
            )
        if self.dual_stack or self.fips or self.accelerate:
            raise ValueError(
                "endpoint_url: expected None with dual_stack, fips or accelerate, which select Amazon's hosts"
            )
        has_bucket = parts.hostname.startswith(f"{self.bucket.lower()}.") or f"{parts.path}/".startswith(
            f"/{self.bucket}/"
        )
        if has_bucket and not self.path_style:
            raise ValueError(
                f"endpoint_url: expected the server's URL without the bucket {self.bucket!r}, which would be added a "
                "second time; if the bucket has the same name as the server, set path_style=True"
            )

    @property
    def is_aws(self) -> bool:
        """``True`` if the server is Amazon's own."""
        return self.template is None

    @property
    def has_region(self) -> bool:
        """``True`` if the region's name is part of the URL."""
        return self.template is None or "{region}" in self.template

    @property
    def is_encrypted(self) -> bool:
        """``True`` if requests use TLS."""
        return self.template is None or self.template.startswith("https:")

    @property
    def server(self) -> str:
        """The identity of the server; all hosts of Amazon count as one server."""
        return "amazon" if self.template is None else self.template.casefold()

    @property
    def label(self) -> str:
        """The server's URL, for error messages."""
        return self._base("{region}")

    def _base(self, region: str) -> str:
        """Return the server's URL without a trailing slash; see "Amazon S3 endpoints and quotas" for Amazon's."""
        if self.template is not None:
            return self.template.replace("{region}", region)
        dual_stack = ".dualstack" if self.dual_stack else ""
        suffix = dns_suffix(region)
        if self.accelerate:
            return f"https://s3-accelerate{dual_stack}.{suffix}"
        return f"https://s3{'-fips' if self.fips else ''}{dual_stack}.{region}.{suffix}"

    def bucket_url(self, region: str) -> str:
        """Return the URL of the bucket, without a trailing slash."""
        base = self._base(region)
        if self.path_style:
            return f"{base}/{self.bucket}"
        scheme, _, rest = base.partition("://")
        return f"{scheme}://{self.bucket}.{rest}"

    def url(self, region: str, key: str | None = None, query: str = "") -> str:
        """Return the URL of an object, or of the bucket itself, exactly as it is signed and sent.

        Raises:
            InvalidKeyError: The key cannot be part of a URL.
        """
        url = self.bucket_url(region)
        if key is not None:
            url = f"{url}/{quote_key(key)}"
        elif not self.path_style:
            url = f"{url}/"
        return f"{url}?{query}" if query else url

    def redirected(self, url: str, location: str) -> str | None:
        """Return the URL to which a redirected request is sent again; ``None`` if the redirect must not be followed.

        A redirect is followed only if it keeps the scheme, the port, the path and the query, and if the host is in the
        server's own domain.

        Args:
            url: The URL that the request was sent to.
            location: The target of the redirect.
        """
        old, new = urlsplit(url), urlsplit(location)
        if self.template is None:
            domain = next(name for name in (*_SUFFIXES.values(), _DOMAIN) if _is_below(old.hostname, name))
        else:
            # If the region is part of the host name, all regions share the part after it.
            common = self.template.rpartition("{region}.")[2] if self.has_region else self.template.partition("://")[2]
            domain = urlsplit(f"//{common}").hostname or ""
        if not _is_below(new.hostname, domain):
            return None
        if new.username is not None or (new.scheme, new.port, new.path, new.query) != (
            old.scheme,
            old.port,
            old.path,
            old.query,
        ):
            return None
        return f"{new.scheme}://{new.netloc}{url.partition('://')[2].removeprefix(old.netloc)}"


def _is_below(host: str | None, domain: str) -> bool:
    return host is not None and (host == domain or host.endswith(f".{domain}"))
