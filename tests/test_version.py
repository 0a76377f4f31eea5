"""The version."""

from __future__ import annotations

from importlib import metadata

from aioimageattach import version


def test_the_version_is_that_of_the_distribution() -> None:
    """What the module says is what was built, as text and as numbers."""
    assert metadata.version("aioimageattach") == version.VERSION
    assert ".".join(map(str, version.VERSION_INFO)) == version.VERSION.split("-")[0].split("+")[0]
