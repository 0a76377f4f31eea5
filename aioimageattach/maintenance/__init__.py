"""Keep a store consistent with a database: sweep, undo a sweep, verify, and record ownership."""

from __future__ import annotations

from .._inventory.ownership import Owner, Ownership, own
from .._transaction.deferral import defer_deletion
from .._transaction.fence import set_grace
from ._quarantine import Restored, Sweep, UndoPlan, UndoProgress, sweeps, undo
from ._sweep import Objection, Orphan, SweepPlan, SweepProgress, sweep
from ._verify import Mismatch, VerifyPlan, VerifyProgress, verify

__all__ = [
    "Mismatch",
    "Objection",
    "Orphan",
    "Owner",
    "Ownership",
    "Restored",
    "Sweep",
    "SweepPlan",
    "SweepProgress",
    "UndoPlan",
    "UndoProgress",
    "VerifyPlan",
    "VerifyProgress",
    "defer_deletion",
    "own",
    "set_grace",
    "sweep",
    "sweeps",
    "undo",
    "verify",
]
