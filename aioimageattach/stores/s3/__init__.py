"""Stores on S3, and on whatever speaks it."""

from __future__ import annotations

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

__all__ = [
    "CredentialProvider",
    "Credentials",
    "botocore",
    "callback",
    "chain",
    "default",
    "environment",
    "profile",
    "static",
]
