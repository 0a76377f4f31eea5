"""Each fault of the list is proven by tests that are there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.faults.matrix import MATRIX

ROOT = Path(__file__).parents[2]


@cache
def functions(path: str) -> frozenset[str]:
    """The names of a file's functions."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_every_number_is_there() -> None:
    """All of them."""
    assert sorted(MATRIX) == list(range(1, 83))


@pytest.mark.parametrize("number", MATRIX)
def test_a_fault_has_proofs_or_a_reason(number: int) -> None:
    """Tests that exist under that name, or words on why there is none."""
    fault = MATRIX[number]
    assert fault.tests or fault.reason
    for test in fault.tests:
        path, _, name = test.partition("::")
        assert name in functions(path), f"F{number:02} is proven by {test}, which is not there"
