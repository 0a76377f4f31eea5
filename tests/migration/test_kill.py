"""Migrations whose process is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aioimageattach.migration import migrate
from aioimageattach.stores.fs import FileSystemStore
from tests.databases import Database
from tests.migration.models import Base, add_users, contents, counted, tables

COUNT = 120
PROGRAM = """
import asyncio, sys
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from aioimageattach.migration import migrate
from aioimageattach.stores.fs import FileSystemStore
from tests.migration.models import Base

url, source, destination = sys.argv[1:]

async def main():
    sessions = async_sessionmaker(create_async_engine(url))
    plan = migrate(sessions, Base, FileSystemStore(source, "/"), FileSystemStore(destination, "/"), concurrency=4)
    async for migrated in plan:
        print(plan.progress.done, flush=True)
        await asyncio.sleep(0.002)

asyncio.run(main())
"""


async def test_a_migration_continues_after_a_kill(sqlite_database: Database, tmp_path: Path) -> None:
    """SIGKILL leaves only complete files, and the next run copies exactly the others."""
    sessions = await tables(sqlite_database)
    source, destination = tmp_path / "source", tmp_path / "destination"
    old, new = FileSystemStore(source, "/", fsync=False), FileSystemStore(destination, "/", fsync=False)
    await add_users(sessions, old, [b"%d" % number * 50_000 for number in range(COUNT)])
    url = sqlite_database.url.render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", PROGRAM, url, str(source), str(destination)),
        cwd=Path(__file__).parent.parent.parent,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    while (line := await process.stdout.readline()) and int(line) < COUNT // 2:
        pass
    process.kill()
    await process.wait()
    before, after = await contents(old), await contents(new)
    assert COUNT // 2 <= len(after) < COUNT
    assert after.items() <= before.items()
    progress = await migrate(sessions, Base, old, new, deep=True).execute()
    assert counted(progress) == {
        "total": COUNT,
        "done": COUNT,
        "copied": COUNT - len(after),
        "present": len(after),
        "bytes": sum(map(len, before.values())) - sum(map(len, after.values())),
    }
    assert await contents(new) == before
