"""The code in the documentation passes mypy and pyright in strict mode."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_code import PIECE, ROOT

PREAMBLE = (
    "from __future__ import annotations; from collections.abc import AsyncIterable, Awaitable, Iterable; "
    "from contextlib import AbstractAsyncContextManager, AbstractContextManager; from typing import TypeVar; "
    "from sqlalchemy.ext.asyncio import AsyncEngine; T_ = TypeVar('T_')\n"
    "def value_(kind: type[T_]) -> T_: raise AssertionError\n"
    "{given}\n"
    "def await_(value: Awaitable[T_]) -> T_: raise AssertionError\n"
    "def with_(value: AbstractAsyncContextManager[T_]) -> AbstractContextManager[T_]: raise AssertionError\n"
    "def for_(value: AsyncIterable[T_]) -> Iterable[T_]: raise AssertionError\n"
)
GIVEN = {"engine": "AsyncEngine", "photo": "bytes"}
CASES = sorted(file for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if "_build" not in file.parts)


class TopLevel(ast.NodeVisitor):
    """Finds code outside of functions that is valid only at a prompt with ``await``, and the edits that replace it."""

    def __init__(self, code: str) -> None:
        self.lines = code.splitlines(keepends=True)
        self.edits: list[tuple[int, int, int, str]] = []  # line, column, number of characters to remove, text

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Leave functions alone."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Leave functions alone."""

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Leave functions alone."""

    def visit_Await(self, node: ast.Await) -> None:
        self._edit(node.lineno, node.col_offset, len("await"), "await_")
        self._wrap(node.value, "")
        self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self._edit(node.lineno, node.col_offset, len("async "), "")
        for item in node.items:
            self._wrap(item.context_expr, "with_")
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._edit(node.lineno, node.col_offset, len("async "), "")
        self._wrap(node.iter, "for_")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        if node.is_async:
            line, column = node.target.lineno, node.target.col_offset
            self._edit(line, self.lines[line - 1].encode()[:column].rindex(b"async for"), len("async "), "")
            self._wrap(node.iter, "for_")
        self.generic_visit(node)

    def _wrap(self, node: ast.expr, name: str) -> None:
        self._edit(node.lineno, node.col_offset, 0, f"{name}(")
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        self._edit(node.end_lineno, node.end_col_offset, 0, ")")

    def _edit(self, line: int, column: int, length: int, text: str) -> None:
        self.edits.append((line, column, length, text))

    def rewritten(self) -> str:
        """Return the code with all edits, whose lines have the same numbers."""
        found = [line.encode() for line in self.lines]
        order = sorted(enumerate(self.edits), key=lambda one: (one[1][:2], one[0]), reverse=True)
        for _, (line, column, length, text) in order:
            old = found[line - 1]
            found[line - 1] = old[:column] + text.encode() + old[column + length :]
        return b"".join(found).decode()


def code_of(page: str) -> tuple[str, set[int]]:
    """Return the code of a page with its hidden set-up, at the lines of the page, and the lines that readers see."""
    lines = [""] * (page.count("\n") + 2)
    visible: set[int] = set()
    for piece in PIECE.finditer(page):
        if piece["other"]:
            continue
        name = "setup" if piece["setup"] is not None else "block"
        start = page.count("\n", 0, piece.start(name))
        code = piece[name].splitlines()
        lines[start : start + len(code)] = code
        visible |= set(range(start + 1, start + 1 + len(code))) if name == "block" else set()
    top = TopLevel("\n".join(lines))
    tree = ast.parse("\n".join(lines))
    top.visit(tree)
    own = {getattr(statement, "name", None) for statement in tree.body}  # such as a fixture `engine`
    given = "; ".join(f"{name} = value_({kind})" for name, kind in GIVEN.items() if name not in own)
    return PREAMBLE.format(given=given) + top.rewritten(), {line + PREAMBLE.count("\n") for line in visible}


def check_mypy(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Yield file, line and message of each error of mypy."""
    options = [
        "--strict",
        "--no-pretty",
        "--follow-imports=silent",
        "--allow-redefinition",
        "--output=json",
        "--config-file=",
    ]
    options += ["--disable-error-code=import-untyped"]  # as --strict does not look into packages without types
    cache = f"--cache-dir={ROOT / '.mypy_cache' / 'docs'}"
    command = [sys.executable, "-m", "mypy", *options, cache, *map(str, folder.glob("*.py"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            if found["severity"] == "error":
                yield Path(found["file"]).stem, found["line"], f"{found['message']} [{found['code']}]"


def check_pyright(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Yield file, line and message of each error of pyright."""
    settings = {
        "include": [str(folder)],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "reportMissingTypeStubs": False,
        "reportUnusedExpression": False,  # values that a page shows
        "reportDuplicateImport": False,  # a hidden block may import what a visible one does
        "reportUnusedFunction": False,
        "reportUnusedImport": False,
        "reportRedeclaration": False,  # variants of the same function
    }
    (project := folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--project", str(project)]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable], cwd=ROOT, capture_output=True, text=True, check=False
    )
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        if found["severity"] == "error":
            text = f"{found['message']} [{found.get('rule')}]"
            yield Path(found["file"]).stem, found["range"]["start"]["line"] + 1, text


def errors(checker: str, pages: dict[str, str], folder: Path) -> dict[str, list[str]]:
    """Return the errors in the visible code of each page, with the lines of the page."""
    visible: dict[str, set[int]] = {}
    names: dict[str, str] = {}
    for name, page in pages.items():
        stem = re.sub(r"\W", "_", name)
        names[stem] = name
        code, visible[stem] = code_of(page)
        if visible[stem]:
            (folder / f"{stem}.py").write_text(code, "utf-8")
    check = {"mypy": check_mypy, "pyright": check_pyright}[checker]
    shown: dict[str, list[str]] = {}
    for stem, line, text in sorted(check(folder)):
        if line in visible.get(stem, ()):
            shown.setdefault(names[stem], []).append(f"{names[stem]}:{line - PREAMBLE.count(chr(10))}: {text}")
    return shown


@pytest.mark.timeout(900)  # on a busy machine
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_code_of_the_pages_is_typed(checker: str, tmp_path: Path) -> None:
    """Readers who copy the code of a page into a project with strict checks see no error."""
    pages = {str(file.relative_to(ROOT)): file.read_text("utf-8") for file in CASES}
    assert errors(checker, pages, tmp_path) == {}


WRONG = """# A page

<!-- setup
from sqlalchemy import text

hidden: int = "an error that no reader sees"
numbers = [await one() async for one in nothing()]
-->

```python
async with engine.connect() as connection:
    rows = [await connection.scalar(query) for query in (text("SELECT 1"),)]

visible: int = "an error"
engine.missing
```
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_errors_are_found_at_the_lines_of_the_page(checker: str, tmp_path: Path) -> None:
    """Errors of visible code have the line of the page; ``await`` outside of functions is understood."""
    found = errors(checker, {"page.md": WRONG}, tmp_path)
    assert {text.partition(": ")[0] for text in found["page.md"]} == {"page.md:14", "page.md:15"}, found
