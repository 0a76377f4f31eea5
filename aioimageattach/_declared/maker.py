"""Generate the files of declared thumbnails: fetch an original, render it, and store the files without overwriting."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .._names import EXTENSIONS
from ..exc import InvalidKeyError, StoreFileExistsError, StoreFileNotFoundError
from ..file import Spool
from ..imaging._limits import ImageLimits
from ..imaging._recipe import Recipe
from ..imaging._render import Rendering, render
from ..key import ImageKey
from ..store import KeyedStore
from .framing import Framing
from .names import DerivedName, legacy_key, legacy_revision, path_of, stem_of
from .srcset import Declaration, Declarations, Ladder, Step

__all__ = ["Original", "Thumbnail", "fetch", "find_original", "put", "thumbnail_of"]

_CONCURRENCY: Final = 8
_TYPES: Final = {extension: mimetype for mimetype, extension in EXTENSIONS.items()}


@dataclass(frozen=True, slots=True)
class Original:
    """An original, as described by its file name.

    Args:
        name: The file name.
        object_type: The first part of the name.
        revision: The revision, which identifies the upload.
        width: Width in pixels.
        height: Height in pixels.
        mimetype: MIME type, such as ``"image/jpeg"``.
    """

    name: str
    object_type: str
    revision: str
    width: int
    height: int
    mimetype: str

    @classmethod
    def parse(cls, name: str) -> Original | None:
        """Parse a file name; return ``None`` if it is not the name of an image in the current layout."""
        object_type, _, rest = name.partition("/")
        revision, _, end = rest.rpartition("/")[2].partition(".")
        size, dot, extension = end.partition(".")
        width, _, height = size.partition("x")
        try:
            key = ImageKey(object_type, None, int(width), int(height), _TYPES[dot + extension], revision)
            same = key.file_name() == name
        except (InvalidKeyError, KeyError, ValueError):
            return None
        return cls(name, object_type, revision, key.width, key.height, key.mimetype) if same else None


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One declared thumbnail of one original, with all its files.

    Args:
        original: The original.
        declaration: The declaration.
        stem: Revision of the files.
        framing: Crop box and focal point in the file names.
    """

    original: Original
    declaration: Declaration
    stem: str
    framing: Framing

    @classmethod
    def of(cls, original: Original, declaration: Declaration, framing: Framing) -> Thumbnail:
        """Return the thumbnail that a declaration defines for an original.

        Args:
            original: The original.
            declaration: The declaration.
            framing: Crop box and focal point. The point has no effect unless the recipe crops.
        """
        framing = declaration.relevant(framing)
        stem = stem_of(original.revision, declaration.name, declaration.look, framing)
        return cls(original, declaration, stem, framing)

    @property
    def ladder(self) -> Ladder:
        """The files of the thumbnail."""
        original = self.original
        return self.declaration.ladder(original.width, original.height, original.mimetype, self.framing)

    def name_of(self, step: Step) -> str:
        """Return the name of a file."""
        return f"{path_of(self.original.object_type, self.stem)}{step.tail}"

    def recipe_of(self, step: Step) -> Recipe:
        """Return the recipe of a file, with the crop box and the focal point applied."""
        return self.declaration.recipe_of(step, self.framing)

    def render(self, spool: Spool, steps: Sequence[Step]) -> list[Rendering]:
        """Render some of the files. Blocks the calling thread."""
        return render(spool.view, [self.recipe_of(step) for step in steps], self.declaration.limits)


async def find_original(store: KeyedStore, object_type: str, name: DerivedName) -> Original | None:
    """Return the original for which a thumbnail's name was issued; ``None`` if none is found.

    Sends one request to the store.

    Args:
        store: The store to search.
        object_type: Object type of the original.
        name: Name of the thumbnail.

    Raises:
        StoreFileNotFoundError: The original has a name in the layout of SQLAlchemy-ImageAttach, and does not exist.
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
    """Return the thumbnail that a name refers to, as currently declared; ``None`` if it is no longer declared.

    If the recipe has changed, the :attr:`Thumbnail.stem` differs from the name.

    Args:
        original: The original for which the name was issued.
        name: Name of the thumbnail.
        declared: Declarations of the classes whose originals have this object type.
    """
    found: Thumbnail | None = None
    for declarations in declared:
        declaration = declarations.get(name.name)
        if declaration is None:
            continue
        thumbnail = Thumbnail.of(original, declaration, name.framing)
        if DerivedName.parse(thumbnail.stem) == name:
            return thumbnail
        found = found or thumbnail
    return found


async def fetch(store: KeyedStore, original: Original, limits: ImageLimits) -> Spool:
    """Return the content of an original.

    Raises:
        StoreFileNotFoundError: The original no longer exists.
        ImageTooLargeError: The original has more bytes than its class allows.
    """
    async with await store.get_object(original.name) as file:
        return await Spool.fill(file, limit=limits.max_bytes, checksum=False)


async def put(store: KeyedStore, original: str, files: Mapping[str, Rendering]) -> None:
    """Store files that do not exist yet, and delete them if their original has been deleted in the meantime.

    Args:
        store: The store to write to.
        original: File name of the original.
        files: The files by name.

    Raises:
        StoreFileNotFoundError: The original was deleted. The files have been deleted as well.
        StoreError: A file could not be stored.
    """
    turn = asyncio.Semaphore(_CONCURRENCY)

    async def put_one(name: str, rendering: Rendering) -> None:
        async with turn:
            try:
                await store.put_object(name, rendering.blob, mimetype=rendering.mimetype, reproducible=True)
            except StoreFileExistsError:
                pass  # another process was first; files with the same name show the same image

    done = await asyncio.gather(*(put_one(*file) for file in files.items()), return_exceptions=True)
    try:
        await store.head_object(original)
    except StoreFileNotFoundError:
        await store.delete_objects(files)
        raise
    for error in done:
        if error is not None:
            raise error
