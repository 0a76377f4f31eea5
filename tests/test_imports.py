"""What importing loads, and that each outside library has one door."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

import aioimageattach

PACKAGE = Path(aioimageattach.__path__[0])
HEAVY = ["PIL", "aiohttp", "fastapi", "pillow_heif", "pypdfium2", "pyvips", "starlette"]
# Rooms that exist for the sake of an optional library, and so load it.
OPTIONAL = ("aioimageattach.__main__", "aioimageattach.cli", "aioimageattach.stores.s3")
DOORS = {
    "aiofiles": ["stores.fs"],
    "aiohttp": ["stores.s3"],
    "anyio": ["_tasks", "_threads"],
    "click": ["cli"],
    "concurrent.futures": ["_threads"],
    "greenlet": [],
    "pillow_heif": ["imaging"],
    "pypdfium2": ["imaging"],
    "pyvips": ["imaging._vips"],
    "rich": ["cli.bar"],
    "sqlalchemy.util": ["_greenlet"],
}


def modules() -> list[str]:
    found = pkgutil.walk_packages([str(PACKAGE)], "aioimageattach.")
    return ["aioimageattach", *sorted(module.name for module in found)]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield what the code imports when it runs: also inside functions, but not for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from imports(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module and not node.level:
                yield from (f"{node.module}.{name.name}" for name in node.names)
        else:
            yield from imports(node)


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def loaded_by(*names: str) -> list[str]:
    code = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return list(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_heavy() -> None:
    """A program that only declares models pays for neither libvips nor aiohttp."""
    assert loaded_by("aioimageattach") == []


def test_importing_every_core_module_loads_nothing_heavy() -> None:
    """Neither does one that imports each module which needs no extra."""
    assert loaded_by(*(name for name in modules() if not name.startswith(OPTIONAL))) == []


def test_what_is_loaded_would_be_seen() -> None:
    """The two tests above can fail."""
    assert loaded_by("pyvips") == ["pyvips"]


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_one_door(library: str) -> None:
    """An outside library is imported in the room that is its door, and nowhere else."""
    importers = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if any(within(name, library) for name in imports(ast.parse(path.read_text("utf-8"))))
    }
    assert [name for name in sorted(importers) if not any(within(name, door) for door in DOORS[library])] == []


def test_imports_in_functions_are_seen_and_those_of_type_checkers_are_not() -> None:
    """The search for doors sees what runs, wherever it stands."""
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


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_threads_are_started_at_one_door(path: Path) -> None:
    """Only the door to threads hands work to them, so that all of it is waited for and bounded."""
    starters = {"Thread", "ThreadPoolExecutor", "run_in_executor", "to_thread"}
    used = {node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
    assert used & starters <= (starters if path.name == "_threads.py" else set())


@pytest.mark.parametrize("name", [name for name in modules() if "._" not in name])
def test_all_names_what_is_there(name: str) -> None:
    """Each public module names in ``__all__`` whatever it defines for others, each name once, and nothing else."""
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
