"""Render a thumbnail again from its original, with the recipe that its row describes."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, CursorResult, update
from sqlalchemy.ext.asyncio import AsyncSession

from .._inventory import FileReference, ImageKind, Kind, Reader, Sessions, opened, run_with_reader
from .._tasks import finish
from .._threads import run_pixels
from ..exc import ImageAttachError, NoOriginalError, StoreError, StoreFileExistsError
from ..file import Spool
from ..imaging._recipe import FORMATS, Recipe, read_look
from ..imaging._render import render
from ..key import ImageKey
from ..store import Store

__all__ = ["rebuild", "recipe_of"]

_SIZE: Final = ("width", "height", "variant")


def recipe_of(look: str, width: int, height: int, mimetype: str, original: ImageKey) -> Recipe | None:
    """Return the recipe of a thumbnail, derived from its look; ``None`` if the look does not determine it.

    Args:
        look: The thumbnail's ``variant``.
        width: The thumbnail's width in pixels.
        height: The thumbnail's height in pixels.
        mimetype: The thumbnail's MIME type.
        original: The original from which the thumbnail was rendered.
    """
    formats = {kind: name for name, kind in FORMATS.items()}
    words = read_look(look)
    if mimetype in formats:
        words["format"] = formats[mimetype]
    sizes: list[dict[str, Any]] = [
        {"width": width},
        {"height": height},
        {"width": width, "height": height, "fit": "fill"},
    ]
    original_size = (original.width, original.height)
    if "fit" in words:
        sizes = [{"width": width, "height": height}]
    try:
        recipes = [Recipe(**{**words, **size}) for size in sizes]
        # The last recipe always has the right size.
        recipe = next(one for one in recipes if one.target(original_size) == (width, height))
    except (ImageAttachError, ValueError):
        return None
    stretched = not look and recipe.fit == "fill"  # only because rounding changed a side by one pixel
    same = recipe.mimetype(original.mimetype) == mimetype
    return recipe if same and (stretched or recipe.look(original.mimetype, original_size) == look) else None


async def rebuild(
    sessions: Sessions, kind: Kind, reference: FileReference, store: Store, *, is_missing: bool = False
) -> bool:
    """Render a thumbnail again, put it under a new name, and update its row.

    If the file is missing and the rendering is identical, byte for byte, the file gets its old name instead and the row
    does not change: if the store is a mirror, its other store may still have the file.

    Returns:
        ``True`` if the thumbnail was rebuilt and committed; ``False`` if the row has changed, or does not determine
        the recipe.

    Raises:
        NoOriginalError: The database has no original.
        StoreError: The original could not be read, or the thumbnail could not be put.
        ImageError: The original is not a valid image.

    Effects: On an error or a cancellation, the row is unchanged and the new file is deleted. If COMMIT fails, the row
        may name either file; both are kept, and a sweep removes the one that it does not name.
    """
    old = reference.key
    if not isinstance(kind, ImageKind) or old is None:
        return False
    original, look = await run_with_reader(sessions, kind.mapper, lambda reader: _original(reader, kind, reference))
    if original is None:
        raise NoOriginalError(
            f"{kind.cls.__name__} {reference.identity!r}: expected a row of the original, from which the thumbnail can "
            "be rendered, found none"
        )
    recipe = recipe_of(look, old.width, old.height, old.mimetype, original)
    if recipe is None:
        return False
    limits = kind.cls.__image_limits__
    async with await store.get(original) as file:
        source = await Spool.fill(file, limit=limits.max_bytes, checksum=False)
    [made] = await run_pixels(render, source.view, [recipe], limits)
    spool = await Spool.fill(made.blob)
    if is_missing and (spool.size, spool.sha256) == (reference.size, reference.sha256):
        try:
            async with spool.open() as data:
                await store.put(old, data, reproducible=True)
        except StoreFileExistsError:
            pass  # a migration has put the file first
        return True
    revision = store.revision_for(old.object_type, reproducible=True)
    key = ImageKey(old.object_type, old.object_id, old.width, old.height, old.mimetype, revision)
    async with spool.open() as data:
        await store.put(key, data, reproducible=True)
    async with opened(sessions) as session:
        try:
            updated = await _update_row(session, kind, reference.identity, old, key, spool)
        except BaseException:
            await finish(_delete_if_possible(store, key))
            raise
        if updated:
            await session.commit()  # if this fails, it is unknown which file the row names
    await finish(_delete_if_possible(store, old if updated else key))
    return updated


def _original(reader: Reader, kind: ImageKind, reference: FileReference) -> tuple[ImageKey | None, str]:
    """Return the key of a thumbnail's original, and the thumbnail's look, because not every primary key contains it."""
    names = kind.cls.identity_attributes()
    identity = dict(zip(names, reference.identity, strict=True))
    columns = kind.mapper.columns
    same = [condition for name, condition in zip(names, kind.at(reference.identity), strict=True) if name not in _SIZE]
    found = kind.find(reader, kind.column(columns["original"]).is_(True), *same, limit=2)
    keys = [one.key for one in found if one.key is not None]
    return max(keys, key=lambda key: key.revision or "", default=None), identity.get("variant", "")


async def _update_row(
    session: AsyncSession, kind: ImageKind, identity: tuple[Any, ...], old: ImageKey, new: ImageKey, spool: Spool
) -> bool:
    """Update a row to name the new file; return ``False`` if it no longer names the old one."""
    columns = kind.mapper.columns
    table = columns["revision"].table
    same: list[ColumnElement[bool]] = []
    for column, value in zip(kind.mapper.primary_key, identity, strict=True):
        # With joined inheritance, the revision may be in another table than the mapper's primary key.
        same += [one == value for one in kind.mapper.get_property_by_column(column).columns if one.table is table]
    values = {"revision": new.revision, "byte_size": spool.size, "sha256": spool.sha256}
    statement = update(table).where(*same, columns["revision"] == old.revision)
    statement = statement.values({columns[name]: value for name, value in values.items()})
    result = await session.execute(statement, bind_arguments={"mapper": kind.mapper})
    return isinstance(result, CursorResult) and result.rowcount == 1


async def _delete_if_possible(store: Store, key: ImageKey) -> None:
    try:
        await store.discard(key)
    except StoreError:
        pass  # no row names the file, so a sweep removes it
