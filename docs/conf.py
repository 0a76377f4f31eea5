"""Configuration of Sphinx."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

sys.path.insert(0, str(HERE))

import package_map  # noqa: E402

import aioimageattach  # noqa: E402 - the lines above make it importable
from aioimageattach.version import VERSION  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "aioimageattach"
author = "aioimageattach contributors"
copyright = "2026, aioimageattach contributors"
version = release = VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_click"]
exclude_patterns = ["_build", "changelog/*.*.md"]
source_suffix = {".md": "markdown"}
smartquotes_action = "qe"  # no dashes: two hyphens begin an option
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Effects"]
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"aioimageattach {VERSION}"
html_static_path = ["_static"]

PACKAGE_NAME = "aioimageattach"
COMMANDS = "aioimageattach.cli"
KINDS = ("added", "changed", "fixed", "removed")
PAGE = """# `{name}`

```{{eval-rst}}
.. automodule:: {name}
   {members}
{data}```

{links}
"""


def public_modules() -> list[str]:
    """Return the modules that have a page: all but the private ones and those of the command line."""
    found = [module.name for module in pkgutil.walk_packages(aioimageattach.__path__, "aioimageattach.")]
    return ["aioimageattach", *(name for name in found if "._" not in name and not name.startswith(COMMANDS))]


def homes(module: ModuleType) -> dict[str, str]:
    """Return the names that a module exports, each with the module that defines it."""
    return {name: home_of(module, name) for name in getattr(module, "__all__", [])}


def home_of(module: ModuleType, name: str) -> str:
    """Return the name of the module that defines a name. A constant does not know it, so its assignment is searched."""
    value = getattr(module, name)
    home = None if is_constant(value) else getattr(value, "__module__", None)
    if isinstance(home, str) and home.startswith(PACKAGE_NAME):
        return home
    candidates = [path for path in sys.modules if path.startswith(PACKAGE_NAME)]
    for path in [module.__name__, *candidates]:
        if vars(sys.modules[path]).get(name) is value and is_assigned(path, name):
            return path
    return module.__name__


def exporter(name: str, home: str) -> str:
    """Return the public module below the package that exports a name of the package too, or else its home."""
    if "._" not in home:
        return home
    exports = (other for other in public_modules() if other != PACKAGE_NAME)
    return next((other for other in exports if name in getattr(importlib.import_module(other), "__all__", [])), home)


def is_assigned(module: str, name: str) -> bool:
    """Return whether a module assigns a constant, instead of importing it."""
    analyzer = analyzed(module)
    return ("", name) in analyzer.annotations or ("", name) in analyzer.attr_docs


def analyzed(module: str) -> ModuleAnalyzer:
    """Return Sphinx's analysis of the source of a module."""
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    return analyzer


def page(name: str) -> str:
    """Return the page of a module: it documents its names, and links to those that other public modules define."""
    module = importlib.import_module(name)
    names = homes(module)
    if name == PACKAGE_NAME:
        names = {item: exporter(item, home) for item, home in names.items()}
    own = [item for item, home in names.items() if home == name or "._" in home]
    members = f":members: {', '.join(own)}\n   :show-inheritance:" if own else ":no-members:"
    # autodoc takes constants that are imported for attributes without a docstring
    constants = [item for item in own if names[item] != name and is_constant(getattr(module, item))]
    data = "".join(f"\n.. autodata:: {name}.{item}\n" for item in constants)
    links = [f"- {{py:obj}}`{item} <{home}.{item}>`" for item, home in names.items() if item not in own]
    return PAGE.format(name=name, members=members, data=data, links="\n".join(links))


def is_constant(value: object) -> bool:
    """Return whether a value is neither a class nor a function."""
    return not (inspect.isclass(value) or inspect.isroutine(value))


def comment(module: str, name: str) -> list[str]:
    """Return the docstring of a constant, in lines."""
    return analyzed(module).attr_docs.get(("", name), [])


def document_constant(_app: Sphinx, what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Add the docstring of a constant that a package imports from a private module, which autodoc does not find."""
    package, _, item = name.rpartition(".")
    if what == "data" and package in sys.modules:
        lines[:] = comment(home_of(sys.modules[package], item), item) or lines


def write_reference(_app: Sphinx) -> None:
    """Write a page for each public module into ``reference/api``, and delete those of removed modules."""
    folder = HERE / "reference" / "api"
    folder.mkdir(exist_ok=True)
    pages = {f"{name}.md": page(name) for name in public_modules()}
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for file, text in pages.items():
        path = folder / file
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def insert_fragments(_app: Sphinx, page: str, source: list[str]) -> None:
    """Replace ``FRAGMENTS`` on the page of the changelog by its fragments, grouped by kind."""
    if page != "changelog/index":
        return
    parts = []
    for kind in KINDS:
        texts = [path.read_text("utf-8").strip() for path in sorted((HERE / "changelog").glob(f"*.{kind}.md"))]
        if texts:
            parts.append(f"### {kind.capitalize()}")
            parts.extend("- " + text.replace("\n", "\n  ") for text in texts)
    source[0] = source[0].replace("FRAGMENTS", "\n\n".join(parts))


def insert_modules(_app: Sphinx, page: str, source: list[str]) -> None:
    """Replace ``MODULES`` in the index of the reference by the modules that it does not name."""
    if page == "reference/index":
        named = set(re.findall(r"^api/(\S+)$", source[0], re.MULTILINE))
        rest = [f"api/{name}" for name in public_modules() if name not in named]
        source[0] = source[0].replace("MODULES", "\n".join(rest))


def draw_structure(_app: Sphinx) -> None:
    """Draw the map of the package for the page on its structure."""
    (HERE / "_static" / "package-map.svg").write_text(package_map.draw(HERE.parent / "aioimageattach"), "utf-8")


def insert_figures(_app: Sphinx, page: str, source: list[str]) -> None:
    """Put the package's present figures where the page on its structure has ``FIGURES``."""
    if page == "contributing/structure":
        row = package_map.table("aioimageattach").splitlines()[-1]
        source[0] = source[0].replace("FIGURES", row)


def setup(app: Sphinx) -> None:
    """Connect the functions above to the events of Sphinx."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", document_constant)
    app.connect("source-read", insert_fragments)
    app.connect("source-read", insert_modules)
    app.connect("builder-inited", draw_structure)
    app.connect("source-read", insert_figures)
    app.connect("env-get-outdated", lambda *_: ["changelog/index", "reference/index"])
