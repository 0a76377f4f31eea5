"""What is named on the command line as ``module:name``: models, stores, engines."""

from __future__ import annotations

import os
import re
import sys
from contextlib import AsyncExitStack
from importlib import import_module
from inspect import isawaitable
from typing import Any, Final

import click

__all__ = ["ModelsParameter", "entered", "load"]

_FORM: Final = re.compile(r"[\w.]+:[\w.]+")


def load(spec: str) -> Any:
    """Return what ``module:name`` names; the present directory is looked into, too.

    Raises:
        UsageError: It has another form, the module cannot be imported, or it has no such name.
    """
    if not _FORM.fullmatch(spec):  # and may then be a URL, with a password, that is written wrongly
        raise click.UsageError("expected MODULE:NAME, such as app.models:Base, or a URL where one may stand")
    name, _, path = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = import_module(name)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except Exception as error:
        raise click.UsageError(f"module {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise click.UsageError(f"{spec!r}: there is no {part!r} in it") from None
    return found


class ModelsParameter(click.ParamType[Any]):
    """``module:name`` of a declarative base, a class, or an attachment."""

    name = "module:name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what it names."""
        return load(value) if isinstance(value, str) else value


async def entered(stack: AsyncExitStack, target: Any, *kinds: type) -> Any:
    """Return what a name stands for: itself, or what it returns when it is called, awaited and entered.

    Args:
        stack: Leaves what was entered, at its end.
        target: What was loaded.
        kinds: What it has to be in the end.

    Raises:
        UsageError: It is nothing of that.
    """
    if not isinstance(target, kinds) and callable(target):
        target = target()
    if isawaitable(target):
        target = await target
    if hasattr(target, "__aenter__"):
        target = await stack.enter_async_context(target)
    if not isinstance(target, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise click.UsageError(f"expected {wanted}, or what returns one, got {type(target).__name__}")
    return target
