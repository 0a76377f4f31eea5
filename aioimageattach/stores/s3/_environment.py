"""The settings that a client takes from environment variables, by the names that botocore uses."""

from __future__ import annotations

import os
import ssl
from typing import Final

__all__ = ["find_ca_bundle", "find_endpoint_url", "find_region", "find_switch"]

_WORDS: Final = {"true": True, "false": False}


def find_switch(name: str) -> bool:
    """Return whether a variable such as ``AWS_USE_FIPS_ENDPOINT`` is ``true``.

    Raises:
        ValueError: It is neither ``true`` nor ``false``. botocore takes such a value for ``false``; whoever demands
            certain endpoints should rather know.
    """
    text = os.environ.get(name, "").strip().lower()
    if text and text not in _WORDS:
        raise ValueError(f"{name}: expected 'true' or 'false' in the environment, got {text!r:.40}")
    return bool(text) and _WORDS[text]


def find_endpoint_url() -> str | None:
    """Return the server's URL, unless ``AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`` is ``true``."""
    if find_switch("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        return None
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def find_region() -> str | None:
    """Return the region."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def find_ca_bundle() -> ssl.SSLContext | None:
    """Return a context that trusts the certificates of the file ``AWS_CA_BUNDLE``, and no others.

    Raises:
        ValueError: The file cannot be read, or contains no certificates.
    """
    path = os.environ.get("AWS_CA_BUNDLE")
    if not path:
        return None
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"AWS_CA_BUNDLE: expected a file of certificates, got {path!r}: {error.strerror}") from None
