"""Each attack of the list is met by tests that are there, and the documentation tells of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.test_matrix import functions
from tests.security.matrix import MATRIX, table

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "security.md"


def test_every_number_is_there() -> None:
    """All 23."""
    assert MATRIX.keys() >= set(range(1, 24))


@pytest.mark.parametrize("number", MATRIX)
def test_an_attack_has_proofs_or_a_reason(number: int) -> None:
    """Tests that exist under that name, or words on why there is none."""
    attack = MATRIX[number]
    assert attack.tests or attack.reason
    for test in attack.tests:
        path, _, name = test.partition("::")
        assert name in functions(path), f"S{number:02} is met by {test}, which is not there"


def test_the_documentation_has_the_table() -> None:
    """Line by line; ``python -m tests.security`` prints it."""
    page = PAGE.read_text("utf-8").splitlines()
    assert [line for line in table() if line not in page] == []
