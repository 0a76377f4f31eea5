"""Draw the package's units and their imports, and count what packages consist of.

``python docs/package_map.py httpx anyio`` prints the figures of installed packages.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
WIDTH, ROW, BOX = 1000, 92, 46
INK, LINE, FILL, PRIVATE = "#1f2937", "#2f6f9f", "#e3edf5", "#f1efe9"


@dataclass(frozen=True)
class Figures:
    """The figures of a package."""

    files: int
    lines: int
    median_file: int
    longest_function: int
    public_names: int
    units: int


def package_of(name: str) -> Path:
    """Return the directory of an installed package."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is not an installed package")
    return Path(spec.submodule_search_locations[0])


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Yield the absolute names of what code imports, without what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            base = [*parts[: len(parts) - node.level + 1], node.module or ""] if node.level else [node.module or ""]
            yield from (".".join(part for part in [*base, alias.name] if part) for alias in node.names)
        else:
            yield from imported(node, module, is_package)


def unit_of(name: str) -> str:
    """Return the direct child of the package that a module belongs to."""
    return ".".join(name.split(".")[1:2])


def graph(package: Path) -> dict[str, set[str]]:
    """Return which units import which."""
    units = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    edges: dict[str, set[str]] = {unit: set() for unit in sorted(units - {"__init__"})}
    for path in sorted(package.rglob("*.py")):
        name = module_name(path, package)
        if unit := unit_of(name):
            found = imported(ast.parse(path.read_text("utf-8")), name, path.name == "__init__.py")
            edges[unit] |= {unit_of(one) for one in found if one.startswith(f"{package.name}.")} & edges.keys() - {unit}
    return edges


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out the imports that a chain of other imports implies."""

    def below(unit: str, seen: set[str]) -> set[str]:
        for other in edges[unit] - seen:
            seen.add(other)
            below(other, seen)
        return seen

    return {
        unit: {one for one in others if not any(one in below(other, set()) for other in others - {one})}
        for unit, others in edges.items()
    }


def layers() -> list[list[str]]:
    """Return the layers of the first import contract, the top one first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    rows = [row.replace(":", "|").split("|") for row in contracts[0]["layers"]]
    return [[unit.strip(" ()") for unit in row] for row in rows]


def draw(package: Path) -> str:
    """Return an SVG of the units in their layers; each arrow is an import that no other arrows imply."""
    rows, edges = layers(), reduced(graph(package))
    places = {
        unit: (WIDTH * (column + 1) / (len(row) + 1), 40 + ROW * line)
        for line, row in enumerate(rows)
        for column, unit in enumerate(row)
    }
    sizes = {unit: size(package / unit) for unit in places}
    arrows, boxes = [], []
    for unit, (x, y) in places.items():
        for other in sorted(edges[unit]):
            x2, y2 = places[other]
            top, bottom = y + BOX / 2, y2 - BOX / 2 - 5
            middle = (top + bottom) / 2
            arrows.append(
                f'<path d="M{x:.0f} {top:.0f}C{x:.0f} {middle:.0f} {x2:.0f} {middle:.0f} {x2:.0f} {bottom:.0f}"/>'
            )
        fill = PRIVATE if unit.startswith("_") else FILL
        boxes.append(
            f'<rect x="{x - 66:.0f}" y="{y - BOX / 2:.0f}" width="132" height="{BOX}" rx="8" fill="{fill}"/>'
            f'<text x="{x:.0f}" y="{y - 3:.0f}" font-weight="bold">{escape(unit)}</text>'
            f'<text x="{x:.0f}" y="{y + 14:.0f}" font-size="11" fill="#5b6475">{sizes[unit]}</text>'
        )
    height = 40 + ROW * (len(rows) - 1) + 60
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="Helvetica, Arial, sans-serif" font-size="13">\n'
        "<title>The units of the package in layers; imports point downwards</title>\n"
        f'<rect width="{WIDTH}" height="{height}" rx="12" fill="#fbfaf7"/>\n'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0l8 4-8 4z" fill="{LINE}"/></marker></defs>\n'
        f'<g fill="none" stroke="{LINE}" stroke-opacity=".55" marker-end="url(#head)">\n'
        + "\n".join(arrows)
        + "\n</g>\n"
        f'<g stroke="none" fill="{INK}" text-anchor="middle">\n' + "\n".join(boxes) + "\n</g>\n</svg>\n"
    )


def size(unit: Path) -> str:
    files = [*unit.rglob("*.py")] if unit.is_dir() else [unit.with_suffix(".py")]
    lines = sum(file.read_text("utf-8").count("\n") for file in files)
    return f"{len(files)} files, {lines:,} lines" if len(files) > 1 else f"{lines:,} lines"


def figures(package: Path) -> Figures:
    """Count a package's files, lines, different names in ``__all__`` of public modules, and the length of functions."""
    files, functions, names = [], [0], set[str]()
    for path in sorted(package.rglob("*.py")):
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        files.append(text.count("\n"))
        functions += [
            (node.end_lineno or 0) - node.lineno + 1
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        if not any(part.startswith("_") and part != "__init__" for part in module_name(path, package).split(".")):
            names.update(exported(tree))
    units = [path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return Figures(len(files), sum(files), round(median(files)), max(functions), len(names), len(units) - 1)


def exported(tree: ast.Module) -> list[str]:
    """Return what a module lists in ``__all__``, or else its public classes and functions."""
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "__all__"
            and isinstance(node.value, ast.List | ast.Tuple)
        ):
            return [str(one.value) for one in node.value.elts if isinstance(one, ast.Constant)]
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def table(*names: str) -> str:
    """Return a Markdown table of figures."""
    columns = ["package", "files", "lines", "median file", "longest function", "public names", "units"]
    head = f"| {' | '.join(columns)} |\n|---|{'--:|' * (len(columns) - 1)}\n"
    rows = []
    for name in names:
        one = figures(package_of(name))
        rows.append(
            f"| `{name}` | {one.files} | {one.lines:,} | {one.median_file} | {one.longest_function} "
            f"| {one.public_names} | {one.units} |"
        )
    return head + "\n".join(rows)


if __name__ == "__main__":
    print(table(*sys.argv[1:]))
