"""A store that keeps originals and thumbnails in different places."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Final

from .._names import DERIVED, FRAMING, SANDBOX, THUMBNAIL, check_name, revision_time
from ..exc import InvalidKeyError
from ..file import Source
from ..key import ImageKey, make_revision
from ..store import KeyedStore, Store
from ._combined import NameRoutingStore, check_places, check_stores, joined

__all__ = ["SplitStore"]

_NAME: Final = re.compile(
    rf"(?P<path>.+/)?(?P<revision>[A-Za-z0-9_-]+?)(?:{SANDBOX})?\.[0-9]+x[0-9]+(?:\.[0-9a-z]+)?", re.ASCII
)
_DERIVED_PATH: Final = re.compile(rf"(?:.+/)?[^/]+{re.escape(DERIVED)}/[^/]{{5}}/[^/]{{2}}/")
_DERIVED: Final = re.compile(
    rf"[A-Za-z0-9_-]{{8,18}}-[a-z][a-z0-9_]{{0,15}}(?:-(?:{FRAMING}))?-[0-9a-z]{{12}}", re.ASCII
)


class SplitStore(NameRoutingStore):
    """Keeps the originals in one store and the thumbnails in another, such as a private and a public bucket.

    The revision of a thumbnail ends in ``-t``, so the name of a file determines its store. All other files
    belong to the store of the originals: offloaded values, and thumbnails that were made before the store was split.
    No original is ever put into the store of the thumbnails. Opening, connecting and closing it applies to both.

    Args:
        originals: The store of the originals, and of all other files.
        thumbnails: The store of the thumbnails.

    Raises:
        ValueError: The two stores keep the same files.
        DeclarationError: A store is not a :class:`~aioimageattach.store.KeyedStore`.
    """

    def __init__(self, originals: KeyedStore, thumbnails: KeyedStore) -> None:
        check_stores((originals, thumbnails), keyed=True)
        check_places((originals, thumbnails))
        self.originals: KeyedStore = originals
        self.thumbnails: KeyedStore = thumbnails
        self.has_signed_urls: bool = originals.has_signed_urls

    def _combined(self) -> Iterable[Store]:
        return self.originals, self.thumbnails

    def make_revision(self) -> str:
        """Return a new revision of an original."""
        return make_revision()

    def revision_for(self, object_type: str, *, reproducible: bool) -> str:
        """Return a new revision of an original, or a marked one of a thumbnail."""
        return make_revision() + THUMBNAIL if reproducible else make_revision()

    def location_of(self, object_type: str | None = None) -> frozenset[Hashable]:
        """Return the places of both stores."""
        return joined((self.originals, self.thumbnails), object_type)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.originals!r}, thumbnails in {self.thumbnails!r}>"

    def _of(self, name: str) -> KeyedStore:
        return self.thumbnails if _is_thumbnail(check_name(name)) else self.originals

    def _of_key(self, key: ImageKey) -> KeyedStore:
        return self.originals if key.revision is None else self._of(key.file_name())

    def _candidates(self, prefix: str) -> Sequence[KeyedStore]:
        return self.originals, self.thumbnails

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put an original or a thumbnail.

        Raises:
            InvalidKeyError: An original has the revision of a thumbnail; nothing was read.
        """
        if self._of_key(key) is self.thumbnails and not reproducible:
            raise InvalidKeyError(
                "revision: expected one from revision_for(..., reproducible=False) for an original, got "
                f"{key.revision!r}, which belongs to a thumbnail",
                store=repr(self),
            )
        await super().put(key, file, reproducible=reproducible)

    def parts(self, object_type: str) -> tuple[KeyedStore, ...]:
        """Return both stores, or their parts if they combine others."""
        return (*self.originals.parts(object_type), *self.thumbnails.parts(object_type))


def _is_thumbnail(name: str) -> bool:
    """Return ``True`` if a name is that of a thumbnail, with a marked revision or declared.

    Originals, offloaded values, thumbnails without a mark and the files of other programs do not have such names.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return False
    path, revision = found["path"] or "", found["revision"]
    if revision.endswith(THUMBNAIL):
        return revision_time(revision) is not None
    return _DERIVED_PATH.fullmatch(path) is not None and _DERIVED.fullmatch(revision) is not None
