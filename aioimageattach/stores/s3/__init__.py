"""Stores on S3, and on whatever speaks it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .credentials import (
    CredentialProvider,
    Credentials,
    botocore,
    callback,
    chain,
    default,
    environment,
    profile,
    static,
)

if TYPE_CHECKING:
    from .client import S3Client
    from .encryption import Encryption
    from .endpoint import BASE_URL_FORMAT
    from .errors import AuthMechanismError
    from .options import ClientOptions
    from .sandbox import S3SandboxStore
    from .store import DEFAULT_MAX_AGE, S3Store

__all__ = [
    "BASE_URL_FORMAT",
    "DEFAULT_MAX_AGE",
    "AuthMechanismError",
    "ClientOptions",
    "CredentialProvider",
    "Credentials",
    "Encryption",
    "S3Client",
    "S3SandboxStore",
    "S3Store",
    "botocore",
    "callback",
    "chain",
    "default",
    "environment",
    "profile",
    "static",
]

_LATE = {
    "BASE_URL_FORMAT": "endpoint",
    "DEFAULT_MAX_AGE": "store",
    "AuthMechanismError": "errors",
    "ClientOptions": "options",
    "Encryption": "encryption",
    "S3Client": "client",
    "S3SandboxStore": "sandbox",
    "S3Store": "store",
}


def __getattr__(name: str) -> Any:
    # The signers are of use without aiohttp, so the client is loaded when it is asked for.
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATE[name]}", __name__), name)
