"""Split values into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

__all__ = ["batched"]

T = TypeVar("T")


def batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the values in lists of up to ``size``; like ``itertools.batched``, which requires Python 3.12."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch
