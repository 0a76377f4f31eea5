"""The command ``aioimageattach``: verify, sweep, migrate, make thumbnails, and look whether all is well.

It comes with the extra ``cli``. What it does, a program can do as well, with the modules it is written over.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with its code."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"the command line needs {error.name}: pip install 'aioimageattach[cli]'")
    app(prog_name="aioimageattach")
