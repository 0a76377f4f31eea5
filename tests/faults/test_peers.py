"""The scenarios for other libraries, run with this library."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.faults.kill.parent import ROOT

LEFT_TO_THE_SWEEP = {
    "killed before COMMIT",
    "COMMIT is rejected by the database",
    "a loaded user is deleted by a statement",
}


@pytest.mark.thorough  # other tests check each of these faults, and more closely
def test_ours() -> None:
    """No file is lost, and orphaned files are swept."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.peers", "ours"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    answers = json.loads(done.stdout)["answers"]
    assert answers == {name: "swept" if name in LEFT_TO_THE_SWEEP else "held" for name in answers}
