"""Loading objects that the command line names as ``module:name``: models, stores and engines."""

from __future__ import annotations

import os
import re
import sys
from contextlib import AsyncExitStack
from importlib import import_module
from inspect import isawaitable
from typing import Any, Final

import click

__all__ = ["ModelsParameter", "load", "resolve"]

_FORM: Final = re.compile(r"[\w.]+:[\w.]+")


def load(spec: str) -> Any:
    """Return the object that ``module:name`` names. Modules in the current directory are found, too.

    Raises:
        BadParameter: The value has another form, the module cannot be imported, or it has no such attribute.
    """
    if not _FORM.fullmatch(spec):  # the value is not repeated, because it may be a mistyped URL with a password
        raise click.BadParameter("expected MODULE:NAME, such as app.models:Base, or a URL for databases and stores")
    name, _, path = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = import_module(name)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except Exception as error:
        raise click.BadParameter(f"module {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise click.BadParameter(f"expected an attribute {part!r} in {spec!r}, found none") from None
    return found


class ModelsParameter(click.ParamType[Any]):
    """``module:name`` of a declarative base, a class, or an attachment."""

    name = "module:name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the named object."""
        return load(value) if isinstance(value, str) else value


async def resolve(stack: AsyncExitStack, target: Any, *kinds: type) -> Any:
    """Return a loaded object, after it was called, awaited and entered where possible.

    Args:
        stack: Exits the context manager, if the object is one.
        target: The loaded object: an instance, a function or coroutine function that returns one, or an asynchronous
            context manager.
        kinds: The expected types.

    Raises:
        UsageError: The result has another type.
    """
    if not isinstance(target, kinds) and callable(target):
        target = target()
    if isawaitable(target):
        target = await target
    if hasattr(target, "__aenter__"):
        target = await stack.enter_async_context(target)
    if not isinstance(target, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise click.UsageError(f"expected {wanted}, or a function that returns one, got {type(target).__name__}")
    return target
