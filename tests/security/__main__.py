"""Print the table of attacks for the documentation."""

from __future__ import annotations

from tests.security.matrix import table

print("\n".join(table()))
