"""The reference documents the public API."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

conf_path = Path(__file__).parent.parent.parent / "docs" / "conf.py"

PUBLIC = (
    "aioimageattach",
    "aioimageattach.asgi",
    "aioimageattach.cli",
    "aioimageattach.context",
    "aioimageattach.entity",
    "aioimageattach.exc",
    "aioimageattach.fetch",
    "aioimageattach.file",
    "aioimageattach.imaging",
    "aioimageattach.key",
    "aioimageattach.maintenance",
    "aioimageattach.migration",
    "aioimageattach.offload",
    "aioimageattach.problems",
    "aioimageattach.schemas",
    "aioimageattach.store",
    "aioimageattach.stores",
    "aioimageattach.stores.fs",
    "aioimageattach.stores.s3",
    "aioimageattach.taskiq",
    "aioimageattach.testing",
    "aioimageattach.thumbnails",
    "aioimageattach.version",
)
MOST_NAMES = 150
"""Number of different names that these modules export. The aim is 150: raise it only for a feature that needs one."""


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("docs_conf", conf_path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_documented(conf: ModuleType, home: str, name: str) -> bool:
    value = getattr(importlib.import_module(home), name)
    return bool(conf.comment(home, name) if conf.is_constant(value) else value.__doc__)


@pytest.mark.parametrize("module", [name for name in PUBLIC if name != "aioimageattach.cli"])
def test_each_public_name_is_documented(conf: ModuleType, module: str) -> None:
    """Each name that a public module exports has a docstring, and a page of the reference shows it."""
    pages = set(conf.public_modules())
    assert module in pages
    for name, home in conf.homes(importlib.import_module(module)).items():
        if name == "__version__":
            continue
        assert is_documented(conf, home, name), f"{home}.{name} has no docstring"
        if "._" in home:
            assert name in conf.page(module), f"{home}.{name} is on no page"
        else:
            assert home in pages, f"{home} has no page"


def test_a_name_without_a_docstring_is_found(conf: ModuleType) -> None:
    """The test above can fail, for functions and for constants."""
    assert not is_documented(conf, "aioimageattach.store._store", "cannot_download")
    assert not is_documented(conf, "aioimageattach.key", "_MAX_SIDE")
    assert is_documented(conf, "aioimageattach.key", "VECTOR_TYPES")


def test_the_public_api_does_not_grow() -> None:
    """The public API does not grow beyond the recorded number of names, each counted once."""
    names = {name: set[str](getattr(importlib.import_module(name), "__all__", [])) for name in PUBLIC}
    assert len(set[str]().union(*names.values())) <= MOST_NAMES, {name: len(found) for name, found in names.items()}
