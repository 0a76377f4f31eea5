"""The files of an original's declared thumbnails: their names, and the marks of those that exist."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.orm import Mapper

from .._declared.framing import BOX, POINT, WHOLE, Framing
from .._declared.names import derived_type, legacy_revision, path_of, stem_of
from .._declared.srcset import Declaration, Declarations, Step, declarations
from .._transaction.references import Derived
from ..exc import DeclarationError, UsageError
from ..imaging._recipe import Recipe
from ..key import ImageKey
from ..store import KeyedStore, Store

__all__ = [
    "MARKS",
    "DeclaredFiles",
    "DerivedFile",
    "check_original",
    "declarations_of",
    "declared_files",
    "derived_from",
    "framing_in",
    "framing_of",
    "is_marked",
    "keyed",
    "marked_files",
    "marks_for",
    "marks_of",
    "show_framing_of",
]

MARKS: Final = "thumbnail_marks"
"""The attribute of the mixin :class:`~aioimageattach.entity.ThumbnailMarks`."""

_memo: Final[WeakKeyDictionary[type[Any], Declarations]] = WeakKeyDictionary()


def declarations_of(cls: type[Any]) -> Declarations:
    """Return the declarations in ``__thumbnails__`` of an image class.

    Raises:
        DeclarationError: A declaration is invalid.
    """
    found = _memo.get(cls)
    if found is None:
        found = _memo[cls] = declarations(cls.__thumbnails__, cls.__name__, cls.__image_limits__)
    return found


@event.listens_for(Mapper, "after_mapper_constructed")
def _constructed(mapper: Mapper[Any], cls: type[Any]) -> None:
    if hasattr(cls, "__thumbnails__") and hasattr(cls, "__image_limits__"):
        declarations_of(cls)


@dataclass(frozen=True, slots=True)
class DerivedFile:
    """One file that is declared for a row.

    Args:
        declaration: The declaration of the thumbnail to which the file belongs.
        framing: The crop box and the focal point.
        step: Size, format and recipe of the file.
    """

    declaration: Declaration
    framing: Framing
    step: Step

    @property
    def recipe(self) -> Recipe:
        """The recipe of the file, with the crop box and the focal point applied."""
        return self.declaration.recipe_of(self.step, self.framing)

    def key_for(self, row: Any) -> ImageKey:
        """Return the key of the file for the current revision of the row."""
        stem = stem_of(check_original(row), self.declaration.name, self.declaration.look, self.framing)
        step = self.step
        return ImageKey(derived_type(row.object_type), None, step.width, step.height, step.mimetype, stem)


def declared_files(row: Any) -> list[DerivedFile]:
    """Return the files that are declared for an original."""
    framing = framing_of(row)
    return [
        DerivedFile(declaration, declaration.relevant(framing), step)
        for declaration in declarations_of(type(row)).values()
        for step in declaration.ladder(row.width, row.height, row.mimetype, framing).steps
    ]


def framing_of(row: Any) -> Framing:
    """Return the crop box and the focal point of a row.

    Raises:
        NotLoadedError: Their columns are expired.
    """
    box, point = getattr(row, "crop_box", None), getattr(row, "focal_point", None)
    return WHOLE if box is None and point is None else framing_in(type(row), row.__dict__)


def framing_in(cls: type[Any], values: Mapping[str, Any]) -> Framing:
    """Return the crop box and the focal point in the columns of an image class, if the class has the mixins.

    Args:
        cls: The image class. Without a mixin, it may have columns of the same names with another meaning.
        values: The values of the columns, by attribute.
    """
    names = (BOX if hasattr(cls, "crop_box") else ()) + (POINT if hasattr(cls, "focal_point") else ())
    return Framing.of({name: values.get(name) for name in names}) if names else WHOLE


def show_framing_of(row: Any, files: Iterable[DerivedFile]) -> bool:
    """Return whether files show the crop box and the focal point that a new row has now."""
    framing = framing_in(type(row), row.__dict__)
    return all(one.framing == one.declaration.relevant(framing) for one in files)


def check_original(row: Any) -> str:
    """Return the revision from which the names of a row's declared thumbnails are derived.

    The row's columns must be loaded.

    Raises:
        UsageError: The row is that of a thumbnail, or SQLAlchemy-ImageAttach wrote it and its ``object_id`` is too
            large.
    """
    if not row.__dict__["original"]:
        raise UsageError(
            f"expected the row of an original, which declared thumbnails are made from, got a thumbnail of "
            f"{type(row).__name__}"
        )
    revision: str | None = row.__dict__["revision"] or legacy_revision(row.key)
    if revision is None:
        raise UsageError(
            f"expected an object_id below 2**35 in a {type(row).__name__} written by SQLAlchemy-ImageAttach, because "
            "the file names of declared thumbnails contain it; attach the image again, or use thumbnails with rows"
        )
    return revision


def keyed(store: Store, cls: type[Any]) -> KeyedStore:
    """Return the store if it supports declared thumbnails.

    Raises:
        DeclarationError: The store is not a :class:`~aioimageattach.store.KeyedStore`.
    """
    if isinstance(store, KeyedStore):
        return store
    raise DeclarationError(
        f"{cls.__name__}.__thumbnails__: expected a KeyedStore for declared thumbnails, got {store!r}; with this "
        "store, make thumbnails with rows: generate_thumbnails([...])"
    )


@dataclass(frozen=True, slots=True)
class DeclaredFiles(Derived):
    """The declared thumbnails of one original.

    Args:
        declared: The declarations of the image class.
        key: The key of the original.
        revision: The revision of the original, or its substitute; see
            :func:`~aioimageattach._declared.names.legacy_revision`.
        framing: The crop box and the focal point.
        is_made: ``True`` if the files are stored together with the original.
    """

    declared: Declarations
    key: ImageKey
    revision: str
    framing: Framing
    is_made: bool

    def names(self) -> Sequence[str]:
        """Return the names of the files, with and without the crop box and the focal point.

        Pages may have shown either of them before the other was set.
        """
        return [
            name
            for declaration in self.declared.values()
            for framing in dict.fromkeys(map(declaration.relevant, self.framing.parts()))
            for name in _file_names(declaration, self.key, self.revision, framing)
        ]

    def thumbnails(self) -> Sequence[str]:
        """Return the revisions of the thumbnails that remain to be made."""
        return [
            stem_of(self.revision, name, declaration.look, declaration.relevant(self.framing))
            for name, declaration in ({} if self.is_made else self.declared).items()
        ]


def derived_from(row: Any, store: Store, key: ImageKey, *, is_made: bool = False) -> DeclaredFiles | None:
    """Return the declared thumbnails of a row; ``None`` if it has none. Uses only the columns that are loaded.

    Args:
        row: The row.
        store: The store of the row's file.
        key: The key of the row's file.
        is_made: ``True`` if the files are stored together with the original.
    """
    declared = declarations_of(type(row))
    revision = key.revision or legacy_revision(key)
    if not declared or revision is None or not isinstance(store, KeyedStore) or row.__dict__["original"] is False:
        return None
    return DeclaredFiles(declared, key, revision, framing_in(type(row), row.__dict__), is_made)


def _file_names(declaration: Declaration, key: ImageKey, revision: str, framing: Framing) -> list[str]:
    path = path_of(key.object_type, stem_of(revision, declaration.name, declaration.look, framing))
    return [path + step.tail for step in declaration.ladder(key.width, key.height, key.mimetype, framing).steps]


# --- marks -----------------------------------------------------------------------------------------------------------


def marks_of(files: Iterable[DerivedFile], store: KeyedStore, object_type: str) -> str | None:
    """Return the marks for the thumbnails of some files, all of which are in the store.

    Returns:
        The marks; ``None`` if the store has no location that another process could recognise.
    """
    return marks_for(dict.fromkeys((one.declaration, one.framing) for one in files), store, object_type)


def marks_for(framings: Iterable[tuple[Declaration, Framing]], store: KeyedStore, object_type: str) -> str | None:
    """Return the marks of thumbnails that are in the store.

    Args:
        framings: The declarations, each with the framing of its files.
        store: The store.
        object_type: Object type of the original.

    Returns:
        The marks; ``None`` if the store has no location that another process could recognise.
    """
    found = [_mark(*one, store, object_type) for one in framings]
    return None if None in found else " ".join(str(one) for one in found)


def is_marked(row: Any, declaration: Declaration, framing: Framing, store: KeyedStore, object_type: str) -> bool:
    """Return whether a row has the mark for a thumbnail whose files are all in this store."""
    marks = row.__dict__.get(MARKS)
    return bool(marks) and _mark(declaration, framing, store, object_type) in str(marks).split(" ")


def marked_files(cls: type[Any], key: ImageKey, values: Mapping[str, Any], store: KeyedStore) -> dict[str, list[str]]:
    """Return the names of the files that are in the store according to a row's marks, grouped by mark.

    Marks for other stores and for previous declarations are ignored.

    Args:
        cls: The image class.
        key: The key of the original, with a revision.
        values: The values of the row's columns, by attribute.
        store: The store.
    """
    marks, revision = str(values.get(MARKS) or "").split(" "), str(key.revision)
    found: dict[str, list[str]] = {}
    whole = framing_in(cls, values)
    for declaration in declarations_of(cls).values():
        framing = declaration.relevant(whole)
        mark = _mark(declaration, framing, store, key.object_type)
        if mark is not None and mark in marks:
            found[mark] = _file_names(declaration, key, revision, framing)
    return found


def _mark(declaration: Declaration, framing: Framing, store: KeyedStore, object_type: str) -> str | None:
    if not store.has_certain_urls:
        return None
    place = _place(store.location_of(derived_type(object_type)))
    return None if place is None else _digest(f"{declaration.digest} {framing.text} {place}")


@lru_cache(1024)
def _place(location: frozenset[Hashable]) -> str | None:
    """Return a string that identifies a location in every process; ``None`` if it is valid in this process only."""
    parts = list(_plain(location))
    return None if None in parts else " ".join(sorted(map(str, parts)))


def _plain(location: frozenset[Hashable]) -> Iterator[str | None]:
    for place in location:
        known = isinstance(place, tuple) and all(isinstance(part, str | int) for part in place)
        yield repr(place) if known else None


@lru_cache(4096)
def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=6).hexdigest()
