"""Credentials: where they come from, and a cache that renews them before they expire.

A source is asked with ``await source.fetch()``; it answers ``None`` where it knows none, so that another can be asked.
Secrets appear in no repr, no pickle, no log and no message.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from configparser import Error as ConfigError
from configparser import RawConfigParser
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NoReturn, TypeAlias
from weakref import WeakKeyDictionary

from ..._threads import run_io
from ...exc import ImageAttachError, StorePermissionError, StoreUnavailableError

__all__ = [
    "CredentialCache",
    "CredentialProvider",
    "Credentials",
    "Source",
    "botocore",
    "callback",
    "chain",
    "default",
    "environment",
    "profile",
    "static",
]

_log = logging.getLogger(__name__)

_PRINTABLE: Final = re.compile(r"[!-~]+")
_NONE_CODE: Final = "NoCredentials"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What requests are signed with.

    Args:
        access_key: The public half, which stands in each request.
        secret_key: The secret half, which is sent nowhere.
        token: The session token of temporary credentials.
        expires_at: When they end, with its zone; ``None`` where they do not, or nobody knows.

    Raises:
        ValueError: One is empty or has blanks, or the time has no zone. The message repeats none of them.
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
                raise ValueError(f"{label}: expected a text of printable ASCII without blanks")
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError(f"expires_at: expected a time with its zone, got {self.expires_at!r}")

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials cannot be pickled: secrets do not belong into files and queues")

    def __copy__(self) -> Credentials:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Credentials:
        return self


Answer: TypeAlias = Credentials | tuple[str, str, str | None, datetime | None]
CredentialProvider: TypeAlias = Callable[[], Awaitable[Answer]]
"""Returns credentials, or ``(access_key, secret_key, token, expires_at)``."""


class Source(ABC):
    """Somewhere that credentials come from."""

    @abstractmethod
    async def fetch(self) -> Credentials | None:
        """Return the credentials that are valid now, ``None`` where there are none.

        Raises:
            StorePermissionError: There ought to be some, but they are incomplete or unreadable.
        """

    def peek(self) -> Credentials | None:
        """Return the credentials if they are known without I/O."""
        return None


@dataclass(frozen=True, slots=True)
class _Static(Source):
    credentials: Credentials

    async def fetch(self) -> Credentials | None:
        return self.credentials

    def peek(self) -> Credentials | None:
        return self.credentials


def static(access_key: str, secret_key: str, token: str | None = None) -> Source:
    """Credentials that are known and do not change."""
    return _Static(Credentials(access_key, secret_key, token))


def _build(values: Mapping[str, str | None], names: tuple[str, str, str], where: str) -> Credentials | None:
    """Return credentials of the values by those names, ``None`` where neither key is there."""
    access_key, secret_key, token = (values.get(name) or None for name in names)
    if access_key is None and secret_key is None:
        return None
    if access_key is None or secret_key is None:
        present, absent = (names[1], names[0]) if access_key is None else (names[0], names[1])
        raise StorePermissionError(f"{where}: {present} is there, but {absent} is not", code=_NONE_CODE)
    try:
        return Credentials(access_key, secret_key, token)
    except ValueError as error:
        raise StorePermissionError(f"{where}: {error}", code=_NONE_CODE) from None


@dataclass(frozen=True, slots=True)
class _Environment(Source):
    async def fetch(self) -> Credentials | None:
        return self.peek()

    def peek(self) -> Credentials | None:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return _build(os.environ, names, "environment")


def environment() -> Source:
    """The environment: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN``."""
    return _Environment()


def _sections(path: Path) -> dict[str, dict[str, str]]:
    """Read a shared file: its profiles, each with its settings. None where there is no such file."""
    parser = RawConfigParser(default_section="", interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise StorePermissionError(f"{path}: it cannot be read: {type(error).__name__}", code=_NONE_CODE) from None
    except ConfigError as error:
        # The error repeats the line, which may hold a secret.
        raise StorePermissionError(
            f"{path}: it is no file of profiles: {type(error).__name__}", code=_NONE_CODE
        ) from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _profile_of(section: str) -> str:
    """Return the profile that a section of the config file is about."""
    return section.removeprefix("profile").strip().strip("\"'") if section.startswith("profile") else section


def _read_profile(name: str, required: bool, credentials_file: Path, config_file: Path) -> Credentials | None:
    found: list[tuple[Path, dict[str, str]]] = []
    for path, rename in ((credentials_file.expanduser(), str), (config_file.expanduser(), _profile_of)):
        found += [(path, values) for section, values in _sections(path).items() if rename(section) == name]
    if required and not found:
        raise StorePermissionError(
            f"profile {name!r}: it is neither in {credentials_file} nor in {config_file}", code=_NONE_CODE
        )
    if any("role_arn" in values for _, values in found):
        return None  # its keys may only ask for those of the role
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    built = (_build(values, names, f"{path}: profile {name!r}") for path, values in found)
    return next((credentials for credentials in built if credentials is not None), None)


def _chosen_profile(name: str | None) -> str | None:
    return name or os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or None


@dataclass(frozen=True, slots=True)
class _Profile(Source):
    name: str | None
    credentials_file: Path | None
    config_file: Path | None

    async def fetch(self) -> Credentials | None:
        chosen = _chosen_profile(self.name)
        credentials_file = self.credentials_file or os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
        config_file = self.config_file or os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
        return await run_io(
            _read_profile, chosen or "default", chosen is not None, Path(credentials_file), Path(config_file)
        )


def profile(
    name: str | None = None,
    *,
    credentials_file: str | os.PathLike[str] | None = None,
    config_file: str | os.PathLike[str] | None = None,
) -> Source:
    """The keys of a profile in the shared files, which are read in a worker thread.

    A profile that says how to get keys instead (a role, single sign-on, a process) is for :func:`botocore`.

    Args:
        name: The profile; ``None`` means that of ``AWS_PROFILE``, or else ``"default"``.
        credentials_file: ``None`` means that of ``AWS_SHARED_CREDENTIALS_FILE``, or else ``~/.aws/credentials``.
        config_file: ``None`` means that of ``AWS_CONFIG_FILE``, or else ``~/.aws/config``.
    """
    files = [None if file is None else Path(file) for file in (credentials_file, config_file)]
    return _Profile(name, *files)


@dataclass(frozen=True, slots=True)
class _Callback(Source):
    provider: CredentialProvider

    async def fetch(self) -> Credentials | None:
        found = await self.provider()
        return found if isinstance(found, Credentials) else Credentials(*found)


def callback(provider: CredentialProvider) -> Source:
    """Whatever an asynchronous callable returns.

    Args:
        provider: Awaited when there are no credentials yet, and before the present ones expire. It returns
            :class:`Credentials`, or a tuple of access key, secret key, token and the time they expire.
    """
    return _Callback(provider)


def _ask_botocore(name: str | None) -> Credentials | None:
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session
    except ImportError:
        return None
    try:
        # A new session each time: one that is kept may return what a server has just refused.
        found = Session(profile=name).get_credentials()
        if found is None:
            return None
        keys = found.get_frozen_credentials()
    except (BotoCoreError, ClientError) as error:
        # What it says may repeat what a server answered.
        raise StorePermissionError(
            f"botocore could not get credentials: {type(error).__name__}", code=_NONE_CODE
        ) from error
    return Credentials(keys.access_key, keys.secret_key, keys.token or None, getattr(found, "_expiry_time", None))


@dataclass(frozen=True, slots=True)
class _Botocore(Source):
    name: str | None

    async def fetch(self) -> Credentials | None:
        return await run_io(_ask_botocore, self.name)


def botocore(profile_name: str | None = None) -> Source:
    """Whatever botocore finds, asked in a worker thread: containers, instances (IMDSv2), web identities, roles.

    It finds nothing where botocore is not installed; the extra ``aws`` brings it.

    Args:
        profile_name: The profile; ``None`` means that of ``AWS_PROFILE``, or else ``"default"``.
    """
    return _Botocore(profile_name)


@dataclass(frozen=True, slots=True)
class _Chain(Source):
    sources: tuple[Source, ...]

    async def fetch(self) -> Credentials | None:
        for source in self.sources:
            found = await source.fetch()
            if found is not None:
                return found
        return None

    def peek(self) -> Credentials | None:
        for source in self.sources:
            found = source.peek()
            if found is not None:
                return found
        return None


def chain(*sources: Source) -> Source:
    """The first of the sources that knows credentials."""
    return _Chain(sources)


def default(
    access_key: str | None = None,
    secret_key: str | None = None,
    token: str | None = None,
    *,
    profile_name: str | None = None,
) -> Source:
    """The arguments if given, or else the environment, the shared files and what botocore finds, in this order.

    Args:
        access_key: Given with ``secret_key``, or not at all.
        secret_key: Given with ``access_key``, or not at all.
        token: The session token, if they are temporary.
        profile_name: The profile; where one is named, the environment is not asked.

    Raises:
        ValueError: One key is given without the other.
    """
    if access_key is not None and secret_key is not None:
        return static(access_key, secret_key, token)
    if access_key is not None or secret_key is not None or token is not None:
        raise ValueError("access_key and secret_key: expected both or neither, and a token only with them")
    named = () if profile_name else (environment(),)
    return chain(*named, profile(profile_name), botocore(profile_name))


def _utc_now() -> datetime:
    return datetime.now(UTC)


class CredentialCache:
    """Keeps the credentials of a source and renews them before they expire, once for all who wait.

    While some that still hold are being renewed, only the one who asked first waits. When renewing them fails, they
    are used to their end. It may be used from several event loops.

    Args:
        source: Where they come from.
        ahead: How long before they expire they are renewed, in seconds.
        clock: Returns the present time.
    """

    RETRY: Final = timedelta(seconds=30)
    """After an attempt that brought nothing better, how long the present ones are used before the next."""

    def __init__(self, source: Source, *, ahead: float = 300.0, clock: Callable[[], datetime] = _utc_now) -> None:
        self._source = source
        self._ahead = timedelta(seconds=ahead)
        self._clock = clock
        self._current: Credentials | None = None
        self._not_before: datetime | None = None
        self._flights: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[Credentials]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"CredentialCache({self._current!r})"

    def peek(self) -> Credentials | None:
        """Return credentials that hold now if they are known without I/O."""
        found = self._current or self._source.peek()
        return found if found is not None and self._holds(found) else None

    def forget(self, refused: Credentials | None = None) -> None:
        """Ask the source again next time, because a server has refused the credentials.

        Args:
            refused: Those that were refused; when others are known by now, these stay. ``None`` means any.
        """
        if refused is None or refused == self._current:
            self._current = self._not_before = None

    async def get(self) -> Credentials:
        """Return credentials that hold, from the source if need be.

        Effects:
            When the one who asks the source is cancelled, another who waits asks again.

        Raises:
            StorePermissionError: The source knows none.
            StoreUnavailableError: The source failed; the cause is its own error.
        """
        loop = asyncio.get_running_loop()
        while True:
            current = self._current
            if current is not None and not self._is_due(current):
                return current
            flight = self._flights.get(loop)
            if flight is None:
                return await self._lead(loop)
            if current is not None and self._holds(current):
                return current
            await asyncio.wait([flight])
            if not flight.cancelled():
                return flight.result()

    def _holds(self, credentials: Credentials) -> bool:
        return credentials.expires_at is None or self._clock() < credentials.expires_at

    def _is_due(self, credentials: Credentials) -> bool:
        if credentials.expires_at is None:
            return False
        now = self._clock()
        return now >= credentials.expires_at - self._ahead and (self._not_before is None or now >= self._not_before)

    async def _lead(self, loop: asyncio.AbstractEventLoop) -> Credentials:
        flight: asyncio.Future[Credentials] = loop.create_future()
        self._flights[loop] = flight
        try:
            found = await self._renew()
        except asyncio.CancelledError:
            flight.cancel()
            raise
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # nobody may be waiting, which is no mistake
            raise
        else:
            flight.set_result(found)
            return found
        finally:
            del self._flights[loop]

    async def _renew(self) -> Credentials:
        current = self._current
        try:
            found = await self._fetch()
        except ImageAttachError as error:
            if current is None or current.expires_at is None or not self._holds(current):
                raise
            _log.warning("The credentials could not be renewed and are used until %s: %s", current.expires_at, error)
            self._not_before = min(self._clock() + self.RETRY, current.expires_at)
            return current
        self._current = found
        self._not_before = self._clock() + self.RETRY
        return found

    async def _fetch(self) -> Credentials:
        try:
            found = await self._source.fetch()
        except ImageAttachError:
            raise
        except Exception as error:
            # What a foreign error says may hold a secret.
            raise StoreUnavailableError(f"the source of the credentials failed: {type(error).__name__}") from error
        if found is None:
            raise StorePermissionError(
                "there are no S3 credentials: give access_key and secret_key, set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or install aioimageattach[aws] for those of containers, "
                "instances and web identities",
                code=_NONE_CODE,
            )
        return found
