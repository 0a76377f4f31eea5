"""The current store: the store of a call that has no ``store=`` argument.

Most applications have one store and call :func:`set_default_store` at start-up. The store is looked up in this order:
the ``store=`` argument, the store with which the image was attached, the innermost :class:`store_context`, the store of
:func:`override_store` in tests, the store bound to the session (or to the session that the row was loaded in), the
default of the process.
"""

from __future__ import annotations

from ..exc import ContextError
from ._current import (
    bind_store,
    current_store,
    get_current_store,
    override_store,
    pop_store_context,
    push_store_context,
    set_default_store,
    store_context,
)
from ._proxy import LocalProxyStore

__all__ = [
    "ContextError",
    "LocalProxyStore",
    "bind_store",
    "current_store",
    "get_current_store",
    "override_store",
    "pop_store_context",
    "push_store_context",
    "set_default_store",
    "store_context",
]
