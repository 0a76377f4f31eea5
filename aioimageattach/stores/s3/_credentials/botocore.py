"""Credentials that botocore resolves. This is the only module that imports botocore."""

from __future__ import annotations

import os
from typing import Any, Final

from ...._threads import run_io
from ....exc import StorePermissionError
from .sources import NO_CREDENTIALS, Credentials, CredentialSource

__all__ = ["BotocoreCredentials"]

_SIGN_ON: Final = frozenset(
    {
        "SSOError",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)
_LOGIN: Final = frozenset({"LoginError", "LoginInsufficientPermissions", "LoginRefreshRequired", "LoginTokenLoadError"})
_SAFE: Final = frozenset(
    {
        "ConnectTimeoutError",
        "EndpointConnectionError",
        "InfiniteLoopConfigError",
        "InvalidConfigError",
        "MissingDependencyException",
        "NoRegionError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "ReadTimeoutError",
        "UnauthorizedSSOTokenError",
        "UnknownCredentialError",
    }
)
"""Errors whose messages contain only names and addresses. Others may repeat the output of a process or a server."""


def _error_text(error: Any, profile: str | None) -> str:
    """Describe an error of botocore without repeating text that may contain a secret."""
    kind = type(error).__name__
    if kind in _SIGN_ON:
        return f"{kind}: run `aws sso login{f' --profile {profile}' if profile else ''}`"
    if kind in _LOGIN:
        return f"{kind}: run `aws login{f' --profile {profile}' if profile else ''}`"
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return f"{error.operation_name} failed with {response['Error'].get('Code')}"
    provider = getattr(error, "kwargs", {}).get("provider")
    if provider == "custom-process":
        return f"{kind}: credential_process failed; run it to see why"
    if kind in _SAFE:
        return f"{kind}: {error}"
    return f"{kind}{f' of {provider}' if provider else ''}"


def _ask(
    profile: str | None, region: str | None, files: dict[str, str | os.PathLike[str] | None]
) -> Credentials | None:
    try:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.session import Session
    except ImportError:
        return None
    try:
        # Use a new session each time: a cached one may return the credentials that a server has just rejected.
        session = Session(profile=profile)
        for name, value in {**files, "region": region}.items():
            if value is not None:
                session.set_config_variable(name, os.fspath(value))
        found = session.get_credentials()
        if found is None:
            return None
        keys = found.get_frozen_credentials()
    except (BotoCoreError, ClientError, HTTPClientError) as error:
        raise StorePermissionError(
            f"botocore could not get credentials: {_error_text(error, profile)}", code=NO_CREDENTIALS
        ) from error
    return Credentials(keys.access_key, keys.secret_key, keys.token or None, getattr(found, "_expiry_time", None))


class BotocoreCredentials(CredentialSource):
    """Credentials that botocore resolves: those of containers, instances (IMDSv2), web identities and roles.

    botocore runs in a worker thread. If it is not installed, this source has no credentials; the extra ``aws`` installs
    it.

    Args:
        profile_name: The profile; ``None`` means ``AWS_PROFILE``, or else ``"default"``.
        region: The region in which roles are assumed; ``None`` means botocore's default.
        credentials_file: The path of the credentials file; ``None`` means botocore's default.
        config_file: The path of the config file; ``None`` means botocore's default.
    """

    def __init__(
        self,
        profile_name: str | None = None,
        *,
        region: str | None = None,
        credentials_file: str | os.PathLike[str] | None = None,
        config_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._profile_name = profile_name
        self._region = region
        self._files = {"credentials_file": credentials_file, "config_file": config_file}

    def __repr__(self) -> str:
        return f"BotocoreCredentials({self._profile_name!r})"

    async def fetch(self) -> Credentials | None:
        return await run_io(_ask, self._profile_name, self._region, self._files)
