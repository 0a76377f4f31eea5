"""The arguments and options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, NoReturn, Protocol, TypeAlias, TypeVar

import click

from ._database import DatabaseParameter
from ._loading import ModelsParameter
from ._output import EVERY, Output
from ._stores import StoreParameter

__all__ = [
    "MODELS",
    "STORE",
    "Decorator",
    "concurrency",
    "database",
    "deep",
    "force",
    "json_output",
    "models",
    "object_types",
    "output",
    "store",
    "store_to_fill",
    "two_stores",
]

F = TypeVar("F", bound=Callable[..., Any])
Command: TypeAlias = Callable[..., NoReturn]


class Decorator(Protocol):
    """Adds an argument or an option to a command."""

    def __call__(self, command: F, /) -> F: ...


MODELS: Final = ModelsParameter()
STORE: Final = StoreParameter()
STORE_TO_FILL: Final = StoreParameter(writes=True)

models: Final[Decorator] = click.argument("models", type=MODELS)
"""``module:name`` of a declarative base or one class."""

database: Final[Decorator] = click.option(
    "--database",
    "-d",
    type=DatabaseParameter(),
    envvar="DATABASE_URL",
    show_envvar=True,
    required=True,
    metavar="URL",
    help="The database, or MODULE:NAME of an AsyncEngine or async_sessionmaker.",
)


def _store(parameter: StoreParameter) -> Decorator:
    return click.option(
        "--store",
        "-s",
        type=parameter,
        envvar="AIOIMAGEATTACH_STORE",
        show_envvar=True,
        required=True,
        metavar="STORE",
        help="file:///PATH, s3://BUCKET/PREFIX?region=..., or MODULE:NAME of a store.",
    )


store: Final[Decorator] = _store(STORE)
store_to_fill: Final[Decorator] = _store(STORE_TO_FILL)
"""The store of a command that puts files."""

object_types: Final[Decorator] = click.option(
    "--object-type",
    "object_types",
    multiple=True,
    metavar="TYPE",
    help="Only files of this object type, with which their names begin; can be given several times.",
)

force: Final[Decorator] = click.option(
    "--force", is_flag=True, help="Continue even if the database may hide rows, as a replica does."
)


def deep(where: str = "") -> Decorator:
    """Add ``--deep``.

    Args:
        where: The location of the files, for the help.
    """
    return click.option(
        "--deep", is_flag=True, help=f"Read the files{where} and compare checksums, instead of only sizes."
    )


def concurrency(default: int = 16) -> Decorator:
    """Add ``--concurrency``."""
    return click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="Number of files that are processed concurrently.",
    )


def two_stores(old: str, new: str, *, fills: bool = False) -> Callable[[Command], Command]:
    """Add the common arguments and options of the commands for a move from one store to another.

    Args:
        old: The name of the argument for the store with the files.
        new: The name of the argument for the store to which they are moved.
        fills: ``True`` if the command puts files into the new store.
    """

    def decorate(command: Command) -> Command:
        added: tuple[Callable[[Command], Command], ...] = (
            output,
            concurrency(),
            deep(f" in {new.upper()}"),
            database,
            click.argument(new, type=STORE_TO_FILL if fills else STORE),
            click.argument(old, type=STORE),
            models,
        )
        for add in added:
            command = add(command)
        return command

    return decorate


_as_json: Final[Decorator] = click.option("--json", "as_json", is_flag=True, help="Write one JSON document per line.")


def json_output(command: Command) -> Command:
    """Add ``--json``, and pass the :class:`Output` as ``out``."""

    @_as_json
    @functools.wraps(command)
    def wrapper(as_json: bool, **arguments: Any) -> NoReturn:
        command(out=Output(as_json=as_json), **arguments)

    return wrapper


def output(command: Command) -> Command:
    """Add the options for output, and pass the :class:`Output` as ``out``."""

    @_as_json
    @click.option(
        "--every",
        type=click.FloatRange(min=0, min_open=True),
        default=EVERY,
        show_default=True,
        metavar="SECONDS",
        help="Interval between lines of progress if there is no terminal.",
    )
    @click.option("--verbose", "-v", is_flag=True, help="Write a line for each file, not only for problems.")
    @functools.wraps(command)
    def wrapper(as_json: bool, every: float, verbose: bool, **arguments: Any) -> NoReturn:
        command(out=Output(as_json=as_json, every=every, verbose=verbose), **arguments)

    return wrapper
