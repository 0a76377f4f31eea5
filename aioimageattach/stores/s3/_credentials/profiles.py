"""Profiles in the shared files ``~/.aws/credentials`` and ``~/.aws/config``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import Error as ConfigError
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...._threads import run_io
from ....exc import StorePermissionError
from .botocore import BotocoreCredentials
from .sources import (
    NO_CREDENTIALS,
    ChainedCredentials,
    Credentials,
    CredentialSource,
    EnvironmentCredentials,
    build_credentials,
)

__all__ = ["DefaultCredentials", "ProfileCredentials"]

_NAMES: Final = ("aws_access_key_id", "aws_secret_access_key", ("aws_security_token", "aws_session_token"))
_WEB_IDENTITY: Final = "AWS_WEB_IDENTITY_TOKEN_FILE"
_BEFORE_KEYS: Final = ("role_arn", "web_identity_token_file", "sso_account_id", "sso_role_name")
_BEFORE_CONFIG: Final = ("login_session", "credential_process")


@dataclass(frozen=True, slots=True)
class _Files:
    """The settings of one profile in each file; empty if the file or the profile does not exist."""

    credentials_path: Path
    config_path: Path
    credentials: Mapping[str, str]
    config: Mapping[str, str]
    is_found: bool

    def find_deciding(self, *, is_named: bool) -> str | None:
        """Return the setting that takes precedence over the keys in the files, as in botocore, or ``None``.

        Args:
            is_named: ``True`` if the program names the profile; if so, the environment is ignored.
        """
        if not is_named and os.environ.get(_WEB_IDENTITY):
            return _WEB_IDENTITY
        merged = {**self.config, **self.credentials}
        names = _BEFORE_KEYS if self.credentials.get(_NAMES[0]) else _BEFORE_KEYS + _BEFORE_CONFIG
        return next((name for name in names if name in merged), None)


def _sections(path: Path) -> dict[str, dict[str, str]]:
    """Return the settings in a shared file, by section; empty if the file does not exist."""
    parser = RawConfigParser(default_section="", interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise StorePermissionError(f"{path} cannot be read: {type(error).__name__}", code=NO_CREDENTIALS) from None
    except ConfigError as error:
        # The message of the parser repeats the line, which may contain a secret.
        raise StorePermissionError(
            f"{path}: expected a file of profiles: {type(error).__name__}", code=NO_CREDENTIALS
        ) from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _profile_of(section: str) -> str:
    """Return the name of the profile that a section of the config file configures."""
    return section.removeprefix("profile").strip().strip("\"'") if section.startswith("profile") else section


def _read(name: str, credentials_path: Path, config_path: Path) -> _Files:
    credentials_path, config_path = credentials_path.expanduser(), config_path.expanduser()
    config = {_profile_of(section): values for section, values in _sections(config_path).items()}
    credentials = _sections(credentials_path)
    is_found = name in credentials or name in config
    return _Files(credentials_path, config_path, credentials.get(name, {}), config.get(name, {}), is_found)


class ProfileCredentials(CredentialSource):
    """The keys of a profile in the shared files, which are read in a worker thread.

    A profile may configure a way to obtain keys instead: a role, single sign-on, a web identity or a process. botocore,
    which the extra ``aws`` installs, resolves such profiles. The precedence of settings is that of botocore.

    Args:
        name: The profile; ``None`` means ``AWS_PROFILE``, or else ``"default"``.
        credentials_file: The path of the credentials file; ``None`` means ``AWS_SHARED_CREDENTIALS_FILE``, or else
            ``~/.aws/credentials``.
        config_file: The path of the config file; ``None`` means ``AWS_CONFIG_FILE``, or else ``~/.aws/config``.
        region: The region in which roles are assumed; ``None`` means the profile's.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        credentials_file: str | os.PathLike[str] | None = None,
        config_file: str | os.PathLike[str] | None = None,
        region: str | None = None,
    ) -> None:
        self._name = name
        self._credentials_file = credentials_file
        self._config_file = config_file
        self._region = region

    def __repr__(self) -> str:
        return f"ProfileCredentials({self._name!r})"

    async def _files(self) -> tuple[str | None, _Files]:
        chosen = self._name or os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or None
        credentials_file = self._credentials_file or os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
        config_file = self._config_file or os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
        return chosen, await run_io(_read, chosen or "default", Path(credentials_file), Path(config_file))

    async def fetch(self) -> Credentials | None:
        chosen, files = await self._files()
        if chosen is not None and not files.is_found:
            raise StorePermissionError(
                f"expected the profile {chosen!r} in {files.credentials_path} or {files.config_path}, found none",
                code=NO_CREDENTIALS,
            )
        setting = files.find_deciding(is_named=self._name is not None)
        if setting is not None:
            found = await BotocoreCredentials(
                self._name, region=self._region, credentials_file=self._credentials_file, config_file=self._config_file
            ).fetch()
            if found is None:
                raise StorePermissionError(
                    f"profile {chosen or 'default'!r}: {setting} requires botocore: pip install 'aioimageattach[aws]'",
                    code=NO_CREDENTIALS,
                )
            return found
        for path, values in ((files.credentials_path, files.credentials), (files.config_path, files.config)):
            found = build_credentials(values, _NAMES, f"{path}: profile {chosen or 'default'!r}")
            if found is not None:
                return found
        return None

    async def find_region(self) -> str | None:
        _, files = await self._files()
        return files.config.get("region") or files.credentials.get("region") or None


class DefaultCredentials(ChainedCredentials):
    """The default chain: environment variables, then shared files, then botocore (containers, instances).

    The order is that of botocore.

    Args:
        profile_name: The profile; if it is given, keys in environment variables are ignored.
        region: The region in which roles are assumed; ``None`` means the profile's.
    """

    def __init__(self, profile_name: str | None = None, *, region: str | None = None) -> None:
        first = () if profile_name else (EnvironmentCredentials(),)
        super().__init__(
            *first, ProfileCredentials(profile_name, region=region), BotocoreCredentials(profile_name, region=region)
        )
