"""The settings that a client reads from environment variables, under the names that botocore uses."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import Final

__all__ = ["find_ca_bundle", "find_endpoint_url", "find_region", "find_switch"]

_WORDS: Final = {"true": True, "false": False}


def find_switch(name: str) -> bool:
    """Return whether a variable such as ``AWS_USE_FIPS_ENDPOINT`` is ``true``.

    Raises:
        ValueError: The value is neither ``true`` nor ``false``. botocore treats such a value as ``false``, which would
            silently select the wrong endpoint.
    """
    text = os.environ.get(name, "").strip().lower()
    if text and text not in _WORDS:
        raise ValueError(f"{name}: expected 'true' or 'false' in the environment, got {text!r:.40}")
    return bool(text) and _WORDS[text]


def find_endpoint_url() -> str | None:
    """Return the configured endpoint URL, unless ``AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`` is ``true``."""
    if find_switch("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        return None
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def find_region() -> str | None:
    """Return the configured region, or ``None``."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def find_ca_bundle() -> ssl.SSLContext | None:
    """Return a context that trusts only the certificates in the file ``AWS_CA_BUNDLE``; ``None`` if it is not set.

    The file is read once, for all clients of the process: with the usual 140 certificates, this takes some 15 ms.

    Raises:
        ValueError: The file cannot be read, or contains no certificates.
    """
    path = os.environ.get("AWS_CA_BUNDLE")
    if not path:
        return None
    try:
        return _trusting(path)
    except OSError as error:  # ssl.SSLError is a subclass
        raise ValueError(f"AWS_CA_BUNDLE: expected a file of certificates, got {path!r}: {error.strerror}") from None


@lru_cache(maxsize=4)
def _trusting(path: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=path)
