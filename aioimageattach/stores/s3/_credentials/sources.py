"""Credentials and their sources.

``await source.fetch()`` returns ``None`` if a source has no credentials, so that the next source can be tried. Secrets
never appear in a repr, pickle, log or error message.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NoReturn, TypeAlias

from ....exc import StorePermissionError

__all__ = [
    "NO_CREDENTIALS",
    "ChainedCredentials",
    "CredentialProvider",
    "CredentialSource",
    "Credentials",
    "EnvironmentCredentials",
    "build_credentials",
    "to_source",
]

NO_CREDENTIALS: Final = "NoCredentials"
"""The error code for missing or incomplete credentials."""

_PRINTABLE: Final = re.compile(r"[!-~]+")


class CredentialSource(ABC):
    """Base class of the sources of credentials."""

    __slots__ = ()

    @abstractmethod
    async def fetch(self) -> Credentials | None:
        """Return the current credentials, or ``None`` if this source has none.

        Raises:
            StorePermissionError: The credentials are incomplete or unreadable, or the issuing service denied them.
        """

    def peek(self) -> Credentials | None:
        """Return the credentials if they are available without I/O, or else ``None``."""
        return None

    async def find_region(self) -> str | None:
        """Return the region that is configured together with the credentials, or ``None``."""
        return None


@dataclass(frozen=True, slots=True)
class Credentials(CredentialSource):
    """A pair of keys that requests are signed with; also the source of credentials that do not change.

    Args:
        access_key: The access key ID, which is part of each request.
        secret_key: The secret access key, which is never sent.
        token: The session token of temporary credentials.
        expires_at: The time at which temporary credentials expire, an aware datetime; ``None`` if they do not expire or
            the time is unknown.

    Raises:
        ValueError: A key or the token is empty or contains blanks (the message does not repeat it), or the time has no
            time zone.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        for label, value in (("access_key", self.access_key), ("secret_key", self.secret_key), ("token", self.token)):
            if value is None and label == "token":
                continue
            if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
                raise ValueError(f"{label}: expected a str of printable ASCII without spaces")
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError(f"expires_at: expected a datetime with a time zone, got {self.expires_at!r}")

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials cannot be pickled: secrets do not belong in files and queues")

    def __copy__(self) -> Credentials:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Credentials:
        return self

    async def fetch(self) -> Credentials:
        return self

    def peek(self) -> Credentials:
        return self


CredentialProvider: TypeAlias = Callable[[], Awaitable[Credentials | tuple[str, str, str | None, datetime | None]]]
"""An asynchronous callable that returns :class:`Credentials`, or ``(access_key, secret_key, token, expires_at)``.

It is called when there are no credentials yet, and again before the current ones expire.
"""


@dataclass(frozen=True, slots=True)
class _ProvidedCredentials(CredentialSource):
    provider: CredentialProvider

    async def fetch(self) -> Credentials | None:
        found = await self.provider()
        return found if isinstance(found, Credentials) else Credentials(*found)


def to_source(credentials: CredentialSource | CredentialProvider) -> CredentialSource:
    """Return a source unchanged; wrap a callable in a source."""
    return credentials if isinstance(credentials, CredentialSource) else _ProvidedCredentials(credentials)


def build_credentials(
    values: Mapping[str, str], names: tuple[str, str, tuple[str, ...]], where: str, expires_at: datetime | None = None
) -> Credentials | None:
    """Build credentials from named values; return ``None`` if both keys are missing.

    Args:
        values: The values by name.
        names: The name of the access key, the name of the secret key, and the possible names of the token.
        where: The origin of the values, for error messages.
        expires_at: The time at which the credentials expire.

    Raises:
        StorePermissionError: Only one of the two keys is present, or a value contains blanks.
    """
    access_name, secret_name, token_names = names
    access_key, secret_key = values.get(access_name) or None, values.get(secret_name) or None
    if access_key is None and secret_key is None:
        return None
    if access_key is None or secret_key is None:
        present, absent = (secret_name, access_name) if access_key is None else (access_name, secret_name)
        raise StorePermissionError(f"{where}: expected {absent} with {present}, found none", code=NO_CREDENTIALS)
    token = next((values[name] for name in token_names if values.get(name)), None)
    try:
        return Credentials(access_key, secret_key, token, expires_at)
    except ValueError as error:
        raise StorePermissionError(f"{where}: {error}", code=NO_CREDENTIALS) from None


class EnvironmentCredentials(CredentialSource):
    """Credentials in ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN``.

    If ``AWS_CREDENTIAL_EXPIRATION`` is set, the variables are read again before that time.
    """

    _NAMES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", ("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"))

    async def fetch(self) -> Credentials | None:
        return self.peek()

    def peek(self) -> Credentials | None:
        text = os.environ.get("AWS_CREDENTIAL_EXPIRATION")
        try:
            expires_at = datetime.fromisoformat(text) if text else None
        except ValueError:
            raise StorePermissionError(
                "environment: AWS_CREDENTIAL_EXPIRATION: expected a time such as 2026-11-20T12:30:00Z, "
                f"got {text!r:.40}",
                code=NO_CREDENTIALS,
            ) from None
        if expires_at is not None and expires_at.tzinfo is None:
            expires_at = expires_at.replace(tzinfo=UTC)
        return build_credentials(os.environ, self._NAMES, "environment", expires_at)


class ChainedCredentials(CredentialSource):
    """A chain of sources. It returns the credentials of the first source that has any, or ``None`` if none has.

    Args:
        sources: The sources, in the order in which they are tried.
    """

    def __init__(self, *sources: CredentialSource | CredentialProvider) -> None:
        self._sources = tuple(map(to_source, sources))

    def __repr__(self) -> str:
        return f"ChainedCredentials({', '.join(map(repr, self._sources))})"

    async def fetch(self) -> Credentials | None:
        for source in self._sources:
            found = await source.fetch()
            if found is not None:
                return found
        return None

    def peek(self) -> Credentials | None:
        # Only the first source counts: fetch() prefers it to later ones, even if only they are known without I/O.
        return self._sources[0].peek() if self._sources else None

    async def find_region(self) -> str | None:
        for source in self._sources:
            found = await source.find_region()
            if found is not None:
                return found
        return None
