"""The README's example, in an environment that contains only what the README installs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import photos

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.thorough  # installs packages
def test_the_example_runs_after_the_install_command(tmp_path: Path) -> None:
    """In an empty environment, after the README's install command, the example prints the HTML of a thumbnail."""
    page = (ROOT / "README.md").read_text("utf-8")
    command = re.search(r"^\$ pip install (.+)$", page, re.MULTILINE)
    example = re.search(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert command is not None
    assert example is not None
    (tmp_path / "example.py").write_text(example[1])
    (tmp_path / "photo.jpg").write_bytes(photos.photo("chelsea"))
    packages = [str(ROOT) if name == "aioimageattach" else name for name in command[1].split()]
    assert str(ROOT) in packages

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False, env={})
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    html = run(python, "example.py")
    assert re.match(r'<img src="/thumbnails/user-picture\.t/\S+\.96x96\.jpg" srcset="', html)
    assert 'sizes="48px" width="48" height="48"' in html
    assert len([path for path in (tmp_path / "media").rglob("*") if path.is_file()]) == 1
