"""Print the version with ``python -m aioimageattach.version``."""

from __future__ import annotations

import sys

from . import VERSION

if __name__ == "__main__":
    sys.stdout.write(f"{VERSION}\n")
