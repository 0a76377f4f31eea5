"""The version of this library, and the oldest version of SQLAlchemy that it supports."""

from __future__ import annotations

from typing import Final

__all__ = ["SQLA_COMPAT_VERSION", "SQLA_COMPAT_VERSION_INFO", "VERSION", "VERSION_INFO"]

VERSION_INFO: Final = (0, 1, 0)
"""Version of this library, as a tuple of integers."""

VERSION: Final = "0.1.0"
"""Version of this library."""

SQLA_COMPAT_VERSION_INFO: Final = (2, 0, 46)
"""Oldest supported version of SQLAlchemy, as a tuple of integers."""

SQLA_COMPAT_VERSION: Final = "2.0.46"
"""Oldest supported version of SQLAlchemy."""
