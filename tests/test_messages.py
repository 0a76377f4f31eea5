"""Messages of errors and log records: their words and their form."""

from __future__ import annotations

import ast
import re

from tests.test_imports import PACKAGE, tree_of

PICTURES = re.compile(r"(?<![^ ])[Pp]ictures?(?=[ ,;]|$)")


def text_of(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_messages_speak_of_images() -> None:
    """The word for everything that is stored is image; see the word list in the contributing guide."""
    nodes = [node for path in PACKAGE.rglob("*.py") for node in ast.walk(tree_of(path))]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [text_of(node) for node in nodes if id(node) not in docstrings]
    assert [text for text in texts if " " in text and PICTURES.search(text)] == []


def test_log_records_begin_in_lower_case() -> None:
    """Messages of log records begin in lower case and have no final full stop."""
    calls = [
        node
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        if isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "_log"
    ]
    texts = [text_of(argument) for call in calls for argument in call.args]
    assert len(calls) > 30
    assert [text for text in texts if text[:1].isupper() or text.endswith(".")] == []
