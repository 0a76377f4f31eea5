"""The ``info`` dictionary of sessions and sessionmakers, in which stores and settings are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..exc import DeclarationError


def set_info(target: Any, name: str, value: object) -> None:
    """Set an entry of ``info`` of a session, or of every session that a sessionmaker creates from now on.

    Raises:
        DeclarationError: ``target`` is neither a session nor a sessionmaker.
    """
    if hasattr(target, "session_factory") and hasattr(target, "registry"):  # a scoped session has one per scope
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
    """Return ``info`` of a session, or of the sessions that a sessionmaker creates; empty for any other object."""
    target = getattr(target, "session_factory", target)  # of a scoped session
    info = target.info if hasattr(target, "info") else getattr(target, "kw", {}).get("info")
    return cast("Mapping[str, Any]", info or {})
