"""Making a thumbnail again from its original, as its row describes it."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, CursorResult, update
from sqlalchemy.ext.asyncio import AsyncSession

from .._tasks import finish
from .._threads import run_pixels
from ..exc import ImageAttachError, NoOriginalError, StoreError, StoreFileExistsError
from ..file import Spool
from ..imaging.recipe import FORMATS, Recipe, read_look
from ..imaging.render import render
from ..inventory import ImageKind, Kind, Reader, Reference, Sessions, ask, opened
from ..key import ImageKey
from ..store import Store

__all__ = ["rebuild", "recipe_of"]

_SIZE: Final = ("width", "height", "variant")


def recipe_of(look: str, width: int, height: int, mimetype: str, original: ImageKey) -> Recipe | None:
    """Return how a thumbnail was made, read from its look; ``None`` where that does not tell.

    Args:
        look: Its ``variant``.
        width: In pixels.
        height: In pixels.
        mimetype: Its type.
        original: What it was made from.
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
        recipe = next(one for one in recipes if one.target(original_size) == (width, height))  # the last one always
    except (ImageAttachError, ValueError):
        return None
    stretched = not look and recipe.fit == "fill"  # for a pixel that rounding took
    same = recipe.mimetype(original.mimetype) == mimetype
    return recipe if same and (stretched or recipe.look(original.mimetype, original_size) == look) else None


async def rebuild(
    sessions: Sessions, kind: Kind, reference: Reference, store: Store, *, is_missing: bool = False
) -> bool:
    """Render a thumbnail again, put it, and let its row name the new file.

    If the file is missing and comes out the same, byte for byte, it gets its old name, and the row does not change: a
    mirror may have the file in its other store.

    Returns:
        Whether that was possible and is committed; not where the row was changed meanwhile, or does not tell how the
        thumbnail was made.

    Raises:
        NoOriginalError: There is no original in the database.
        StoreError: The original could not be read, or the thumbnail not be put.
        ImageError: The original is no picture any more.

    Effects: On an error or a cancellation the row is as before, and the new file is gone; where it comes with the
    COMMIT, the row names one of the two files and both are kept, for a sweep.
    """
    old = reference.key
    if not isinstance(kind, ImageKind) or old is None:
        return False
    original, look = await ask(sessions, kind.mapper, lambda reader: _original(reader, kind, reference))
    if original is None:
        raise NoOriginalError(f"{kind.cls.__name__} {reference.identity!r} has no original to be made from")
    recipe = recipe_of(look, old.width, old.height, old.mimetype, original)
    if recipe is None:
        return False
    limits = kind.cls.__image_limits__
    async with await store.get(original) as file:
        source = await Spool.fill(file, limit=limits.max_bytes, fingerprint=False)
    [made] = await run_pixels(render, source.view, [recipe], limits)
    spool = await Spool.fill(made.blob)
    if is_missing and (spool.size, spool.sha256) == (reference.size, reference.sha256):
        try:
            async with spool.open() as data:
                await store.put(old, data, reproducible=True)
        except StoreFileExistsError:
            pass  # a migration was faster
        return True
    key = ImageKey(old.object_type, old.object_id, old.width, old.height, old.mimetype, store.make_revision())
    async with spool.open() as data:
        await store.put(key, data, reproducible=True)
    async with opened(sessions) as session:
        try:
            renamed = await _rename(session, kind, reference, key, spool)
        except BaseException:
            await finish(_forget(store, key))
            raise
        if renamed:
            await session.commit()  # where this fails nobody knows which file the row names
    await finish(_forget(store, old if renamed else key))
    return renamed


def _original(reader: Reader, kind: ImageKind, reference: Reference) -> tuple[ImageKey | None, str]:
    """The key of the original of a thumbnail, and the look of the thumbnail, which not every identity has."""
    names = kind.cls.identity_attributes()
    identity = dict(zip(names, reference.identity, strict=True))
    columns = kind.mapper.columns
    same = [condition for name, condition in zip(names, kind.at(reference.identity), strict=True) if name not in _SIZE]
    found = kind.find(reader, kind.column(columns["original"]).is_(True), *same, limit=2)
    keys = [one.key for one in found if one.key is not None]
    return max(keys, key=lambda key: key.revision or "", default=None), identity.get("variant", "")


async def _rename(session: AsyncSession, kind: ImageKind, reference: Reference, key: ImageKey, spool: Spool) -> bool:
    """Let the row name the new file, if it still names the old one."""
    columns = kind.mapper.columns
    table = columns["revision"].table
    old = None if reference.key is None else reference.key.revision
    same: list[ColumnElement[bool]] = []
    for column, value in zip(kind.mapper.primary_key, reference.identity, strict=True):  # in the table of the revision
        same += [one == value for one in kind.mapper.get_property_by_column(column).columns if one.table is table]
    values = {"revision": key.revision, "byte_size": spool.size, "sha256": spool.sha256}
    statement = update(table).where(*same, columns["revision"] == old)
    statement = statement.values({columns[name]: value for name, value in values.items()})
    result = await session.execute(statement, bind_arguments={"mapper": kind.mapper})
    return isinstance(result, CursorResult) and result.rowcount == 1


async def _forget(store: Store, key: ImageKey) -> None:
    try:
        await store.discard(key)
    except StoreError:
        pass  # nobody names it: a sweep finds it
