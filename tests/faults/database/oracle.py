"""Random programs, checked against the database: files of committed rows exist, and one sweep removes the rest.

A program is a list of operations on two sessions. An operation is a method of :class:`Program` and a number that
determines its choices, so that a program without one of its operations is also a program. Errors of operations are
ignored, as careless applications do; only errors that no application should see end the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import hashlib
import pickle
import warnings
from random import Random
from typing import Any

from sqlalchemy import ForeignKey, Unicode, delete, event, false, insert, select, text, update
from sqlalchemy.exc import ArgumentError, MissingGreenlet, SAWarning, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, make_transient, mapped_column, relationship
from sqlalchemy.util import await_only

from aioimageattach.context import bind_store
from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.exc import ImageAttachError
from aioimageattach.key import make_revision
from aioimageattach.offload import StoredText, stored_text
from tests import photos
from tests.databases import Database
from tests.faults.rig import PNG, GivenUp, named, swept
from tests.faults.stores import FaultyStore, fails

PHOTOS = [photos.saved(photos.opened(name, (12, 8)), "PNG") for name in ("coffee", "chelsea", "rocket")]
SIZES = [(30, 20), (9, 9), (8, 8)]
ACCEPTED = (SQLAlchemyError, ImageAttachError, GivenUp, ConnectionError)
"""Errors that an application may see when it does such things."""

Key = tuple[str, int, int]
"""An image set: the class of the owner, its number, and the set key."""


class Base(DeclarativeBase):
    """Models with a variety of features."""


class Team(Base):
    """A team, loaded with its members by an outer join."""

    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)


class User(Base):
    """An owner of an image and two texts of one kind."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(Unicode(60))
    team_id: Mapped[int | None] = mapped_column(ForeignKey(Team.id))
    picture = image_attachment["Picture"]("Picture")
    body: Mapped[StoredText | None] = stored_text(object_type="text")
    note: Mapped[StoredText | None] = stored_text(object_type="text", compression="gzip")
    team: Mapped[Team | None] = relationship(lazy="joined")


class Picture(Base, Image):
    """An image, loaded with its owner."""

    __tablename__ = "picture"
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE", onupdate="CASCADE"), primary_key=True)
    hidden: Mapped[bool] = mapped_column(default=False, server_default=false())
    user: Mapped[User] = relationship(lazy="joined", overlaps="__*")


class Post(Base):
    """An owner of photos."""

    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["Photo", MultipleImageSet["Photo"]]("Photo", uselist=True)


class Photo(Base, Image):
    """A photo at an index."""

    __tablename__ = "photo"
    post_id: Mapped[int] = mapped_column(ForeignKey(Post.id), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)


TRIGGERS: dict[str, dict[str, tuple[str, ...]]] = {
    "no deletions": {
        "postgresql": (
            "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN IF OLD.width = 9 THEN RETURN NULL; END IF; RETURN OLD; END'",
            "CREATE TRIGGER veto BEFORE DELETE ON picture FOR EACH ROW EXECUTE FUNCTION veto()",
        ),
        "sqlite": ("CREATE TRIGGER veto BEFORE DELETE ON picture WHEN OLD.width = 9 BEGIN SELECT RAISE(IGNORE); END",),
        "mariadb": (),
    },
    "old values": {
        "postgresql": (
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN IF OLD.id = 2 THEN NEW.body = OLD.body; END IF; RETURN NEW; END'",
            'CREATE TRIGGER keep BEFORE UPDATE ON "user" FOR EACH ROW EXECUTE FUNCTION keep()',
        ),
        "sqlite": (
            "CREATE TRIGGER keep AFTER UPDATE OF body ON user WHEN OLD.id = 2 AND NEW.body IS NOT OLD.body"
            " BEGIN UPDATE user SET body = OLD.body WHERE id = OLD.id; END",
        ),
        "mariadb": (
            "CREATE TRIGGER keep BEFORE UPDATE ON user FOR EACH ROW SET NEW.body = IF(OLD.id = 2, OLD.body, NEW.body)",
        ),
    },
}
"""Triggers for programs: rows of one width are kept, values of one user are kept."""

DROP: dict[str, tuple[str, ...]] = {
    "postgresql": ("DROP FUNCTION IF EXISTS veto, keep CASCADE",),
    "sqlite": ("DROP TRIGGER IF EXISTS veto", "DROP TRIGGER IF EXISTS keep"),
    "mariadb": ("DROP TRIGGER IF EXISTS keep",),
}

IMPATIENT: dict[str, dict[str, Any]] = {
    "aiosqlite": {"connect_args": {"timeout": 0.05}},
    "asyncpg": {"connect_args": {"server_settings": {"lock_timeout": "50ms", "deadlock_timeout": "10s"}}},
    "psycopg": {"connect_args": {"options": "-c lock_timeout=50ms -c deadlock_timeout=10s"}},
    "asyncmy": {"connect_args": {"init_command": "SET SESSION innodb_lock_wait_timeout = 0"}},
    "aiomysql": {"connect_args": {"init_command": "SET SESSION innodb_lock_wait_timeout = 0"}},
}
"""Options that make a statement fail immediately if it waits for a lock of the program's other session."""


class Program:
    """Executes operations, and compares the result.

    Args:
        database: A database with the tables and without rows.
        trigger: The active trigger of :data:`TRIGGERS`, for the log.

    Attributes:
        log: The operations and their results.
    """

    def __init__(self, database: Database, trigger: str = "") -> None:
        self.database = database
        self.store = FaultyStore()
        self.other_store = FaultyStore(self.store.inner)
        self.put: dict[str, str] = {}
        for store in (self.store, self.other_store):
            store.at("put", self._remember, after=True)
        self.engine = database.engine(**IMPATIENT[database.driver])
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        bind_store(self.sessions, self.store)
        self.open = [self.sessions(), self.sessions()]
        self.savepoints: list[list[Any]] = [[], []]
        self.touched: list[set[Key] | None] = [set(), set()]
        self.moved: list[dict[str, Key]] = [{}, {}]
        self.alive: dict[str, Key] = {}
        self.cache: list[Any] = []
        self.prepared: list[User] = []
        self.count = 0
        self.log = [f"trigger: {trigger}"] if trigger else []

    async def _remember(self, name: str) -> None:
        async with await self.store.inner.get_object(name) as file:
            digest = hashlib.sha256(await file.read()).hexdigest()
        assert self.put.setdefault(name, digest) == digest, f"{name} was overwritten"

    async def begin(self) -> None:
        """Commit an owner of each kind with everything that it can have."""
        async with self.sessions() as session, session.begin():
            for number in (1, 2, 3):
                session.add(user := User(id=number, body=f"text of {number}", note=f"note of {number}"))
                await user.picture.from_blob(PHOTOS[number - 1])
                await user.picture.generate_thumbnail(width=6)
            for number in (1, 2):
                session.add(post := Post(id=number))
                for place in (1, 2):
                    photo = post.photos.get_image_set(place=place)
                    await photo.from_raw_file(b"photo %d of %d" % (place, number), None, SIZES[0], PNG)
        self.alive = await self._rows()

    # --- one operation -----------------------------------------------------------------------------------------------

    async def do(self, name: str, which: int, number: int) -> None:
        """Execute an operation.

        Args:
            name: One of :data:`OPERATIONS`.
            which: The index of the session.
            number: Determines the choices.
        """
        self.which, self.random = which, Random(number)
        self.log.append(f"session {which}: {name} {number}")
        try:
            async with asyncio.timeout(60):
                await getattr(self, name)(self.open[which])
        except (MissingGreenlet, ArgumentError):
            raise
        except ACCEPTED as error:
            self.moved[which].clear()
            self.log[-1] += f" -> {type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"
        if name in ENDS:
            await self.compare()

    async def compare(self) -> None:
        """Assert that each committed row opens its own bytes, and that unchanged rows exist."""
        names, _ = await named(self.database, self.store, Base)
        for name in names:
            async with await self.store.inner.get_object(name) as file:
                assert hashlib.sha256(await file.read()).hexdigest() == self.put[name], f"{name} holds other bytes"
        present = await self._rows()
        if None not in self.touched:
            touched = {key for keys in self.touched if keys for key in keys}
            for revision, key in self.alive.items():
                assert revision in present or key in touched, f"the row {revision} of {key} is gone"
            for revision in self.moved[self.which]:
                assert revision in present, f"the row {revision} was moved, and is gone"
        self.alive = present
        self.touched[self.which] = set()
        self.moved[self.which].clear()
        self.savepoints[self.which].clear()

    async def finish(self) -> None:
        """Close both sessions, sweep once, and assert that exactly the files of rows are left."""
        for which, session in enumerate(self.open):
            self.which = which
            self.store.heal()
            try:
                await session.close()
            except SQLAlchemyError:  # SQLite has rolled back the transaction together with its savepoint
                await session.invalidate()
            await self.compare()
        gc.collect()
        await swept(self.database, self.store, Base)
        names, _ = await named(self.database, self.store, Base)
        assert names == await self.store.names()

    async def aclose(self) -> None:
        """Close all sessions, whatever happened before."""
        for session in self.open:
            with contextlib.suppress(SQLAlchemyError):
                await session.invalidate()

    async def _rows(self) -> dict[str, Key]:
        found: dict[str, Key] = {}
        async with AsyncSession(self.database.reader) as session:
            for revision, user in await session.execute(select(Picture.revision, Picture.user_id)):
                found[str(revision)] = ("user", user, 0)
            for revision, post, place in await session.execute(select(Photo.revision, Photo.post_id, Photo.place)):
                found[str(revision)] = ("post", post, place)
        return found

    # --- choices -----------------------------------------------------------------------------------------------------

    def _touch(self, *keys: Key) -> None:
        touched = self.touched[self.which]
        if touched is not None:
            touched.update(keys)
        moved = self.moved[self.which]
        for revision in [revision for revision, key in moved.items() if key in keys]:
            del moved[revision]

    def _touch_all(self) -> None:
        """Expect nothing of any row until the transaction has ended."""
        self.touched[self.which] = None
        self.moved[self.which].clear()

    def _text(self) -> str:
        self.count += 1
        return f"text {self.count} " * self.random.choice([1, 5])

    def _content(self) -> bytes:
        return self._text().encode()

    async def _user(self, session: AsyncSession) -> User:
        number = self.random.randint(1, 3)
        self._touch(("user", number, 0))
        user = await session.get(User, number)
        if user is None:
            session.add(user := User(id=number))
            self._touch(("user", user.id, 0))
        return user

    async def _photo(self, session: AsyncSession) -> Any:
        number, place = self.random.randint(1, 2), self.random.randint(1, 3)
        post = await session.get(Post, number)
        if post is None:
            session.add(post := Post(id=number))
        self._touch(("post", number, place))
        return post.photos.get_image_set(place=place)

    # --- images and values -------------------------------------------------------------------------------------------

    async def attach(self, session: AsyncSession) -> None:
        user = await self._user(session)
        await user.picture.from_raw_file(self._content(), None, self.random.choice(SIZES), PNG)

    async def attach_unflushed(self, session: AsyncSession) -> None:
        with session.no_autoflush:
            await self.attach(session)

    async def photograph(self, session: AsyncSession) -> None:
        user = await self._user(session)
        await user.picture.from_blob(self.random.choice(PHOTOS))
        await user.picture.generate_thumbnail(width=self.random.choice([6, 4]))

    async def add_thumbnail(self, session: AsyncSession) -> None:
        user = await self._user(session)
        await user.picture.from_raw_file(self._content(), None, (3, 2), PNG, original=False)

    async def want_thumbnail(self, session: AsyncSession) -> None:
        user = await self._user(session)
        await user.picture.get_or_generate_thumbnail(width=self.random.choice([6, 4]))

    async def delete_picture(self, session: AsyncSession) -> None:
        await (await self._user(session)).picture.delete()

    async def delete_row(self, session: AsyncSession) -> None:
        user = await self._user(session)
        await user.picture.load()
        for row in user.picture.images[:1]:
            await session.delete(row)

    async def delete_owner(self, session: AsyncSession) -> None:
        await session.delete(await self._user(session))

    async def write(self, session: AsyncSession) -> None:
        user = await self._user(session)
        user.body = self._text()
        if self.random.random() < 0.5:
            user.note = self.random.choice([None, self._text()])

    async def copy_value(self, session: AsyncSession) -> None:
        one, other = await self._user(session), await self._user(session)
        other.note = one.body

    async def load_all(self, session: AsyncSession) -> None:
        for user in await session.scalars(select(User)):
            await user.picture.load()
            if user.body is not None:
                await user.body.load()

    # --- galleries, moves and keys -----------------------------------------------------------------------------------

    async def attach_photo(self, session: AsyncSession) -> None:
        photo = await self._photo(session)
        await photo.from_raw_file(self._content(), None, self.random.choice(SIZES), PNG)

    async def delete_photo(self, session: AsyncSession) -> None:
        await (await self._photo(session)).delete()

    async def delete_post(self, session: AsyncSession) -> None:
        number = self.random.randint(1, 2)
        self._touch(*(("post", number, place) for place in range(1, 9)))
        await session.delete(await session.get_one(Post, number))

    async def shift(self, session: AsyncSession) -> None:
        """Move the photos at one index on, and attach another there."""
        number, place = self.random.randint(1, 2), self.random.randint(1, 3)
        post = await session.get_one(Post, number)
        rows = (await session.scalars(select(Photo).where(Photo.post_id == number, Photo.place == place))).all()
        self._touch(("post", number, place), ("post", number, place + 3))
        if await session.scalar(select(Photo.place).where(Photo.post_id == number, Photo.place == place + 3)):
            return
        with session.no_autoflush:
            for row in rows:
                row.place += 3
            await post.photos.get_image_set(place=place).from_raw_file(
                self._content(), None, self.random.choice(SIZES), PNG
            )
        for row in rows:
            self.moved[self.which][str(row.revision)] = ("post", number, place + 3)

    async def move(self, session: AsyncSession) -> None:
        """Move an image to another user, and perhaps attach one to the old user."""
        one, other = self.random.sample([1, 2, 3], 2)
        self._touch(("user", one, 0), ("user", other, 0))
        user = await session.get_one(User, one)
        await session.get_one(User, other)
        if await session.scalar(select(Picture.width).where(Picture.user_id == other).limit(1)):
            return
        with session.no_autoflush:
            rows = user.picture.images
            for row in rows:
                row.user_id = other
            if self.random.random() < 0.5:
                await user.picture.from_raw_file(self._content(), None, self.random.choice(SIZES), PNG)
        for row in rows:
            self.moved[self.which][str(row.revision)] = ("user", other, 0)

    async def change_key(self, session: AsyncSession) -> None:
        user = await self._user(session)
        await session.flush()
        self._touch_all()
        user.id = self.random.randint(1, 6)

    async def change_key_and_picture(self, session: AsyncSession) -> None:
        user = await self._user(session)
        self._touch_all()
        with session.no_autoflush:
            await self.random.choice([user.picture.delete, lambda: user.picture.from_blob(PHOTOS[0])])()
            user.id = self.random.randint(1, 6)

    async def change_a_name(self, session: AsyncSession) -> None:
        """Write to a column that determines names, which is refused, or to another one."""
        user = await self._user(session)
        await user.picture.load()
        for row in user.picture.images[:1]:
            name, value = self.random.choice(
                [("revision", make_revision()), ("mimetype", "image/gif"), ("width", 77), ("hidden", True)]
            )
            setattr(row, name, value)

    async def adopt(self, session: AsyncSession) -> None:
        """Adopt a file in the store, which may have been dropped in this transaction."""
        one, other = await self._user(session), await self._user(session)
        await one.picture.load()
        if one.picture and one is not other:
            name = self.store.name_of(one.picture.require_original().key)
            if self.random.random() < 0.7:
                await one.picture.delete()
                await session.flush()
            await other.picture.adopt(name, self.random.choice([self.store, self.other_store]))

    # --- copies ------------------------------------------------------------------------------------------------------

    async def keep(self, session: AsyncSession) -> None:
        """Keep an owner as a cache does."""
        async with self.sessions() as other:
            found = list(await other.scalars(select(User)))
        if found:
            self.cache.append(self.random.choice(found))

    async def merge(self, session: AsyncSession) -> None:
        if self.cache:
            user = self.random.choice(self.cache)
            user = self.random.choice([lambda it: it, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])(user)
            self._touch_all()
            await session.merge(user, load=self.random.random() < 0.8)

    async def prepare(self, session: AsyncSession) -> None:
        """Attach an image to an owner without a session."""
        user = User(id=self.random.randint(1, 6))
        await user.picture.from_raw_file(self._content(), self.store, SIZES[0], PNG)
        user.body = self._text()
        self.prepared.append(user)

    async def add_a_copy(self, session: AsyncSession) -> None:
        """Add a copy of a prepared owner to one session or both."""
        if self.prepared:
            self._touch_all()
            user = copy.deepcopy(self.random.choice(self.prepared))
            user.id = self.random.randint(1, 6)
            if self.random.random() < 0.5:
                session.add(user)
            else:
                await session.merge(user)

    async def make_transient_again(self, session: AsyncSession) -> None:
        user = await self._user(session)
        await user.picture.load()
        for row in user.picture.images[:1]:
            await session.delete(row)
            await session.flush()
            make_transient(row)
            session.add(row)

    # --- in bulk, by Core, by SQL ------------------------------------------------------------------------------------

    async def bulk_delete_evaluated(self, session: AsyncSession) -> None:
        """Delete in bulk, evaluated on an unflushed change."""
        user = await self._user(session)
        await user.picture.load()
        self._touch_all()
        with session.no_autoflush:
            for row in user.picture.images[:1]:
                row.hidden = True
            await session.execute(
                delete(Picture).where(Picture.hidden), execution_options={"synchronize_session": "evaluate"}
            )

    async def bulk_delete(self, session: AsyncSession) -> None:
        self._touch_all()
        cls = self.random.choice([Picture, Photo])
        await session.execute(
            delete(cls).where(cls.width == self.random.choice([30, 9, 3])),
            execution_options={"synchronize_session": self.random.choice(["fetch", "auto", False])},
        )

    async def delete_by_core(self, session: AsyncSession) -> None:
        self._touch_all()
        number = self.random.randint(1, 3)
        for table, key in ((Picture.__table__, "user_id"), (User.__table__, "id")):
            if self.random.random() < 0.7:
                await session.execute(delete(table).where(table.c[key] == number))  # type: ignore[arg-type]

    async def insert_by_hand(self, session: AsyncSession) -> None:
        """Insert rows without a file, which is refused."""
        values = {
            "user_id": self.random.randint(1, 3),
            "width": 5,
            "height": 5,
            "variant": "",
            "mimetype": PNG,
            "original": True,
            "revision": make_revision(),
        }
        self._touch_all()
        how = self.random.randint(0, 2)
        if how == 0:
            await session.execute(insert(Picture), [values])
        elif how == 1:
            await session.execute(insert(Picture).values(**values))
        else:
            session.add(Picture(**values))
            await session.flush()

    async def update_the_class(self, session: AsyncSession) -> None:
        """Update the class; file names are refused, other columns are not."""
        self._touch_all()
        values = self.random.choice(
            [{"hidden": True}, {"hidden": False}, {"mimetype": "image/gif"}, {"revision": None}]
        )
        await session.execute(update(Picture).where(Picture.width == 30).values(**values))

    async def copy_references(self, session: AsyncSession) -> None:
        """Copy references with ``INSERT ... SELECT`` and ``UPDATE``, under locks."""
        number = self.random.randint(1, 3)
        await session.execute(select(User.id).where(User.id == number).with_for_update())
        table = User.__table__
        if self.random.random() < 0.5:
            await session.execute(
                insert(table).from_select(
                    ["id", "body"], select(table.c.id + 3, table.c.body).where(table.c.id == number)
                )
            )
        else:
            await session.execute(update(table).where(table.c.id == number).values(note=table.c.body))

    async def use_a_handle(self, session: AsyncSession) -> None:
        """Use a handle in a statement, after a flush that failed or succeeded."""
        user = await self._user(session)
        user.body = self._text()
        if self.random.random() < 0.5:
            self.store.at("put", fails, 1)
        try:
            await session.flush()
        finally:
            self._heal()
            await session.execute(update(User).where(User.id == self.random.randint(1, 3)).values(note=user.body))

    # --- flushes, errors and hooks -----------------------------------------------------------------------------------

    async def flush(self, session: AsyncSession) -> None:
        await session.flush()

    async def flush_and_fail(self, session: AsyncSession) -> None:
        self.store.at("put", fails, 1, after=self.random.random() < 0.5)
        try:
            await session.flush()
        finally:
            self._heal()

    async def delete_and_fail(self, session: AsyncSession) -> None:
        """Make the next deletion of a file fail."""
        self.store.at("delete", fails, 1, after=self.random.random() < 0.5)

    def _heal(self) -> None:
        self.store.heal()
        self.store.at("put", self._remember, after=True)

    async def fail(self, session: AsyncSession) -> None:
        """Execute a failing statement, and ignore the error."""
        statement = self.random.choice(["SELECT * FROM nothing_of_this_name", "INSERT INTO post (id) VALUES (NULL)"])
        if self.database.name == "sqlite" and self.random.random() < 0.5:
            self._touch_all()
            statement = "INSERT OR ROLLBACK INTO post (id) SELECT id FROM post UNION SELECT 'not a number'"
        await session.execute(text(statement))

    async def ddl(self, session: AsyncSession) -> None:
        """Execute DDL, which commits on MariaDB."""
        if self.database.name == "mariadb":
            self._touch_all()
            await session.execute(text("CREATE TABLE IF NOT EXISTS other (id INTEGER)"))

    async def end_by_a_statement(self, session: AsyncSession) -> None:
        self._touch_all()
        try:
            await session.execute(text(self.random.choice(["COMMIT", "ROLLBACK"])))
        except SQLAlchemyError:  # a COMMIT of SQLite that could not get its lock blocks all readers
            await session.rollback()
            raise

    async def hook(self, session: AsyncSession) -> None:
        """Run a hook of the application in the next flush, before or after the library's."""
        todo = [self.random.choice([self._take_back, self._attach_too, self._look, self._raise, self._add_by_hand])]
        self._touch_all()

        def run(sync_session: Any, *_: object) -> None:
            while todo:
                todo.pop()(sync_session)

        event.listen(session.sync_session, "before_flush", run, insert=self.random.random() < 0.3)

    def _take_back(self, session: Any) -> None:
        for row in list(session.deleted):
            session.add(row)

    def _attach_too(self, session: Any) -> None:
        user = User(id=self.random.randint(4, 6))
        session.add(user)
        await_only(user.picture.from_raw_file(self._content(), self.store, SIZES[0], PNG))

    def _look(self, session: Any) -> None:
        for user in list(session.identity_map.values()):
            if isinstance(user, User):
                await_only(user.picture.load())

    def _raise(self, session: Any) -> None:
        raise GivenUp

    def _add_by_hand(self, session: Any) -> None:
        session.add(Picture(user_id=1, width=5, height=5, mimetype=PNG, original=True, revision=make_revision()))

    async def let_go(self, session: AsyncSession) -> None:
        """Expire, refresh or expunge an object."""
        user = await self._user(session)
        how = self.random.randint(0, 5)
        with session.no_autoflush:
            if how == 0:
                session.expire(user)
            elif how == 1:
                session.expire_all()
            elif how == 2:
                await session.refresh(user)
            elif how == 3:
                for row in list(session.new):
                    session.expunge(row)
            elif how == 4:
                session.expunge(user)
            else:
                await user.picture.load()

    # --- savepoints --------------------------------------------------------------------------------------------------

    async def begin_savepoint(self, session: AsyncSession) -> None:
        self.savepoints[self.which].append(await session.begin_nested())

    async def begin_savepoint_of_the_connection(self, session: AsyncSession) -> None:
        self._touch_all()
        self.savepoints[self.which].append(await (await session.connection()).begin_nested())

    async def begin_savepoint_by_sql(self, session: AsyncSession) -> None:
        self._touch_all()
        await session.execute(text("SAVEPOINT mine"))
        self.savepoints[self.which].append("mine")

    async def end_savepoint(self, session: AsyncSession) -> None:
        self.moved[self.which].clear()
        release = self.random.random() < 0.5
        if self.savepoints[self.which]:
            savepoint = self.savepoints[self.which].pop()
            if savepoint == "mine":
                words = "RELEASE SAVEPOINT mine" if release else "ROLLBACK TO SAVEPOINT mine"
                await session.execute(text(words))
            else:
                await (savepoint.commit() if release else savepoint.rollback())

    # --- the end of a transaction ------------------------------------------------------------------------------------

    async def commit(self, session: AsyncSession) -> None:
        try:
            await session.commit()
        except BaseException:
            await session.rollback()
            raise

    async def roll_back(self, session: AsyncSession) -> None:
        await session.rollback()

    async def close(self, session: AsyncSession) -> None:
        await session.close()
        self.open[self.which] = self.sessions()

    async def crash(self, session: AsyncSession) -> None:
        """Break the connection, and discard the session."""
        self.open[self.which] = self.sessions()
        await session.invalidate()

    async def sweep(self, session: AsyncSession) -> None:
        """Sweep while no transaction is open, because it uses no grace time."""
        for one in self.open:
            await one.rollback()
        await swept(self.database, self.store, Base)


OPERATIONS: dict[str, int] = {
    "attach": 4,
    "attach_unflushed": 2,
    "photograph": 1,
    "add_thumbnail": 2,
    "want_thumbnail": 1,
    "delete_picture": 2,
    "delete_row": 1,
    "delete_owner": 1,
    "write": 3,
    "copy_value": 1,
    "load_all": 1,
    "attach_photo": 2,
    "delete_photo": 1,
    "delete_post": 1,
    "shift": 2,
    "move": 2,
    "change_key": 1,
    "change_key_and_picture": 1,
    "change_a_name": 1,
    "adopt": 1,
    "keep": 1,
    "merge": 2,
    "prepare": 1,
    "add_a_copy": 2,
    "make_transient_again": 1,
    "bulk_delete_evaluated": 1,
    "bulk_delete": 1,
    "delete_by_core": 1,
    "insert_by_hand": 1,
    "update_the_class": 1,
    "copy_references": 2,
    "use_a_handle": 1,
    "flush": 4,
    "flush_and_fail": 1,
    "delete_and_fail": 1,
    "fail": 2,
    "ddl": 1,
    "end_by_a_statement": 1,
    "hook": 2,
    "let_go": 2,
    "begin_savepoint": 2,
    "begin_savepoint_of_the_connection": 1,
    "begin_savepoint_by_sql": 1,
    "end_savepoint": 4,
    "commit": 7,
    "roll_back": 2,
    "close": 1,
    "crash": 1,
    "sweep": 1,
}
"""The operations of a program, and their frequencies."""

ENDS = {"commit", "roll_back", "close", "crash", "sweep"}
"""The operations that end a transaction."""

Step = tuple[str, int, int]
"""An operation, the session, and the number that determines the choices."""


def steps_of(number: int) -> list[Step]:
    """Return the program with a number: 30 steps, the first half in one session, then in both."""
    random = Random(number)
    names = random.choices([*OPERATIONS], [*OPERATIONS.values()], k=30)
    return [(name, int(at > 15 and random.random() < 0.4), random.randint(0, 999)) for at, name in enumerate(names)]


async def run(database: Database, steps: list[Step], trigger: str = "") -> None:
    """Run a program on a database with the tables; existing rows are deleted."""
    async with database.reader.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            await connection.execute(delete(table))
    program = Program(database, trigger)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            await program.begin()
            await _execute(database, TRIGGERS[trigger][database.name] if trigger else ())
            for step in steps:
                await program.do(*step)
            await program.finish()
    except BaseException as error:
        error.add_note("\n".join(["after", *program.log]))
        raise
    finally:
        await program.aclose()
        await program.engine.dispose()
        await _execute(database, DROP[database.name] if trigger else ())


async def _execute(database: Database, statements: tuple[str, ...]) -> None:
    async with database.reader.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def fault_of(database: Database, steps: list[Step], trigger: str = "") -> Exception | None:
    """Run a program, and return the error that it ended with."""
    try:
        await run(database, steps, trigger)
    except Exception as error:
        return error
    return None


async def shortened(database: Database, steps: list[Step], trigger: str, kind: type[Exception]) -> list[Step]:
    """Remove steps that are not needed for an error of that kind: halves, quarters, and so on."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if isinstance(await fault_of(database, fewer, trigger), kind):
                steps = fewer
            else:
                at += size
        size //= 2
    return steps
