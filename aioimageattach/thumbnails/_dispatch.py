"""Record images when their transaction has ended, and process those that the database has committed."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self, cast

from sqlalchemy.ext.asyncio import async_sessionmaker

from .._tasks import cancel_and_wait
from .._telemetry import JOB, JOB_WAIT, REFUSED, log_fields
from .._threads import Limit
from .._transaction.handover import Receiver, add_receiver, remove_receiver
from .._transaction.references import TrackedFile, committed
from ..context._current import overriding_store
from ..entity import Image
from ..exc import StoreFileNotFoundError, UsageError
from ..key import ImageKey
from ..store import KeyedStore
from ._maker import Made, ThumbnailMaker
from ._marks import write_results
from ._turns import Priority

__all__ = ["Dispatcher", "Job", "JobRunner"]

_BATCH: Final = 500
"""Largest number of images whose rows are looked up in one transaction."""

_log = logging.getLogger("aioimageattach.thumbnails")


@dataclass(frozen=True, slots=True)
class Job:
    """The thumbnails to make of one image.

    Args:
        original: File name of the original.
        thumbnails: Revisions of the thumbnails.
    """

    original: str
    thumbnails: Sequence[str]


class JobRunner:
    """Makes the thumbnails of a job, marks the row, and fills in its placeholder.

    Args:
        store: Store of the originals and of the thumbnails. :func:`~aioimageattach.context.override_store` replaces it.
        classes: Image classes whose thumbnails are made.
        sessions: Factory of the sessions that write to the rows; ``None`` if none are written.
        concurrency: As for :class:`ThumbnailMaker`.
    """

    def __init__(
        self,
        store: KeyedStore,
        classes: Iterable[type[Image]],
        sessions: async_sessionmaker[Any] | None,
        concurrency: int | None,
    ) -> None:
        self.maker: ThumbnailMaker = ThumbnailMaker(store, classes, concurrency)
        self._sessions = sessions
        self._turn = Limit(1)
        self._unwritten: list[Made] = []

    @property
    def store(self) -> KeyedStore:
        """The store, or the one that overrides it in tests."""
        return cast("KeyedStore", overriding_store() or self.maker.store)

    async def run(self, job: Job, priority: Priority) -> Exception | None:
        """Run a job. Return the error if some thumbnails could not be made, or the row could not be written.

        An image that no longer exists is not an error.
        """
        try:
            with JOB():
                await self._run(job, priority)
        except Exception as error:  # includes errors of third-party stores and of any database driver
            return error
        return None

    async def _run(self, job: Job, priority: Priority) -> None:
        maker = self.maker
        if self.store is not maker.store:
            maker = ThumbnailMaker(self.store, maker.classes, maker.concurrency)
        try:
            original = await maker.find_original(job.original, job.thumbnails)
        except StoreFileNotFoundError:
            return
        if original is None:
            return
        thumbnails = maker.thumbnails(original, job.thumbnails)
        preview = self._sessions is not None and maker.has_placeholder(original.object_type)
        made = await maker.make_missing(original, thumbnails, priority, preview=preview)
        try:
            await self._write(made)
        except Exception as error:
            raise made.error or error  # noqa: B904  # the error of the image has its own cause
        if made.error is not None:
            raise made.error

    async def _write(self, made: Made) -> None:
        """Write to the row of an image, together with those of all other images that are waiting."""
        if self._sessions is None or made.is_gone:
            return
        self._unwritten.append(made)
        async with self._turn:
            batch, self._unwritten = self._unwritten, []
            try:
                await write_results(self._sessions, self.maker.classes, self.store, batch)
            except BaseException:
                self._unwritten += [one for one in batch if one is not made]  # try the others again later
                raise


class Dispatcher(Receiver, ABC):
    """Receives images of its event loop when their transaction has ended, while its ``async with`` block is running.

    Args:
        store: The store of the images.
        classes: The image classes of the images.
        max_waiting: Maximum number of images that wait.
        shutdown_timeout: Time to process the waiting images when the block ends, in seconds.
        consumers: Number of images that are processed concurrently.
    """

    def __init__(
        self,
        store: KeyedStore,
        classes: Iterable[type[Image]],
        max_waiting: int,
        shutdown_timeout: float,
        consumers: int,
    ) -> None:
        for name, value, least in (("max_waiting", max_waiting, 1), ("shutdown_timeout", shutdown_timeout, 0)):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        self._store = store
        self._classes = tuple(classes)
        self._max_waiting = max_waiting
        self._shutdown_timeout = shutdown_timeout
        self._consumers = consumers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._inbox: dict[TrackedFile, bool] = {}
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._jobs: asyncio.Queue[tuple[float, Job]] = asyncio.Queue()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the block; ``None`` outside the block."""
        return self._loop

    async def __aenter__(self) -> Self:
        """Start receiving images.

        Raises:
            UsageError: The block is already running.
        """
        if self._loop is not None:
            raise UsageError(f"{self!r} is already running; create another one")
        self._loop = asyncio.get_running_loop()
        self._inbox, self._waiting = {}, 0
        self._arrived, self._idle, self._jobs = asyncio.Event(), asyncio.Event(), asyncio.Queue()
        self._idle.set()
        works = [self._look_up(), *(self._consume() for _ in range(self._consumers))]
        self._tasks = [self._loop.create_task(work) for work in works]
        add_receiver(self)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop receiving images; process those that wait, or give up after the configured time."""
        remove_receiver(self)
        try:
            async with asyncio.timeout(self._shutdown_timeout):
                await self.join()
        except TimeoutError:
            extra = log_fields("thumbnails.given_up", images=self._waiting)
            _log.warning("shutdown: the thumbnails of %d images will be made on request", self._waiting, extra=extra)
        finally:
            tasks, self._tasks, self._loop = self._tasks, [], None
            await cancel_and_wait(tasks)

    async def join(self) -> None:
        """Wait until all images that were received have been processed."""
        await self._idle.wait()

    @abstractmethod
    async def _process(self, job: Job) -> None:
        """Process an image. An error is logged."""

    # --- receiving ---------------------------------------------------------------------------------------------------

    def accepts(self, file: TrackedFile) -> bool:
        """See :meth:`Receiver.accepts`."""
        if file.derived is None or not issubclass(file.referrer.mapper.class_, self._classes):
            return False
        if asyncio._get_running_loop() is not self._loop:  # the database connections belong to another loop
            return False
        store = self._store
        return file.store in (store, overriding_store()) or file.store.location == store.location

    def receive(self, files: Sequence[TrackedFile], certain: bool) -> None:
        """See :meth:`Receiver.receive`."""
        new = [file for file in files if file not in self._inbox and cast("Any", file.derived).thumbnails()]
        taken = new[: self._max_waiting - self._waiting]
        if len(taken) < len(new):
            REFUSED.add(len(new) - len(taken))
            extra = log_fields("thumbnails.refused", images=len(new) - len(taken))
            _log.warning(
                "the thumbnails of %d images will be made on request, because %d images are waiting (max_waiting)",
                len(new) - len(taken),
                self._max_waiting,
                extra=extra,
            )
        if taken:
            self._inbox |= dict.fromkeys(taken, certain)
            self._waiting += len(taken)
            self._idle.clear()
            self._arrived.set()

    async def _look_up(self) -> None:
        """Pass on the images that the database has committed."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._inbox:
                batch = dict(islice(self._inbox.items(), _BATCH))
                for file in batch:
                    del self._inbox[file]
                found = await committed(batch)
                self._finished(len(batch) - len(found))
                for file in found:
                    name = cast("KeyedStore", file.store).name_of(cast("ImageKey", file.key))
                    self._jobs.put_nowait((time.monotonic(), Job(name, cast("Any", file.derived).thumbnails())))

    async def _consume(self) -> None:
        while True:
            queued, job = await self._jobs.get()
            JOB_WAIT.record(time.monotonic() - queued)
            try:
                await self._process(job)
            except Exception as error:
                extra = log_fields("thumbnails.failed", error)
                name = next(iter(job.thumbnails))
                _log.warning("thumbnails such as %s were not made in the background: %r", name, error, extra=extra)
            finally:
                self._finished(1)

    def _finished(self, count: int) -> None:
        self._waiting -= count
        if not self._waiting:
            self._idle.set()
