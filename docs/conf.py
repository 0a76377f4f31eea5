"""How Sphinx builds the documentation."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

sys.path.insert(0, str(HERE))

import package_map  # noqa: E402

import aioimageattach  # noqa: E402 - found by the lines above
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
smartquotes_action = "qe"  # two dashes begin an option, and are no dash
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

COMMANDS = "aioimageattach.cli"
KINDS = ("added", "changed", "fixed", "removed")
MODULE = """# `{name}`

```{{eval-rst}}
.. automodule:: {name}
   :members:
   :ignore-module-all:
   :show-inheritance:
```
"""
PACKAGE = """# `{name}`

```{{eval-rst}}
.. automodule:: {name}
   :no-members:
```

{names}
"""


def public_modules() -> list[str]:
    """Return the modules that have a page: all but private ones, and those of the command line, which has its own."""
    found = [module.name for module in pkgutil.walk_packages(aioimageattach.__path__, "aioimageattach.")]
    return ["aioimageattach", *(name for name in found if "._" not in name and not name.startswith(COMMANDS))]


def page(name: str) -> str:
    """Return a module's page: what it defines, or, of a package, where what it passes on is defined."""
    module = importlib.import_module(name)
    if not hasattr(module, "__path__"):
        return MODULE.format(name=name)
    homes = {item: getattr(getattr(module, item), "__module__", "") for item in getattr(module, "__all__", [])}
    names = [f"- {{py:obj}}`{item} <{home}.{item}>`" if home else f"- `{item}`" for item, home in homes.items()]
    return PACKAGE.format(name=name, names="\n".join(names))


def write_reference(_app: Sphinx) -> None:
    """Write a page for each public module into ``reference/api``, and take those of vanished modules away."""
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
    """Put the fragments of the changelog where its page has ``FRAGMENTS``, those of one kind together."""
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
    """Put the modules that the index of the reference does not name where it has ``MODULES``."""
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
    """Called by Sphinx."""
    app.connect("builder-inited", write_reference)
    app.connect("source-read", insert_fragments)
    app.connect("source-read", insert_modules)
    app.connect("builder-inited", draw_structure)
    app.connect("source-read", insert_figures)
    app.connect("env-get-outdated", lambda *_: ["changelog/index", "reference/index"])
