"""Moving the files of committed rows from one store to another."""

from __future__ import annotations

from .plan import Failure, Migrated, MigrationPlan, Progress, migrate, migrate_class
from .retire import Retired, RetirePlan, RetireProgress, retire
from .transfer import Outcome

__all__ = [
    "Failure",
    "Migrated",
    "MigrationPlan",
    "Outcome",
    "Progress",
    "RetirePlan",
    "RetireProgress",
    "Retired",
    "migrate",
    "migrate_class",
    "retire",
]
