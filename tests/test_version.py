"""The version of the package."""

from __future__ import annotations

import importlib
import runpy
from importlib import metadata

import pytest

from aioimageattach import version


def test_the_version_is_that_of_the_distribution() -> None:
    """The module contains the version of the distribution, as a string and as numbers."""
    assert metadata.version("aioimageattach") == version.VERSION
    assert ".".join(map(str, version.VERSION_INFO)) == version.VERSION.split("-")[0].split("+")[0]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m aioimageattach.version`` prints the version, like SQLAlchemy-ImageAttach; an import does not."""
    runpy.run_module("aioimageattach.version", run_name="__main__", alter_sys=True)
    assert capsys.readouterr().out == f"{version.VERSION}\n"
    importlib.import_module("aioimageattach.version.__main__")
    assert capsys.readouterr().out == ""
