"""Fuzz the reading of images: ``python -m tests.fuzz [TARGET] [SECONDS]``, by default each target in turn.

Findings are kept in ``build/fuzz``, and the next run starts from the files that reached new code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import atheris

FOLDER = Path(__file__).parent.parent.parent / "build" / "fuzz"
INSTRUMENTED = ["aioimageattach.imaging", "aioimageattach.exc"]
OPTIONS = ["-timeout=20", "-rss_limit_mb=1500", "-max_len=16384", "-print_final_stats=1", "-verbosity=1"]


def fuzz(target: str, seconds: int) -> None:
    """Fuzz one target in this process, which then exits."""
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import ANSWERS, TARGETS
    from tests.imaging.test_hostile import KINDS, small

    corpus = FOLDER / target
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = dict(enumerate(ANSWERS)) if target == "answer" else {kind: small(kind) for kind in KINDS}
    for name, seed in seeds.items():
        (corpus / f"seed-{name}").write_bytes(seed)
    check = TARGETS[target]
    atheris.Setup(
        ["fuzz", *OPTIONS, f"-max_total_time={seconds}", f"-artifact_prefix={FOLDER / target}-", str(corpus)],
        check,
    )
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    """Fuzz the named target, or each target in a separate process."""
    targets = [argument for argument in arguments if not argument.isdigit()]
    seconds = next((int(argument) for argument in arguments if argument.isdigit()), 120)
    if len(targets) == 1:
        fuzz(targets[0], seconds)
    from tests.fuzz.targets import TARGETS

    failed = [
        name
        for name in targets or TARGETS
        if subprocess.call([sys.executable, "-m", "tests.fuzz", name, str(seconds)], env={**os.environ})
    ]
    print(f"failed: {', '.join(failed)}" if failed else "nothing was found")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
