"""Make declared thumbnails on other machines with `taskiq <https://taskiq-python.github.io>`_ (extra ``taskiq``).

::

    # myapp/tasks.py; the workers run `taskiq worker myapp.tasks:broker`
    broker = AioPikaBroker(url)
    tasks = ThumbnailTasks(broker, store, [ProductPhoto], sessions=sessions)

    # in the lifespan of the application
    async with broker, tasks:
        yield
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import async_sessionmaker
from taskiq import AsyncBroker

from ._telemetry import log_fields, redacted
from .entity import Image
from .exc import DeclarationError, ImageError
from .store import KeyedStore
from .thumbnails._dispatch import Dispatcher, Job, JobRunner
from .thumbnails._turns import Priority

__all__ = ["ThumbnailTasks"]

_SENDERS: Final = 4
"""Number of images that are sent to the broker concurrently."""

_SEND_TIMEOUT: Final = 10.0
"""Time that the broker may take to accept a job, in seconds."""

_FIRST_DELAY: Final = 1.0
_LAST_DELAY: Final = 30.0

_log = logging.getLogger("aioimageattach.thumbnails")


class ThumbnailTasks(Dispatcher):
    """Task of a taskiq broker that makes declared thumbnails.

    Create it in the module that the workers import. In a worker, it makes the thumbnails of the jobs that arrive, for
    which it needs the store and the classes. In the application, enter it as an asynchronous context manager: each
    image that a session of this process attaches is then sent to the broker after the transaction has been committed.
    While the broker cannot be reached, commits are not delayed, images wait in memory, and their thumbnails are made
    on request.

    A job consists of the file name of the original and the revisions of its thumbnails. It may run more than once, and
    does nothing if the image no longer exists.

    Args:
        broker: The broker. The caller starts it and shuts it down.
        store: Store of the originals and of the thumbnails.
        classes: Image classes whose thumbnails are made, including their subclasses.
        sessions: Factory of the sessions with which workers set the marks of classes with
            :class:`~aioimageattach.entity.ThumbnailMarks`, and fill in the columns of classes with
            :class:`~aioimageattach.entity.Placeholder`; ``None`` if no row is written.
        task_name: Name of the task on the broker.
        labels: Labels of the task, such as ``{"queue_name": "thumbnails"}`` for a broker with several queues.
        attempts: Maximum number of attempts to make the thumbnails of an image if the store or the database fails.
            After the last one, the error is logged and raised, and the job ends.
        concurrency: As for :class:`~aioimageattach.thumbnails.ThumbnailWorker`.
        max_waiting: Maximum number of images that wait to be sent. The thumbnails of further images are made on
            request, and the number of these images is logged.
        shutdown_timeout: Time to send the waiting images when the application ends, in seconds. The thumbnails of the
            remaining images are made on request.

    Raises:
        DeclarationError: A class is not an image class, the store is not a
            :class:`~aioimageattach.store.KeyedStore`, or the broker already has a task with this name.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        broker: AsyncBroker,
        store: KeyedStore,
        classes: Iterable[type[Image]],
        *,
        sessions: async_sessionmaker[Any] | None = None,
        task_name: str = "aioimageattach:thumbnails",
        labels: dict[str, Any] | None = None,
        attempts: int = 5,
        concurrency: int | None = None,
        max_waiting: int = 10_000,
        shutdown_timeout: float = 10.0,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"attempts: expected at least 1, got {attempts}")
        if broker.find_task(task_name) is not None:  # taskiq would replace that task and ignore its jobs
            raise DeclarationError(
                f"task_name: the broker has a task {task_name!r} already; give this one another name"
            )
        self._runner = JobRunner(store, classes, sessions, concurrency)
        super().__init__(store, self._runner.maker.classes, max_waiting, shutdown_timeout, _SENDERS)
        self.broker: AsyncBroker = broker
        self._attempts = attempts
        self._is_down = False

        async def _make_thumbnails(original: str, thumbnails: list[str]) -> None:  # taskiq sets attributes on it
            await self._run(Job(original, thumbnails))

        # a job that is acknowledged earlier is lost if its worker dies
        options = {"ack_type": "when_saved", **(labels or {})}
        self._task = broker.register_task(_make_thumbnails, task_name, **options)

    def __repr__(self) -> str:
        return f"<ThumbnailTasks {self._task.task_name!r} of {self._store!r}>"

    async def enqueue(self, original: str, thumbnails: Sequence[str]) -> None:
        """Send a job to the broker.

        Args:
            original: File name of the original.
            thumbnails: Revisions of the thumbnails.

        Raises:
            TimeoutError: The broker did not accept the job in time. A worker may still receive it.
            Exception: Any other error of the broker.
        """
        async with asyncio.timeout(_SEND_TIMEOUT):
            await self._task.kiq(original, list(thumbnails))

    async def _process(self, job: Job) -> None:
        """Send a job, as soon as the broker can be reached."""
        delays = _delays()
        while True:
            try:
                await self.enqueue(job.original, job.thumbnails)
            except Exception as error:  # each broker has its own errors
                if not self._is_down:
                    self._is_down = True
                    cause, extra = error.__cause__ or error, log_fields("thumbnails.broker_down", error)
                    text = f"{type(cause).__name__}: {redacted(cause)}"
                    _log.warning("the broker cannot be reached; images wait in memory: %s", text, extra=extra)
                await asyncio.sleep(next(delays))
            else:
                if self._is_down:
                    self._is_down = False
                    _log.info("the broker can be reached again", extra=log_fields("thumbnails.broker_up"))
                return

    async def _run(self, job: Job) -> None:
        """Make the thumbnails of a job in a worker."""
        attempt, delays = 1, _delays()
        while (error := await self._runner.run(job, Priority.NEW)) is not None:
            if attempt == self._attempts or isinstance(error, ImageError):
                name = next(iter(job.thumbnails))
                extra = log_fields("thumbnails.given_up", error, attempts=attempt)
                _log.error("thumbnails such as %s could not be made in %d attempts", name, attempt, extra=extra)
                raise error
            await asyncio.sleep(next(delays))
            attempt += 1


def _delays() -> Iterator[float]:
    """Yield times to wait before the next attempt, in seconds, without end."""
    delay = _FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1)
        delay = min(2 * delay, _LAST_DELAY)
