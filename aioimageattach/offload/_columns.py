"""Declaration of columns with offloaded values, and their SQLAlchemy type and attribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypedDict, TypeVar, Unpack, cast, overload
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Dialect, String, Table, Text, event
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.ext.asyncio import async_object_session
from sqlalchemy.orm import ColumnProperty, InstrumentedAttribute, Mapped, MappedColumn, Mapper, mapped_column
from sqlalchemy.orm.attributes import instance_dict, instance_state
from sqlalchemy.types import TypeDecorator

from .._greenlet import in_bridge
from .._names import check_mimetype
from ..exc import DeclarationError, InvalidKeyError, NotLoadedError
from ._codec import Compression, check_compression
from ._files import MAX_FILE_SIZE, StoredFile
from ._reference import check_kind, check_object_type
from ._values import Settings, Stored, StoredBinary, StoredJSON, StoredText

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import SQLCoreOperations

__all__ = [
    "MAX_INLINE",
    "MAX_SIZE",
    "ColumnOptions",
    "Options",
    "RawValueError",
    "StoredColumn",
    "coerced",
    "columns_of",
    "settings_of",
    "stored",
    "stored_binary",
    "stored_file",
    "stored_json",
    "stored_text",
]

H = TypeVar("H", bound=Stored[Any])
H_co = TypeVar("H_co", covariant=True)
P_contra = TypeVar("P_contra", contravariant=True)

MAX_SIZE: Final = 64 * 1024 * 1024
"""Default maximum size of a value, in bytes."""

MAX_INLINE: Final = 16 * 1024
"""Upper limit of ``inline_below``, in bytes, so that a value fits into MySQL's ``TEXT`` in any encoding."""

_REFUSED: Final = frozenset({"primary_key", "server_default", "server_onupdate", "onupdate", "insert_default", "type_"})
"""Column arguments that are rejected, because most of them would write values that no flush has processed."""


class ColumnOptions(TypedDict, total=False):
    """Arguments of all declaring functions besides ``nullable``."""

    max_size: int
    object_type: str | None
    default: Any
    name: str
    active_history: bool
    comment: str
    compare: bool
    default_factory: Callable[[], Any]
    deferred: bool
    deferred_group: str
    deferred_raiseload: bool
    doc: str
    hash: bool
    index: bool
    info: dict[str, Any]
    init: bool
    key: str
    kw_only: bool
    quote: bool
    repr: bool
    sort_order: int
    unique: bool
    use_existing_column: bool


class Options(ColumnOptions, total=False):
    """Arguments of the functions that declare columns of values."""

    compression: Compression | None
    inline_below: int
    dedupe: bool


class RawValueError(DeclarationError, DontWrapMixin):
    """A plain value, or a handle that the flush has not prepared, is a parameter of a statement."""


class _StoredType(TypeDecorator[Any]):
    """Column type with handles in Python and text in the database.

    Its ``__module__`` and ``repr()`` are those of a SQLAlchemy type: Alembic writes them into migrations, which do not
    import this module.
    """

    __module__ = "sqlalchemy.types"
    impl = String
    cache_ok = True  # the cache key contains the identity of the settings, and each column has its own
    belongs_to_row = True  # thumbnails do not copy it from their originals, see entity._columns

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.cls._column_length)
        if settings.inline_below:
            self.impl = cast("Any", Text())
        self.settings = settings
        self.declared = settings.object_type

    def __repr__(self) -> str:
        return repr(self.impl)

    def __reduce__(self) -> tuple[Any, ...]:
        return _type_of, (self.settings,)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if isinstance(value, Stored) and value._writing:
            return value._raw
        what = f"the handle {value!r}" if isinstance(value, Stored) else f"a plain {type(value).__name__}"
        raise RawValueError(
            f"{self.settings.object_type}: {what} is in a statement, which cannot put it into a store. To write it, "
            "assign it to the attribute of an object: `session.add_all([...])` instead of a bulk INSERT or UPDATE. To "
            "compare with it, load the values; SQL sees what the column holds, not what is in the store"
        )

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else self.settings.cls._from_row(value, self.settings)

    def compare_values(self, x: Any, y: Any) -> bool:
        return x is y


def _type_of(settings: Settings) -> _StoredType:
    return _StoredType(settings)  # because pickle cannot find the class by its __module__


if TYPE_CHECKING:

    class StoredColumn(Mapped[H_co], Generic[H_co, P_contra]):
        """Return type of the declaring functions: an attribute that reads as a handle and also accepts plain values."""

        def __set__(self, instance: Any, value: H_co | P_contra | SQLCoreOperations[H_co]) -> None: ...

else:
    StoredColumn = MappedColumn


class _StoredAttribute(InstrumentedAttribute[Any]):  # pyright: ignore[reportIncompatibleVariableOverride] - __doc__
    # The attribute of a mapped class. It binds each handle to its row, and raises an error where loading an expired or
    # deferred column would need implicit I/O.
    # SQLAlchemy stores the attribute's own docstring in `__doc__`.

    __slots__ = ()
    inherit_cache = True

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        values = instance_dict(instance)
        if self.key not in values:
            _require_loaded(instance, self.key)
        handle = super().__get__(instance, owner)
        if isinstance(handle, Stored) and handle._owner is None:
            state = instance_state(instance)
            handle._belongs_to(state)
            if self.key not in state.committed_state:  # loaded with the row; a UNION has the type of its first table
                handle._settings = settings_of(self.property.columns[0])
        return handle


def _require_loaded(instance: object, key: str) -> None:
    state = instance_state(instance)
    if state.key is not None and not in_bridge() and async_object_session(instance) is not None:
        name = f"{type(instance).__name__}.{key}"
        raise NotLoadedError(
            f"the column of {name} is not loaded, as after a commit, or because it is deferred: "
            f"`await session.refresh(row, [{key!r}])`, query with `undefer({name})`, or make sessions with "
            "expire_on_commit=False"
        )


@event.listens_for(object, "attribute_instrument", propagate=True)
def _instrumented(cls: type[Any], key: str, attribute: Any) -> None:
    """Replace the attribute of an offloaded column by :class:`_StoredAttribute` when its class is mapped."""
    prop = getattr(attribute, "property", None)
    column = prop.columns[0] if isinstance(prop, ColumnProperty) else None
    if not isinstance(column, Column) or not isinstance(kind := column.type, _StoredType):
        return
    if isinstance(column.table, Table):  # otherwise the class is mapped to a query, whose columns are those of tables
        _place(kind, column.table, column, key)
    settings = kind.settings

    def coerce(instance: object, value: Any, old: Any, initiator: object) -> Any:
        return value if value is old else coerced(settings, value)

    attribute.__class__ = _StoredAttribute
    event.listen(attribute, "set", coerce, retval=True)


def _place(kind: _StoredType, table: Table, column: Column[Any], key: str) -> None:
    """Record the table and attribute of the column, and the object type that its file names begin with."""
    place = f"{table.fullname}.{column.key}"
    if kind.settings.place == place:
        return
    if kind.settings.place is not None:  # the column of a mixin, copied for another class
        kind.settings = replace(kind.settings, object_type=kind.declared)
    kind.settings.object_type = check_object_type(kind.declared or f"{table.name}.{key}".replace("_", "-"))
    kind.settings.place = place


def coerced(settings: Settings, value: Any) -> Stored[Any] | None:
    """Return a handle for a column from a plain value or a handle, which may belong to another row.

    Raises:
        DeclarationError: The value is neither.
    """
    if value is None:
        return None
    if not isinstance(value, Stored):
        return settings.cls(value)
    if not isinstance(value, settings.cls):
        raise DeclarationError(
            f"{settings.object_type}: expected a {settings.cls.__name__} or a plain value, got a {type(value).__name__}"
        )
    return value._twin()


_columns: WeakKeyDictionary[Mapper[Any], Mapping[str, Column[Any]]] = WeakKeyDictionary()


def columns_of(mapper: Mapper[Any]) -> Mapping[str, Column[Any]]:
    """Return the offloaded attributes of a mapper with their columns."""
    found = _columns.get(mapper)
    if found is None:
        found = _columns[mapper] = {
            prop.key: column
            for prop in mapper.column_attrs
            if isinstance(column := prop.columns[0], Column) and isinstance(column.type, _StoredType)
        }
    return found


def settings_of(column: Column[Any]) -> Settings:
    """Return the settings of an offloaded column."""
    return cast("_StoredType", column.type).settings


# --- declaring -------------------------------------------------------------------------------------------------------


@overload
def stored(cls: type[H], *, nullable: Literal[True], **options: Unpack[Options]) -> StoredColumn[H | None, Any]: ...
@overload
def stored(
    cls: type[H], *, nullable: Literal[False] | None = None, **options: Unpack[Options]
) -> StoredColumn[H, Any]: ...
def stored(
    cls: type[Stored[Any]],
    *,
    compression: Compression | None = None,
    inline_below: int = 0,
    max_size: int = MAX_SIZE,
    dedupe: bool = False,
    object_type: str | None = None,
    **arguments: Any,
) -> Any:
    """Declare a column whose values are kept in the store, with a handle class of your own.

    ::

        packed: Mapped[StoredPacked] = stored(StoredPacked, compression="zstd")

    Args:
        cls: The handle class, derived from :class:`~aioimageattach.offload.Stored`.
        nullable: ``True`` if the column allows ``None``. By default, the annotation decides; without an annotation, the
            column is nullable, as in SQLAlchemy.
        compression: ``"gzip"``, ``"zstd"`` or ``None``. Files that are already stored stay readable if you change it.
        inline_below: Values smaller than this, in bytes, are kept in the row; at most 16 KiB, 0 for none. The column
            type is ``VARCHAR(255)`` if it is 0, and ``TEXT`` otherwise.
        max_size: Maximum size of a value before compression, in bytes.
        dedupe: ``True`` if equal values that are written within about nine hours share a file. Only ``sweep`` deletes
            shared files.
        object_type: The prefix of the file names; ``None`` for the names of the table and the attribute, such as
            ``article.body``. Set it to the old prefix if you rename one of them.
        arguments: Other arguments of :func:`sqlalchemy.orm.mapped_column`; ``default`` must be a plain value.

    Raises:
        DeclarationError: An argument is invalid, or requires an extra that is not installed.
    """
    if not (isinstance(cls, type) and issubclass(cls, Stored)):
        raise DeclarationError(f"expected a class derived from Stored, got {cls!r}")
    for name in _REFUSED & arguments.keys():
        raise DeclarationError(f"{name}: not supported for offloaded columns; leave it out")
    if callable(arguments.get("default")):
        raise DeclarationError("default: expected a plain value, got a callable; set the attribute in the constructor")
    if arguments.get("nullable", 0) is None:
        del arguments["nullable"]
    if not 0 <= inline_below <= MAX_INLINE:
        raise DeclarationError(f"inline_below: expected 0 to {MAX_INLINE:,} bytes, got {inline_below!r}")
    if max_size < 1:
        raise DeclarationError(f"max_size: expected at least 1 byte, got {max_size!r}")
    if object_type is not None:
        check_object_type(object_type)
    if issubclass(cls, StoredFile):
        if compression or inline_below or dedupe or arguments.get("default") is not None:
            raise DeclarationError(
                f"{cls.__name__}: a column of attached files has no compression, inline_below, dedupe or default; "
                "leave them out"
            )
    else:
        _check_class(cls)
    if not inline_below and not arguments.get("unique"):
        arguments.setdefault("index", True)  # for the query that looks for references before a file is discarded
    settings = Settings(cls, check_compression(compression), inline_below, max_size, dedupe, object_type)
    names = [arguments.pop("name")] if "name" in arguments else []
    return mapped_column(*names, _StoredType(settings), **arguments)


def _check_class(cls: type[Stored[Any]]) -> None:
    check_kind(cls.kind)
    try:
        check_mimetype(cls.mimetype)
    except InvalidKeyError as error:
        raise DeclarationError(f"{cls.__name__}: {error}") from error


@overload
def stored_text(
    *, nullable: Literal[True], **options: Unpack[Options]
) -> StoredColumn[StoredText | None, str | None]: ...
@overload
def stored_text(
    *, nullable: Literal[False] | None = None, **options: Unpack[Options]
) -> StoredColumn[StoredText, str]: ...
def stored_text(**options: Any) -> Any:
    """Declare a column whose strings are kept in the store; the arguments are those of :func:`stored`.

    ::

        body: Mapped[StoredText] = stored_text(compression="zstd")     # type checkers accept handles only
        body = stored_text(compression="zstd", nullable=False)         # type checkers accept str, too
    """
    return stored(StoredText, **options)


@overload
def stored_binary(
    *, nullable: Literal[True], **options: Unpack[Options]
) -> StoredColumn[StoredBinary | None, bytes | bytearray | memoryview | None]: ...
@overload
def stored_binary(
    *, nullable: Literal[False] | None = None, **options: Unpack[Options]
) -> StoredColumn[StoredBinary, bytes | bytearray | memoryview]: ...
def stored_binary(**options: Any) -> Any:
    """Declare a column whose bytes are kept in the store; the arguments are those of :func:`stored`."""
    return stored(StoredBinary, **options)


@overload
def stored_json(*, nullable: Literal[True], **options: Unpack[Options]) -> StoredColumn[StoredJSON | None, Any]: ...
@overload
def stored_json(
    *, nullable: Literal[False] | None = None, **options: Unpack[Options]
) -> StoredColumn[StoredJSON, Any]: ...
def stored_json(**options: Any) -> Any:
    """Declare a column whose JSON is kept in the store; the arguments are those of :func:`stored`."""
    return stored(StoredJSON, **options)


@overload
def stored_file(
    *, nullable: Literal[True], **options: Unpack[ColumnOptions]
) -> StoredColumn[StoredFile | None, None]: ...
@overload
def stored_file(
    *, nullable: Literal[False] | None = None, **options: Unpack[ColumnOptions]
) -> StoredColumn[StoredFile, StoredFile]: ...
def stored_file(*, max_size: int = MAX_FILE_SIZE, **options: Any) -> Any:
    """Declare a column of attached files of any kind, which are kept in the store.

    ::

        invoice: Mapped[StoredFile | None] = stored_file()

        user.invoice = await StoredFile.from_file(upload)

    The column type is ``VARCHAR(512)``.

    Args:
        max_size: Maximum size of a file, in bytes; by default 1 GiB. The flush raises
            :exc:`~aioimageattach.exc.ValueTooLargeError` for a larger file.
        options: The other arguments of :func:`stored`, except ``compression``, ``inline_below``, ``dedupe`` and
            ``default``.

    Raises:
        DeclarationError: An argument is invalid.
    """
    return stored(StoredFile, max_size=max_size, **options)
