"""Stores on Amazon S3 and on S3-compatible servers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._credentials.botocore import BotocoreCredentials
from ._credentials.profiles import DefaultCredentials, ProfileCredentials
from ._credentials.sources import (
    ChainedCredentials,
    Credentials,
    EnvironmentCredentials,
)

if TYPE_CHECKING:
    from ._client import S3Client
    from ._encryption import Encryption
    from ._errors import AuthMechanismError
    from ._http.endpoint import BASE_URL_FORMAT
    from ._sandbox import S3SandboxStore
    from ._store import DEFAULT_MAX_AGE, S3Store

__all__ = [
    "BASE_URL_FORMAT",
    "DEFAULT_MAX_AGE",
    "AuthMechanismError",
    "BotocoreCredentials",
    "ChainedCredentials",
    "Credentials",
    "DefaultCredentials",
    "Encryption",
    "EnvironmentCredentials",
    "ProfileCredentials",
    "S3Client",
    "S3SandboxStore",
    "S3Store",
]

_LATE = {
    "BASE_URL_FORMAT": "_http.endpoint",
    "DEFAULT_MAX_AGE": "_store",
    "AuthMechanismError": "_errors",
    "Encryption": "_encryption",
    "S3Client": "_client",
    "S3SandboxStore": "_sandbox",
    "S3Store": "_store",
}


def __getattr__(name: str) -> Any:
    # The client imports aiohttp, which the credentials and signers do not need, so it is loaded on first use.
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_LATE[name]}", __name__), name)
    return value
