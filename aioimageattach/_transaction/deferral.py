"""Deferred deletion: the files of replaced and deleted rows are left to the sweep."""

from __future__ import annotations

from typing import Any, Final

from ..context._info import info_of, set_info

__all__ = ["defer_deletion", "is_deferred"]

_INFO: Final = "aioimageattach.deferred"


def defer_deletion(target: Any, deferred: bool = True) -> None:
    """Keep the files of replaced and deleted rows after a commit, so that a later sweep removes them.

    By default, these files are deleted directly after the commit. Keep them if a backup of the database may be
    restored, or a lagging replica may be promoted: the files of rows that reappear are then still in the store or in
    quarantine. The ``retention`` of the sweep determines how long they stay in quarantine. Files uploaded in a
    transaction that is rolled back are still deleted immediately.

    Args:
        target: An ``AsyncSession`` or ``async_sessionmaker``, or a scoped session.
        deferred: ``True`` to keep the files.
    """
    set_info(target, _INFO, deferred)


def is_deferred(target: Any) -> bool:
    """Return whether the files of rows that a session replaces and deletes are kept."""
    return bool(info_of(target).get(_INFO))
