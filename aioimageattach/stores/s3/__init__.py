"""Stores on S3, and on whatever speaks it.

The module :mod:`.credentials` has the sources of credentials.
"""

from __future__ import annotations

from .credentials import Credentials

__all__ = ["Credentials"]
