"""Each fault of the list is covered by existing tests."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.faults.matrix import MATRIX
from tests.faults.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@cache
def functions(path: str) -> frozenset[str]:
    """Return the names of a file's functions."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_every_number_is_there() -> None:
    """All numbers of the list are present."""
    assert sorted(MATRIX) == list(range(1, 83))


@pytest.mark.parametrize("number", MATRIX)
def test_a_fault_has_proofs_or_a_reason(number: int) -> None:
    """Each fault has existing tests, or a reason why it has none."""
    fault = MATRIX[number]
    assert fault.tests or fault.reason
    for test in fault.tests:
        path, _, name = test.partition("::")
        assert name in functions(path), f"F{number:02} is proven by {test}, which is not there"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_code_of_a_planted_fault_exists(mutant: Mutant) -> None:
    """The code that a planted fault replaces occurs once, and the tests that detect the fault exist."""
    assert (ROOT / "aioimageattach" / mutant.path).read_text().count(mutant.old) == 1
    for test in mutant.tests.split():
        path, _, name = test.partition("::")
        assert not name or name in functions(f"tests/faults/database/{path}")
