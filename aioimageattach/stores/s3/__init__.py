"""Stores on Amazon S3, and on servers that are compatible with it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .botocore_credentials import BotocoreCredentials
from .credentials import (
    ChainedCredentials,
    CredentialProvider,
    Credentials,
    CredentialSource,
    EnvironmentCredentials,
    StaticCredentials,
)
from .profiles import DefaultCredentials, ProfileCredentials

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
    "BotocoreCredentials",
    "ChainedCredentials",
    "ClientOptions",
    "CredentialProvider",
    "CredentialSource",
    "Credentials",
    "DefaultCredentials",
    "Encryption",
    "EnvironmentCredentials",
    "ProfileCredentials",
    "S3Client",
    "S3SandboxStore",
    "S3Store",
    "StaticCredentials",
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
    # The signers are of use without aiohttp, so the client is loaded when it is needed.
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATE[name]}", __name__), name)
