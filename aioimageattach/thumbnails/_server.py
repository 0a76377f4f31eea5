"""Serve declared thumbnails, and render missing ones. Needs the store and the image classes, but no database."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

from .._declared.framing import WHOLE
from .._declared.maker import find_original, thumbnail_of
from .._declared.names import DerivedName, original_type, path_of, picture_of
from .._declared.srcset import Declarations
from .._inventory import Sessions
from .._telemetry import REQUESTS, log_fields
from ..entity import Image
from ..exc import ImageError, InvalidKeyError, StoreError, StoreFileNotFoundError
from ..store import KeyedStore, ObjectInfo
from ..stores.fs._serving.names import ServableFile, parse_path
from ..stores.fs._serving.reader import Delivery
from ..stores.fs._serving.responses import RequestInfo, Response, error_response, offloaded_response
from ..stores.fs._signing import UrlSigner
from ..stores.fs._static import BLOCK_SIZE, FileServer, offload
from ._maker import Busy, ThumbnailMaker
from ._prune import prune
from ._reader import StoreReader

__all__ = ["ThumbnailServer"]

_MAX_FRAMINGS: Final = 100
"""Largest number of crop boxes and focal points per thumbnail. Above it, new boxes get one point each.

A client that knows the URL of a thumbnail could request all focal points, and with the URL of the original also all
crop boxes.
"""

_RESULTS: Final = {302: "redirect", 404: "not_found", 503: "refused"}
_RETRY_AFTER: Final = (b"retry-after", b"1")

_log = logging.getLogger("aioimageattach.thumbnails")


class ThumbnailServer(FileServer):
    """ASGI application that serves declared thumbnails, and renders those that do not exist yet.

    ::

        thumbnails = ThumbnailServer(store, [ProductPhoto], base_url="/thumbnails/")
        set_default_store(store, thumbnails=thumbnails)
        app.mount("/thumbnails", thumbnails)

    It serves only thumbnails, never originals. An existing file is served even if the declaration has changed since. A
    missing file is rendered, stored and served; the other widths of its format are rendered afterwards, while no
    request is waiting. A request for a file with an outdated name that does not exist is redirected to the current file
    of the nearest width, which is made before the redirect, so that processes with different declarations can run side
    by side. Put a CDN or nginx in front, so that each file is requested from this application only once; see the guide
    *Serve thumbnails through a CDN*.

    Args:
        store: Store of the originals and of the thumbnails.
        classes: Image classes whose thumbnails are served, including their subclasses.
        base_url: Public URL under which the application is mounted: a path such as ``"/thumbnails/"``, or the URL of
            the CDN.
        cors: As for :class:`~aioimageattach.stores.fs.StaticServer`.
        block_size: As for :class:`~aioimageattach.stores.fs.StaticServer`.
        open_files: As for :class:`~aioimageattach.stores.fs.StaticServer`.
        url_secret: Secret that signs the URLs, at least 16 bytes, the same in all processes; requests without a valid
            signature are rejected. If there are several secrets, URLs are signed with the first one, and signatures
            with any of them are accepted. No other server may then serve the files of the store. ``None`` means that
            URLs are not signed.
        url_expires_in: Minimum time for which a signed URL is valid, in seconds.
        url_window: Maximum time for which the same signed URL is reused, in seconds; ``None`` means
            ``url_expires_in``.
        x_accel_redirect: As for :class:`~aioimageattach.stores.fs.StaticServer`, for a store in a directory.
        concurrency: Number of originals that are fetched and rendered concurrently; ``None`` means the number of cores
            plus one.
        max_wait: Time that a request waits for free capacity, in seconds. After that, it is redirected to another file
            of the same thumbnail; if there is none, the response has status 503.

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
        base_url: str,
        cors: bool | Iterable[str] = False,
        block_size: int = BLOCK_SIZE,
        open_files: int = 256,
        url_secret: str | bytes | Sequence[str | bytes] | None = None,
        url_expires_in: int = 3600,
        url_window: int | None = None,
        x_accel_redirect: str | None = None,
        concurrency: int | None = None,
        max_wait: float = 5.0,
    ) -> None:
        self._maker: ThumbnailMaker = ThumbnailMaker(store, classes, concurrency)
        for name, value in (("block_size", block_size), ("open_files", open_files)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self._files = StoreReader(store, block_size, open_files)
        signer = None if url_secret is None else UrlSigner(url_secret, expires_in=url_expires_in, window=url_window)
        super().__init__(self._files, cors=cors, signer=signer, offload=offload("", x_accel_redirect, False))
        self.store: KeyedStore = store
        self.base_url: str = base_url if base_url.endswith("/") else f"{base_url}/"
        self._max_wait = max_wait

    @property
    def is_private(self) -> bool:
        """``True`` if URLs are signed."""
        return self._signer is not None

    def query_of(self, picture: str) -> str:
        """Return the query string that signs the URLs of an image, with the ``?``; empty if URLs are not signed."""
        return "" if self._signer is None else f"?{self._signer.sign(picture)}"

    async def prune(
        self,
        *,
        delete: bool = False,
        grace: timedelta = timedelta(days=1),
        object_types: Iterable[str] = (),
        sessions: Sessions | None = None,
    ) -> AsyncGenerator[ObjectInfo, None]:
        """Yield the files of thumbnails that are no longer declared with this look, width and format.

        Call it once all processes run with the new declarations. After that, URLs in older pages and e-mails are
        redirected to the current files, or return 404 if the thumbnail is no longer declared.

        Args:
            delete: ``True`` to delete the files; otherwise, they are only reported.
            grace: Files younger than this are skipped.
            object_types: Object types of the originals of classes whose object type depends on the row.
            sessions: Factory of sessions; required with ``delete`` if a class has
                :class:`~aioimageattach.entity.ThumbnailMarks`.

        Raises:
            UsageError: ``delete`` is set and a class has marks, but no sessions are given.
            StoreError: The store could not be listed, or a file could not be deleted.
            SQLAlchemyError: The marks could not be changed.

        Effects: With ``delete``, each file has been deleted by the time it is yielded. Before that, outdated marks of
        its original were removed and committed.
        """
        maker = self._maker
        types = dict.fromkeys([*(one for one in maker.declared_types() if one is not None), *object_types])
        async with aclosing(
            prune(maker, types, datetime.now(UTC) - grace, delete=delete, sessions=sessions)
        ) as outdated:
            async for info in outdated:
                yield info

    async def aclose(self) -> None:
        """Stop rendering files that no request is waiting for."""
        await self._maker.aclose()

    # --- answers -----------------------------------------------------------------------------------------------------

    def _signed_name(self, file: ServableFile) -> str:
        name = DerivedName.of_file(file.name)
        object_type = original_type(file.object_type)
        return "" if name is None or object_type is None else picture_of(object_type, name.public)

    def _peek(self, request: RequestInfo, file: ServableFile) -> Delivery | None:
        object_type = original_type(file.object_type)
        if object_type is None or self._offload is not None or not self._maker.declared(object_type):
            return None
        found = self._files.peek(request, file)
        if found is not None:
            REQUESTS.add(result="hit")
        return found

    async def _find(self, request: RequestInfo, file: ServableFile) -> Delivery:
        found, result = await self._look_up(request, file)
        REQUESTS.add(result=result)
        return found

    async def _look_up(self, request: RequestInfo, file: ServableFile) -> tuple[Delivery, str]:
        """Return the response, and the result that is counted."""
        object_type = original_type(file.object_type)
        declared = [] if object_type is None else self._maker.declared(object_type)
        if object_type is None or not declared:
            return Delivery(error_response(request, 404)), "not_found"
        try:
            try:
                return await self._prepared(request, file), "hit"
            except StoreFileNotFoundError:
                found = await self._make_missing(request, file, object_type, declared)
                return found, _RESULTS.get(found.response.status, "miss")
        except (StoreFileNotFoundError, InvalidKeyError):
            return Delivery(error_response(request, 404)), "not_found"
        except ImageError as error:
            extra = log_fields("thumbnails.failed", error)
            _log.warning("%s cannot be made: %s", file.name, error, extra=extra)
            return Delivery(error_response(request, 404)), "failed"
        except StoreError as error:
            _log.warning("%s cannot be served: %s", file.name, error, extra=log_fields("serving.failed", error))
            return Delivery(error_response(request, 503, _RETRY_AFTER)), "failed"

    async def _prepared(self, request: RequestInfo, file: ServableFile) -> Delivery:
        delivery = await self._files.prepare(request, file)
        if self._offload is None or request.needs_etag():
            return delivery
        delivery.release()
        return Delivery(offloaded_response(request, file, *self._offload))

    async def _make_missing(
        self, request: RequestInfo, file: ServableFile, object_type: str, declared: list[Declarations]
    ) -> Delivery:
        name = DerivedName.of_file(file.name)
        if name is None or not any(name.name in one for one in declared):
            return Delivery(error_response(request, 404))
        original = await find_original(self.store, object_type, name)
        thumbnail = None if original is None else thumbnail_of(original, name, declared)
        if thumbnail is None:
            return Delivery(error_response(request, 404))
        steps = {thumbnail.name_of(step): step for step in thumbnail.ladder.steps}
        wanted = file.name if file.name in steps else _nearest(file, steps)
        if wanted is None:
            return Delivery(error_response(request, 404))
        if name.framing != WHOLE and await self._has_too_many_framings(object_type, name):
            return await self._redirect_to_existing(request, file, object_type, name)
        try:
            if wanted != file.name:
                # The target must exist: the next request may reach a process with other declarations, which serves
                # files that exist, but would redirect back from one that does not.
                if not await self._maker.exists(wanted):
                    await self._maker.make(thumbnail, steps[wanted], self._max_wait)
                return self._redirect(request, wanted)
            blob = await self._maker.make(thumbnail, steps[wanted], self._max_wait)
        except Busy:
            return await self._redirect_to_existing(request, file, object_type, name)
        if self._files.directory_of(file) is None:
            return self._files.respond(request, file, blob)
        return await self._prepared(request, file)

    async def _redirect_to_existing(
        self, request: RequestInfo, file: ServableFile, object_type: str, name: DerivedName
    ) -> Delivery:
        """Redirect to an existing file of a thumbnail with the same crop box; respond with 503 if there is none."""
        found = await self._existing(object_type, name)
        existing = _nearest(file, [path for path, one in found.items() if one.framing.box == name.framing.box])
        if existing is None:
            return Delivery(error_response(request, 503, _RETRY_AFTER))
        return self._redirect(request, existing)

    def _redirect(self, request: RequestInfo, name: str) -> Delivery:
        query = f"?{request.query.decode('ascii', 'ignore')}" if self.is_private else ""
        headers = [
            (b"location", f"{self.base_url}{name}{query}".encode()),
            (b"cache-control", b"no-store"),
            (b"content-length", b"0"),
            *request.cors,
        ]
        return Delivery(Response(302, headers))

    async def _existing(self, object_type: str, name: DerivedName) -> dict[str, DerivedName]:
        """Return the existing files of a thumbnail, including those of earlier recipes and other framings."""
        prefix = path_of(object_type, f"{name.public}-{name.name}-")
        listed = self.store.list_objects(prefix)
        return {info.name: found async for info in listed if (found := DerivedName.of_file(info.name)) is not None}

    async def _has_too_many_framings(self, object_type: str, name: DerivedName) -> bool:
        existing = await self._existing(object_type, name)
        others = {one.framing for one in existing.values()} - {name.framing}
        boxes = {one.box for one in others}
        # Clients can change points, so the points of earlier boxes must not prevent files of a new box.
        return len(others if name.framing.box in boxes else boxes) >= _MAX_FRAMINGS


def _width_of(name: str) -> int:
    """Return the width in a file name."""
    return int(name.rpartition("/")[2].partition(".")[2].partition("x")[0])


def _nearest(file: ServableFile, names: Iterable[str]) -> str | None:
    """Return the name whose width is nearest to that of the requested file; ``None`` if there are no names.

    Files of the same MIME type are preferred.
    """
    wanted = _width_of(file.name)
    found = {name: parse_path(name) for name in names}
    same = [name for name, one in found.items() if one is not None and one.mimetype == file.mimetype]
    return min(same or found, key=lambda name: abs(_width_of(name) - wanted), default=None)
