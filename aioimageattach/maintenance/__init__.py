"""Keep a store consistent with a database: sweep, undo a sweep, verify, and record ownership."""

from __future__ import annotations

from .._inventory.ownership import Ownership, own
from .._inventory.plan import Plan, Progress
from .._transaction.deferral import defer_deletion
from .._transaction.fence import set_grace
from ._quarantine import sweeps, undo
from ._search import Orphan
from ._sweep import sweep
from ._verify import Mismatch, verify

__all__ = [
    "Mismatch",
    "Orphan",
    "Ownership",
    "Plan",
    "Progress",
    "defer_deletion",
    "own",
    "set_grace",
    "sweep",
    "sweeps",
    "undo",
    "verify",
]
