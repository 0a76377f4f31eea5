"""Copy the files of committed rows from one store to another, and remove the old copies afterwards."""

from __future__ import annotations

from ._plan import Migrated, MigrationFailure, MigrationPlan, MigrationProgress, migrate, migrate_class
from ._retire import Retired, RetirePlan, RetireProgress, retire
from ._transfer import Outcome

__all__ = [
    "Migrated",
    "MigrationFailure",
    "MigrationPlan",
    "MigrationProgress",
    "Outcome",
    "RetirePlan",
    "RetireProgress",
    "Retired",
    "migrate",
    "migrate_class",
    "retire",
]
