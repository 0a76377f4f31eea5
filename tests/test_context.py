"""The current store."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from aioimageattach._threads import run_io
from aioimageattach.context import (
    LocalProxyStore,
    bind_store,
    current_store,
    get_current_store,
    pop_store_context,
    push_store_context,
    set_default_store,
    store_context,
)
from aioimageattach.context._current import get_default_store, resolve_store
from aioimageattach.exc import ContextError, DeclarationError
from aioimageattach.key import ImageKey
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore
from aioimageattach.testing import StoreContract

A, B = MemoryStore("a"), MemoryStore("b")


@pytest.fixture(autouse=True)
def no_default() -> Iterator[None]:
    yield
    set_default_store(None)


def current() -> Store | None:
    try:
        return get_current_store()
    except ContextError:
        return None


def test_without_any_store() -> None:
    """Without a store, a call raises a LookupError that lists the ways to set one."""
    with pytest.raises(LookupError, match=r"set_default_store.*bind_store.*store_context") as caught:
        get_current_store()
    assert isinstance(caught.value, ContextError)
    with pytest.raises(ContextError):
        current_store.make_revision()


def test_contexts_nest() -> None:
    """The innermost context is current, and the outer one again after it ends."""
    with store_context(A) as given:
        assert given is A
        assert current() is A
        with store_context(B):
            assert current() is B
            with store_context(A):
                assert current() is A
            assert current() is B
        assert current() is A
    assert current() is None


def test_one_context_entered_twice() -> None:
    """A context object can be entered again, inside its own block and after it."""
    context = store_context(A)
    for _ in range(2):
        with context:
            with store_context(B), context:
                assert current() is A
            assert current() is A
        assert current() is None


async def test_one_context_entered_by_many_tasks() -> None:
    """Each task leaves only its own context, in whatever order the tasks end."""
    context = store_context(A)

    async def work(seconds: float) -> None:
        with context:
            await asyncio.sleep(seconds)
            assert current() is A
        assert current() is None

    await asyncio.gather(*(work(random.random() / 50) for _ in range(50)))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_contexts_end_with_an_exception(error: type[BaseException]) -> None:
    """The exception propagates, and the outer store is current again."""
    with store_context(B):
        with pytest.raises(error), store_context(A):
            raise error
        assert current() is B
    assert current() is None


def test_a_push_inside_a_context_ends_with_it() -> None:
    """A store that was pushed but not popped is removed at the end of the enclosing block."""
    with store_context(A):
        push_store_context(B)
        assert current() is B
    assert current() is None


@pytest.mark.parametrize("wrong", [None, "path", MemoryStore])
def test_objects_that_are_not_stores_are_refused(wrong: object) -> None:
    """An object that is not a store is rejected when it is set, not later when it is used."""
    for use in (store_context(wrong).__enter__, lambda: push_store_context(wrong)):  # type: ignore[arg-type]
        with pytest.raises(DeclarationError, match="expected a Store"):
            use()
    assert current() is None


# Push and pop


def test_push_and_pop() -> None:
    """Pushes nest; a pop returns the store; an extra pop raises an error."""
    push_store_context(A)
    push_store_context(B)
    assert current() is B
    assert pop_store_context() is B
    assert current() is A
    assert pop_store_context() is A
    with pytest.raises(ContextError, match="expected a store that was pushed"):
        pop_store_context()


# Tasks, threads, generators


async def test_tasks_do_not_see_stores_of_other_tasks() -> None:
    """Each of five hundred interleaved tasks, with two different stores, sees only its own store."""

    async def work(store: Store, other: Store) -> None:
        with store_context(store):
            for _ in range(5):
                await asyncio.sleep(0)
                assert current() is store
                with store_context(other):
                    await asyncio.sleep(0)
                    assert current() is other
                assert current() is store
        assert current() is None

    await asyncio.gather(*(work(A, B) if n % 2 else work(B, A) for n in range(500)))
    assert current() is None


async def test_a_task_inherits_the_store_at_its_creation() -> None:
    """A task created inside the block sees the store even after the block; a task created outside never does."""
    go = asyncio.Event()

    async def look() -> Store | None:
        await go.wait()
        return current()

    outside = asyncio.create_task(look())
    with store_context(A):
        inside = asyncio.create_task(look())
        both = asyncio.gather(look(), look())
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
    go.set()
    assert await outside is None
    assert await inside is A
    assert await both == [A, A]


async def test_a_store_set_in_a_task_is_not_visible_outside() -> None:
    """A store that a task sets is not visible in the task that created it."""

    async def work() -> None:
        push_store_context(B)

    with store_context(A):
        await asyncio.gather(work(), work())
        await asyncio.create_task(work())
        assert current() is A


async def test_threads() -> None:
    """Threads see the store if they copy the context variables, and otherwise do not."""
    with store_context(A), ThreadPoolExecutor(1) as pool:
        assert await asyncio.to_thread(current) is A
        assert await anyio.to_thread.run_sync(current) is A
        assert await run_io(current) is A
        assert pool.submit(current).result() is None
        assert pool.submit(contextvars.copy_context().run, current).result() is A


def test_a_generator_suspended_inside_a_context() -> None:
    """The caller of a suspended generator sees its store until the generator continues or is closed."""

    def generate() -> Iterator[Store | None]:
        with store_context(A):
            yield current()

    generator = generate()
    assert next(generator) is A
    generator.close()
    assert current() is None


async def test_a_context_left_in_another_task_than_entered() -> None:
    """Leaving a context in another task, as fixtures do, raises no error and leaves no store in either task."""

    async def generate() -> AsyncIterator[None]:
        with store_context(A):
            yield

    generator = generate()
    await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
    assert current() is None

    async def close() -> Store | None:
        await anext(generator, None)
        return current()

    with store_context(B):
        assert await asyncio.create_task(close()) is B
        assert current() is B


# Decorators


async def test_a_decorated_coroutine_function() -> None:
    """Each call uses the store, also concurrently; the name and arguments of the function are kept."""

    @store_context(A)
    async def work(number: int, *, more: int) -> tuple[Store | None, int]:
        """What it does."""
        await asyncio.sleep(0)
        return current(), number + more

    assert (work.__name__, work.__doc__) == ("work", "What it does.")
    with store_context(B):
        assert await asyncio.gather(*(work(n, more=1) for n in range(3))) == [(A, 1), (A, 2), (A, 3)]
        assert current() is B


def test_a_decorated_function() -> None:
    """The store is current during the call, also if the function raises or calls itself."""

    @store_context(A)
    def work(depth: int) -> int:
        assert current() is A
        return 1 // depth + work(depth - 1)

    with pytest.raises(ZeroDivisionError):
        work(3)
    assert current() is None


def test_generators_cannot_be_decorated() -> None:
    """Generator functions are rejected, because they run after the call; the error explains an alternative."""

    def generate() -> Iterator[int]:
        yield 1  # pragma: no cover - never run

    async def generate_async() -> AsyncIterator[int]:
        yield 1  # pragma: no cover - never run

    for function in (generate, generate_async):
        with pytest.raises(DeclarationError, match=r"generate.*use `with` inside it"):
            store_context(A)(function)


# Proxies


class TestCurrentStore(StoreContract):
    """``current_store`` passes the conformance suite."""

    @pytest.fixture
    def store(self) -> Store:
        set_default_store(MemoryStore())
        return current_store


def test_a_proxy_delegates_to_its_target() -> None:
    """A proxy looks up its store each time it is used."""
    stores: list[Store] = [A, B]
    proxy = LocalProxyStore(lambda: stores[0])
    key = ImageKey("user", 7, 30, 20, "image/png", "12345678")
    arguments = (key.object_type, key.object_id, key.width, key.height, key.mimetype)
    assert proxy.get_url(*arguments, revision=key.revision).startswith("a/")
    assert repr(proxy) == repr(A)
    assert not proxy.needs_object_id
    stores.pop(0)
    assert proxy.get_url(*arguments, revision=key.revision).startswith("b/")
    assert repr(current_store) == "aioimageattach.context.current_store"


def test_a_context_resolves_a_proxy_on_entry() -> None:
    """A context resolves a proxy once, on entry, so a proxy can never refer to itself."""
    with store_context(A):
        with store_context(current_store):
            assert current() is A
        set_default_store(current_store)
    assert current() is A


# Sessions, defaults, order


def test_the_default_is_seen_everywhere() -> None:
    """All tasks and threads without a context use the default until it is removed."""
    set_default_store(A)
    assert current() is A
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(current).result() is A
    with store_context(B):
        assert current() is B
    set_default_store(None)
    assert current() is None


async def test_the_order_of_precedence() -> None:
    """The argument takes precedence over the context, this over the session, and this over the default."""
    session_store, default = MemoryStore("session"), MemoryStore("default")
    session = Session()
    with pytest.raises(ContextError):
        resolve_store(None, session=session)
    set_default_store(default)
    assert resolve_store(None, session=session) is default
    bind_store(session, session_store)
    assert resolve_store(None, session=session) is session_store
    with store_context(B):
        assert resolve_store(None, session=session) is B
        assert resolve_store(None, A, session=session) is A
        assert resolve_store(LocalProxyStore(lambda: A), session=session) is A


def test_the_current_store_as_an_argument_means_none() -> None:
    """Without a context, ``store=current_store`` means the store of the session, like ``store=None``."""
    session = Session()
    bind_store(session, A)
    assert resolve_store(current_store, session=session) is A


async def test_stores_bound_to_sessions_and_their_makers() -> None:
    """Sessions created after the call have the bound store, and the other entries of ``info`` are kept."""
    async_engine, engine = create_async_engine("sqlite+aiosqlite://"), create_engine("sqlite://")
    makers = [
        async_sessionmaker(async_engine),
        async_sessionmaker(async_engine, info={"mine": 1}),
        sessionmaker(engine),
        sessionmaker(engine, info={"mine": 1}),
    ]
    for n, maker in enumerate(makers):
        bind_store(maker, A)
        session = maker()
        sync = session.sync_session if isinstance(session, AsyncSession) else session
        assert resolve_store(session=sync) is A
        assert sync.info.get("mine") == (1 if n % 2 else None)
    one = AsyncSession(async_engine)
    bind_store(one, B)
    assert resolve_store(session=one.sync_session) is B
    with pytest.raises(DeclarationError, match="expected a session or a sessionmaker, got str"):
        bind_store("session", A)
    await async_engine.dispose()
    engine.dispose()


async def test_a_store_bound_to_a_scoped_session() -> None:
    """Both the current session and sessions of later scopes have the store."""
    scoped = async_scoped_session(async_sessionmaker(create_async_engine("sqlite+aiosqlite://")), lambda: 1)
    current = scoped()
    bind_store(scoped, A)
    assert resolve_store(session=current.sync_session) is A
    await scoped.remove()
    assert resolve_store(session=scoped().sync_session) is A
    await scoped.remove()


def test_the_default_can_be_read() -> None:
    """``get_default_store`` returns the store that was set, or None."""
    assert get_default_store() is None
    set_default_store(A)
    assert get_default_store() is A


async def test_a_proxy_has_the_attributes_of_its_store() -> None:
    """Methods, attributes and comparisons of a proxy are those of its current store."""
    signed = MemoryStore()
    signed.has_signed_urls = True
    stores = [signed]
    proxy = LocalProxyStore(lambda: stores[0])
    key = ImageKey("user", 1, 30, 20, "image/png")
    await proxy.put(key, b"blob", reproducible=False)
    async with await proxy.get(key) as file:
        assert await file.read() == b"blob"
    assert proxy.locate(StoredRow(key)) == "memory:/user/1/30x20.png"  # a timestamp would make a signed URL invalid
    assert proxy.location == signed.location
    assert len(proxy.revision_for("user", reproducible=True)) == len(signed.make_revision())
    assert [info.name async for info in proxy.list_objects()] == ["user/1/30x20.png"]
    await proxy.discard(key)
    assert [info.name async for info in signed.list_objects()] == []
    assert proxy == signed
    assert signed == proxy
    assert proxy == LocalProxyStore(lambda: signed)
    assert proxy != MemoryStore()
    assert {proxy: 1}[signed] == 1  # type: ignore[index]
    stores[0] = MemoryStore("/media/")
    assert proxy != signed
    assert proxy.locate(StoredRow(key)).startswith("/media/user/1/30x20.png?_ts=")
    assert not hasattr(proxy, "_nothing")
    assert not hasattr(proxy, "nothing")


@dataclass
class StoredRow:
    """An image row."""

    key: ImageKey
    reproducible: bool = False
    created_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
