"""Helpers of the stores that combine other stores."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

from ..exc import DeclarationError
from ..store import KeyedStore, Location, Store

__all__ = ["check_places", "check_stores", "joined"]


def check_stores(stores: Iterable[Any], *, keyed: bool) -> None:
    """Refuse arguments that are not stores, or not stores of files by name if that is needed.

    Raises:
        DeclarationError: One of them is no :class:`~aioimageattach.store.Store`, or where ``keyed`` no
            :class:`~aioimageattach.store.KeyedStore`.
    """
    for store in stores:
        if not isinstance(store, Store):
            raise DeclarationError(f"expected a Store, got {type(store).__name__}")
        if keyed and not isinstance(store, KeyedStore):
            raise DeclarationError(
                f"expected a KeyedStore, got {type(store).__name__}; the class of the same name with Plain before it "
                "takes stores that know no names"
            )


def check_places(stores: Iterable[Store]) -> None:
    """Refuse stores that keep the same files, even if they are different objects.

    Raises:
        ValueError: Two of them have a place in common.
    """
    for one, other in combinations(stores, 2):
        if not one.location.isdisjoint(other.location):
            raise ValueError(
                f"expected stores in different places, got {one!r} and {other!r}, which have the same files"
            )


def joined(stores: Iterable[Store], object_type: str | None) -> Location:
    """Return the places of several stores together."""
    return frozenset[Any]().union(*(store.location_of(object_type) for store in stores))
