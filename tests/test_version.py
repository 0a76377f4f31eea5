"""The version."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

from aioimageattach import version


def test_the_version_is_that_of_the_distribution() -> None:
    """What the module says is what was built, as text and as numbers."""
    assert metadata.version("aioimageattach") == version.VERSION
    assert ".".join(map(str, version.VERSION_INFO)) == version.VERSION.split("-")[0].split("+")[0]


def test_the_version_is_printed() -> None:
    """``python -m aioimageattach.version`` prints it, as with SQLAlchemy-ImageAttach, and warns of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "aioimageattach.version"], capture_output=True, check=True
    )
    assert (done.stdout.decode().strip(), done.stderr) == (version.VERSION, b"")
