"""Make the files of declared thumbnails: for requests, for new images, and for all existing images."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from .._declared.maker import Original, Thumbnail, fetch, find_original, put, thumbnail_of
from .._declared.names import DerivedName, path_of, public_of
from .._declared.srcset import Declarations, Step
from .._tasks import is_in_flight, single_flight
from .._telemetry import log_fields
from .._threads import cores, run_pixels
from ..entity import Image
from ..entity._derived import declarations_of
from ..entity._mapping import mapper_of
from ..entity._references import object_types
from ..exc import DeclarationError, ImageError, StoreError, StoreFileNotFoundError, UnreadableImageError
from ..file import Spool
from ..imaging._limits import ImageLimits
from ..imaging._preview import Preview
from ..imaging._render import Rendering, render, render_with_preview
from ..store import KeyedStore
from ._originals import written_columns
from ._turns import Priority, Turns, turns

__all__ = ["Busy", "Made", "ThumbnailMaker"]

_BROKEN_FOR: Final = 60.0
"""Seconds before rendering is tried again for an image that could not be rendered."""

_BROKEN_KEPT: Final = 10_000

_log = logging.getLogger("aioimageattach.thumbnails")

_Files: TypeAlias = dict[str, tuple[Thumbnail, Step]]
"""Files by name."""


class Busy(Exception):
    """No capacity became available in time."""


@dataclass(frozen=True, slots=True)
class Made:
    """The result of making the missing files of one original.

    Args:
        original: The original.
        thumbnails: The thumbnails whose files should exist.
        made: The files that were made, by name, and their sizes in bytes.
        existing: Names of the files that already existed.
        failed: Errors, by the name of the file that could not be made. If one thumbnail fails, others may succeed. An
            error of the preview alone has the name of the original.
        is_gone: ``True`` if the original no longer exists, so that no thumbnails can be made.
        preview: The preview of the original, if it was asked for and the original was read.
    """

    original: Original
    thumbnails: Sequence[Thumbnail]
    made: Mapping[str, int] = field(default_factory=dict)
    existing: Sequence[str] = ()
    failed: Mapping[str, Exception] = field(default_factory=dict)
    is_gone: bool = False
    preview: Preview | None = None

    @property
    def complete(self) -> list[Thumbnail]:
        """The thumbnails whose files all exist."""
        there = {*self.existing, *self.made}
        return [one for one in self.thumbnails if there.issuperset(one.name_of(step) for step in one.ladder.steps)]

    @property
    def error(self) -> Exception | None:
        """The error to report: preferably one that may be transient, such as that of an unavailable store."""
        errors = sorted(self.failed.values(), key=lambda one: isinstance(one, ImageError))
        return errors[0] if errors else None


@dataclass(slots=True)
class _Work:
    """The missing files of one original, and what became of them."""

    original: Original
    missing: _Files = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)
    preview: Preview | None = None


class ThumbnailMaker:
    """Fetches originals, renders their declared thumbnails and stores them.

    All makers of an event loop share one limit on the number of originals in progress; see :mod:`._turns`. Requests
    come first, then new images, then the rest. Requests may use the whole capacity, and other work all but one place.

    Args:
        store: Store of the originals and of the thumbnails.
        classes: Image classes whose thumbnails are made, including their subclasses.
        concurrency: Number of originals that are fetched and rendered concurrently; ``None`` means the number of cores
            plus one.

    Raises:
        DeclarationError: A class is not an image class, or the store is not a
            :class:`~aioimageattach.store.KeyedStore`.
        ValueError: ``concurrency`` is less than 1.
    """

    def __init__(self, store: KeyedStore, classes: Iterable[type[Image]], concurrency: int | None = None) -> None:
        if not isinstance(store, KeyedStore):
            raise DeclarationError(f"store: expected a KeyedStore, which finds files by name, got {store!r}")
        if isinstance(classes, type):
            raise DeclarationError(
                f"classes: expected a list of image classes, got {classes!r:.80}; pass [{classes.__name__}]"
            )
        self.classes: list[type[Any]] = list(classes)
        for cls in self.classes:
            if not (isinstance(cls, type) and issubclass(cls, Image)):
                raise DeclarationError(f"classes: expected image classes, got {cls!r:.80}")
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency: expected at least 1, got {concurrency}")
        self.store: KeyedStore = store
        self.concurrency: int = concurrency or cores() + 1
        self._rest: asyncio.Task[None] | None = None
        self._broken: dict[str, tuple[float, ImageError]] = {}
        self._types: dict[str | None, list[Declarations]] | None = None
        self._placeholders: set[str | None] | None = None

    @property
    def background(self) -> int:
        """Number of places for work that no request is waiting for."""
        return max(1, self.concurrency - 1)

    async def aclose(self) -> None:
        """Stop rendering the other widths of files that were requested."""
        task, self._rest = self._rest, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    # --- declarations ------------------------------------------------------------------------------------------------

    def declared(self, object_type: str) -> list[Declarations]:
        """Return the declarations of the classes whose originals have, or may have, the given object type."""
        types = self.declared_types()
        return [*types.get(object_type, ()), *types.get(None, ())]

    def declared_types(self) -> dict[str | None, list[Declarations]]:
        """Return the declarations by object type; ``None`` is for classes whose object type depends on the row."""
        if self._types is None:
            types: dict[str | None, list[Declarations]] = {}
            for cls in self.classes:
                for mapper in mapper_of(cls).self_and_descendants:
                    declared = declarations_of(mapper.class_)
                    for one in object_types([mapper]) or [None]:
                        types.setdefault(one, []).append(declared)
            self._types = types
        return self._types

    def has_placeholder(self, object_type: str) -> bool:
        """Return whether placeholders of originals with the given object type may have to be filled in."""
        if self._placeholders is None:
            mappers = [one for cls in self.classes for one in mapper_of(cls).self_and_descendants]
            owners = [one for one in mappers if "thumbhash" in written_columns(one)]
            self._placeholders = {kind for one in owners for kind in object_types([one]) or [None]}
        return not self._placeholders.isdisjoint((object_type, None))

    def thumbnails(self, original: Original, stems: Iterable[str]) -> list[Thumbnail]:
        """Return the thumbnails with the given revisions, according to the current declarations.

        For an outdated revision, the current version of that thumbnail is returned. Revisions that belong to another
        original, and thumbnails that are no longer declared, are left out.
        """
        names = [DerivedName.parse(stem) for stem in stems]
        declared = self.declared(original.object_type)
        found = [
            thumbnail_of(original, name, declared)
            for name in names
            if name is not None and name.belongs_to(original.revision)
        ]
        return list({one.stem: one for one in found if one is not None}.values())

    async def find_original(self, name: str, stems: Sequence[str]) -> Original | None:
        """Return an original by its file name; ``None`` if it is not the name of an original.

        Sends a request to the store only if the name is in the layout of SQLAlchemy-ImageAttach.

        Args:
            name: File name of the original.
            stems: Revisions of its thumbnails.

        Raises:
            StoreError: The original could not be looked up. ``StoreFileNotFoundError`` if it does not exist.
        """
        original = Original.parse(name)
        derived = DerivedName.parse(stems[0]) if stems else None
        if original is not None or derived is None:
            return original
        original = await find_original(self.store, name.partition("/")[0], derived)
        return original if original is not None and original.name == name else None

    # --- one file, for a request -------------------------------------------------------------------------------------

    async def make(self, thumbnail: Thumbnail, step: Step, max_wait: float) -> bytes:
        """Render a file, store it, and return its content. Concurrent requests for the same file share the work.

        The other widths of its format are rendered afterwards, while no request is waiting.

        Args:
            thumbnail: The thumbnail.
            step: The file.
            max_wait: Time to wait for capacity, in seconds.

        Raises:
            Busy: No capacity became available in time.
            ImageError: The file cannot be rendered. The error is remembered for a while.
            StoreFileNotFoundError: The original no longer exists.
            StoreError: The original could not be read, or the file could not be stored.
        """
        self._check_broken(thumbnail.original)
        with self._remembering(thumbnail.original):
            return await single_flight(self._key(thumbnail, step), partial(self._work, thumbnail, step, max_wait))

    def _key(self, thumbnail: Thumbnail, step: Step) -> Hashable:
        return "thumbnail", self.store.location, thumbnail.name_of(step)

    async def _work(self, thumbnail: Thumbnail, step: Step, max_wait: float) -> bytes:
        places = turns()
        try:
            async with asyncio.timeout(max_wait):
                await places.acquire(Priority.REQUEST, self.concurrency)
        except TimeoutError:
            raise Busy from None
        try:
            spool = await fetch(self.store, thumbnail.original, thumbnail.declaration.limits)
            blob = await self._make_one(thumbnail, step, spool)
        finally:
            places.release()
        group = next((steps for steps in thumbnail.ladder.formats if step in steps), ())
        rest = [other for other in group if other is not step]
        if rest and not places.is_awaited(Priority.REQUEST) and (self._rest is None or self._rest.done()):
            self._rest = asyncio.get_running_loop().create_task(self._make_rest(thumbnail, rest, spool, places))
        return blob

    async def _make_one(self, thumbnail: Thumbnail, step: Step, spool: Spool) -> bytes:
        [made] = await run_pixels(thumbnail.render, spool, [step])
        await put(self.store, thumbnail.original.name, {thumbnail.name_of(step): made})
        return made.blob

    async def _make_rest(self, thumbnail: Thumbnail, rest: list[Step], spool: Spool, places: Turns) -> None:
        """Render the other widths of a format, each only while no request is waiting."""
        for step in rest:
            if not places.try_acquire(Priority.NEW, self.background):  # new images take precedence, too
                return
            try:
                key = self._key(thumbnail, step)
                is_made = await self.exists(thumbnail.name_of(step)) or is_in_flight(key)
                if is_made or places.is_awaited(Priority.REQUEST):
                    continue
                await single_flight(key, partial(self._make_one, thumbnail, step, spool))  # requests share this work
            except (ImageError, StoreError) as error:
                extra = log_fields("thumbnails.failed", error)
                _log.info("%s was not made in advance: %s", thumbnail.name_of(step), error, extra=extra)
                return
            finally:
                places.release()

    async def exists(self, name: str) -> bool:
        """Return whether a file exists.

        Raises:
            StoreError: The file could not be looked up.
        """
        try:
            await self.store.head_object(name)
        except StoreFileNotFoundError:
            return False
        return True

    # --- all missing files, ahead of requests ------------------------------------------------------------------------

    async def make_missing(
        self,
        original: Original,
        thumbnails: Sequence[Thumbnail],
        priority: Priority,
        existing: Iterable[str] | None = None,
        *,
        preview: bool = False,
    ) -> Made:
        """Make the missing files of an original, from one download and as few decodes as possible.

        Args:
            original: The original.
            thumbnails: Its thumbnails.
            priority: Priority among the work that waits for capacity.
            existing: Names of the files that exist; ``None`` to list them, which takes one request.
            preview: ``True`` to compute the preview as well, even if no file is missing.

        Returns:
            The result. It contains all errors of the original and of the store.
        """
        names = {one.name_of(step): (one, step) for one in thumbnails for step in one.ladder.steps}
        there: list[str] = []
        work = _Work(original)
        try:
            known = {*(await self.existing(original) if existing is None else existing)}
            there = [name for name in names if name in known]
            work.missing = {name: file for name, file in names.items() if name not in known}
            if names and (work.missing or preview):
                first = next(iter((work.missing or names).values()))[0]
                async with turns().hold(priority, self.background):
                    await self._make_all(work, first.declaration.limits, preview=preview)
        except StoreFileNotFoundError:
            return Made(original, thumbnails, is_gone=True)
        except Exception as error:  # includes errors of third-party stores
            left = [name for name in names if name not in work.made and name not in there]
            work.failed |= dict.fromkeys(left or [original.name], error)
        return Made(original, thumbnails, work.made, there, work.failed, preview=work.preview)

    async def existing(self, original: Original) -> list[str]:
        """Return the names of all thumbnail files of an original, with one listing.

        Raises:
            StoreError: The store could not be listed.
        """
        prefix = path_of(original.object_type, f"{public_of(original.revision)}-")
        return [info.name async for info in self.store.list_objects(prefix)]

    async def _make_all(self, work: _Work, limits: ImageLimits, *, preview: bool) -> None:
        self._check_broken(work.original)
        with self._remembering(work.original):
            spool = await fetch(self.store, work.original, limits)
            try:
                return await self._render_and_put(work, spool, work.missing, limits if preview else None)
            except (UnreadableImageError, StoreError):
                raise
            except Exception as error:
                if not work.missing:
                    raise
                work.failed |= dict.fromkeys(work.missing, error)
        groups: dict[str, _Files] = {"": {}} if preview else {}
        for name, (thumbnail, step) in work.missing.items():
            groups.setdefault(thumbnail.stem, {})[name] = thumbnail, step
        for group in groups.values() if len(groups) > 1 else ():
            try:  # the error may come from one thumbnail only, for example from a callable in its recipe
                await self._render_and_put(work, spool, group, None if group else limits)
            except StoreError:
                raise
            except Exception as error:
                work.failed |= dict.fromkeys(group or [work.original.name], error)
            else:
                for name in group:
                    del work.failed[name]

    async def _render_and_put(self, work: _Work, spool: Spool, files: _Files, preview: ImageLimits | None) -> None:
        rendered, found = await run_pixels(_render, spool, files, preview)
        work.preview = found or work.preview
        await put(self.store, work.original.name, rendered)
        work.made |= {name: len(rendering.blob) for name, rendering in rendered.items()}

    # --- broken originals --------------------------------------------------------------------------------------------

    def _check_broken(self, original: Original) -> None:
        until, error = self._broken.get(original.name, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise error.with_traceback(None)

    @contextmanager
    def _remembering(self, original: Original) -> Generator[None]:
        try:
            yield
        except ImageError as error:
            if len(self._broken) >= _BROKEN_KEPT:
                self._broken.clear()
            self._broken[original.name] = time.monotonic() + _BROKEN_FOR, error.with_traceback(None)
            raise


def _render(spool: Spool, files: _Files, preview: ImageLimits | None) -> tuple[dict[str, Rendering], Preview | None]:
    """Render files of one original, with one decode for all those with the same limits. Blocks the calling thread.

    The preview is computed as well if its limits are given, from the decode of the files with these limits.
    """
    groups: dict[ImageLimits, list[str]] = {} if preview is None else {preview: []}
    for name, (thumbnail, _) in files.items():
        groups.setdefault(thumbnail.declaration.limits, []).append(name)
    made: dict[str, Rendering] = {}
    found: Preview | None = None
    for limits, names in groups.items():
        recipes = [files[name][0].recipe_of(files[name][1]) for name in names]
        if limits == preview:
            renderings, found = render_with_preview(spool.view, recipes, limits)
        else:
            renderings = render(spool.view, recipes, limits)
        made |= zip(names, renderings, strict=True)
    return made, found
