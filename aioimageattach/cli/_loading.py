"""Load objects that the command line names as ``module:name``: models, stores and engines."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib import import_module
from inspect import isawaitable
from typing import Any, Final

import click

from ._output import error_text

__all__ = ["ModelsParameter", "load", "resolve"]

_FORM: Final = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


def load(spec: str) -> Any:
    """Return the object that ``module:name`` names. Modules in the current directory are found, too.

    Raises:
        BadParameter: The value has another form, the module cannot be imported, or it has no such attribute, or the
            attribute is ``None``.
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
    except (Exception, SystemExit) as error:
        raise click.BadParameter(f"module {name!r} cannot be imported: {_described(error)}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise click.BadParameter(f"expected an attribute {part!r} in {spec!r}, found none") from None
        except Exception as error:
            raise click.BadParameter(f"attribute {part!r} in {spec!r} cannot be read: {_described(error)}") from error
    if found is None:  # commands use None for options that were not given
        raise click.BadParameter(f"expected an object, {spec!r} is None")
    return found


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error_text(error)}"


class ModelsParameter(click.ParamType[Any]):
    """``module:name`` of a declarative base, a class, or an attachment."""

    name = "module:name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the named object."""
        return load(value) if isinstance(value, str) else value


async def resolve(stack: AsyncExitStack, target: Any, *kinds: type) -> Any:
    """Return a loaded object, after it was called, awaited and entered where possible.

    Args:
        stack: The stack that exits the context manager, if the object is one.
        target: The loaded object: an instance, a function or coroutine function that returns one, or an asynchronous
            context manager.
        kinds: The expected types.

    Raises:
        UsageError: The result has another type, or the object cannot be called without arguments.
    """
    wanted = f"{' or '.join(kind.__name__ for kind in kinds)}, or a function without arguments that returns one"
    if isinstance(target, type) or (not isinstance(target, kinds) and callable(target)):
        target = _call(target, wanted)
    if isawaitable(target):
        target = await target
    if hasattr(target, "__aenter__"):
        target = await stack.enter_async_context(target)
    if not isinstance(target, kinds):
        raise click.UsageError(f"expected {wanted}, got {type(target).__name__}")
    return target


def _call(target: Callable[[], Any], wanted: str) -> Any:
    try:
        return target()
    except TypeError as error:
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:  # raised by the code of the target
            raise
        kind = "class" if isinstance(target, type) else "function"
        raise click.UsageError(f"expected {wanted}, got a {kind} that requires arguments: {error}") from error
