"""Makes the files of declared thumbnails: one original is fetched, rendered, and its files are put, create-only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..exc import InvalidKeyError, StoreFileExistsError, StoreFileNotFoundError
from ..file import Spool
from ..imaging._render import Rendering, render
from ..key import EXTENSIONS, ImageKey, file_name
from ..store import KeyedStore
from .names import DerivedName, legacy_key, legacy_revision, parse_point, path_of, stem_of
from .srcset import Declaration, Declarations, Ladder, Step

__all__ = ["Original", "Thumbnail", "fetch", "find_original", "put", "thumbnail_of"]

_CONCURRENCY: Final = 8
_TYPES: Final = {extension: mimetype for mimetype, extension in EXTENSIONS.items()}


@dataclass(frozen=True, slots=True)
class Original:
    """An original, as the name of its file describes it.

    Args:
        name: The name of its file.
        object_type: The first part of the name.
        revision: Which upload.
        width: In pixels.
        height: In pixels.
        mimetype: Such as ``"image/jpeg"``.
    """

    name: str
    object_type: str
    revision: str
    width: int
    height: int
    mimetype: str

    @classmethod
    def parse(cls, name: str) -> Original | None:
        """Return what a name says; ``None`` if it is not that of an image in the present layout."""
        object_type, _, rest = name.partition("/")
        revision, _, end = rest.rpartition("/")[2].partition(".")
        size, dot, extension = end.partition(".")
        width, _, height = size.partition("x")
        try:
            key = ImageKey(object_type, None, int(width), int(height), _TYPES[dot + extension], revision)
            same = file_name(key) == name
        except (InvalidKeyError, KeyError, ValueError):
            return None
        return cls(name, object_type, revision, key.width, key.height, key.mimetype) if same else None


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One declared thumbnail of one original: all its files.

    Args:
        original: The original.
        declaration: What is declared.
        stem: The revision of its files.
        point: The focal point that the name contains.
    """

    original: Original
    declaration: Declaration
    stem: str
    point: tuple[float, float] | None

    @property
    def ladder(self) -> Ladder:
        """Its files."""
        return self.declaration.ladder(self.original.width, self.original.height, self.original.mimetype)

    def name_of(self, step: Step) -> str:
        """Return the name of a file."""
        return f"{path_of(self.original.object_type, self.stem)}{step.tail}"

    def render(self, spool: Spool, steps: Sequence[Step]) -> list[Rendering]:
        """Make files; blocks."""
        point = self.point
        recipes = [step.recipe if point is None else step.recipe.with_focal_point(point) for step in steps]
        return render(spool.view, recipes, self.declaration.limits)


async def find_original(store: KeyedStore, object_type: str, name: DerivedName) -> Original | None:
    """Return the original that a thumbnail's name was given out for, by one listing; ``None`` if there is none.

    Args:
        store: The store.
        object_type: That of the original.
        name: The name.

    Raises:
        StoreFileNotFoundError: It was one of SQLAlchemy-ImageAttach, and is gone.
        StoreError: The store could not be listed.
    """
    key = legacy_key(object_type, name.public)
    revision = None if key is None else legacy_revision(key)
    if key is not None and revision is not None and name.belongs_to(revision):
        legacy = store.legacy_name(key)
        await store.head_object(legacy)
        return Original(legacy, object_type, revision, key.width, key.height, key.mimetype)
    prefix = f"{object_type}/{name.public[:5]}/{name.public[5:7]}/{name.public}"
    async for info in store.list_objects(prefix):
        original = Original.parse(info.name)
        if original is not None and name.belongs_to(original.revision):
            return original
    return None


def thumbnail_of(original: Original, name: DerivedName, declared: Sequence[Declarations]) -> Thumbnail | None:
    """Return the thumbnail that a name is for, as it is declared now; ``None`` if it is not declared any more.

    Its :attr:`Thumbnail.stem` differs from the name if the recipe has changed.

    Args:
        original: The original that the name belongs to.
        name: The name.
        declared: What the classes declare whose originals have this object type.
    """
    point = parse_point(name.point)
    found: Thumbnail | None = None
    for declarations in declared:
        declaration = declarations.get(name.name)
        if declaration is None:
            continue
        digits = name.point if declaration.crops and point is not None else ""
        stem = stem_of(original.revision, name.name, declaration.look, digits)
        thumbnail = Thumbnail(original, declaration, stem, point if digits else None)
        if DerivedName.parse(stem) == name:
            return thumbnail
        found = found or thumbnail
    return found


async def fetch(store: KeyedStore, thumbnail: Thumbnail) -> Spool:
    """Return the bytes of an original.

    Raises:
        StoreFileNotFoundError: It is gone.
        ImageTooLargeError: It has more bytes than the class allows.
    """
    async with await store.get_object(thumbnail.original.name) as file:
        return await Spool.fill(file, limit=thumbnail.declaration.limits.max_bytes, fingerprint=False)


async def put(store: KeyedStore, original: str, files: Mapping[str, Rendering]) -> None:
    """Put files, unless somebody else has put them first; remove them again if their original is gone by then.

    Args:
        store: The store.
        original: The name of the original.
        files: The files by name.

    Raises:
        StoreFileNotFoundError: The original is gone; nothing is left.
        StoreError: A file could not be put.
    """
    turn = asyncio.Semaphore(_CONCURRENCY)

    async def put_one(name: str, rendering: Rendering) -> None:
        async with turn:
            try:
                await store.put_object(name, rendering.blob, mimetype=rendering.mimetype, reproducible=True)
            except StoreFileExistsError:
                pass  # the files of one name have the same picture, whoever made them

    done = await asyncio.gather(*(put_one(*file) for file in files.items()), return_exceptions=True)
    try:
        await store.head_object(original)
    except StoreFileNotFoundError:
        await store.delete_objects(files)
        raise
    for error in done:
        if error is not None:
            raise error
