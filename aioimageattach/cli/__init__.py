"""The command ``aioimageattach``, which verifies, sweeps and migrates files, makes thumbnails and checks the setup.

It is installed with the extra ``cli``. Every operation is also available in Python.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with its exit code."""
    try:
        from ._app import app
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"the command line requires {error.name}: pip install 'aioimageattach[cli]'")
    app(prog_name="aioimageattach")
