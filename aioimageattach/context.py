"""Which store is meant when nobody names one: per task, per session, per process.

In this order: the ``store=`` argument, the store a picture was attached with, the innermost :class:`store_context`,
the store bound to the session, or to the session that the row came from, the default of the process.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from .exc import ContextError, DeclarationError
from .file import AsyncFile, Source
from .key import ImageKey
from .store import KeyLevelStore, Location, Store

__all__ = [
    "ContextError",
    "LocalProxyStore",
    "bind_store",
    "bound_store",
    "current_store",
    "get_current_store",
    "get_default_store",
    "info_of",
    "override_store",
    "overriding_store",
    "pop_store_context",
    "push_store_context",
    "resolve_store",
    "set_default_store",
    "set_info",
    "store_context",
]

F = TypeVar("F", bound=Callable[..., Any])

_INFO: Final = "aioimageattach.store"
_stack: ContextVar[tuple[tuple[Store, object], ...]] = ContextVar("aioimageattach.store", default=())
"""The stores set in this task, innermost last, each with what set it."""

_default: Store | None = None
_override: Store | None = None


def _real(store: Store) -> Store:
    while isinstance(store, LocalProxyStore):
        store = store.get_current_object()
    if not isinstance(store, Store):
        raise DeclarationError(f"expected a Store, got {type(store).__name__}")
    return store


class store_context:  # noqa: N801 - the name users know
    """Set the current store for a block, or for the calls of the decorated function.

    Contexts nest, end with their block whatever happens in it, and belong to the task that entered them: a task
    started inside inherits the store, no other task sees it.

    Args:
        store: The store to use inside.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def __enter__(self) -> Store:
        _stack.set((*_stack.get(), (_real(self.store), self)))
        return self.store

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack = _stack.get()
        for depth in range(len(stack) - 1, -1, -1):  # in another task than it was entered it may not be there
            if stack[depth][1] is self:
                _stack.set(stack[:depth])
                return

    def __call__(self, function: F) -> F:
        """Decorate a function or a coroutine function: each call runs in a context of its own."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DeclarationError(
                f"store_context cannot decorate the generator {function.__qualname__}; use `with` inside it"
            )
        store = self.store
        if inspect.iscoroutinefunction(function):

            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with store_context(store):
                    return await function(*args, **kwargs)

            return cast("F", functools.wraps(function)(call_async))

        def call(*args: Any, **kwargs: Any) -> Any:
            with store_context(store):
                return function(*args, **kwargs)

        return cast("F", functools.wraps(function)(call))


def push_store_context(store: Store) -> None:
    """Set the current store until :func:`pop_store_context`, for hooks that cannot use ``with``."""
    _stack.set((*_stack.get(), (_real(store), None)))


def pop_store_context() -> Store:
    """Undo the last :func:`push_store_context` of this task and return its store.

    Raises:
        ContextError: None was pushed here.
    """
    stack = _stack.get()
    if not stack:
        raise ContextError("no store was pushed in this task")
    _stack.set(stack[:-1])
    return stack[-1][0]


def set_default_store(store: Store | None) -> None:
    """Set the store of the whole process, used where no context and no session names one; ``None`` unsets it."""
    global _default
    _default = None if store is None else _real(store)


def get_default_store() -> Store | None:
    """Return the store of the whole process, if :func:`set_default_store` set one."""
    return _default


@contextmanager
def override_store(store: Store) -> Generator[None]:
    """Let a store of a test take the place of those that the application under test names for itself.

    During the block it comes before stores that are bound to sessions, before the default of the process, and before
    that of :class:`~aioimageattach.asgi.StoreContextMiddleware`, in every task and thread. Arguments and
    :class:`store_context` still come first.

    Args:
        store: The store.
    """
    global _override
    before, _override = _override, _real(store)
    try:
        yield
    finally:
        _override = before


def overriding_store() -> Store | None:
    """Return the store that :func:`override_store` set, if any."""
    return _override


def bind_store(target: Any, store: Store) -> None:
    """Bind a store to a session, or to every session that a sessionmaker makes from now on.

    Args:
        target: An ``AsyncSession`` or ``async_sessionmaker`` (or the synchronous ones behind them).
        store: The store that its pictures use where neither an argument nor a context names one.
    """
    set_info(target, _INFO, _real(store))


def set_info(target: Any, name: str, value: object) -> None:
    """Set an entry of ``info`` of a session, or of every session that a sessionmaker makes from now on.

    Raises:
        DeclarationError: It is neither.
    """
    if hasattr(target, "session_factory") and hasattr(target, "registry"):  # a scoped session: each scope makes one
        set_info(target.session_factory, name, value)
        if target.registry.has():
            set_info(target.registry(), name, value)
    elif hasattr(target, "info"):
        target.info[name] = value
    elif hasattr(target, "kw"):
        target.kw["info"] = {**info_of(target), name: value}
    else:
        raise DeclarationError(f"expected a session or a sessionmaker, got {type(target).__name__}")


def info_of(target: Any) -> Mapping[str, Any]:
    """Return ``info`` of a session, or of the sessions that a sessionmaker makes; of another thing, nothing."""
    target = getattr(target, "session_factory", target)  # of a scoped session
    info = target.info if hasattr(target, "info") else getattr(target, "kw", {}).get("info")
    return cast("Mapping[str, Any]", info or {})


def bound_store(target: Any) -> Store | None:
    """Return the store bound to a session, or to a sessionmaker; ``None`` if none is."""
    return cast("Store | None", info_of(target).get(_INFO))


def resolve_store(*candidates: Store | None, session: Any = None, bound: Store | None = None) -> Store:
    """Return the first store of: the candidates, the current context, the session's, the process's.

    Args:
        candidates: Stores that come before all others.
        session: The session, or the sessionmaker.
        bound: The store that was bound to the session that a row has left.

    Raises:
        ContextError: There is none.
    """
    for candidate in candidates:
        if candidate is not None and candidate is not current_store:
            return _real(candidate)
    stack = _stack.get()
    if stack:
        return stack[-1][0]
    if _override is not None:
        return _override
    bound = bound_store(session) or bound
    if bound is not None:
        return bound
    if _default is not None:
        return _default
    raise ContextError(
        "no current store: pass store=..., or use `with store_context(store):`, bind_store(sessionmaker, store) "
        "or set_default_store(store)"
    )


def get_current_store() -> Store:
    """Return the store of the current context, or the default of the process.

    Raises:
        ContextError: There is none.
    """
    return resolve_store()


class LocalProxyStore(KeyLevelStore):
    """A store that stands for another one, which is looked up at each use. It equals that store, too.

    Args:
        get_current_object: Returns the store that it stands for now.
        repr_string: Returned by ``repr()``.
    """

    def __init__(self, get_current_object: Callable[[], Store], repr_string: str | None = None) -> None:
        self.get_current_object = get_current_object
        self._repr = repr_string

    @property
    def needs_object_id(self) -> bool:  # type: ignore[override]
        """As in the store that it stands for."""
        return self.get_current_object().needs_object_id

    @property
    def has_signed_urls(self) -> bool:  # type: ignore[override]
        """As in the store that it stands for."""
        return self.get_current_object().has_signed_urls

    async def put(self, key: ImageKey, file: Source, *, reproducible: bool) -> None:
        """Put the file of a key into the store that it stands for."""
        await self.get_current_object().put(key, file, reproducible=reproducible)

    async def get(self, key: ImageKey) -> AsyncFile:
        """Open the file of a key in the store that it stands for."""
        return await self.get_current_object().get(key)

    def url_for(self, key: ImageKey) -> str:
        """Return the URL of the file of a key in the store that it stands for."""
        return self.get_current_object().url_for(key)

    async def discard(self, key: ImageKey) -> None:
        """Delete the file of a key in the store that it stands for."""
        await self.get_current_object().discard(key)

    def location_of(self, object_type: str | None = None) -> Location:
        """Return the places of the store that it stands for."""
        return self.get_current_object().location_of(object_type)

    def make_revision(self) -> str:
        """Return a new revision of the store that it stands for."""
        return self.get_current_object().make_revision()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.get_current_object(), name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LocalProxyStore):
            return other is self or self.get_current_object() == other.get_current_object()
        return self.get_current_object() == other

    def __hash__(self) -> int:
        return hash(self.get_current_object())

    def __repr__(self) -> str:
        return self._repr or repr(self.get_current_object())


current_store: Final = LocalProxyStore(get_current_store, "aioimageattach.context.current_store")
"""Stands for the store of the current context, wherever a store is expected."""
