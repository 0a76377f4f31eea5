"""A process that is killed at some point: it runs random transactions, or a sweep."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import delete, make_url, select, text, update
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from aioimageattach import _threads
from aioimageattach.context import bind_store
from aioimageattach.exc import ImageAttachError
from aioimageattach.offload import StoredBinary, StoredFile
from aioimageattach.store import KeyedStore
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.stores.s3 import S3Store
from tests.databases import Database
from tests.faults.kill.serve import SERVERS, application
from tests.faults.kill.steps import Watch, WatchedStore
from tests.faults.models import User, UserPicture
from tests.faults.rig import PNG, swept
from tests.servers.gate import ACCESS_KEY, SECRET_KEY
from tests.stores.kernel import fatal, refused

PART = 5 * 1024 * 1024
REQUEST = "before a request"
RELAXED = "READ COMMITTED"
SIZES = [(30, 20), (9, 9), (8, 8)]


def store_of(spec: dict[str, Any], watch: Watch | None = None) -> KeyedStore:
    """Return the store of a description: a directory, or a prefix of a bucket whose requests a watch records."""
    if "folder" in spec:
        return FileSystemStore(spec["folder"], "http://test/")

    def clock() -> datetime:
        """Return the current time, with which requests are signed."""
        if watch is not None and watch.stop == REQUEST:
            watch.passed(REQUEST)
        return datetime.now(UTC)

    return S3Store(
        spec["bucket"],
        ACCESS_KEY,
        SECRET_KEY,
        endpoint_url=spec["url"],
        prefix=spec["prefix"],
        region="eu-central-1",
        timeout=20.0,
        multipart_threshold=PART,
        part_size=PART,
        clock=clock,
    )


def database_of(spec: dict[str, Any]) -> Database:
    """Return the database of a description."""
    return Database(spec["database"], spec["driver"], make_url(spec["url"]))


class Program:
    """Endless transactions.

    Args:
        spec: The database, the store, the users and where to stop, as JSON.
        watch: Notified of each step.
    """

    def __init__(self, spec: dict[str, Any], watch: Watch) -> None:
        self.random = Random(spec["seed"])
        self.watch = watch
        self.spec = spec
        self.users: list[int] = spec["users"]
        self.photo = Path(spec["photo"]).read_bytes()
        self.store = WatchedStore(store_of(spec["store"], watch), watch)
        self.silent = False
        self.only_files: bool = spec.get("only files", False)
        self.large = {"during put": 3_000_000, REQUEST: PART + 1_000_000}.get(watch.stop, 0)

    def content(self) -> bytes:
        """Return unique bytes; many of them for stops in the middle of an upload."""
        return self.random.randbytes(16) + bytes(self.large or self.random.randint(1, 3000))

    async def user(self, session: AsyncSession) -> User:
        """Return one of its users, or a new one."""
        number = self.random.choice(self.users)
        user = await session.get(User, number)
        if user is None:
            session.add(user := User(id=number))
            await session.flush()
        return user

    async def user_with_scan(self, session: AsyncSession) -> User:
        """Return one of its users, whose file is loaded from the database."""
        user = await self.user(session)
        await session.flush()
        await session.refresh(user, ["scan"])
        return user

    async def attach(self, session: AsyncSession) -> None:
        """Attach or replace a picture, without examining the content."""
        user = await self.user(session)
        await user.picture.from_raw_file(self.content(), None, self.random.choice(SIZES), PNG)

    async def photograph(self, session: AsyncSession) -> None:
        """Do the same with a real photograph and a thumbnail."""
        user = await self.user(session)
        await user.picture.from_blob(self.photo + self.content())
        await user.picture.generate_thumbnail(width=self.random.choice([20, 10, 5]))

    async def thumbnail(self, session: AsyncSession) -> None:
        """Add a thumbnail to an existing picture."""
        user = await self.user(session)
        await user.picture.load()
        if user.picture:
            size = self.random.choice([(3, 2), (2, 1)])
            await user.picture.from_raw_file(self.content(), None, size, PNG, original=False)

    async def write(self, session: AsyncSession) -> None:
        """Assign a new value to an offloaded column, and sometimes ``None`` to another."""
        user = await self.user(session)
        user.body = StoredBinary(self.content())
        user.small = self.random.choice([None, StoredBinary(self.content())])

    async def attach_file(self, session: AsyncSession) -> None:
        """Attach or replace a file, sometimes with another name for the same bytes."""
        user, blob = await self.user_with_scan(session), self.content()
        if user.scan is not None and self.random.random() < 0.3:
            blob = await user.scan.read()
        user.scan = await StoredFile.from_blob(blob, filename=f"scan {self.random.randint(1, 5)}.pdf")

    async def copy_file(self, session: AsyncSession) -> None:
        """Give another user a copy of a file."""
        one, other = await self.user_with_scan(session), await self.user(session)
        if one is not other and not self.spec["shared"]:
            other.scan = one.scan

    async def remove_file(self, session: AsyncSession) -> None:
        """Remove a file."""
        (await self.user(session)).scan = None

    async def take_away(self, session: AsyncSession) -> None:
        """Delete a picture."""
        await (await self.user(session)).picture.delete()

    async def delete_user(self, session: AsyncSession) -> None:
        """Delete a user with the picture."""
        user = await self.user(session)
        await session.flush()
        await session.delete(user)
        await session.flush()

    async def move(self, session: AsyncSession) -> None:
        """Move a picture with its thumbnails to another user, and attach a new one to the old user."""
        one, other = await self.user(session), await self.user(session)
        await other.picture.delete()
        await session.flush()
        await one.picture.load()
        if one is not other:
            with session.no_autoflush:
                for row in one.picture.images:
                    row.user_id = other.id
                await one.picture.from_raw_file(self.content(), None, self.random.choice(SIZES), PNG)
            await session.flush()
            await one.picture.load()
            await other.picture.load()

    async def change_hands(self, session: AsyncSession) -> None:
        """Delete a photograph, and let another user adopt its file."""
        one, other = await self.user(session), await self.user(session)
        if one is not other:
            await one.picture.from_blob(self.photo + self.content())
            await session.flush()
            name = self.store.name_of(one.picture.require_original().key)
            await one.picture.delete()
            await session.flush()
            await other.picture.adopt(name)

    async def on_the_connection(self, session: AsyncSession) -> None:
        """Replace a picture in a savepoint that the session does not know, and sometimes roll it back."""
        user = await self.user(session)
        await session.flush()
        savepoint = await (await session.connection()).begin_nested()
        await user.picture.from_raw_file(self.content(), None, self.random.choice(SIZES), PNG)
        user.body = StoredBinary(self.content())
        await session.flush()
        if self.random.random() < 0.5:
            await savepoint.rollback()
            session.expire_all()
        else:
            await savepoint.commit()

    async def evaluate(self, session: AsyncSession) -> None:
        """Delete in bulk, evaluated on an unflushed change, so that no row is deleted."""
        user = await self.user(session)
        await user.picture.load()
        with session.no_autoflush:
            for row in user.picture.images[:1]:
                row.caption = "condemned"
            await session.execute(
                delete(UserPicture).where(UserPicture.user_id == user.id, UserPicture.caption == "condemned"),
                execution_options={"synchronize_session": "evaluate"},
            )
        session.expire_all()

    async def copy_reference(self, session: AsyncSession) -> None:
        """Copy a reference to a second row, in a way that no other process can delete the file meanwhile."""
        one, other = await self.user(session), await self.user(session)
        if one is not other and not self.spec["shared"]:
            await session.flush()
            users = User.__table__
            source = select(users.c.body).where(users.c.id == one.id).subquery()
            await session.execute(
                update(users).where(users.c.id == other.id).values(body=select(source).scalar_subquery())
            )  # type: ignore[arg-type]
            session.expire_all()

    async def swallow(self, session: AsyncSession) -> None:
        """Ignore a failed statement, after which PostgreSQL commits nothing of the transaction."""
        await session.flush()
        self.silent = self.spec["database"] == "postgresql"
        with contextlib.suppress(SQLAlchemyError):
            await session.execute(text("SELECT * FROM nothing_of_this_name"))

    async def in_savepoint(self, session: AsyncSession) -> None:
        """Run an operation in a savepoint, which is released or rolled back."""
        async with session.begin_nested() as savepoint:
            for operation in [self.attach_file, self.remove_file] if self.only_files else [self.attach, self.thumbnail]:
                await operation(session)
                await session.flush()
            if self.random.random() < 0.5:
                await savepoint.rollback()

    async def transaction(self, session: AsyncSession) -> None:
        """Run some operations, and usually commit."""
        files = [self.attach_file, self.copy_file, self.remove_file]
        pictures = [
            *[self.attach] * 5,
            self.photograph,
            *[self.thumbnail] * 3,
            *[self.write] * 2,
            self.take_away,
            self.delete_user,
            self.move,
            self.change_hands,
            self.on_the_connection,
            self.evaluate,
            self.copy_reference,
        ]
        if self.only_files:
            work = [*files, self.attach_file, self.delete_user]
        else:  # a process that is to stop at a step of a picture should soon reach it
            work = [*pictures, *([] if "stop" in self.spec else files)]
        bind_store(session, self.store)
        mine = await session.get(User, self.spec["line"] + 1000) or User(id=self.spec["line"] + 1000)
        session.add(mine)
        mine.name = f"{self.spec['line']} {self.watch.begun}"
        for _ in range(self.random.randint(1, 3)):
            await self.random.choice([*work, self.in_savepoint, self.in_savepoint])(session)
        self.silent = False
        if self.random.random() < 0.1:
            await self.swallow(session)
        ending = self.random.random()
        if ending < 0.8:
            await session.commit()
            if not self.silent:
                self.watch.acknowledged = self.watch.begun
            self.watch.note()
        elif ending < 0.9:
            await session.rollback()

    async def run(self) -> None:
        """Run transactions until the process is terminated."""
        # At MariaDB's default level, a stopped process locks gaps between rows, and blocks the others.
        options = {} if self.spec["shared"] or self.spec["database"] != "mariadb" else {"isolation_level": RELAXED}
        engine = database_of(self.spec).engine(**options)
        sessions = async_sessionmaker(engine, expire_on_commit=False, sync_session_class=type("Its", (Session,), {}))
        self.watch.listen(engine, sessions)
        number, call = self.spec.get("dies", (0, ""))
        tolerated = (SQLAlchemyError, ImageAttachError) if self.spec["shared"] else ()
        while True:
            self.watch.begun += 1
            self.watch.passed("begin")
            if self.watch.begun == number:
                die_at(call)
            choices = self.random.getstate()
            try:
                async with sessions() as session:
                    await self.transaction(session)
            except tolerated:
                self.watch.refused += 1
                self.watch.note()
            except OperationalError as error:
                if not is_deadlock(error):
                    raise
                self.random.setstate(choices)  # retry the whole transaction, as an application must do
                self.watch.refused += 1
                self.watch.note()


def is_deadlock(error: OperationalError) -> bool:
    """Return whether MariaDB chose the transaction as victim of a deadlock, which separate owners do not prevent.

    ``tests/faults/database/test_innodb.py`` shows why.
    """
    return error.orig is not None and error.orig.args[:1] == (1213,)


def die_at(call: str) -> None:
    """Make the kernel kill this process at the next such system call of one of its I/O threads."""
    _threads.set_workers(io=1)
    _threads.io_executor().submit(fatal(call)).result()


async def sweep(spec: dict[str, Any], watch: Watch) -> None:
    """Delete files that no row references."""
    database = database_of(spec)
    store = WatchedStore(store_of(spec["store"]), watch, sweeping=True)
    await swept(database, store)
    await database.aclose()


async def program(spec: dict[str, Any], watch: Watch) -> None:
    """Run endless transactions."""
    await Program(spec, watch).run()


async def server(spec: dict[str, Any], watch: Watch) -> None:
    """Run a web application until it is terminated."""
    database = database_of(spec)
    app = application(async_sessionmaker(database.engine()), store_of(spec["store"]), Path(spec["photo"]).parent)
    try:
        await SERVERS[spec["server"]](app, spec["port"])
    finally:
        await database.aclose()


ROLES = {"program": program, "sweep": sweep, "server": server}


def begin(spec: dict[str, Any], watch: Watch) -> None:
    """Run the described worker in a fresh process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not spec.get("unnamed files", True):
        refused("openat", errno.EOPNOTSUPP, os.O_TMPFILE & ~os.O_DIRECTORY)()
    asyncio.run(ROLES[spec["role"]](spec, watch))
