"""The commit fence: refuse to commit a transaction whose files a sweep may soon treat as orphaned.

A sweep removes files that no committed row references and that are older than a grace time. Therefore no transaction
may keep its files uncommitted for that long: after three quarters of the grace time its COMMIT is refused. The last
quarter is a margin for the COMMIT itself, and for clocks that differ.

The grace time of sessions can be shorter than :data:`GRACE`, but never longer. A sweep uses :data:`GRACE`, or a shorter
time if its sessions have one or if it is forced to. Therefore it is safe to shorten the grace time of the application
alone, but not that of the sweep alone: change the application first.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, cast

from ..context._info import info_of, set_info
from ..exc import TransactionExpiredError

__all__ = ["GRACE", "check_age", "grace_of", "set_grace"]

GRACE: Final = timedelta(hours=24)
"""Default and maximum time that a file may wait in the store for the commit of its row."""

_INFO: Final = "aioimageattach.grace"
_SHARE: Final = 0.75


def set_grace(target: Any, grace: timedelta) -> None:
    """Set a shorter grace time: the age after which a sweep treats a file without a committed row as orphaned.

    A transaction that is still open three quarters of this time after its first upload cannot be committed: it fails
    with :exc:`~aioimageattach.exc.TransactionExpiredError`.

    Args:
        target: The ``AsyncSession`` or ``async_sessionmaker``. Set the same time for the application and for the sweep,
            first in all processes of the application.
        grace: The grace time, greater than zero and at most :data:`GRACE`.

    Raises:
        ValueError: ``grace`` is out of range.
    """
    if not timedelta(0) < grace <= GRACE:
        raise ValueError(f"grace: expected a duration greater than 0 and at most {GRACE}, got {grace}")
    set_info(target, _INFO, grace)


def grace_of(target: Any) -> timedelta:
    """Return the grace time of a session, or of the sessions that a sessionmaker makes."""
    return cast("timedelta", info_of(target).get(_INFO, GRACE))


def check_age(seconds: float, grace: timedelta) -> None:
    """Refuse to commit a transaction whose oldest file has been in the store for too long.

    Raises:
        TransactionExpiredError: The file is too old.
    """
    limit = grace.total_seconds() * _SHARE
    if seconds > limit:
        raise TransactionExpiredError(
            f"expected a commit at most {limit:,.0f} s after the first upload of the transaction, got one after "
            f"{seconds:,.0f} s, when a sweep could already treat the file as orphaned; the transaction was not "
            "committed: roll back, and repeat it in less time"
        )
