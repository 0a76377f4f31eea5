"""Generate the missing files of declared thumbnails for all originals of a class."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import RelationshipProperty

from .._declared.maker import Original, Thumbnail
from .._declared.names import legacy_revision, public_of
from .._inventory import PAGE, Scan, count
from .._inventory.ownership import keyed
from .._inventory.plan import Outage, Plan
from .._names import ALPHABET, RANDOM_CHARS, TIME_CHARS
from .._tasks import as_completed
from .._threads import cores
from ..entity import Image
from ..entity._derived import MARKS, declarations_of, marks_for
from ..entity._mapping import mapper_of
from ..exc import DeclarationError, ImageAttachError, InvalidKeyError
from ..key import ImageKey
from ..store import KeyedStore, Store
from ._maker import Made, ThumbnailMaker
from ._marks import write_results
from ._originals import OriginalKind, OriginalReference, ThumbnailFiles, written_columns
from ._plan import ThumbnailPlan, Thumbnails
from ._turns import Priority

__all__ = ["backfill", "image_class"]

Enqueue: TypeAlias = Callable[[str, list[str]], Awaitable[object]]
"""Coroutine function that passes an original to workers, given its file name and the revisions of its thumbnails."""

_POSITION: Final = re.compile(f"[{ALPHABET}]{{8,{TIME_CHARS + RANDOM_CHARS}}}")

_LISTINGS: Final = 16
"""Number of object types whose listings are kept open."""


class _Backfill(ThumbnailPlan):
    """Generates the files of declared thumbnails."""

    def __init__(
        self,
        sessions: async_sessionmaker[Any],
        kind: OriginalKind,
        store: KeyedStore,
        enqueue: Enqueue | None,
        concurrency: int,
        rate: float | None,
    ) -> None:
        super().__init__()
        self._sessions = sessions
        self._kind = kind
        self._store = store
        self._enqueue = enqueue
        self._concurrency = concurrency
        self._pace = _Pace(rate)
        # work other than requests may use all places but one
        self._maker = ThumbnailMaker(store, [kind.cls], concurrency + 1)
        self._files: dict[str, ThumbnailFiles] = {}
        self._outage = Outage(concurrency)

    async def _run(self) -> AsyncGenerator[Thumbnails, None]:
        self._outage = Outage(self._concurrency)
        self.progress.total = await count(self._sessions, self._kind)
        try:
            async with aclosing(_pages(Scan(self._sessions, self._kind))) as pages:
                async for page in pages:
                    async with aclosing(self._process(page)) as results:
                        async for made in results:
                            yield made
                    self.progress.position = public_of(page[-1].revision or "") or self.progress.position
        finally:
            for files in self._files.values():
                await files.aclose()
            self._files.clear()

    async def _process(self, page: Sequence[OriginalReference]) -> AsyncGenerator[Thumbnails, None]:
        """Generate the missing files of some originals, then write to their rows."""
        items: list[_Item] = []
        for reference in page:
            try:
                items.append(_item(reference, self._store))
            except ImageAttachError as error:
                self._add_failure(reference, error)
        items.sort(key=lambda item: (item.original.object_type, item.original.revision))
        results: list[Made] = []
        marked = 0
        async with aclosing(as_completed(self._works(items), self._concurrency)) as done:
            async for item, result in done:
                if result is None:
                    self.progress.counts["enqueued"] += 1
                    self._count(1, [], [])
                    continue
                unmarked = self._is_unmarked(item, result)
                marked += unmarked
                if unmarked or result.preview is not None:
                    results.append(result)
                made = self._add(item.reference, result)
                if made is not None:
                    yield made
        await write_results(self._sessions, [self._kind.cls], self._store, results)
        self.progress.counts["marked"] += marked
        self.progress.counts["placeholders"] += sum(one.preview is not None for one in results)

    async def _works(self, items: Sequence[_Item]) -> AsyncGenerator[_Work, None]:
        """Yield one coroutine per original."""
        for item in items:
            existing = await self._existing(item.original)
            has_work = item.lacks_files(existing) or item.reference.lacks_placeholder
            if has_work:
                await self._pace.wait()
            if has_work and self._enqueue is not None:
                yield self._hand_over(self._enqueue, item)
            else:
                yield self._make(item, existing)

    async def _make(self, item: _Item, existing: Sequence[str]) -> tuple[_Item, Made | None]:
        preview = item.reference.lacks_placeholder
        return item, await self._maker.make_missing(
            item.original, item.thumbnails, Priority.REST, existing, preview=preview
        )

    async def _hand_over(self, enqueue: Enqueue, item: _Item) -> tuple[_Item, Made | None]:
        await enqueue(item.original.name, [one.stem for one in item.thumbnails])
        return item, None

    async def _existing(self, original: Original) -> list[str]:
        """Return the names of the existing files of an original."""
        object_type = original.object_type
        files = self._files.pop(object_type, None) or ThumbnailFiles(self._store, object_type)
        self._files[object_type] = files  # reinserted at the end, which keeps the order of last use
        if len(self._files) > _LISTINGS:
            await self._files.pop(next(iter(self._files))).aclose()
        return await files.of(original.revision)

    def _is_unmarked(self, item: _Item, made: Made) -> bool:
        """Return whether the row lacks the marks of the thumbnails whose files all exist."""
        reference = item.reference
        if reference.revision is None or MARKS not in written_columns(mapper_of(reference.cls)):
            return False
        framings = [(one.declaration, one.framing) for one in made.complete]
        marks = marks_for(framings, self._store, item.original.object_type)
        return bool(marks) and marks != reference.marks

    def _add(self, reference: OriginalReference, result: Made) -> Thumbnails | None:
        """Count a result; return the new thumbnails, if there are any."""
        self.progress.counts["gone"] += result.is_gone
        if result.error is not None:
            self._add_failure(reference, result.error)
        if result.error is not None or result.made or result.preview is not None:
            self._outage.note(result.error)
        if not result.made:
            self._count(int(result.error is None), [], [])
            return None
        keys = tuple(_key_of(name) for name in result.made)
        made = Thumbnails(reference.cls, reference.identity, {}, keys, sum(result.made.values()))
        self._count(int(result.error is None), [made], [])
        return made

    def _add_failure(self, reference: OriginalReference, error: Exception) -> None:
        self._count(1, [], [Thumbnails(reference.cls, reference.identity, {}, error=error)])


@dataclass(frozen=True, slots=True)
class _Item:
    """An original with its declared thumbnails."""

    reference: OriginalReference
    original: Original
    thumbnails: list[Thumbnail]

    def lacks_files(self, existing: Collection[str]) -> bool:
        """Return whether a declared file is not among the existing ones."""
        known = {*existing}
        return not all(known.issuperset(map(one.name_of, one.ladder.steps)) for one in self.thumbnails)


_Work: TypeAlias = Coroutine[Any, Any, tuple[_Item, Made | None]]


def _item(reference: OriginalReference, store: KeyedStore) -> _Item:
    """Return the original of a row with the thumbnails that its class declares.

    Raises:
        ImageAttachError: No valid names can be derived from the row.
    """
    name, key = reference.name_in(store), cast("ImageKey", reference.key)
    revision = key.revision or legacy_revision(key)
    if revision is None:
        raise InvalidKeyError(
            f"expected an object_id below 2**35 in a row of SQLAlchemy-ImageAttach, got {key.object_id}, because the "
            "file names of declared thumbnails contain it; attach the image again"
        )
    original = Original(name, key.object_type, revision, key.width, key.height, key.mimetype)
    declared = declarations_of(reference.cls).values()
    return _Item(reference, original, [Thumbnail.of(original, one, reference.framing) for one in declared])


def _key_of(name: str) -> ImageKey:
    """Return the key of a thumbnail file."""
    file = cast("Original", Original.parse(name))
    return ImageKey(file.object_type, None, file.width, file.height, file.mimetype, file.revision)


async def _pages(scan: Scan) -> AsyncGenerator[list[OriginalReference], None]:
    page: list[OriginalReference] = []
    async for reference in scan:
        page.append(cast("OriginalReference", reference))
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


class _Pace:
    """Rate limit.

    Args:
        rate: Largest number of calls to :meth:`wait` per second; ``None`` for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._interval = 0.0 if rate is None else 1 / rate
        self._next = 0.0

    async def wait(self) -> None:
        """Wait until the rate permits the next call."""
        now = time.monotonic()
        self._next = max(now, self._next) + self._interval
        if self._next - self._interval > now:
            await asyncio.sleep(self._next - self._interval - now)


def image_class(target: Any) -> type[Image]:
    """Return the image class of an attachment such as ``Product.photo``; return an image class unchanged.

    Raises:
        DeclarationError: ``target`` is neither, or the class declares no thumbnails.
    """
    relationship = getattr(target, "property", None)
    cls = relationship.mapper.class_ if isinstance(relationship, RelationshipProperty) else target
    if not (isinstance(cls, type) and issubclass(cls, Image)):
        raise DeclarationError(
            f"expected an image class, or an attachment of a class such as Product.photo, got {target!r:.80}"
        )
    if not any(declarations_of(mapper.class_) for mapper in mapper_of(cls).self_and_descendants):
        raise DeclarationError(f"{cls.__name__} declares no thumbnails: add __thumbnails__ to the class")
    return cls


def backfill(
    sessions: async_sessionmaker[Any],
    target: Any,
    *,
    store: Store | None = None,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
    enqueue: Enqueue | None = None,
    concurrency: int | None = None,
    rate: float | None = None,
    start_after: str = "",
) -> Plan[Thumbnails]:
    """Return a plan that generates the missing files of the declared thumbnails of all originals of a class.

    ::

        plan = backfill(sessions, ProductPhoto)
        await plan.execute()

    The originals are read in the order of their revisions and compared with one listing of the existing files, so
    memory is bounded and the store receives one request per thousand files. An interrupted plan can be run again:
    existing files are not generated again. The application can keep running in the meantime, also with the previous
    declarations, because their files have other names.

    Rows with :class:`~aioimageattach.entity.ThumbnailMarks` are marked, and the missing values of
    :class:`~aioimageattach.entity.Placeholder` are filled in, one thousand rows at a time. This does not apply to rows
    that SQLAlchemy-ImageAttach wrote; the URLs of their thumbnails point to the server.

    Args:
        sessions: Factory of the sessions, one for each thousand rows.
        target: The image class, or an attachment such as ``Product.photo``.
        store: Store of the originals and of the thumbnails; ``None`` means the current store, or that of the sessions.
        where: Conditions on the rows of the originals, such as ``ProductPhoto.product_id > 1000``, combined with AND.
        enqueue: Coroutine function that passes the work to other processes, for example ``ThumbnailTasks.enqueue``. It
            is called with the file name of each original that lacks files or its placeholder, and the revisions of its
            thumbnails. ``None`` means that the files are generated in this process.
        concurrency: Number of originals in progress; ``None`` means the number of CPU cores. Higher numbers are faster
            if the store responds slowly.
        rate: Largest number of originals to process per second, not counting those that lack neither files nor their
            placeholder; ``None`` for no limit.
        start_after: Skip the originals up to the ``progress.position`` of an earlier run.

    Returns:
        The plan. It yields the new files of each original. ``made`` is the number of files that were made, and
        ``bytes`` their total size. All other counts of its progress are numbers of originals:

        - ``enqueued``: passed to ``enqueue``;
        - ``gone``: deleted in the meantime, or without a file (see :func:`~aioimageattach.maintenance.verify`);
        - ``marked`` and ``placeholders``: the marks or the placeholder were written to the row.

    Raises:
        DeclarationError: ``target`` is not an image class or an attachment, the class declares no thumbnails, or the
            store is not a :class:`~aioimageattach.store.KeyedStore`.
        ValueError: ``concurrency`` or ``rate`` is out of range, or ``start_after`` is not a position.
        ContextError: No store is given, bound or current.
        StoreMissingError: From the plan: the bucket does not exist.
        StoreUnavailableError: From the plan: the store could not be listed, or has not responded for many consecutive
            originals. Other failures are listed in
            :attr:`Plan.failures <aioimageattach.maintenance.Plan.failures>`.

    Effects: The plan does nothing until it is awaited or iterated over. If it is cancelled, each file in progress is
    either complete or absent.
    """
    cls = image_class(target)
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency: expected at least 1, got {concurrency}")
    if rate is not None and not rate > 0:
        raise ValueError(f"rate: expected more than 0, got {rate}")
    if start_after and not _POSITION.fullmatch(start_after):
        raise ValueError(f"start_after: expected the position of an earlier run, got {start_after!r:.80}")
    conditions = (where,) if isinstance(where, ColumnElement) else tuple(where)
    kind = OriginalKind(mapper_of(cls), conditions, start_after)
    return _Backfill(sessions, kind, keyed(store, sessions), enqueue, concurrency or cores(), rate)
