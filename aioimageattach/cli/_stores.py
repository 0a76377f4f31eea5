"""The store of a command, by URL or by name. This is the only module that knows all backends."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import click

from ..store import Store
from ..stores.fs import FileSystemStore
from ._loading import load, resolve

if TYPE_CHECKING:
    from ..stores.s3 import S3Store

__all__ = ["StoreParameter", "as_s3_store", "describe_credentials", "open_store"]

_STRINGS: Final = frozenset(
    {"acl", "endpoint_url", "public_base_url", "region", "reproducible_storage_class", "signature_version"}
    | {"storage_class"}
)
_NUMBERS: Final = frozenset({"max_retry", "url_expires_in"})
_BOOLEANS: Final = frozenset({"bulk_delete", "path_style"})
_PRIVATE_SECONDS: Final = 3600
_BOOLEAN_VALUES: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class StoreParameter(click.ParamType[Any]):
    """``file:///path?base_url=...``, ``s3://bucket/prefix?region=...``, or ``module:name``.

    Args:
        writes: ``True`` if the command puts files. The URL of a bucket must then state whether objects are public,
            because this is recorded with each object and determines whether shared caches may store it.
    """

    name = "store"

    def __init__(self, *, writes: bool = False) -> None:
        self._writes = writes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the store for a URL, or the named object."""
        if not isinstance(value, str):
            return value
        if "://" not in value:
            return load(value)
        try:
            url = urlsplit(value)
            options = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
        except ValueError:  # Python's message may contain the URL with a secret
            self.fail("expected a URL such as s3://bucket/prefix?name=value&name=value, got an invalid one")
        try:
            if any("@" in part or ":" in part for part in (url.netloc, *map(_user, options.values()))):
                raise ValueError(
                    "expected a store URL without a user and a secret; S3 credentials are read from the environment"
                )
            if url.scheme == "file":
                return _directory(url, options)
            if url.scheme == "s3":
                return _bucket(url, options, writes=self._writes)
        except ValueError as error:
            self.fail(str(error))
        except ModuleNotFoundError as error:
            self.fail(f"S3 requires {error.name}: pip install 'aioimageattach[s3]'")
        self.fail(f"expected file:///path, s3://bucket/prefix or MODULE:NAME, got a URL with the scheme {url.scheme!r}")


def _user(value: str) -> str:
    """Return the user information of a URL, with the ``@``; empty without one."""
    user, at, _ = urlsplit(value).netloc.rpartition("@")
    return user + at


def _directory(url: SplitResult, options: dict[str, str]) -> FileSystemStore:
    base_url, fsync = options.pop("base_url", None), _boolean("fsync", options.pop("fsync", "yes"))
    _refuse(options, "base_url", "fsync")
    path = unquote(url.path)
    if url.netloc not in ("", "localhost") or not path:
        raise ValueError("expected three slashes and an absolute path, such as file:///srv/media")
    if not os.path.isdir(path):
        raise ValueError(f"expected an existing directory, got {path!r}")
    return FileSystemStore(path, base_url or f"file://{url.path}", fsync=fsync)


def _bucket(url: SplitResult, options: dict[str, str], *, writes: bool) -> Store:
    from ..stores.s3 import ProfileCredentials, S3Store

    found: dict[str, Any] = {}
    public = _boolean("public", options.pop("public")) if "public" in options else None
    name = options.pop("profile", None)
    if name is not None:
        found["credentials"] = ProfileCredentials(name)
    for label in list(options):
        if label in _STRINGS:
            found[label] = options.pop(label)
        elif label in _NUMBERS:
            found[label] = _integer(label, options.pop(label))
        elif label in _BOOLEANS:
            found[label] = _boolean(label, options.pop(label))
    _refuse(options, "profile", "public", *_STRINGS, *_NUMBERS, *_BOOLEANS)
    if not url.netloc:
        raise ValueError("expected a bucket, such as s3://my-pictures")
    if public is None and "url_expires_in" in found:
        public = False
    elif public is None and ("public_base_url" in found or found.get("acl", "").startswith("public-")):
        public = True
    if public is None and writes:
        raise ValueError(
            "public: expected public=yes or public=no in the URL of the bucket: may everybody read its objects? "
            "Caches keep only public ones"
        )
    if public and "url_expires_in" in found:
        raise ValueError("public: url_expires_in is for private objects; leave one of them out")
    if public is False:
        found.setdefault("url_expires_in", _PRIVATE_SECONDS)
    return S3Store(url.netloc, prefix=unquote(url.path), **found)


def _refuse(options: dict[str, str], *known: str) -> None:
    if options:
        raise ValueError(f"expected only the options {', '.join(sorted(known))}, got {', '.join(sorted(options))}")


def _integer(label: str, value: str) -> int:
    if not value.isdecimal():
        raise ValueError(f"{label}: expected a number, got {value!r}")
    return int(value)


def _boolean(label: str, value: str) -> bool:
    if value.lower() not in _BOOLEAN_VALUES:
        raise ValueError(f"{label}: expected yes or no, got {value!r}")
    return _BOOLEAN_VALUES[value.lower()]


async def open_store(stack: AsyncExitStack, target: Any) -> Store:
    """Return a store; its connections are closed with the stack."""
    found = await resolve(stack, target, Store)
    assert isinstance(found, Store)
    return found


def as_s3_store(store: Store) -> S3Store | None:
    """Return the store if it is an S3 store, without importing the S3 backend for other stores."""
    if "aioimageattach.stores.s3._store" not in sys.modules:
        return None
    from ..stores.s3 import S3Store

    return store if isinstance(store, S3Store) else None


async def describe_credentials(store: S3Store) -> str:
    """Describe the credentials of an S3 store without revealing them.

    Raises:
        StoreError: No credentials were found.
    """
    found = await store.client.credentials.get()
    kind = "no session token" if found.token is None else "a session token"
    until = "" if found.expires_at is None else f", until {found.expires_at:%Y-%m-%d %H:%M:%S %Z}"
    return f"found: the access key ends in {found.access_key[-4:]}, {kind}{until}"
