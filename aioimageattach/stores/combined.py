"""Helpers of the stores that combine other stores."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

from ..exc import DeclarationError
from ..store import KeyedStore, Location, Store

__all__ = ["check_places", "check_stores", "joined"]


def check_stores(stores: Iterable[Any], *, keyed: bool) -> None:
    """Check the types of stores.

    Raises:
        DeclarationError: One of them is not a :class:`~aioimageattach.store.Store`, or, if ``keyed``, not a
            :class:`~aioimageattach.store.KeyedStore`.
    """
    for store in stores:
        if not isinstance(store, Store):
            raise DeclarationError(f"expected a Store, got {type(store).__name__}")
        if keyed and not isinstance(store, KeyedStore):
            raise DeclarationError(
                f"expected a KeyedStore, got {type(store).__name__}; for other stores, use the class whose name begins "
                "with Plain"
            )


def check_places(stores: Iterable[Store]) -> None:
    """Check that no two stores keep the same files.

    Raises:
        ValueError: Two of them do, although they may be different objects.
    """
    for one, other in combinations(stores, 2):
        if not one.location.isdisjoint(other.location):
            raise ValueError(
                f"expected stores in different places, got {one!r} and {other!r}, which keep the same files"
            )


def joined(stores: Iterable[Store], object_type: str | None) -> Location:
    """Return the union of the places of several stores."""
    return frozenset[Any]().union(*(store.location_of(object_type) for store in stores))
