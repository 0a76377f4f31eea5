"""Run the scenarios with one library, and print the results as JSON: ``python -m tests.faults.peers NAME``."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tests.faults.peers.scenarios import SCENARIOS, Peer, Scenario, Scene

NAMES = ("ours", "sqlalchemy_file", "advanced_alchemy")


def apart(work: Coroutine[Any, Any, Any]) -> bool:
    """Run a function in a separate process; return whether it exited normally and without an error."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            asyncio.run(work)
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            sys.stderr.flush()
            os._exit(code)
    work.close()
    return os.waitpid(pid, 0)[1] == 0


async def _play(peer: Peer, *acts: Scenario) -> None:
    engine = peer.engine()
    async with engine.begin() as connection:
        await connection.run_sync(peer.Base.metadata.create_all)
    for act in acts:
        await act(Scene(peer, engine))
        await _behind()
    await engine.dispose()


async def _behind() -> None:
    """Wait for background work of a library."""
    for _ in range(3):
        await asyncio.sleep(0.02)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2)


async def _before(scene: Scene) -> None:
    async with scene.begun() as session:
        session.add(scene.peer.User(id=10, name="taken"))
        await scene.attach(session, b"old")


async def _judged(peer: Peer, expected: dict[int, bytes] | None, answer: Path) -> None:
    engine, found, lost = peer.engine(), dict[int, bytes](), False
    async with peer.sessions(engine)() as session:
        for user in (await session.scalars(select(peer.User))).unique().all():
            try:
                content = await peer.read(user)
            except Exception:
                lost = True
            else:
                if content is not None:
                    found[user.id] = content
    before = peer.stored()
    await peer.sweep(engine)
    await engine.dispose()
    if lost or (expected is not None and found != expected):
        answer.write_text("lost")
    elif peer.stored() > len(found):
        answer.write_text("leak")
    else:
        answer.write_text("swept" if before > len(found) else "held")


def ask(kind: type[Peer], name: str) -> str:
    """Return what happens to files in a scenario: ``held``, ``swept``, ``leak`` or ``lost``."""
    act, expected = SCENARIOS[name]
    with tempfile.TemporaryDirectory() as folder:
        peer = kind(Path(folder))
        assert apart(_play(peer, _before))
        apart(_play(peer, act))
        answer = Path(folder, "answer")
        assert apart(_judged(peer, expected, answer)), name
        return answer.read_text()


def main() -> None:
    """Run the scenarios with the named library."""
    kind: type[Peer] = importlib.import_module(f"tests.faults.peers.{sys.argv[1]}").Library
    answers = {name: ask(kind, name) for name in SCENARIOS}
    version = importlib.metadata.version(kind.package)
    sys.stdout.write(json.dumps({"name": kind.name, "version": version, "answers": answers}) + "\n")


if __name__ == "__main__":
    main()
