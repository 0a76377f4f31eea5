"""A store that keeps each object type in its own store."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from .._names import DERIVED, check_name
from ..exc import InvalidKeyError
from ..key import ImageKey
from ..store import KeyedStore, Store
from ._combined import KeyRoutingStore, NameRoutingStore, S, check_stores, joined

__all__ = ["PlainRoutingStore", "RoutingStore"]


class PlainRoutingStore(KeyRoutingStore[S]):
    """Routes to stores that need not be a :class:`~aioimageattach.store.KeyedStore`; see :class:`RoutingStore`."""

    def __init__(self, stores: Mapping[str, S], default: S | None = None) -> None:
        self._stores: dict[str, S] = {}
        for object_type, store in stores.items():
            ImageKey(object_type, None, 1, 1, "image/png")
            if self._stores.setdefault(_plain(object_type), store) is not store:
                raise ValueError(
                    f"object_type: expected different names, where '_' and '-' are equivalent, got {object_type!r} "
                    "twice"
                )
        self._default = default
        check_stores(self.stores, keyed=isinstance(self, KeyedStore))
        self.needs_object_id: bool = any(store.needs_object_id for store in self.stores)
        self.has_signed_urls: bool = any(store.has_signed_urls for store in self.stores)

    @property
    def stores(self) -> list[S]:
        """All stores, each once."""
        found = [*self._stores.values(), *([] if self._default is None else [self._default])]
        return list({id(store): store for store in found}.values())

    def _combined(self) -> Iterable[Store]:
        return self.stores

    def unknown_types(self, object_types: Iterable[str]) -> list[str]:
        """Return the object types with a separate store here that are not among those of an application.

        If a name is misspelled, files silently go to the default store. ``aioimageattach doctor`` calls this.
        """
        known = set(map(_plain, object_types))
        return sorted(object_type for object_type in self._stores if object_type not in known)

    def store_of(self, object_type: str) -> S:
        """Return the store of an object type.

        Raises:
            InvalidKeyError: The object type has no store, and there is no default.
        """
        found = self._find(object_type)
        if found is None:
            raise InvalidKeyError(
                f"object_type: expected one of {sorted(self._stores)}, or a default store, got {object_type!r:.80}",
                store=repr(self),
            )
        return found

    def _find(self, object_type: str) -> S | None:
        found = self._stores.get(_plain(object_type))
        if found is None and object_type.endswith(DERIVED):  # thumbnails are as private as their originals
            found = self._stores.get(_plain(object_type.removesuffix(DERIVED)))
        return self._default if found is None else found

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return the places of the store of an object type, or of all stores."""
        if object_type is None:
            return joined(self.stores, None)
        found = self._find(object_type)
        return frozenset() if found is None else found.location_of(object_type)

    def revision_for(self, object_type: str, *, reproducible: bool) -> str:
        """Return a new revision of the store of an object type."""
        return self.store_of(object_type).revision_for(object_type, reproducible=reproducible)

    def __repr__(self) -> str:
        routes = [f"{object_type}: {store!r}" for object_type, store in self._stores.items()]
        return f"<{type(self).__name__} {', '.join([*routes, f'else {self._default!r}'])}>"

    def _of_key(self, key: ImageKey) -> S:
        return self.store_of(key.object_type)


class RoutingStore(PlainRoutingStore[KeyedStore], NameRoutingStore):
    """Keeps each object type in its own store, such as portraits in a private bucket.

    The object type of a name is the part before the first ``/``. Opening, connecting and closing it applies to
    all its stores.

    Args:
        stores: The store of each object type. By default, the object type of an image class is the name of its table
            with ``-`` instead of ``_``. Both characters are accepted, so the name of the table works, too.
        default: The store of all other object types; ``None`` to reject them.

    Raises:
        InvalidKeyError: An object type is not valid.
        DeclarationError: A store is not a :class:`~aioimageattach.store.KeyedStore`.
        ValueError: Two object types are equal apart from ``_`` and ``-``.
    """

    @staticmethod
    def plain(stores: Mapping[str, S], default: S | None = None) -> PlainRoutingStore[S]:
        """Return a routing store for stores that are not a :class:`~aioimageattach.store.KeyedStore`.

        It is not one itself.

        Args:
            stores: As for the class.
            default: As for the class.
        """
        return PlainRoutingStore(stores, default)

    def _of(self, name: str) -> KeyedStore:
        return self.store_of(check_name(name).partition("/")[0])

    def _candidates(self, prefix: str) -> Sequence[KeyedStore]:
        object_type, slash, _ = prefix.partition("/")
        if not slash:
            return self.stores
        found = self._find(object_type)
        return [] if found is None else [found]

    def parts(self, object_type: str) -> tuple[KeyedStore, ...]:
        """Return the store of an object type, or its parts if it combines others."""
        return self.store_of(object_type).parts(object_type)


def _plain(object_type: str) -> str:
    """Return the form in which object types are compared, so that the name of a table finds the store, too."""
    return object_type.replace("_", "-")
