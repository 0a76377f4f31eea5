"""Copy the files of committed rows from one store to another, and remove the old copies afterwards."""

from __future__ import annotations

from ._plan import MigrationPlan, migrate, migrate_class
from ._retire import retire
from ._transfer import Copy

__all__ = ["Copy", "MigrationPlan", "migrate", "migrate_class", "retire"]
