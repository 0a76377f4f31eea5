"""What keeps a store and a database in step over the years: sweeping and verifying."""

from __future__ import annotations

from .sweep import Orphan, SweepPlan, SweepProgress, sweep
from .verify import Flaw, VerifyPlan, VerifyProgress, verify

__all__ = [
    "Flaw",
    "Orphan",
    "SweepPlan",
    "SweepProgress",
    "VerifyPlan",
    "VerifyProgress",
    "sweep",
    "verify",
]
