"""Environments for workers: a database and a store, and the invariants after all workers are dead."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from tests.databases import Database
from tests.faults.kill.parent import Zygote
from tests.faults.kill.steps import Note
from tests.faults.kill.worker import store_of
from tests.faults.models import Base, User
from tests.faults.rig import named
from tests.faults.stores import FaultyStore

OTHERS = {
    "postgresql": (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
    ),
    "mariadb": ("SELECT count(*) FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"),
}


@dataclass
class Place:
    """A database and a store.

    Attributes:
        database: A database with the tables.
        store: The description of the store, from which each process creates its own.
        photo: The path of a small photograph.
    """

    database: Database
    store: dict[str, Any]
    photo: str

    async def create(self) -> None:
        """Create the tables."""
        await self.database.create(Base.metadata)

    def spec(self, role: str = "program", **more: Any) -> dict[str, Any]:
        """Return the description for a worker."""
        url = self.database.url.render_as_string(hide_password=False)
        database = {"database": self.database.name, "driver": self.database.driver, "url": url}
        return {"role": role, "store": self.store, "photo": self.photo, **database, **more}

    async def quiet(self) -> None:
        """Wait until the database has noticed that its clients are dead, because a COMMIT may be in progress."""
        ask = OTHERS.get(self.database.name)
        if ask is not None:
            async with self.database.reader.connect() as connection, asyncio.timeout(20):
                connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
                while await connection.scalar(text(ask)):
                    await asyncio.sleep(0.01)

    async def check(self, zygote: Zygote, notes: dict[int, Note], *sweepers: dict[str, Any]) -> tuple[int, int]:
        """Assert that each row has its file, that acknowledged commits exist, and that a sweep cleans up.

        Args:
            zygote: Forks the process that sweeps.
            notes: The last note of each worker, by line.
            sweepers: Descriptions of processes that sweep before the last one and are killed.

        Returns:
            The number of files of rows, and of orphaned files, including unfinished uploads.
        """
        await self.quiet()
        store = FaultyStore(store_of(self.store))
        try:
            names, _ = await named(self.database, store)
            await self._acknowledged(notes)
            found = await store.names()
            orphans = len(found - names)
            unfinished = await self._unfinished(store.inner, found | names)
            assert {end for end, _ in zygote.run(*(self.spec("sweep", **more) for more in sweepers if orphans))} <= {
                "stopped",
                "exit 0",
            }
            await self.quiet()
            assert [end for end, _ in zygote.run(self.spec("sweep"))] == ["exit 0"]
            assert await store.names() == names
            assert (await named(self.database, store))[0] == names
            left = await self._unfinished(store.inner, names)
            # The server may still be handling a request that starts an upload, although its sender is dead.
            assert not (left & unfinished if isinstance(store.inner, S3Store) else left)
        finally:
            await store.inner.aclose()
        return len(names), orphans + len(unfinished)

    @staticmethod
    async def _unfinished(store: KeyedStore, names: set[str]) -> set[str]:
        """Return the unfinished multipart uploads, and the files that a listing does not show."""
        if isinstance(store, S3Store):
            return {upload.upload_id async for upload in store.client.list_uploads()}
        assert isinstance(store, FileSystemStore)
        root = Path(store.path)
        paths = set()
        for folder, folders, files in os.walk(root):
            if Path(folder) == root:  # records of ownership, and the quarantine
                folders[:] = [name for name in folders if not name.startswith(".")]
            paths |= {str((Path(folder) / file).relative_to(root)) for file in files}
        return paths - names

    async def _acknowledged(self, notes: dict[int, Note]) -> None:
        async with AsyncSession(self.database.reader) as session:
            for line, note in notes.items():
                user = await session.get(User, line + 1000)
                last = 0 if user is None else int((user.name or "").partition(" ")[2])
                assert note.acknowledged <= last <= note.begun, (note, last)
