"""Columns of offloaded values: how they are declared, and how SQLAlchemy sees them."""

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
from ..exc import DeclarationError, InvalidKeyError, ValueNotLoadedError
from ..key import check_mimetype
from ._codec import Compression, check_compression
from ._reference import check_kind, check_object_type
from ._values import Settings, Stored, StoredBinary, StoredJSON, StoredText

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import SQLCoreOperations

__all__ = [
    "MAX_INLINE",
    "MAX_SIZE",
    "Options",
    "RawValueError",
    "StoredColumn",
    "coerced",
    "columns_of",
    "settings_of",
    "stored",
    "stored_binary",
    "stored_json",
    "stored_text",
]

H = TypeVar("H", bound=Stored[Any])
H_co = TypeVar("H_co", covariant=True)
P_contra = TypeVar("P_contra", contravariant=True)

MAX_SIZE: Final = 64 * 1024 * 1024
"""The most bytes a value may have, unless its column says otherwise."""

MAX_INLINE: Final = 16 * 1024
"""The most that may be kept in the row, so that it fits into MySQL's ``TEXT`` in any form."""

_REFUSED: Final = frozenset({"primary_key", "server_default", "server_onupdate", "onupdate", "insert_default", "type_"})
"""Arguments of a column that would write what no flush has seen."""


class Options(TypedDict, total=False):
    """What the declaring functions take besides ``nullable``."""

    compression: Compression | None
    inline_below: int
    max_size: int
    dedupe: bool
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


class RawValueError(DeclarationError, DontWrapMixin):
    """A value, or the handle of another row, is part of a statement that is not one of a flush."""


class _StoredType(TypeDecorator[Any]):
    """Handles in Python, text in the database.

    It gives itself out as one of SQLAlchemy's own types where its name is asked for: Alembic writes the name of any
    other into migrations, which do not import it.
    """

    __module__ = "sqlalchemy.types"
    impl = String
    cache_ok = True  # by the identity of the settings: each column has its own
    belongs_to_row = True  # thumbnails do not copy it from their originals, see entity.columns

    def __init__(self, settings: Settings) -> None:
        super().__init__(255)
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
    return _StoredType(settings)  # pickle does not find the class where that says it is


if TYPE_CHECKING:

    class StoredColumn(Mapped[H_co], Generic[H_co, P_contra]):
        """What the declaring functions return: a column that reads handles, and takes plain values too."""

        def __set__(self, instance: Any, value: H_co | P_contra | SQLCoreOperations[H_co]) -> None: ...

else:
    StoredColumn = MappedColumn


class _StoredAttribute(InstrumentedAttribute[Any]):  # pyright: ignore[reportIncompatibleVariableOverride] - __doc__
    # The attribute of a mapped class: it tells its handles whose they are, and loads no row behind anybody's back.
    # SQLAlchemy keeps the attribute's own docstring in `__doc__`.

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
            if self.key not in state.committed_state:  # it came with the row; a union of tables knows the first one's
                handle._settings = settings_of(self.property.columns[0])
        return handle


def _require_loaded(instance: object, key: str) -> None:
    state = instance_state(instance)
    if state.key is not None and not in_bridge() and async_object_session(instance) is not None:
        name = f"{type(instance).__name__}.{key}"
        raise ValueNotLoadedError(
            f"the column of {name} is not loaded, as after a commit, or because it is deferred: "
            f"`await session.refresh(row, [{key!r}])`, query with `undefer({name})`, or make sessions with "
            "expire_on_commit=False"
        )


@event.listens_for(object, "attribute_instrument", propagate=True)
def _instrumented(cls: type[Any], key: str, attribute: Any) -> None:
    """A class is mapped: where a column is one of ours, its attribute becomes one of ours too."""
    prop = getattr(attribute, "property", None)
    column = prop.columns[0] if isinstance(prop, ColumnProperty) else None
    if not isinstance(column, Column) or not isinstance(kind := column.type, _StoredType):
        return
    if isinstance(column.table, Table):  # else it is that of a query, whose columns are others'
        _place(kind, column.table, column, key)
    settings = kind.settings

    def coerce(instance: object, value: Any, old: Any, initiator: object) -> Any:
        return value if value is old else coerced(settings, value)

    attribute.__class__ = _StoredAttribute
    event.listen(attribute, "set", coerce, retval=True)


def _place(kind: _StoredType, table: Table, column: Column[Any], key: str) -> None:
    """Note whose column it is, and what the names of its files begin with."""
    place = f"{table.fullname}.{column.key}"
    if kind.settings.place == place:
        return
    if kind.settings.place is not None:  # a mixin's column, copied for another class
        kind.settings = replace(kind.settings, object_type=kind.declared)
    kind.settings.object_type = check_object_type(kind.declared or f"{table.name}.{key}".replace("_", "-"))
    kind.settings.place = place


def coerced(settings: Settings, value: Any) -> Stored[Any] | None:
    """Return a handle for a column, of a plain value or a handle: that one may be some other row's.

    Raises:
        DeclarationError: It is neither.
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
    """Return the attributes of a mapper that are offloaded, with their columns."""
    found = _columns.get(mapper)
    if found is None:
        found = _columns[mapper] = {
            prop.key: column
            for prop in mapper.column_attrs
            if isinstance(column := prop.columns[0], Column) and isinstance(column.type, _StoredType)
        }
    return found


def settings_of(column: Column[Any]) -> Settings:
    """Return what was declared of one of these columns."""
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
    """Declare a column whose values are in the store, with handles of a class of your own.

    ::

        packed: Mapped[StoredPacked] = stored(StoredPacked, compression="zstd")

    Args:
        cls: The class of the handles, derived from :class:`~aioimageattach.offload.Stored`.
        nullable: Whether there may be no value; ``None`` for what the annotation says, and where there is none, for
            what SQLAlchemy takes: there may be none.
        compression: ``"gzip"``, ``"zstd"`` or ``None``; what is stored already stays readable when it is changed.
        inline_below: Values of fewer bytes than this stay in the row, at most 16 KiB; 0 for none. The column is
            ``VARCHAR(255)`` without, and ``TEXT`` with it.
        max_size: The most bytes that a value may have, not compressed.
        dedupe: Whether equal values that are written within some nine hours share a file, which then ``sweep`` alone
            removes.
        object_type: What the names of the files begin with; ``None`` for the table's and the attribute's name, as in
            ``article.body``. Say it when one of them is renamed.
        arguments: What else :func:`sqlalchemy.orm.mapped_column` takes, with ``default`` as a plain value.

    Raises:
        DeclarationError: An argument is not one of these, or needs an extra that is not installed.
    """
    if not (isinstance(cls, type) and issubclass(cls, Stored)):
        raise DeclarationError(f"expected a class derived from Stored, got {cls!r}")
    for name in _REFUSED & arguments.keys():
        raise DeclarationError(f"{name}: a column of offloaded values has none; leave the argument out")
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
    check_kind(cls.kind)
    try:
        check_mimetype(cls.mimetype)
    except InvalidKeyError as error:
        raise DeclarationError(f"{cls.__name__}: {error}") from error
    if not inline_below and not arguments.get("unique"):
        arguments.setdefault("index", True)  # before a file is discarded, rows that reference it are looked for
    settings = Settings(cls, check_compression(compression), inline_below, max_size, dedupe, object_type)
    names = [arguments.pop("name")] if "name" in arguments else []
    return mapped_column(*names, _StoredType(settings), **arguments)


@overload
def stored_text(
    *, nullable: Literal[True], **options: Unpack[Options]
) -> StoredColumn[StoredText | None, str | None]: ...
@overload
def stored_text(
    *, nullable: Literal[False] | None = None, **options: Unpack[Options]
) -> StoredColumn[StoredText, str]: ...
def stored_text(**options: Any) -> Any:
    """Declare a column whose texts are in the store; the arguments are those of :func:`stored`.

    ::

        body: Mapped[StoredText] = stored_text(compression="zstd")     # for type checkers, takes handles
        body = stored_text(compression="zstd", nullable=False)         # takes plain texts too
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
    """Declare a column whose bytes are in the store; the arguments are those of :func:`stored`."""
    return stored(StoredBinary, **options)


@overload
def stored_json(*, nullable: Literal[True], **options: Unpack[Options]) -> StoredColumn[StoredJSON | None, Any]: ...
@overload
def stored_json(
    *, nullable: Literal[False] | None = None, **options: Unpack[Options]
) -> StoredColumn[StoredJSON, Any]: ...
def stored_json(**options: Any) -> Any:
    """Declare a column whose JSON is in the store; the arguments are those of :func:`stored`."""
    return stored(StoredJSON, **options)
