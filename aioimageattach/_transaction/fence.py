"""The commit fence: a transaction is not committed when a sweep may already take its files for orphans.

A sweep removes files that no committed row names and that are older than a grace time. So no transaction may keep its
files uncommitted for as long as that: at three quarters of the grace time its COMMIT is refused. What is left of it is
there for the COMMIT itself, and for clocks that differ.

The grace time of sessions can be made shorter than :data:`GRACE` and never longer; a sweep waits for :data:`GRACE`, and
for less only if the sessions it is given say so, or it is forced to. So nothing is lost if it is made shorter for the
application alone, and the application has to come first.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, cast

from ..context import info_of, set_info
from ..exc import TransactionExpiredError

__all__ = ["GRACE", "check_age", "grace_of", "set_grace"]

GRACE: Final = timedelta(hours=24)
"""How long a file may wait in the store for the commit of its row, if the sessions say nothing else."""

_INFO: Final = "aioimageattach.grace"
_SHARE: Final = 0.75


def set_grace(target: Any, grace: timedelta) -> None:
    """Let a sweep take files for orphans earlier, and refuse transactions earlier that would be in its way.

    Args:
        target: An ``AsyncSession`` or ``async_sessionmaker``: the one that the application uses, and the sweep too.
        grace: More than nothing and at most :data:`GRACE`.

    Raises:
        ValueError: It is out of range.
    """
    if not timedelta(0) < grace <= GRACE:
        raise ValueError(f"grace: expected a time above 0 and up to {GRACE}, got {grace}")
    set_info(target, _INFO, grace)


def grace_of(target: Any) -> timedelta:
    """Return the grace time of a session, or of the sessions that a sessionmaker makes."""
    return cast("timedelta", info_of(target).get(_INFO, GRACE))


def check_age(seconds: float, grace: timedelta) -> None:
    """Refuse to commit a transaction whose oldest file has been in the store for so long.

    Raises:
        TransactionExpiredError: It is too old.
    """
    limit = grace.total_seconds() * _SHARE
    if seconds > limit:
        raise TransactionExpiredError(
            f"the transaction is not committed: its first file was put {seconds:,.0f} s ago, and after {limit:,.0f} s "
            "a sweep could take it for an orphan before its row is there; roll back, and do it anew in less time"
        )
