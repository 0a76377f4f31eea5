"""Handles of offloaded values: the attribute values that represent content in the store."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeVar, cast
from weakref import ref

from sqlalchemy.orm import InstanceState, Session

from .._threads import run_pixels
from .._transaction.hooks import former_store
from ..context._current import bound_store, resolve_store
from ..exc import DamagedValueError, DeclarationError, NotLoadedError, OffloadError, ValueTooLargeError
from ..file import AsyncFile, SeekableFileProxy, Spool
from ..store import KeyedStore, Store
from . import _jsontext as jsontext
from ._codec import Compression
from ._fetch import fetch, keyed, stream
from ._reference import Inline, Reference, parse

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = [
    "Settings",
    "Stored",
    "StoredBinary",
    "StoredJSON",
    "StoredText",
    "check_size",
    "content_of",
    "sha256_of",
    "size_of",
]

V = TypeVar("V")

_MISSING: Final = object()


@dataclass(slots=True, eq=False)
class Settings:
    """The settings of a column.

    Args:
        cls: The handle class.
        compression: The compression of the files.
        inline_below: Values smaller than this, in bytes, are kept in the row.
        max_size: Maximum size of a value, in bytes.
        dedupe: ``True`` if equal values share a file.
        object_type: The prefix of the file names; may be ``None`` before the column is mapped.
        place: The table and the column; ``None`` before the column is mapped.
    """

    cls: type[Stored[Any]]
    compression: Compression | None
    inline_below: int
    max_size: int
    dedupe: bool
    object_type: str | None
    place: str | None = None


class Stored(Generic[V]):
    """Base class of handles for values that may be in the store. Derive from it to use another serializer.

    Reading the attribute of a row returns a handle without fetching the value. Assign a plain value or a handle. The
    flush stores the value as it is at that time. Two handles are equal if they are of the same kind and their
    values have the same bytes. A handle is true if its value has at least one byte. Neither operation accesses the
    store.

    A subclass defines how values are encoded as bytes::

        class StoredPacked(Stored[dict[str, Any]]):
            kind = ".msgpack"
            mimetype = "application/msgpack"

            @classmethod
            def encode(cls, value):
                return msgspec.msgpack.encode(value)

            @classmethod
            def decode(cls, data):
                return msgspec.msgpack.decode(data)

    Args:
        value: The plain value.
        store: The store for its file; ``None`` for the current store at the flush.

    Raises:
        DeclarationError: The class does not accept values of this type.
    """

    __slots__ = (
        "_bound",
        "_chosen",
        "_content",
        "_origin",
        "_owner",
        "_raw",
        "_session",
        "_settings",
        "_store",
        "_value",
        "_writing",
    )

    kind: ClassVar[str] = ".bin"
    """File name extension for the content: a dot, followed by at most twelve lower-case letters and digits."""

    mimetype: ClassVar[str] = "application/octet-stream"
    """MIME type of an uncompressed file, without parameters."""

    _column_length: ClassVar[int] = 255

    plain: ClassVar[Any] = Any
    """The type of plain values, as an annotation for Pydantic. If it is a class, values of other types are rejected."""

    def __init__(self, value: V, *, store: Store | None = None) -> None:
        self._begin(type(self).check(value), store=store)

    def _begin(
        self, value: object, *, raw: str | None = None, settings: Settings | None = None, store: Store | None = None
    ) -> None:
        self._value = value
        self._raw = raw
        self._settings = settings
        self._store = store
        self._chosen = store  # for new files; `_store` may be the store that has the file
        self._origin: tuple[Store | None, Store | None] | None = None  # see _twin
        self._content: Reference | Inline | None = None
        self._owner: ref[InstanceState[Any]] | None = None
        self._session: ref[Session] | None = None
        self._bound: Store | None = None
        self._writing = False

    # --- for serializers ---------------------------------------------------------------------------------------------

    @classmethod
    def encode(cls, value: V) -> bytes:
        """Encode a value as bytes; a flush calls it in a worker thread.

        Args:
            value: The value that :meth:`check` returned.

        Raises:
            OffloadError: The value cannot be encoded. Other exceptions become the cause of an ``OffloadError``.
        """
        raise NotImplementedError

    @classmethod
    def decode(cls, data: bytes) -> V:
        """Decode a value from bytes; called in a worker thread if there are many bytes.

        Args:
            data: The bytes that :meth:`encode` returned.

        Raises:
            DamagedValueError: The bytes cannot be decoded. Other exceptions become the cause of a
                ``DamagedValueError``.
        """
        raise NotImplementedError

    @classmethod
    def check(cls, value: V) -> V:
        """Validate an assigned value, and return the value to keep.

        Args:
            value: The plain value.

        Raises:
            DeclarationError: The class does not accept values of this type.
        """
        if cls.plain is not Any and isinstance(cls.plain, type) and not isinstance(value, cls.plain):
            raise DeclarationError(
                f"{cls.__name__}: expected {cls.plain.__name__} or a {cls.__name__}, got {type(value).__name__}"
            )
        return value

    # --- without I/O -------------------------------------------------------------------------------------------------

    @property
    def loaded(self) -> bool:
        """``True`` if :attr:`value` is available: it was assigned, was loaded, or is kept in the row."""
        return self._value is not _MISSING or self._raw is None or isinstance(self._read(), Inline)

    @property
    def value(self) -> V:
        """The plain value.

        Raises:
            NotLoadedError: The value is in the store and has not been loaded.
            DamagedValueError: The column holds a string that this library did not write.
        """
        if self._value is _MISSING:
            content = self._read()
            if not isinstance(content, Inline):
                raise NotLoadedError(
                    f"this {type(self).__name__} of {self.size:,} bytes is in the store: `await handle.load()`, or "
                    "`await load_stored(rows, Class.attribute)` for many"
                )
            self._value = self._decode(content.data)
        return cast("V", self._value)

    @property
    def size(self) -> int:
        """The size of the value before compression, in bytes."""
        content = self._read()
        return content.size if isinstance(content, Reference) else size_of(self._payload(content))

    @property
    def sha256(self) -> str:
        """SHA-256 of the value's bytes, in hexadecimal."""
        content = self._read()
        return content.sha256 if isinstance(content, Reference) else sha256_of(self._payload(content))

    @property
    def name(self) -> str | None:
        """The name of the file in the store; ``None`` if the value has no file, or is not stored yet."""
        content = self._read()
        return content.name if isinstance(content, Reference) else None

    def __bool__(self) -> bool:
        return self.size > 0

    def __eq__(self, other: object) -> bool:
        if other is None:
            return False
        if not isinstance(other, Stored):
            try:
                data = type(self)(cast("V", other))._encode()
            except (DeclarationError, OffloadError):
                return NotImplemented
            return self.size == size_of(data) and self.sha256 == sha256_of(data)
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        if self._raw is None:
            return f"<{type(self).__name__}, not stored yet>"
        try:
            loaded = "loaded" if self.loaded else "not loaded"
            return f"<{type(self).__name__} of {self.size:,} bytes, {loaded}>"
        except DamagedValueError:
            return f"<{type(self).__name__}, damaged>"

    # --- with I/O ----------------------------------------------------------------------------------------------------

    async def load(self, store: Store | None = None) -> V:
        """Return the plain value. If it is not loaded yet, fetch it and keep it in the handle.

        Args:
            store: The store that contains the file; ``None`` for the store in which it was put through this handle, or
                else the current store.

        Raises:
            StoreFileNotFoundError: The store has no such file.
            DamagedValueError: The content of the file, or the reference to it, is not what was stored.
            ValueTooLargeError: The value is larger than the column allows.
            ContextError: No store is given or set.

        Effects: An error or a cancellation leaves the handle unchanged.
        """
        if self._value is _MISSING:
            content = self._read()
            if isinstance(content, Reference):
                assert self._settings is not None
                check_size(content.size, self._settings)
                self._value = await self._fetch(self._resolve(store), content)
        return self.value

    async def open(self, store: Store | None = None) -> AsyncFile:
        """Open the value as a stream of bytes in constant memory; close it with ``async with`` or ``aclose()``.

        Args:
            store: As for :meth:`load`.

        Raises:
            StoreFileNotFoundError: The store has no such file.
            DamagedValueError: The reference does not belong to this column; while reading: the content of the file is
                not what was stored.
            ContextError: No store is given or set.
        """
        content = self._read()
        if isinstance(content, Reference):
            return await stream(self._resolve(store), content)
        data = await run_pixels(self._payload, content)
        return data.open() if isinstance(data, Spool) else SeekableFileProxy(data)

    # --- for the other modules of this package -----------------------------------------------------------------------

    @classmethod
    def _from_row(cls, raw: str, settings: Settings) -> Stored[V]:
        """Return a handle for the string in the column of a row."""
        handle = cls.__new__(cls)
        handle._begin(_MISSING, raw=raw, settings=settings)
        return handle

    def _twin(self) -> Stored[V]:
        """Return a second handle with the same value, for another attribute."""
        twin = type(self).__new__(type(self))
        twin._begin(self._value, raw=self._raw, settings=self._settings, store=self._chosen)
        if self._raw is not None:  # until the flush has copied the file: the store that has it, or its session's store
            twin._origin = self._origin or (self._store, bound_store(self._owning_session()) or self._bound)
        return twin

    def _identity(self) -> tuple[object, ...]:
        """Return the values by which handles are compared."""
        return self.kind, self.size, self.sha256

    async def _fetch(self, store: KeyedStore, reference: Reference) -> V:
        """Return the value in a file."""
        return await fetch(store, reference, self._decode)

    async def _fetch_payload(self, store: KeyedStore, reference: Reference) -> bytes | Spool:
        """Return the bytes of the value in a file, to be stored for another row."""
        return await fetch(store, reference, bytes)

    def _encode(self) -> bytes | Spool:
        """Encode the value as bytes. The result is not cached, because the value may be mutable."""
        value = self.value
        try:
            return type(self).encode(value)
        except OffloadError:
            raise
        except Exception as error:
            raise OffloadError(
                f"{type(self).__name__}: a {type(self._value).__name__} could not be encoded: {error}"
            ) from error

    def _remember(self, other: Stored[V]) -> None:
        """Copy the value of another handle with the same bytes, unless it is loaded already."""
        if self._value is _MISSING:
            self._value = other._value

    def _stored_as(self, raw: str, settings: Settings, store: KeyedStore | None) -> None:
        """Record the string that the flush writes to the column."""
        self._raw, self._settings, self._store = raw, settings, store
        self._content = self._origin = None

    def _read(self) -> Reference | Inline | None:
        """Return the parsed content of the column; ``None`` if it has not been written yet."""
        if self._content is None and self._raw is not None:
            assert self._settings is not None
            self._content = parse(self._raw, self._settings.object_type or "")
        return self._content

    def _payload(self, content: Inline | None) -> bytes | Spool:
        return self._encode() if content is None else content.data

    def _decode(self, data: bytes) -> V:
        try:
            return type(self).decode(data)
        except OffloadError:
            raise
        except Exception as error:
            raise DamagedValueError(f"{type(self).__name__}: the content could not be decoded: {error}") from error

    def _resolve(self, store: Store | None, session: Session | None = None) -> KeyedStore:
        """Return the store that has the file, or will have it."""
        session, known, bound = session or self._owning_session(), self._store, self._bound
        if self._origin is not None:
            known, origin = self._origin
            session, bound = (session, bound) if origin is None else (None, origin)
        return keyed(resolve_store(store, known, session=session, bound=bound))

    def _owning_session(self) -> Session | None:
        owner = None if self._owner is None else self._owner()
        known = None if self._session is None else self._session()  # the row may have been garbage-collected
        return known if owner is None else owner.session

    def _belongs_to(self, owner: InstanceState[Any]) -> None:
        """Bind the handle to its row."""
        self._owner = ref(owner)
        self._session = None if owner.session is None else ref(owner.session)
        self._bound = bound_store(owner.session) or former_store(owner)

    def _moves_with(self, owner: InstanceState[Any]) -> None:
        """Remember which store has the file of a row that was made transient, and is now in another session."""
        if self._raw is not None and self._origin is None:
            self._origin = self._store, former_store(owner)

    def __copy__(self) -> Self:
        return cast("Self", self._twin())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = self.__copy__()
        if twin._value is not _MISSING:
            twin._value = copy.deepcopy(twin._value, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        if self._raw is None and self._chosen is not None:
            raise OffloadError(
                f"a {type(self).__name__} with store= cannot be pickled before it is stored, because stores are not "
                "pickled: flush first, or pickle its value"
            )
        value = None if self._value is _MISSING else (self._value,)
        return {"value": value, "raw": self._raw, "settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        value = _MISSING if state["value"] is None else state["value"][0]
        self._begin(value, raw=state["raw"], settings=state["settings"])

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let Pydantic accept plain values and handles, and serialize a loaded handle as its plain value."""
        from pydantic_core import core_schema

        plain = handler.generate_schema(cls.plain)

        def make(value: Any, check: Callable[[Any], Any]) -> Stored[V]:
            return value if isinstance(value, cls) else cls(check(value))

        return core_schema.no_info_wrap_validator_function(
            make,
            plain,
            serialization=core_schema.plain_serializer_function_ser_schema(_value_of, return_schema=plain),
        )


def _value_of(handle: Stored[Any]) -> Any:
    return handle.value


def size_of(payload: bytes | Spool) -> int:
    """Return the size of the bytes of a value."""
    return payload.size if isinstance(payload, Spool) else len(payload)


def sha256_of(payload: bytes | Spool) -> str:
    """Return the SHA-256 of the bytes of a value, in hexadecimal."""
    return payload.sha256 if isinstance(payload, Spool) else hashlib.sha256(payload).hexdigest()


def content_of(handle: Stored[Any]) -> Reference | Inline | None:
    """Return the parsed content of the column; ``None`` if it is not written yet or damaged."""
    try:
        return handle._read()
    except DamagedValueError:
        return None


def check_size(size: int, settings: Settings) -> None:
    """Reject a value that is larger than its column allows.

    Raises:
        ValueTooLargeError: The value is too large.
    """
    if size > settings.max_size:
        raise ValueTooLargeError(
            f"the value of {settings.object_type} has {size:,} bytes, {settings.max_size:,} are allowed; "
            "declare the column with a larger max_size",
            limit=settings.max_size,
            actual=size,
        )


class StoredText(Stored[str]):
    """A handle of a ``str``, stored in UTF-8."""

    __slots__ = ()
    kind = ".txt"
    mimetype = "text/plain"
    plain = str

    @classmethod
    def encode(cls, value: str) -> bytes:
        """Encode the string in UTF-8."""
        return value.encode()

    @classmethod
    def decode(cls, data: bytes) -> str:
        """Decode the string from UTF-8."""
        return data.decode()


class StoredBinary(Stored[bytes]):
    """A handle of ``bytes``, stored unchanged."""

    __slots__ = ()
    plain = bytes

    @classmethod
    def check(cls, value: bytes | bytearray | memoryview) -> bytes:
        """Return the value as ``bytes``; a ``bytearray`` or ``memoryview`` is copied."""
        return super().check(bytes(value) if isinstance(value, (bytearray, memoryview)) else value)

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """Return the bytes unchanged."""
        return value

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        """Return the bytes unchanged."""
        return data


class StoredJSON(Stored[Any]):
    """A handle of a JSON value: a dict with ``str`` keys, a list, a string, a number, true, false or null.

    In-place changes of the value are not detected; assign the value again.
    """

    __slots__ = ()
    kind = ".json"
    mimetype = "application/json"

    @classmethod
    def encode(cls, value: Any) -> bytes:
        """Encode the value as JSON in UTF-8."""
        return jsontext.encode(value)

    @classmethod
    def decode(cls, data: bytes) -> Any:
        """Decode the value from JSON in UTF-8."""
        return jsontext.decode(data)
