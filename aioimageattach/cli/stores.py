"""The stores that the command line is about, by URL or by name. Here alone all backends are known."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import click

from ..store import Store
from ..stores.fs import FileSystemStore
from .loading import entered, load

__all__ = ["StoreParameter", "credentials_of", "open_store"]

_TEXTS: Final = frozenset(
    {"acl", "endpoint_url", "public_base_url", "region", "reproducible_storage_class", "signature_version"}
    | {"storage_class"}
)
_NUMBERS: Final = frozenset({"max_retry", "url_expires_in"})
_TRUTHS: Final = frozenset({"bulk_delete", "path_style"})
_WORDS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class StoreParameter(click.ParamType[Any]):
    """``file:///path?base_url=...``, ``s3://bucket/prefix?region=...``, or ``module:name``."""

    name = "store"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the store of the URL, or what the name names."""
        if not isinstance(value, str):
            return value
        if "://" not in value:
            return load(value)
        try:
            url = urlsplit(value)
            options = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
        except ValueError:  # Python's own text may repeat it, with a secret
            self.fail("the store's URL cannot be read; expected one such as s3://bucket/prefix?name=value&name=value")
        try:
            if any("@" in part or ":" in part for part in (url.netloc, *map(_user, options.values()))):
                raise ValueError(
                    "no user and no secret belong into the URL of a store; S3 finds them in the environment"
                )
            if url.scheme == "file":
                return _directory(url, options)
            if url.scheme == "s3":
                return _bucket(url, options)
        except ValueError as error:
            self.fail(str(error))
        except ModuleNotFoundError as error:
            self.fail(f"{error.name} is missing: pip install 'aioimageattach[s3]'")
        self.fail(f"expected file:///path, s3://bucket/prefix or MODULE:NAME, got one of {url.scheme}://")


def _user(value: str) -> str:
    """What stands before the host, if the value of an option is a URL."""
    user, at, _ = urlsplit(value).netloc.rpartition("@")
    return user + at


def _directory(url: SplitResult, options: dict[str, str]) -> FileSystemStore:
    base_url, fsync = options.pop("base_url", None), _truth("fsync", options.pop("fsync", "yes"))
    _refuse(options, "base_url", "fsync")
    path = unquote(url.path)
    if url.netloc not in ("", "localhost") or not path:
        raise ValueError("expected three slashes and an absolute path, such as file:///srv/media")
    if not os.path.isdir(path):
        raise ValueError(f"there is no directory {path!r}")
    return FileSystemStore(path, base_url or f"file://{url.path}", fsync=fsync)


def _bucket(url: SplitResult, options: dict[str, str]) -> Store:
    from ..stores.s3 import ProfileCredentials, S3Store

    found: dict[str, Any] = {}
    name = options.pop("profile", None)
    if name is not None:
        found["credentials"] = ProfileCredentials(name)
    for label in list(options):
        if label in _TEXTS:
            found[label] = options.pop(label)
        elif label in _NUMBERS:
            found[label] = _number(label, options.pop(label))
        elif label in _TRUTHS:
            found[label] = _truth(label, options.pop(label))
    _refuse(options, "profile", *_TEXTS, *_NUMBERS, *_TRUTHS)
    if not url.netloc:
        raise ValueError("expected a bucket, such as s3://my-pictures")
    return S3Store(url.netloc, prefix=unquote(url.path), **found)


def _refuse(options: dict[str, str], *known: str) -> None:
    if options:
        raise ValueError(f"unknown: {', '.join(sorted(options))}; expected some of {', '.join(sorted(known))}")


def _number(label: str, value: str) -> int:
    if not value.isdecimal():
        raise ValueError(f"{label}: expected a number, got {value!r}")
    return int(value)


def _truth(label: str, value: str) -> bool:
    if value.lower() not in _WORDS:
        raise ValueError(f"{label}: expected yes or no, got {value!r}")
    return _WORDS[value.lower()]


async def open_store(stack: AsyncExitStack, target: Any) -> Store:
    """Return the store; its connections are closed with the stack."""
    found = await entered(stack, target, Store)
    assert isinstance(found, Store)
    return found


async def credentials_of(store: Store) -> str | None:
    """Say what a bucket's requests are signed with, without saying it; ``None`` for other stores.

    Raises:
        StoreError: There are none.
    """
    if "aioimageattach.stores.s3.store" not in sys.modules:
        return None
    from ..stores.s3 import S3Store

    if not isinstance(store, S3Store):
        return None
    found = await store.client.credentials.get()
    kind = "no session token" if found.token is None else "a session token"
    until = "" if found.expires_at is None else f", until {found.expires_at:%Y-%m-%d %H:%M:%S %Z}"
    return f"found: the access key ends in {found.access_key[-4:]}, {kind}{until}"
