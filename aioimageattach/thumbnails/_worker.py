"""Make the declared thumbnails of new images in the process of the application, after the commit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.ext.asyncio import async_sessionmaker

from ..entity import Image
from ..store import KeyedStore
from ._dispatch import Dispatcher, Job, JobRunner
from ._turns import Priority

__all__ = ["ThumbnailWorker"]


class ThumbnailWorker(Dispatcher):
    """Makes the declared thumbnails of new images in this process, after their transaction has been committed.

    ::

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with ThumbnailWorker(store, [ProductPhoto], sessions=sessions):
                yield

    While the block is running, each image that a session of this process attaches is recorded when its transaction
    has ended, looked up in the database, and rendered if a committed row references it. This never delays a commit or
    makes it fail. Requests to a :class:`ThumbnailServer` in the same event loop take precedence, and share the limit on
    originals in progress. If thumbnails are not made, because the process ends or the store fails, they are made when
    they are requested.

    Args:
        store: Store of the originals and of the thumbnails.
        classes: Image classes whose thumbnails are made, including their subclasses.
        sessions: Factory of the sessions that set the marks of classes with
            :class:`~aioimageattach.entity.ThumbnailMarks`, and fill in the columns of classes with
            :class:`~aioimageattach.entity.Placeholder`; ``None`` if no row is written.
        concurrency: Number of originals in progress, including those of requests; ``None`` means the number of cores
            plus one. The worker itself processes at most one less, but at least one, so that requests need not wait
            for it.
        max_waiting: Maximum number of images that wait. The thumbnails of further images are made on request, and the
            number of these images is logged.
        shutdown_timeout: Time to process the waiting images when the block ends, in seconds. After that, the thumbnails
            of all images that are waiting or in progress are left to be made on request, and the number of these images
            is logged.

    Raises:
        DeclarationError: A class is not an image class, or the store is not a
            :class:`~aioimageattach.store.KeyedStore`.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        store: KeyedStore,
        classes: Iterable[type[Image]],
        *,
        sessions: async_sessionmaker[Any] | None = None,
        concurrency: int | None = None,
        max_waiting: int = 10_000,
        shutdown_timeout: float = 10.0,
    ) -> None:
        self._runner = JobRunner(store, classes, sessions, concurrency)
        maker = self._runner.maker
        super().__init__(store, maker.classes, max_waiting, shutdown_timeout, maker.background)

    def __repr__(self) -> str:
        return f"<ThumbnailWorker of {self._runner.maker.store!r}>"

    async def _process(self, job: Job) -> None:
        error = await self._runner.run(job, Priority.NEW)
        if error is not None:
            raise error
