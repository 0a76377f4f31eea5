"""Each attack of the list is covered by existing tests and described in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.test_matrix import functions
from tests.security.matrix import MATRIX, table

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "security.md"


def test_every_number_exists() -> None:
    """There are 24 attacks."""
    assert MATRIX.keys() >= set(range(1, 25))


@pytest.mark.parametrize("number", MATRIX)
def test_an_attack_has_proofs_or_a_reason(number: int) -> None:
    """Each attack has existing tests, or a reason why it has none."""
    attack = MATRIX[number]
    assert attack.tests or attack.reason
    for test in attack.tests:
        path, _, name = test.partition("::")
        assert name in functions(path), f"S{number:02} is met by {test}, which is not there"


def test_the_documentation_has_the_table() -> None:
    """The documentation contains each line of the table that ``python -m tests.security`` prints."""
    page = PAGE.read_text("utf-8").splitlines()
    assert [line for line in table() if line not in page] == []
