"""The arguments that several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import click

from ..inventory import Reference
from .database import DatabaseParameter
from .loading import ModelsParameter
from .output import EVERY
from .stores import StoreParameter

__all__ = [
    "MODELS",
    "STORE",
    "Decorator",
    "concurrency",
    "database",
    "fields",
    "models",
    "object_types",
    "output",
    "store",
    "whose",
]

F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """What adds an argument to a command."""

    def __call__(self, command: F, /) -> F: ...


MODELS: Final = ModelsParameter()
STORE: Final = StoreParameter()

models: Final[Decorator] = click.argument("models", type=MODELS)
"""``module:name`` of a declarative base, or of one class."""

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

store: Final[Decorator] = click.option(
    "--store",
    "-s",
    type=STORE,
    envvar="AIOIMAGEATTACH_STORE",
    show_envvar=True,
    required=True,
    metavar="STORE",
    help="file:///PATH, s3://BUCKET/PREFIX?region=..., or MODULE:NAME of a store.",
)


object_types: Final[Decorator] = click.option(
    "--object-type",
    multiple=True,
    metavar="TYPE",
    help="Only files whose names begin with this and a slash; may be given several times.",
)


def concurrency(default: int) -> Callable[[F], F]:
    """Number of files that are worked on concurrently."""
    return click.option(
        "--concurrency",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="Number of files that are worked on concurrently.",
    )


def output(command: F) -> F:
    """The form of the output."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Write one JSON document per line.")
    every = click.option(
        "--every",
        type=click.FloatRange(min=0, min_open=True),
        default=EVERY,
        show_default=True,
        metavar="SECONDS",
        help="Interval between lines of progress if there is no terminal.",
    )
    verbose = click.option("--verbose", "-v", is_flag=True, help="Name each file, not only those with problems.")
    return as_json(every(verbose(command)))


def fields(item: Any) -> dict[str, Any]:
    """Return what a dataclass holds, by name."""
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}


def whose(reference: Reference) -> str:
    """Say which row names a file, and which of its values this is if it is no image."""
    row = f"{reference.cls.__name__} {', '.join(map(str, reference.identity))}".rstrip(" ,")
    return row if reference.key is not None else f"{row} ({reference.object_type})"
