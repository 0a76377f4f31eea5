"""The code in the documentation runs and has the documented results."""

from __future__ import annotations

import ast
import inspect
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import registry

import aioimageattach
from aioimageattach.context import set_default_store
from tests import photos
from tests.databases import Database

for _name in aioimageattach.__all__:
    getattr(aioimageattach, _name)  # loads its module here, because an import in the event loop would block it

ROOT = Path(__file__).parent.parent.parent
PIECE = re.compile(
    r"<!--\s*setup\s*\n(?P<setup>.*?)-->"
    r"|(?:<!--\s*skip:(?P<skip>.*?)-->\s*)?^(?P<fence>`{3,})python *\n(?P<block>.*?)^(?P=fence)\s*$"
    r"|^(?P<other>`{3,}).*?^(?P=other)\s*$",
    re.DOTALL | re.MULTILINE,
)
OUTCOME = re.compile(r"#\s*→\s*(.+?)\s*$")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code of a page.

    Attributes:
        code: Preceded by empty lines, so that its line numbers are those of the page.
        skip: The reason why it does not run.
    """

    code: str
    skip: str | None


def blocks(page: str) -> Iterator[Block]:
    """Yield the Python code of a page and its hidden set-up, in order."""
    for piece in PIECE.finditer(page):
        if piece["other"]:
            continue
        name = "setup" if piece["setup"] is not None else "block"
        skip = piece["skip"]
        if skip is not None and not skip.strip():
            raise ValueError("a skipped block says why: <!-- skip: reason -->")
        before = page.count("\n", 0, piece.start(name))
        yield Block("\n" * before + piece[name], skip.strip() if skip else None)


class AwaitRun(ast.NodeTransformer):
    """Replace ``asyncio.run(main())`` by ``await main()``, because a page runs in an event loop."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return ast.copy_location(ast.Await(node.args[0]), node) if ast.unparse(node.func) == "asyncio.run" else node


async def run(code: str, file: str, namespace: dict[str, object]) -> None:
    """Run code statement by statement, and compare the value after ``# →`` with that of the expression."""
    lines = code.splitlines()
    for statement in AwaitRun().visit(ast.parse(code, file)).body:
        promised = OUTCOME.search(lines[(statement.end_lineno or 1) - 1])
        if promised and not isinstance(statement, ast.Expr):
            raise SyntaxError(f"{file}:{statement.end_lineno}: only an expression has a value to promise")
        tree = ast.Expression(statement.value) if isinstance(statement, ast.Expr) else ast.Module([statement], [])
        mode = "eval" if isinstance(tree, ast.Expression) else "exec"
        program = compile(tree, file, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        value = eval(program, namespace)
        if program.co_flags & inspect.CO_COROUTINE:
            value = await value
        if promised:
            assert repr(value) == promised[1], f"{file}:{statement.end_lineno}"


def pages() -> dict[str, list[Block]]:
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = {
        str(file.relative_to(ROOT)): list(blocks(file.read_text("utf-8")))
        for file in sorted(files)
        if not file.is_relative_to(ROOT / "docs" / "_build")
    }
    return {name: page for name, page in found.items() if page}


PAGES = pages()


SKIPPED = [
    pytest.param(name, marks=pytest.mark.skip(reason=f"{name}: {block.skip}"), id=f"{name}: skipped block")
    for name, page in PAGES.items()
    for block in page
    if block.skip
]


@pytest.mark.parametrize("page", [*PAGES, *SKIPPED])
async def test_the_code_of_each_page_runs(
    page: str, sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page run in order, in one namespace and an empty directory, and give the values shown."""
    module = ModuleType(re.sub(r"\W", "_", page))
    namespace = vars(module)
    namespace.update(engine=sqlite_database.engine(), photo=photos.photo("chelsea"))
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where SQLAlchemy looks up annotations
    logs = logging.root.level, [*logging.root.handlers]  # frameworks set this for the whole process
    (folder := tmp_path / "page").mkdir()
    monkeypatch.chdir(folder)
    try:
        for block in PAGES[page]:
            if block.skip is None:
                await run(block.code, str(ROOT / page), namespace)
    finally:
        set_default_store(None)
        logging.root.setLevel(logs[0])
        logging.root.handlers[:] = logs[1]
        for value in [*namespace.values()]:
            if isinstance(value, AsyncEngine):
                await value.dispose()
            elif getattr(value, "__module__", "") == module.__name__ and isinstance(
                made := getattr(value, "registry", None), registry
            ):
                made.dispose()  # some classes may outlive others, and configure_mappers() includes all


PAGE = """# A page

```console
$ python
```

````md
```python
raise RuntimeError("an example of an example")
```
````

<!-- setup
import asyncio
number = 1
-->

```python
await asyncio.sleep(0, number)  # → 1
number += 1
```

<!-- skip: it needs a printer -->

```python
nonsense
```

```python
[
    number,
]  # → [2]
```
"""


async def test_pages_are_read_as_written() -> None:
    """Hidden set-up and visible blocks run in order; other fences do not, and skipped blocks give a reason."""
    found = list(blocks(PAGE))
    assert [block.skip for block in found] == [None, None, "it needs a printer", None]
    namespace: dict[str, object] = {}
    for block in found:
        if block.skip is None:
            await run(block.code, "page.md", namespace)
    assert namespace["number"] == 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 + 1  # → 3", AssertionError),
        ("x = 1  # → 1", SyntaxError),
        ("undefined", NameError),
        ("1 +", SyntaxError),
    ],
)
async def test_errors_in_pages_are_detected(code: str, error: type[Exception]) -> None:
    """A page with a wrong value, a value without an expression, or invalid code fails."""
    with pytest.raises(error):
        await run(code, "page.md", {})


async def test_errors_name_the_line_of_the_page() -> None:
    """The traceback of a failing block contains the line of the page."""
    (block,) = blocks("# Title\n\n```python\nfine = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        await run(block.code, "page.md", {})
    assert (str(caught.traceback[-1].path), caught.traceback[-1].lineno + 1) == ("page.md", 5)


def test_a_skipped_block_has_a_reason() -> None:
    """A skipped block must give a reason."""
    with pytest.raises(ValueError, match="says why"):
        list(blocks("<!-- skip: -->\n```python\n1\n```\n"))
