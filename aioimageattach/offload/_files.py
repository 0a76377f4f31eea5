"""Attached files: handles of files of any kind, with a file name, a MIME type and a URL."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, cast

from .._filenames import UNKNOWN_TYPE, clean_filename, clean_mimetype, guess_mimetype, make_attachment_name
from .._http.disposition import attachment
from .._names import revision_of, revision_time
from .._threads import run_io
from ..exc import DeclarationError, ImageTooLargeError, OffloadError, ValueTooLargeError
from ..file import AsyncFile, FileProxy, Source, Spool
from ..file._source import CHUNK
from ..store import KeyedStore, Store
from ._fetch import stream
from ._reference import Reference, file_reference
from ._values import Stored

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from ._values import Settings

__all__ = ["MAX_FILE_SIZE", "StoredFile"]

MAX_FILE_SIZE: Final = 1024 * 1024 * 1024
"""Default maximum size of an attached file, in bytes."""

_UNNAMED: Final = "file"


class StoredFile(Stored[Spool]):
    """A handle of a file of any kind, such as an invoice or a recording.

    Make one with :meth:`from_file`, :meth:`from_path` or :meth:`from_blob`, and assign it to an attribute that is
    declared with :func:`stored_file`. At most 4 MiB of it are kept in memory. Its name, MIME type, size and checksum
    are in the row. Two handles are equal if their files have the same name, MIME type and bytes.

    :attr:`~aioimageattach.offload.Stored.value` and :meth:`~aioimageattach.offload.Stored.load` return the content as a
    :class:`~aioimageattach.file.Spool`, in memory or in a temporary file. To send or process the file, use :meth:`open`
    or :meth:`chunks`.
    """

    __slots__ = ("_filename", "_mimetype")

    plain: ClassVar[Any] = Spool
    _column_length: ClassVar[int] = 512

    def __init__(
        self, value: Spool, *, filename: str = _UNNAMED, mimetype: str | None = None, store: Store | None = None
    ) -> None:
        super().__init__(value, store=store)
        self._describe(filename, mimetype)

    @classmethod
    async def from_file(
        cls,
        source: Source,
        *,
        filename: str | None = None,
        mimetype: str | None = None,
        max_size: int = MAX_FILE_SIZE,
        store: Store | None = None,
    ) -> Self:
        """Read an upload, a response or a file to its end, and return a handle to assign to an attribute.

        Args:
            source: See :data:`~aioimageattach.file.Source`; read from its current position. The caller closes it.
            filename: The file name; ``None`` for that of the source. It is cleaned: directories and control characters
                are removed, characters that Windows forbids are replaced by ``_``, and it is shortened to 200 bytes.
            mimetype: The MIME type; ``None`` for the type that the source declares or, without one, the type that
                corresponds to the extension of the file name. It is not compared with the content, and does not affect
                how the file is served.
            max_size: Largest number of bytes accepted. The flush checks the limit of the column, too.
            store: The store for the file; ``None`` for the current store at the flush.

        Raises:
            ValueTooLargeError: The source has more than ``max_size`` bytes; at most one chunk beyond was read.
            DeclarationError: Bytes cannot be read from the source.
            StoreUnavailableError: The temporary file could not be written.

        Effects: Up to 4 MiB are kept in memory; a larger file is copied to an unnamed temporary file. The flush puts it
            into the store. An error or a cancellation leaves nothing behind.
        """
        if max_size < 0:
            raise DeclarationError(f"max_size: expected at least 0 bytes, got {max_size!r}")
        for argument, given in (("filename", filename), ("mimetype", mimetype)):
            if given is not None and not isinstance(given, str):
                raise DeclarationError(f"{argument}: expected a str, got {type(given).__name__}")
        try:
            spool = await Spool.fill(source, limit=max_size)
        except ImageTooLargeError as error:
            actual = None if error.actual is None else int(error.actual)
            raise ValueTooLargeError(str(error), limit=max_size, actual=actual) from None
        name = _filename_of(source) if filename is None else filename
        return cls(spool, filename=name, mimetype=_mimetype_of(source) if mimetype is None else mimetype, store=store)

    @classmethod
    async def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        filename: str | None = None,
        mimetype: str | None = None,
        max_size: int = MAX_FILE_SIZE,
        store: Store | None = None,
    ) -> Self:
        """Read a file on disk, and return a handle; see :meth:`from_file`.

        Args:
            path: The file, which is not changed. Never pass a path that a client has chosen.
            filename: The file name; ``None`` for that of the path.
            mimetype: As for :meth:`from_file`.
            max_size: As for :meth:`from_file`.
            store: As for :meth:`from_file`.

        Raises:
            OSError: The file cannot be read.
            ValueTooLargeError: The file has more than ``max_size`` bytes.
        """
        name = os.path.basename(os.fspath(path)) if filename is None else filename
        async with FileProxy(await run_io(open, path, "rb")) as file:
            return await cls.from_file(file, filename=name, mimetype=mimetype, max_size=max_size, store=store)

    @classmethod
    async def from_blob(
        cls,
        blob: bytes | bytearray | memoryview,
        *,
        filename: str,
        mimetype: str | None = None,
        max_size: int = MAX_FILE_SIZE,
        store: Store | None = None,
    ) -> Self:
        """Return a handle of bytes, such as a report that the application has made; see :meth:`from_file`."""
        return await cls.from_file(blob, filename=filename, mimetype=mimetype, max_size=max_size, store=store)

    @classmethod
    def check(cls, value: Spool) -> Spool:
        """Return the value if it is a spool.

        Raises:
            DeclarationError: It is not a spool, because a file cannot be read without awaiting.
        """
        if isinstance(value, Spool):
            return value
        if inspect.iscoroutine(value):
            value.close()
        raise DeclarationError(
            f"expected a {cls.__name__}, got {type(value).__name__}: assign `await {cls.__name__}.from_file(upload)`"
        )

    @classmethod
    def decode(cls, data: bytes) -> Spool:
        """Return a value that is kept in the row, from a time when the column was not declared for files."""
        return Spool.of(data)

    # --- without I/O -------------------------------------------------------------------------------------------------

    @property
    def filename(self) -> str:
        """The file name, such as ``"Invoice 7.pdf"``: never empty, without directories, at most 200 bytes."""
        content = self._read()
        if isinstance(content, Reference):
            return content.name.rpartition("/")[2] if content.attachment is None else content.attachment.filename
        return self._filename

    @property
    def mimetype(self) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride] - per file
        """The MIME type that the uploader declared, in lower case and without parameters.

        Do not send it to browsers, because it can be wrong or malicious. Use :attr:`headers`.
        """
        content = self._read()
        if isinstance(content, Reference):
            return UNKNOWN_TYPE if content.attachment is None else content.attachment.mimetype
        return self._mimetype

    @property
    def created_at(self) -> datetime | None:
        """The time of the flush that stored the file, in UTC; ``None`` before that."""
        return None if self.name is None else revision_time(revision_of(self.name) or "")

    @property
    def headers(self) -> dict[str, str]:
        """Headers for a response of the application that contains this file.

        With these headers, browsers save the file under its name, and do not run it as a page or a script of the
        application's origin.
        """
        return {
            "Content-Type": guess_mimetype(self.filename),
            "Content-Length": str(self.size),
            "Content-Disposition": attachment(clean_filename(self.filename)),
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
        }

    def locate(self, store: Store | None = None, *, download: bool | str = False) -> str:
        """Return the URL of the file. No query and no I/O.

        The URL ends with the file name. Browsers display images and save all other files, if the store or the web
        server is set up as the guide *Attach files of any kind* describes.

        Args:
            store: As for :meth:`~aioimageattach.offload.Stored.load`.
            download: ``True`` for a URL with which browsers save the file under its name even if they could display it,
                or another name under which they save it. Only stores with signed URLs support this.

        Raises:
            OffloadError: The file is not stored yet.
            DeclarationError: ``download`` is given, and the store cannot name downloads.
            ValueError: ``download`` is not the name of a file.
            ContextError: No store is given or set.
        """
        name = self.name
        if name is None:
            raise OffloadError(f"the file {self.filename!r} has no URL before it is stored: flush or commit first")
        found = self._resolve(store)
        if download is False:
            return found.url_of(name)
        return found.download_url_of(name, clean_filename(self.filename) if download is True else download)

    # --- with I/O ----------------------------------------------------------------------------------------------------

    async def open(self, store: Store | None = None) -> AsyncFile:
        """Open the file as a stream of bytes in constant memory; close it with ``async with`` or ``aclose()``.

        Args:
            store: As for :meth:`load`. Without it, a handle that is :attr:`loaded` does not read from the store.

        Raises:
            StoreFileNotFoundError: The store has no such file.
            DamagedValueError: The reference does not belong to this column; while reading: the content of the file is
                not what was stored.
            ContextError: No store is given or set.
        """
        return self.value.open() if store is None and self.loaded else await super().open(store)

    async def read(self, store: Store | None = None) -> bytes:
        """Return the whole content as bytes, in memory; see :meth:`open`."""
        async with await self.open(store) as file:
            return await file.read()

    async def chunks(self, size: int = CHUNK, *, store: Store | None = None) -> AsyncIterator[bytes]:
        """Iterate over the content in constant memory, for example for a streaming response.

        Args:
            size: Largest chunk, in bytes.
            store: As for :meth:`~aioimageattach.offload.Stored.load`.

        Raises:
            StoreFileNotFoundError: The store has no such file.
            DamagedValueError: The content of the file is not what was stored.
            ContextError: No store is given or set.
        """
        async with await self.open(store) as file:
            while chunk := await file.read(size):
                yield chunk

    # --- for the other modules of this package -----------------------------------------------------------------------

    def _describe(self, filename: str, mimetype: str | None) -> None:
        self._filename = clean_filename(filename)
        found = UNKNOWN_TYPE if mimetype is None else clean_mimetype(mimetype)
        self._mimetype = guess_mimetype(self._filename) if found == UNKNOWN_TYPE else found

    def _reference(self, object_type: str, size: int, sha256: str) -> Reference:
        """Return a new reference to the file."""
        return file_reference(
            make_attachment_name(
                object_type, size=size, sha256=sha256, mimetype=self.mimetype, filename=clean_filename(self.filename)
            )
        )

    @classmethod
    def _from_row(cls, raw: str, settings: Settings) -> Stored[Spool]:
        handle = cast("StoredFile", super()._from_row(raw, settings))
        handle._describe(_UNNAMED, None)
        return handle

    def _twin(self) -> Stored[Spool]:
        twin = cast("StoredFile", super()._twin())
        twin._describe(self.filename, self.mimetype)
        return twin

    def _identity(self) -> tuple[object, ...]:
        return *super()._identity(), self.filename, self.mimetype

    def _encode(self) -> bytes | Spool:
        return self.value

    async def _fetch(self, store: KeyedStore, reference: Reference) -> Spool:
        async with await stream(store, reference) as file:
            return await Spool.fill(file)

    async def _fetch_payload(self, store: KeyedStore, reference: Reference) -> bytes | Spool:
        return await self._fetch(store, reference)

    def __getstate__(self) -> dict[str, Any]:
        if self._raw is None:
            raise OffloadError(
                f"{self.filename!r} cannot be pickled before it is stored, because its content may be on disk: "
                "flush first, or pickle `await handle.read()`"
            )
        return {**super().__getstate__(), "value": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._describe(_UNNAMED, None)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let Pydantic accept handles, and serialize them as objects with URL, name, type and size."""
        from pydantic_core import core_schema

        fields = {
            "url": core_schema.str_schema(),
            "filename": core_schema.str_schema(),
            "mimetype": core_schema.str_schema(),
            "size": core_schema.int_schema(ge=0),
        }
        shape = core_schema.typed_dict_schema(
            {name: core_schema.typed_dict_field(schema, required=True) for name, schema in fields.items()}
        )
        return core_schema.is_instance_schema(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(_as_dict, return_schema=shape)
        )


def _as_dict(file: StoredFile) -> dict[str, Any]:
    return {"url": file.locate(), "filename": file.filename, "mimetype": file.mimetype, "size": file.size}


def _filename_of(source: Any) -> str:
    """Return the file name of an upload, an open file or a response; a placeholder if there is none."""
    for name in (
        getattr(source, "filename", None),
        getattr(getattr(source, "content_disposition", None), "filename", None),
        getattr(source, "name", None),
        getattr(getattr(source, "url", None), "path", None),
    ):
        if isinstance(name, str) and name:
            return name
    return _UNNAMED


def _mimetype_of(source: Any) -> str | None:
    """Return the MIME type that an upload or a response declares; ``None`` if there is none."""
    headers = getattr(source, "headers", None)
    declared = getattr(source, "content_type", None) or (None if headers is None else headers.get("content-type"))
    return declared if isinstance(declared, str) else None
