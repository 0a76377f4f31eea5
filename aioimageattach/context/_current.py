"""The current store: the store of a call that has no ``store=`` argument.

Most applications have one store and call :func:`set_default_store` at start-up. The store is looked up in this order:
the ``store=`` argument, the store with which the image was attached, the innermost :class:`store_context`, the store of
:func:`override_store` in tests, the store bound to the session (or to the session that the row was loaded in), the
default of the process.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from ..exc import ContextError, DeclarationError
from ..store import Store
from ._info import info_of, set_info
from ._links import ThumbnailLinks
from ._proxy import LocalProxyStore

F = TypeVar("F", bound=Callable[..., Any])

_INFO: Final = "aioimageattach.store"
_LINKS: Final = "aioimageattach.thumbnails"


_stack: ContextVar[tuple[tuple[Store, ThumbnailLinks | None, object], ...]] = ContextVar(
    "aioimageattach.store", default=()
)
"""The stores set in this task, innermost last, each with its thumbnail server and the object that set it."""

_default: Store | None = None
_default_links: ThumbnailLinks | None = None
_override: Store | None = None


def _real(store: Store) -> Store:
    while isinstance(store, LocalProxyStore):
        store = store.get_current_object()
    if not isinstance(store, Store):
        raise DeclarationError(f"expected a Store, got {type(store).__name__}")
    return store


class store_context:  # noqa: N801 - the name users know
    """Set the current store for a ``with`` block, or for each call of the decorated function.

    Contexts nest and end with their block, also after an exception. A context belongs to the task that entered it:
    tasks started inside inherit the store, other tasks do not see it.

    Args:
        store: The store to use inside.
        thumbnails: The server of its declared thumbnails; ``None`` for the one of the session or the process.

    Raises:
        DeclarationError: ``store`` is not a :class:`~aioimageattach.store.Store`; raised on entry.
    """

    def __init__(self, store: Store, *, thumbnails: ThumbnailLinks | None = None) -> None:
        self.store = store
        self.thumbnails = thumbnails

    def __enter__(self) -> Store:
        _stack.set((*_stack.get(), (_real(self.store), self.thumbnails, self)))
        return self.store

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        stack = _stack.get()
        for depth in range(len(stack) - 1, -1, -1):  # it may be missing if the block was entered in another task
            if stack[depth][2] is self:
                _stack.set(stack[:depth])
                return

    def __call__(self, function: F) -> F:
        """Decorate a function or a coroutine function, so that each call runs in its own context."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DeclarationError(
                f"expected a function or a coroutine function, got the generator {function.__qualname__}; use `with` "
                "inside it"
            )
        store, thumbnails = self.store, self.thumbnails
        if inspect.iscoroutinefunction(function):

            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with store_context(store, thumbnails=thumbnails):
                    return await function(*args, **kwargs)

            return cast("F", functools.wraps(function)(call_async))

        def call(*args: Any, **kwargs: Any) -> Any:
            with store_context(store, thumbnails=thumbnails):
                return function(*args, **kwargs)

        return cast("F", functools.wraps(function)(call))


def push_store_context(store: Store) -> None:
    """Set the current store of this task until :func:`pop_store_context`, for hooks that cannot use ``with``."""
    _stack.set((*_stack.get(), (_real(store), None, None)))


def pop_store_context() -> Store:
    """Undo the last :func:`push_store_context` of this task and return its store.

    Raises:
        ContextError: No store was pushed in this task.
    """
    stack = _stack.get()
    if not stack:
        raise ContextError("expected a store that was pushed in this task, found none; call push_store_context() first")
    _stack.set(stack[:-1])
    return stack[-1][0]


def set_default_store(store: Store | None, *, thumbnails: ThumbnailLinks | None = None) -> None:
    """Set the default store of the process. Call it at start-up.

    All tasks and threads use it, unless a ``store=`` argument, a :class:`store_context` or :func:`bind_store` sets
    another store.

    Args:
        store: The store; ``None`` removes the default.
        thumbnails: The server of its declared thumbnails; ``None`` for none.

    Raises:
        DeclarationError: ``store`` is not a :class:`~aioimageattach.store.Store`.
    """
    global _default, _default_links
    _default = None if store is None else _real(store)
    _default_links = thumbnails


def get_default_store() -> Store | None:
    """Return the store that :func:`set_default_store` has set; ``None`` if none is set."""
    return _default


@contextmanager
def override_store(store: Store) -> Generator[None]:
    """Replace the store of the application under test during a block, for tests.

    In every task and thread, the store is used instead of those that the application has bound to sessions, set as the
    default, or given to :class:`~aioimageattach.asgi.StoreContextMiddleware`. A ``store=`` argument and
    :class:`store_context` still take precedence.

    Args:
        store: The store to use.
    """
    global _override
    before, _override = _override, _real(store)
    try:
        yield
    finally:
        _override = before


def overriding_store() -> Store | None:
    """Return the store that :func:`override_store` has set; ``None`` if none is set."""
    return _override


def bind_store(target: Any, store: Store, *, thumbnails: ThumbnailLinks | None = None) -> None:
    """Bind a store to a session, or to every session that a sessionmaker creates from now on.

    Args:
        target: An ``AsyncSession``, ``async_sessionmaker`` or ``async_scoped_session``, or its synchronous counterpart.
        store: Used for images of these sessions if neither an argument nor a context sets a store.
        thumbnails: The server of its declared thumbnails; ``None`` for the one of the process.

    Raises:
        DeclarationError: ``target`` is neither a session nor a sessionmaker, or ``store`` is not a store.
    """
    set_info(target, _INFO, _real(store))
    if thumbnails is not None:
        set_info(target, _LINKS, thumbnails)


def bound_store(target: Any) -> Store | None:
    """Return the store bound to a session or a sessionmaker; ``None`` if none is bound."""
    return cast("Store | None", info_of(target).get(_INFO))


def resolve_store(*candidates: Store | None, session: Any = None, bound: Store | None = None) -> Store:
    """Return the first store among the candidates, the current context, the session and the default.

    Args:
        candidates: Stores that take precedence; ``None`` and :data:`current_store` are skipped.
        session: The session or sessionmaker whose bound store is used if there is no context.
        bound: The store bound to the session in which a detached row was loaded.

    Raises:
        ContextError: No store is set.
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
        "no store is set: call set_default_store(store) at start-up, or pass store=..., or use bind_store() or "
        "store_context()"
    )


def thumbnail_links(store: Store, *, session: Any = None) -> ThumbnailLinks:
    """Return the first thumbnail server for a store, from the current contexts, the session, or the process.

    Raises:
        ContextError: There is none.
    """
    in_context = (links for _, links, _ in reversed(_stack.get()))
    for links in (*in_context, info_of(session).get(_LINKS), _default_links):
        if links is not None and (store in (links.store, _override) or links.store.location == store.location):
            return cast("ThumbnailLinks", links)
    raise ContextError(
        f"expected a thumbnail server for {store!r}, found none; create one, `thumbnails = ThumbnailServer(store, "
        '[Picture], base_url="/thumbnails/")`, and pass it: `set_default_store(store, thumbnails=thumbnails)`'
    )


def get_current_store() -> Store:
    """Return the store of the current context, or the default of the process.

    Raises:
        ContextError: No store is set.
    """
    return resolve_store()


current_store: Final = LocalProxyStore(get_current_store, "aioimageattach.context.current_store")
"""A store that delegates to the store of the current context; it can be passed wherever a store is expected."""
