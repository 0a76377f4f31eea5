"""Imports: the libraries they load, where each library may be imported, and the names that modules export."""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

import aioimageattach

PACKAGE = Path(aioimageattach.__path__[0])
HEAVY = ["PIL", "aiohttp", "fastapi", "pillow_heif", "pypdfium2", "pyvips", "starlette", "taskiq"]
# These modules need an optional library, and therefore import it.
OPTIONAL = ("aioimageattach.__main__", "aioimageattach.cli", "aioimageattach.stores.s3", "aioimageattach.taskiq")
IMPORTERS = {
    "aiofiles": ["stores.fs"],
    "aiohttp": ["fetch", "stores.s3"],
    "anyio": ["_tasks", "_threads"],
    "click": ["cli"],
    "concurrent.futures": ["_threads"],
    "greenlet": [],
    "pillow_heif": ["imaging"],
    "pypdfium2": ["imaging"],
    "pyvips": ["imaging._vips"],
    "rich": ["cli._output"],
    "sqlalchemy.util": ["_greenlet"],
    "taskiq": ["taskiq"],
}


def modules() -> list[str]:
    found = pkgutil.walk_packages([str(PACKAGE)], "aioimageattach.")
    return ["aioimageattach", *sorted(module.name for module in found)]


def imports(tree: ast.AST, *, typing: bool = False) -> Iterator[str]:
    """Yield the imports in a module, also those inside functions; those for type checkers only if ``typing``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing:
            for other in node.orelse:
                yield from imports(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module and not node.level:
                yield from (f"{node.module}.{name.name}" for name in node.names)
        else:
            yield from imports(node, typing=typing)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def loaded_by(*names: str) -> list[str]:
    code = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return list(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_heavy() -> None:
    """A program that only declares models loads neither libvips nor aiohttp."""
    assert loaded_by("aioimageattach") == []


def test_importing_every_core_module_loads_nothing_heavy() -> None:
    """Importing all modules that need no extra loads neither libvips nor aiohttp."""
    assert loaded_by(*(name for name in modules() if not name.startswith(OPTIONAL))) == []


def test_heavy_libraries_are_detected() -> None:
    """The check in the two tests above detects a library that is loaded."""
    assert loaded_by("pyvips") == ["pyvips"]


@cache
def tree_of(path: Path) -> ast.Module:
    """Parse a module once for all tests."""
    return ast.parse(path.read_text("utf-8"))


def test_each_imported_library_is_declared() -> None:
    """The package imports no library that ``pyproject.toml`` does not declare, even if another one installs it."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    declared = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].replace("-", "_") for requirement in requirements}
    declared.add("backports")  # the package of backports.zstd
    declared.add("pytest")  # runs the test classes of aioimageattach.testing
    declared |= {"pydantic", "pydantic_core"}  # imported only in a method that pydantic calls
    imported = {
        name.partition(".")[0] for path in PACKAGE.rglob("*.py") for name in imports(tree_of(path), typing=True)
    }
    assert sorted(imported - sys.stdlib_module_names - declared) == []


@pytest.mark.parametrize("library", IMPORTERS)
def test_each_library_is_imported_in_one_place(library: str) -> None:
    """A third-party library is imported by the modules that wrap it, and nowhere else."""
    importers = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if any(is_within(name, library) for name in imports(tree_of(path)))
    }
    assert [name for name in sorted(importers) if not any(is_within(name, home) for home in IMPORTERS[library])] == []


def test_imports_in_functions_are_found_and_those_for_type_checkers_are_not() -> None:
    """The search finds imports that are executed, in any nested block, and skips those for type checkers."""
    code = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import typed
else:
    import otherwise
def f():
    from package.module import name
from . import sibling
"""
    assert list(imports(ast.parse(code))) == ["typing.TYPE_CHECKING", "otherwise", "package.module.name"]
    assert "typed" in imports(ast.parse(code), typing=True)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_one_module_starts_threads(path: Path) -> None:
    """Only ``_threads`` submits work to threads, so that all of it is bounded and awaited."""
    starters = {"Thread", "ThreadPoolExecutor", "run_in_executor", "to_thread"}
    used = {node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
    assert used & starters <= (starters if path.name == "_threads.py" else set())


@pytest.mark.parametrize("name", [name for name in modules() if "._" not in name])
def test_all_lists_the_public_objects(name: str) -> None:
    """``__all__`` of each public module contains exactly the public objects that the module defines."""
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert len(set(public)) == len(public)
    assert [item for item in public if not hasattr(module, item)] == []
    defined = {
        item
        for item, value in vars(module).items()
        if getattr(value, "__module__", None) == name and not isinstance(value, TypeVar | ParamSpec)
    }
    assert {item for item in defined if not item.startswith("_")} - set(public) == set()
