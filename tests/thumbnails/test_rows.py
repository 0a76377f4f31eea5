"""Generating missing thumbnails with rows for all owners, in independent batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aioimageattach.context import store_context
from aioimageattach.exc import DeclarationError, StoreFileNotFoundError, StoreUnavailableError
from aioimageattach.file import Source
from aioimageattach.imaging import Recipe
from aioimageattach.maintenance import Plan
from aioimageattach.thumbnails import Thumbnails, generate
from tests import photos
from tests.databases import Database
from tests.entity.models import Base, CountingStore, Post, User, UserPicture, started

SMALL = photos.saved(photos.opened("chelsea", (90, 60)), "JPEG")
Sessions = async_sessionmaker[AsyncSession]


class FailingStore(CountingStore):
    """A store that refuses some puts, and can run an action at its first read."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[int] = set()
        self.puts = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.reading = self.peak = self.awaited = 0
        self.together = asyncio.Event()

    async def get_object(self, *args: Any, **options: Any) -> Any:
        if (happen := self.meanwhile) is not None:
            self.meanwhile = None
            await happen()
        self.reading += 1
        self.peak = max(self.peak, self.reading)
        if self.reading >= self.awaited:
            self.together.set()
        await self.together.wait()
        for _ in range(20):  # time in which too many could begin
            await asyncio.sleep(0)
        self.reading -= 1
        return await super().get_object(*args, **options)

    async def put_object(
        self, name: str, data: Source, *, mimetype: str = "application/octet-stream", reproducible: bool = False
    ) -> None:
        self.puts += 1
        if self.puts in self.refused:
            raise StoreUnavailableError("full")
        await super().put_object(name, data, mimetype=mimetype, reproducible=reproducible)


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture
async def sessions(database: Database, store: FailingStore) -> Sessions:
    """Sessions with SQLAlchemy's defaults, and eight users, seven of whom have images."""
    sessions = await started(database, Base.metadata, store)
    async with sessions.begin() as session:
        for number in range(1, 9):
            session.add(user := User(id=number))
            if number != 4:
                await user.picture.from_blob(SMALL)
    return sessions


async def connect(sessions: Sessions) -> None:
    """Open two connections in advance, because drivers may read the disk when they connect."""
    async with sessions() as one, sessions() as other:
        await one.get(User, 1)
        await other.get(User, 1)


async def test_some_owners(sessions: Sessions) -> None:
    """Conditions select the owners, and the progress counts only their images."""
    plan = generate(sessions, User.picture, [20], where=User.id > 6)
    await plan.execute()
    assert (plan.progress.total, plan.progress.counts["made"]) == (2, 2)
    plan = generate(
        sessions, User.picture, [20], where=[User.id < 3, User.picture.any(UserPicture.width == 90)], batch=1
    )
    await plan.execute()
    assert (plan.progress.total, plan.progress.counts["made"]) == (2, 2)
    assert await thumbnails(sessions) == [(1, 20), (2, 20), (7, 20), (8, 20)]


async def thumbnails(sessions: Sessions) -> list[tuple[int, int]]:
    async with sessions() as session:
        query = select(UserPicture).where(~UserPicture.original).order_by(UserPicture.user_id, UserPicture.width)
        return [(row.user_id, row.width) for row in await session.scalars(query)]


async def test_missing_thumbnails_are_generated(sessions: Sessions, store: FailingStore) -> None:
    """Existing thumbnails are kept, missing ones are made and committed, and the progress counts them."""
    async with sessions.begin() as session:
        await (await session.get_one(User, 2)).picture.generate_thumbnail(width=30)
    plan = generate(sessions, User.picture, [30, Recipe(width=40, format="webp")], batch=3)
    assert plan.progress.total is None
    made = [found async for found in plan]
    assert [(found.owner, found.identity) for found in made] == [(User, (number,)) for number in (1, 2, 3, 5, 6, 7, 8)]
    assert [sorted(key.width for key in found.keys) for found in made] == [[30, 40], [40], *[[30, 40]] * 5]
    assert len(await thumbnails(sessions)) == 14
    async with sessions() as session:
        size = await session.scalar(select(func.sum(UserPicture.byte_size)).where(~UserPicture.original))
        first = await session.get_one(User, 2)
        first = (await first.picture.generate_thumbnail(width=30)).byte_size
    progress = plan.progress
    assert (progress.total, progress.done, progress.counts["made"], progress.failed) == (7, 7, 13, 0)
    assert progress.bytes == sum(found.byte_size for found in made) == size - first
    assert plan.failures == []


async def test_a_second_run_generates_nothing(sessions: Sessions, store: FailingStore) -> None:
    """A second run reads no original and makes no file."""
    await generate(sessions, User.picture, [30]).execute()
    store.calls.clear()
    plan = generate(sessions, User.picture, [30])
    assert [found async for found in plan] == []
    assert (plan.progress.done, plan.progress.counts["made"], store.calls) == (7, 0, [])


async def test_thumbnails_are_not_enlarged_on_request(sessions: Sessions, store: FailingStore) -> None:
    """Widths beyond that of the original make one thumbnail of its size, which a second run finds."""
    for expected in (7, 0):
        plan = generate(sessions, User.picture, [100, 200, Recipe(width=300, enlarge=False)], enlarge=False)
        await plan.execute()
        assert (plan.progress.done, plan.progress.counts["made"], plan.failures) == (7, expected, [])
    assert await thumbnails(sessions) == [(number, 90) for number in range(1, 9) if number != 4]


async def test_several_pictures_of_an_owner(sessions: Sessions) -> None:
    """The images of an owner with several are processed separately."""
    async with sessions.begin() as session:
        session.add(post := Post(id=5))
        for index in (1, 2):
            await post.photos.get_image_set(order_index=index).from_blob(SMALL)
    made = [found async for found in generate(sessions, Post.photos, [30])]
    assert [(found.identity, found.picture) for found in made] == [
        ((5,), {"order_index": 1}),
        ((5,), {"order_index": 2}),
    ]


async def test_callbacks_are_called_or_awaited(sessions: Sessions) -> None:
    """A callback is called once per image, after its thumbnails have been committed."""
    seen: list[Any] = []

    async def awaited(made: Thumbnails) -> None:
        seen.append((made.identity, len(await thumbnails(sessions))))

    await generate(sessions, User.picture, [30], batch=1).execute(awaited)
    assert seen == [((number,), count) for count, number in enumerate((1, 2, 3, 5, 6, 7, 8), 1)]
    seen.clear()
    await generate(sessions, User.picture, [40]).execute(seen.append)
    assert len(seen) == 7


async def test_a_missing_original_does_not_affect_others(sessions: Sessions, store: FailingStore) -> None:
    """A missing original is a failure with the identity of the image, and the rest of its batch is made."""
    async with sessions() as session:
        await store.delete((await session.get_one(User, 3)).picture.require_original())
    plan = generate(sessions, User.picture, [30])
    await plan.execute()
    assert [number for number, _ in await thumbnails(sessions)] == [1, 2, 5, 6, 7, 8]
    [failure] = plan.failures
    assert (failure.owner, failure.identity, failure.picture) == (User, (3,), {})
    assert isinstance(failure.error, StoreFileNotFoundError)
    assert (plan.progress.done, plan.progress.failed) == (7, 1)


async def test_a_failed_batch_is_repeated_one_by_one(sessions: Sessions, store: FailingStore) -> None:
    """Each owner that fails again is a failure, and the files of the failed batch are deleted."""
    store.refused = {store.puts + 2, store.puts + 9}
    plan = generate(sessions, User.picture, [30])
    await plan.execute()
    [failure] = plan.failures
    assert isinstance(failure.error, StoreUnavailableError)
    assert failure.identity not in [(number,) for number, _ in await thumbnails(sessions)]
    assert len(await thumbnails(sessions)) == 6
    assert len(await store.names()) == 7 + 6
    assert (plan.progress.done, plan.progress.counts["made"], plan.progress.failed) == (7, 6, 1)


async def test_concurrency_and_batch_size(sessions: Sessions, store: FailingStore) -> None:
    """The number of originals fetched concurrently, and of owners per transaction, is as configured."""
    for width, concurrency, batch, expected in ((30, 2, 50, 2), (40, 8, 3, 3)):
        store.together.clear()
        store.peak, store.awaited = 0, expected
        await generate(sessions, User.picture, [width], concurrency=concurrency, batch=batch).execute()
        assert store.peak == expected


@pytest.mark.parametrize(
    "database", ["postgresql", "mariadb"], indirect=True
)  # SQLite would block the concurrent write
async def test_an_owner_that_is_deleted_is_not_a_failure(sessions: Sessions, store: FailingStore) -> None:
    """If a batch fails because an owner was deleted, the thumbnails of the others are made."""

    async def leave() -> None:
        async with sessions.begin() as session:
            (user,) = await session.scalars(select(User).where(User.id == 2))
            await session.delete(user)

    await connect(sessions)
    store.meanwhile = leave
    plan = generate(sessions, User.picture, [30])
    await plan.execute()
    assert plan.failures == []
    assert [number for number, _ in await thumbnails(sessions)] == [1, 3, 5, 6, 7, 8]
    assert len(await store.names()) == 12


@pytest.mark.parametrize(
    "database", ["postgresql", "mariadb"], indirect=True
)  # SQLite would block the concurrent write
async def test_a_picture_that_is_replaced_during_the_run(sessions: Sessions, store: FailingStore) -> None:
    """The thumbnail is one of the new image, and none of the old one is left."""
    new = photos.saved(photos.opened("coffee", (120, 60)), "JPEG")

    async def replace() -> None:
        async with sessions.begin() as session:
            await (await session.get_one(User, 2)).picture.from_blob(new)

    await connect(sessions)
    store.meanwhile = replace
    plan = generate(sessions, User.picture, [30], batch=3)
    await plan.execute()
    assert plan.failures == []
    async with sessions() as session:
        user = await session.get_one(User, 2)
        assert [image.size for image in sorted(user.picture, key=lambda image: image.original)] == [(30, 15), (120, 60)]
    assert [number for number, _ in await thumbnails(sessions)] == [1, 2, 3, 5, 6, 7, 8]
    assert len(await store.names()) == 14


async def make_thumbnail(sessions: Sessions, number: int) -> None:
    """The task that the guide starts after an upload."""
    async with sessions.begin() as session:
        await (await session.get_one(User, number)).picture.get_or_generate_thumbnail(width=30)


@pytest.mark.parametrize(
    "database", ["postgresql", "mariadb"], indirect=True
)  # SQLite would block the concurrent write
async def test_a_task_makes_the_same_thumbnail_during_the_run(sessions: Sessions, store: FailingStore) -> None:
    """Each image has one thumbnail, and no file is left over."""
    await connect(sessions)
    store.meanwhile = lambda: make_thumbnail(sessions, 2)
    plan = generate(sessions, User.picture, [30], batch=3)
    await plan.execute()
    assert plan.failures == []
    assert await thumbnails(sessions) == [(number, 30) for number in (1, 2, 3, 5, 6, 7, 8)]
    assert len(await store.names()) == 14


async def test_a_cancelled_run_can_be_continued(sessions: Sessions, store: FailingStore) -> None:
    """A cancelled run leaves complete batches and no file without a row, and another run continues."""
    plan = generate(sessions, User.picture, [30], batch=2)
    async for _ in plan:
        break
    assert len(await thumbnails(sessions)) == 2
    task = asyncio.create_task(generate(sessions, User.picture, [30], batch=2).execute())
    while len(await store.names()) < 7 + 3:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await store.names()) == 7 + len(await thumbnails(sessions))
    await generate(sessions, User.picture, [30], batch=2).execute()
    assert len(await thumbnails(sessions)) == 7


async def test_the_current_store_is_used(sessions: Sessions) -> None:
    """The store of a context takes precedence over that of the sessions."""
    with store_context(other := CountingStore()):
        plan = generate(sessions, User.picture, [30])
        await plan.execute()
    assert {type(failure.error) for failure in plan.failures} == {StoreFileNotFoundError}
    assert await other.names() == []


@pytest.mark.parametrize("attachment", [User, User.id, UserPicture, "picture", UserPicture.user])
def test_other_attributes_are_refused(attachment: Any) -> None:
    """The message states what was expected."""
    with pytest.raises(DeclarationError, match=r"such as User\.picture"):
        generate(async_sessionmaker(), attachment, [30])


@pytest.mark.parametrize("arguments", [{"batch": 0}, {"concurrency": 0}, {"recipes": []}])
def test_numbers_below_one_are_refused(arguments: dict[str, Any]) -> None:
    """The message names the argument."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        generate(async_sessionmaker(), User.picture, **{"recipes": [30], **arguments})


def test_generate_returns_a_plan() -> None:
    """No session is created before the plan is awaited."""
    assert isinstance(generate(async_sessionmaker(), User.picture, [30]), Plan)


async def test_errors_of_callables_and_third_party_stores(sessions: Sessions, store: FailingStore) -> None:
    """Such an error is the failure of one image, and the others are made."""

    async def fail() -> None:
        raise OSError(5, "broken")

    calls = []

    def fail_once(image: Any) -> Any:
        calls.append(image)
        if len(calls) == 1:
            raise KeyError("mine")
        return image

    store.meanwhile = fail
    plan = generate(sessions, User.picture, [Recipe(width=30, preprocess=fail_once, variant="mine")])
    await plan.execute()
    assert {type(failure.error) for failure in plan.failures} == {KeyError, OSError}
    assert (plan.progress.done, plan.progress.counts["made"], plan.progress.failed) == (7, 5, 2)


async def test_programming_errors_stop_the_run(sessions: Sessions) -> None:
    """An error that every image would have is raised."""
    with pytest.raises(DeclarationError, match="expected a callable that returns a pyvips"):
        await generate(sessions, User.picture, [Recipe(width=30, preprocess=lambda _: None, variant="none")]).execute()
