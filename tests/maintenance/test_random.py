"""Random programs: no sequence of operations deletes the file of a committed row."""

from __future__ import annotations

import random
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from aioimageattach.exc import RefusedError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.maintenance import own, sweep, undo, verify
from aioimageattach.migration import migrate
from aioimageattach.store import KeyedStore
from aioimageattach.stores import MemoryStore, MirrorStore
from tests.databases import Database
from tests.maintenance.models import Base, User, UserPicture

DAY = 24 * 3600


class World:
    """Two applications, their databases and backups, and two stores between which the first one moves.

    All random choices come from one generator, so that a seed determines the whole program.
    """

    def __init__(self, generator: random.Random, databases: list[Database], folder: Path) -> None:
        self.generator = generator
        self.databases = databases
        self.folder = folder
        self.engines: list[AsyncEngine] = [database.engine() for database in databases]
        self.old, self.new = MemoryStore(), MemoryStore()
        self.store: KeyedStore = self.old
        self.number = 0
        self.backup: tuple[Path, dict[str, Any]] | None = None

    def sessions(self, which: int = 0) -> async_sessionmaker[Any]:
        return async_sessionmaker(self.engines[which])

    async def upload(self) -> None:
        """Commit a row whose file is old; sometimes put another file, as an upload that was rolled back."""
        for committed in (True, self.generator.random() < 0.5):
            self.number += 1
            revision = make_revision(time.time() - 3 * DAY + self.number)
            key = ImageKey("user-picture", self.number, 30, 20, "image/png", revision)
            await self.store.put(key, b"%d" % self.number, reproducible=False)
            if committed:
                values = {"user_id": self.number, "width": 30, "height": 20, "variant": "", "mimetype": "image/png"}
                more = {"original": True, "created_at": datetime.now(UTC), "revision": revision}
                async with self.sessions().begin() as session:
                    await session.execute(insert(User), [{"id": self.number}])
                    await session.execute(insert(UserPicture.__table__), [{**values, **more}])
        for store in (self.old, self.new):
            then = datetime.now(UTC) - timedelta(days=2)
            store._files = {
                name: (blob, then if not name.startswith(".") else at) for name, (blob, at) in store._files.items()
            }

    async def delete_rows(self) -> None:
        """Delete rows with SQL."""
        async with self.sessions().begin() as session:
            await session.execute(delete(UserPicture).where(UserPicture.user_id % 5 == self.generator.randrange(5)))

    async def sweep(self, which: int = 0) -> None:
        """Sweep as a cron job does, sometimes with ``force``."""
        force = self.generator.random() < 0.5
        try:
            await sweep(self.sessions(which), Base, self.store, delete=True, force=force).execute()
        except RefusedError:
            if which == 0 and self.generator.random() < 0.5:
                return
            await undo(Base, self.store).execute()

    async def sweep_as_second(self) -> None:
        """Let the second application sweep the same store."""
        if await own(self.sessions(), UserPicture, self.store, claim=True):
            await self.sweep(1)

    async def migrate(self) -> None:
        """Run the next step of a move."""
        if self.store is self.old:
            self.store = MirrorStore(self.old, self.new)
        elif isinstance(self.store, MirrorStore) and self.store.stores[0] is self.old:
            await migrate(self.sessions(), UserPicture, self.old, self.new).execute()
            self.store = MirrorStore(self.new, self.old)

    async def make_backup(self) -> None:
        """Back up the database."""
        path = self.folder / "backup.sqlite"
        await self.engines[0].dispose()
        shutil.copy(str(self.databases[0].url.database), path)
        self.backup = path, {"old": dict(self.old._files), "new": dict(self.new._files)}

    async def restore(self) -> None:
        """Restore the database with the files of that time, as is possible in a versioned bucket."""
        if self.backup is None:
            return
        path, files = self.backup
        await self.engines[0].dispose()
        shutil.copy(path, str(self.databases[0].url.database))
        for store, then in ((self.old, files["old"]), (self.new, files["new"])):
            store._files = {**{name: one for name, one in then.items() if not name.startswith(".")}, **store._files}
        if self.generator.random() < 0.5:
            await own(self.sessions(), Base, self.store, transfer=True)

    async def check(self) -> None:
        """Check that every committed row has its file, and that a verification confirms it."""
        async with self.sessions()() as session:
            rows = len((await session.scalars(select(UserPicture.revision))).all())
            assert await session.scalar(text("SELECT count(*) FROM user_picture")) == rows
        plan = verify(self.sessions(), UserPicture, self.store)
        assert [(one.problem, one.reference.identity) async for one in plan] == []
        assert plan.progress.done == plan.progress.total == rows


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(4, 12))]
)
async def test_random_programs(seed: int, servers: Any, tmp_path: Path) -> None:
    """Uploads, deletions, sweeps, migrations, restores and a second application run in any order."""
    databases = [servers.database("aiosqlite", tmp_path) for _ in range(2)]
    for database in databases:
        await database.create(Base.metadata)
    world = World(random.Random(seed), databases, tmp_path)
    for _ in range(3):
        await world.upload()
    steps = (
        [world.upload] * 4
        + [world.sweep] * 3
        + [world.delete_rows, world.sweep_as_second, world.migrate, world.make_backup, world.restore]
    )
    for _ in range(25):
        step = world.generator.choice(steps)
        await step()
        await world.check()
    for database in databases:
        await database.aclose()
