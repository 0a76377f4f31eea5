"""Type checkers infer the documented types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# A cache of its own: one filled with other options would be thrown away, here and in `make check`.
CHECKERS = {
    "mypy": ["mypy", "--strict", "--follow-imports=silent", f"--cache-dir={ROOT / '.mypy_cache' / 'typing'}"],
    "pyright": ["pyright"],
}
CASES = sorted(path for path in HERE.glob("*.py") if not path.name.startswith(("test_", "_")))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_mypy_infers_the_documented_types() -> None:
    """Each case passes mypy --strict, and each `type: ignore` in it marks a mistake that mypy finds."""
    done = run(*CHECKERS["mypy"], *map(str, CASES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_infers_the_documented_types(tmp_path: Path) -> None:
    """Each case passes strict pyright, and each `pyright: ignore` in it marks a mistake that pyright finds."""
    project = tmp_path / "pyrightconfig.json"
    project.write_text(
        json.dumps(
            {
                "include": [str(path) for path in CASES],
                "extraPaths": [str(ROOT)],
                "typeCheckingMode": "strict",
                "enableTypeIgnoreComments": False,
                "reportUnnecessaryTypeIgnoreComment": "error",
                "pythonVersion": "3.11",
            }
        )
    )
    done = run(*CHECKERS["pyright"], "--project", str(project), "--pythonpath", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_checkers_see_the_package(checker: str, tmp_path: Path) -> None:
    """A wrong type is found, so the checks above can fail."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from typing import assert_type\n"
        "from aioimageattach.key import make_revision\n"
        "assert_type(make_revision(), int)\n"
    )
    done = run(*CHECKERS[checker], str(wrong))
    assert done.returncode != 0
    assert "assert_type" in done.stdout or "assert-type" in done.stdout, done.stdout + done.stderr
