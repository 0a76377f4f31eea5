"""The conformance suite accepts correct stores and detects each kind of fault."""

from __future__ import annotations

import asyncio
import contextlib
import io
import runpy
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from aioimageattach.exc import StoreFileNotFoundError
from aioimageattach.file import AsyncFile, FileProxy, Source
from aioimageattach.file._source import as_reader
from aioimageattach.key import ImageKey
from aioimageattach.store import KeyedStore, ObjectInfo, Store
from aioimageattach.stores import MemoryStore
from aioimageattach.testing import StoreContract
from tests.stores.plain import PlainStore


class TestPlainStore(StoreContract):
    @pytest.fixture
    def store(self) -> PlainStore:
        return PlainStore()


class Overwriting(PlainStore):
    """A store whose names do not contain the revision."""

    def _name(self, *parts: object) -> str:
        return super()._name(*parts[:4])


class HalfFiles(PlainStore):
    """A store in which incomplete files are visible."""

    async def put_file(self, file: Source, *args: Any, **kwargs: Any) -> None:
        read = as_reader(file)
        name = self._name(args[0], args[1], args[2], args[3], args[4], kwargs["revision"])
        self.files[name] = b""
        while piece := await read(65536):
            self.files[name] += piece


class Late(PlainStore):
    """A store that continues after the call was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: set[asyncio.Task[None]] = set()

    async def put_file(self, file: Source, *args: Any, **kwargs: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(0.02)
            await PlainStore.put_file(self, file, *args, **kwargs)

        task = asyncio.create_task(later())
        self.tasks.add(task)
        await asyncio.shield(task)


class Closing(PlainStore):
    """A store that closes the source."""

    async def put_file(self, file: Source, *args: Any, **kwargs: Any) -> None:
        await super().put_file(file, *args, **kwargs)
        if isinstance(file, io.BytesIO):
            file.close()


class Rewinding(PlainStore):
    """A store that reads the source from its start."""

    async def put_file(self, file: Source, *args: Any, **kwargs: Any) -> None:
        if isinstance(file, io.BytesIO):
            file.seek(0)
        await super().put_file(file, *args, **kwargs)


class Strict(PlainStore):
    """A store that cannot delete a missing file."""

    async def delete_file(self, *args: Any, **kwargs: Any) -> None:
        await (await self.get_file(*args, **kwargs)).aclose()
        await super().delete_file(*args, **kwargs)


class Blank(PlainStore):
    """A store that returns an empty file instead of an error."""

    async def get_file(self, *args: Any, **kwargs: Any) -> AsyncFile:
        with contextlib.suppress(StoreFileNotFoundError):
            return await super().get_file(*args, **kwargs)
        return FileProxy(b"")


class Mixing(PlainStore):
    """A store whose readers share a position."""

    def __init__(self) -> None:
        super().__init__()
        self.open_files: dict[str, Any] = {}

    async def get_file(self, *args: Any, **kwargs: Any) -> AsyncFile:
        return self.open_files.setdefault(str((args, kwargs)), await super().get_file(*args, **kwargs))  # type: ignore[no-any-return]


class Repeating(PlainStore):
    """A store whose revisions repeat."""

    def make_revision(self) -> str:
        return f"revision{secrets.randbelow(100)}"


class Clobbering(MemoryStore):
    """A store that overwrites files."""

    async def put_object(self, name: str, data: Source, **kwargs: Any) -> None:
        await self.delete_object(name)
        await super().put_object(name, data, **kwargs)


class Globbing(MemoryStore):
    """A store that deletes all names with this prefix."""

    async def delete_object(self, name: str) -> None:
        for other in [found.name async for found in self.list_objects(name)]:
            await super().delete_object(other)


class Unordered(MemoryStore):
    """A store whose listing is not sorted."""

    async def list_objects(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        found = [one async for one in super().list_objects(prefix, start_after=start_after)]
        for one in sorted(found, key=lambda one: one.name.split("/")):
            yield one


class Unquoted(MemoryStore):
    """A store that does not quote URLs."""

    def url_of(self, name: str) -> str:
        return self.base_url + name


class Careless(MemoryStore):
    """A store that does not check names."""

    async def delete_object(self, name: str) -> None:
        with contextlib.suppress(ValueError):
            await super().delete_object(name)


class Inclusive(MemoryStore):
    """A store whose ranges include the end."""

    async def get_object(self, name: str, *, start: int = 0, end: int | None = None) -> Any:
        return await super().get_object(name, start=start, end=None if end is None else end + 1)


Test = Callable[[Store], Awaitable[None]]
contract: Any = StoreContract()


@pytest.mark.parametrize(
    ("store", "test", "why"),
    [
        (Overwriting, contract.test_two_revisions_are_two_files, "overwritten"),
        (HalfFiles, lambda store: contract.test_a_failing_source_leaves_nothing(store, 10), "was left"),
        (
            HalfFiles,
            lambda store: contract.test_a_put_cancelled_while_its_source_waits_leaves_nothing(store, 10),
            "was left",
        ),
        (Late, lambda store: contract.test_a_put_cancelled_at_any_step_leaves_nothing(store, "bytes"), "appeared"),
        (Closing, lambda store: contract.test_a_file_is_read_back(store, "memory file"), "was closed"),
        (Rewinding, lambda store: contract.test_a_source_is_read_from_its_position(store, "memory file"), ""),
        (Strict, contract.test_deleting_a_missing_file_is_not_an_error, "does not exist"),
        (Blank, contract.test_opening_a_missing_file_is_an_error, "DID NOT RAISE"),
        (Blank, contract.test_a_deleted_file_is_gone, ""),
        (Mixing, contract.test_two_readers_do_not_disturb_each_other, ""),
        (Repeating, contract.test_revisions_are_unique, ""),
        (Clobbering, contract.test_a_name_is_never_overwritten, "DID NOT RAISE"),
        (Clobbering, contract.test_one_of_many_puts_of_a_name_wins, ""),
        (Globbing, lambda store: contract.test_only_the_exact_name_is_deleted(store, "a"), ""),
        (Unordered, contract.test_listing_is_in_order_of_name, ""),
        (Unquoted, lambda store: contract.test_awkward_names(store, "a b+c.jpg"), ""),
        (Careless, lambda store: contract.test_invalid_names(store, "../x"), "DID NOT RAISE"),
        (Inclusive, lambda store: contract.test_a_range_of_a_file(store, 3, 7), ""),
    ],
)
async def test_each_fault_is_detected(store: type[Store], test: Test, why: str) -> None:
    """Each of these stores has one fault, and the test for this fault fails."""
    with pytest.raises((AssertionError, pytest.fail.Exception, StoreFileNotFoundError), match=why or None):
        await test(store())


def test_without_pytest() -> None:
    """Without pytest, the import raises an error that names it."""
    before = sys.modules["pytest"]
    sys.modules["pytest"] = None  # type: ignore[assignment]
    try:
        with pytest.raises(ImportError, match=r"aioimageattach\.testing needs pytest"):
            runpy.run_path(
                str(sys.modules["aioimageattach.testing._contract"].__file__), run_name="aioimageattach.testing"
            )
    finally:
        sys.modules["pytest"] = before


def test_the_contract_is_not_collected_by_itself() -> None:
    """pytest collects only subclasses of the suite, whose tests are coroutines with docstrings."""
    assert not StoreContract.__name__.startswith("Test")
    tests = [value for name, value in vars(StoreContract).items() if name.startswith("test_")]
    assert len(tests) > 25
    assert all(asyncio.iscoroutinefunction(test) and test.__doc__ for test in tests)
    assert issubclass(MemoryStore, KeyedStore)
    assert ImageKey.__name__
