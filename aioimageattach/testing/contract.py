"""The conformance suite for stores: inherit one class, give one fixture.

::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self):
            return MyStore()

The tests are coroutines: pytest-asyncio in its auto mode runs them, or a mark on the class does
(``@pytest.mark.asyncio`` or ``@pytest.mark.anyio``).
"""

from __future__ import annotations

import asyncio
import io
import os
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

try:
    import pytest
except ImportError as _error:
    raise ImportError("aioimageattach.testing needs pytest: install it where the tests run") from _error

from ..exc import InvalidKeyError, StoreFileExistsError, StoreFileNotFoundError
from ..file import FileProxy, Source, Spool
from ..key import ImageKey
from ..store import KeyedStore, Store

__all__ = ["AWKWARD_NAMES", "INVALID_NAMES", "StoreContract"]

AWKWARD_NAMES: Final = (
    " lead",
    "trail ",
    "trail.",
    ".hidden",
    "...",
    "~root",
    "-rf",
    "a b+c.jpg",
    "a%2Fb",
    "a%20b",
    "a?x=1&y=2",
    "a#b",
    "a;b:c@d,e=f$g",
    "a'b\"c",
    "a*b",
    "a[b]{c,d}",
    "a|b<c>d",
    "CON",
    "\u00fcber/stra\u00dfe.jpg",
    "e\u0301.jpg",
    "a\uff0fb/\u2024\u2024/\u202egpj",
    "\u65e5\u672c/\U0001f642.png",
)
"""Names that every store by name has to take as they are."""

INVALID_NAMES: Final = (
    "",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    ".",
    "..",
    "../x",
    "a/../../x",
    "a/./b",
    "a//b",
    "x/",
    "..\\x",
    "C:\\x",
    "x\0y",
    "a\nb",
    "a\rb",
    "a\x7fb",
    "\ud800",
    "x" * 5000,
)
"""Names that every store by name has to refuse before it reads or writes anything."""

_BLOB: Final = bytes(range(256)) * 400 + b"the end\nwithout a line feed"
_LARGE: Final = secrets.token_bytes(64 * 1024) * 80 + b"end"


class _Reader:
    """An async file that gives a little at a time."""

    def __init__(self, blob: bytes) -> None:
        self._file = io.BytesIO(blob)

    async def read(self, size: int = -1, /) -> bytes:
        await asyncio.sleep(0)
        return self._file.read(min(size, 7000) if size > 0 else size)


async def _pieces(blob: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(blob), 50_000):
        await asyncio.sleep(0)
        yield blob[start : start + 50_000]


async def _spooled(blob: bytes) -> Source:
    return (await Spool.fill(blob)).open()


async def _large_spooled(blob: bytes) -> Source:
    return (await Spool.fill(_pieces(blob))).open()


_SOURCES: Final[dict[str, Callable[[bytes], object]]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "memory file": io.BytesIO,
    "file": lambda blob: io.BufferedReader(io.BytesIO(blob)),
    "async file": _Reader,
    "async iterator": _pieces,
    "file proxy": lambda blob: FileProxy(io.BytesIO(blob)),
    "spool": _spooled,
    "spool of pieces": _large_spooled,
}


async def _source(kind: str, blob: bytes) -> Source:
    made = _SOURCES[kind](blob)
    return await made if asyncio.iscoroutine(made) else made  # type: ignore[return-value]


@dataclass(frozen=True)
class _Picture:
    key: ImageKey
    reproducible: bool = False
    created_at: datetime = datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def _key(store: Store, object_type: str = "contract") -> ImageKey:
    return ImageKey(object_type, secrets.randbits(40), 30, 20, "image/jpeg", store.make_revision())


async def _put(store: Store, key: ImageKey, source: Source) -> None:
    await store.put(key, source, reproducible=False)


async def _read(store: Store, key: ImageKey) -> bytes:
    async with await store.open(_Picture(key)) as file:
        return await file.read()


async def _is_missing(store: Store, key: ImageKey) -> bool:
    try:
        await _read(store, key)
    except StoreFileNotFoundError:
        return True
    return False


def _keyed(store: Store) -> KeyedStore:
    if not isinstance(store, KeyedStore):
        pytest.skip("the store is no KeyedStore")
    return store


async def _read_object(store: KeyedStore, name: str, start: int = 0, end: int | None = None) -> bytes:
    async with await store.get_object(name, start=start, end=end) as file:
        return await file.read()


async def _names(store: KeyedStore, prefix: str, start_after: str = "") -> list[str]:
    return [found.name async for found in store.list_objects(prefix, start_after=start_after)]


class StoreContract:
    """What every :class:`~aioimageattach.store.Store` has to do; more if it is a :class:`KeyedStore`.

    Inherit it in a test class that has a fixture ``store``. The store may hold other files; what the tests put stays
    there, so give one that can be thrown away.
    """

    @pytest.mark.parametrize("kind", _SOURCES)
    async def test_what_is_put_is_read_back(self, store: Store, kind: str) -> None:
        """Every kind of source arrives whole, and stays open."""
        key = _key(store)
        source = await _source(kind, _BLOB)
        await _put(store, key, source)
        assert await _read(store, key) == _BLOB
        assert not getattr(source, "closed", False), "the source was closed, which is its owner's to do"

    @pytest.mark.parametrize("kind", ["bytes", "file", "async file", "async iterator", "spool of pieces"])
    async def test_a_large_file_is_read_back(self, store: Store, kind: str) -> None:
        """A file of several mebibytes arrives whole."""
        key = _key(store)
        await _put(store, key, await _source(kind, _LARGE))
        found = await _read(store, key)
        assert len(found) == len(_LARGE)
        assert found == _LARGE

    @pytest.mark.parametrize("kind", ["memory file", "file", "async file", "file proxy", "spool"])
    async def test_a_source_is_read_from_where_it_stands(self, store: Store, kind: str) -> None:
        """What somebody read before is not put."""
        key = _key(store)
        source = await _source(kind, _BLOB)
        first = source.read(1000)  # type: ignore[union-attr]
        head = await first if asyncio.iscoroutine(first) else first
        await _put(store, key, source)
        assert head + await _read(store, key) == _BLOB  # type: ignore[operator]

    async def test_a_file_is_read_in_parts(self, store: Store) -> None:
        """``read`` with a size, ``readline``, iteration and ``readlines`` give the bytes in their order."""
        key = _key(store)
        await _put(store, key, _BLOB)
        async with await store.open(_Picture(key)) as file:
            parts = [await file.read(10), await file.readline(), await anext(aiter(file))]
            parts += await file.readlines()
            assert await file.read(10) == b""
        assert len(parts[0]) <= 10
        assert [line[-1:] for line in parts[1:-1]] == [b"\n"] * (len(parts) - 2)
        assert b"".join(parts) == _BLOB

    async def test_a_file_can_be_sought_in(self, store: Store) -> None:
        """``open(use_seek=True)`` gives ``seek`` and ``tell``."""
        key = _key(store)
        await _put(store, key, _BLOB)
        async with await store.open(_Picture(key), use_seek=True) as file:
            seek, tell = getattr(file, "seek", None), getattr(file, "tell", None)
            assert seek is not None
            assert tell is not None
            assert await seek(-7, os.SEEK_END) == len(_BLOB) - 7
            assert await file.read() == _BLOB[-7:]
            await seek(300)
            assert await tell() == 300
            assert await file.read() == _BLOB[300:]

    async def test_two_readers_do_not_disturb_each_other(self, store: Store) -> None:
        """Each opened file has a position of its own."""
        key = _key(store)
        await _put(store, key, _BLOB)
        async with await store.open(_Picture(key)) as one, await store.open(_Picture(key)) as other:
            await one.read(1000)
            assert await other.read() == _BLOB

    async def test_a_missing_file_is_an_error_to_open(self, store: Store) -> None:
        """Opening it raises StoreFileNotFoundError, which a FileNotFoundError is too."""
        with pytest.raises(StoreFileNotFoundError):
            await _read(store, _key(store))

    async def test_a_deleted_file_is_gone(self, store: Store) -> None:
        """It is missing after, and another file is not."""
        gone, kept = _key(store), _key(store)
        await _put(store, gone, b"gone")
        await _put(store, kept, b"kept")
        await store.discard(gone)
        assert await _is_missing(store, gone)
        assert await _read(store, kept) == b"kept"

    async def test_deleting_a_missing_file_is_no_error(self, store: Store) -> None:
        """Neither one that never was nor one that is deleted twice, nor by two at once."""
        key = _key(store)
        await store.discard(key)
        await _put(store, key, b"once")
        await asyncio.gather(store.discard(key), store.discard(key))
        await store.discard(key)

    async def test_two_revisions_are_two_files(self, store: Store) -> None:
        """The same picture uploaded again stands beside the old one: a file is never overwritten."""
        old = _key(store)
        new = replace(old, revision=store.make_revision())
        await _put(store, old, b"the old picture")
        await _put(store, new, b"the new one")
        assert await _read(store, old) == b"the old picture", "the old file was overwritten"
        assert await _read(store, new) == b"the new one"
        await store.discard(old)
        assert await _read(store, new) == b"the new one", "deleting the old file took the new one"

    async def test_revisions_are_unique(self, store: Store) -> None:
        """No two are the same, and each may stand in a key."""
        revisions = {store.make_revision() for _ in range(1000)}
        assert len(revisions) == 1000
        assert all(ImageKey("contract", 1, 1, 1, "image/png", revision) for revision in revisions)

    async def test_a_url_needs_no_file(self, store: Store) -> None:
        """It is calculated, the same each time, and another one for each upload."""
        key = _key(store)
        picture = _Picture(key)
        url = store.locate(picture)
        assert url == store.locate(picture)
        again = _Picture(replace(key, revision=store.make_revision()), created_at=picture.created_at + timedelta(1))
        assert store.locate(again) != url

    @pytest.mark.parametrize("object_type", ["user-picture", "a.b", "A_b~", "9", "x" * 128])
    async def test_object_types_of_any_form(self, store: Store, object_type: str) -> None:
        """Every object type that a key may have is taken, and kept apart from others."""
        key = _key(store, object_type)
        other = replace(key, object_type="contract-other")
        await _put(store, key, b"one")
        await _put(store, other, b"other")
        assert await _read(store, key) == b"one"
        assert await _read(store, other) == b"other"

    @pytest.mark.parametrize("object_id", [0, -1, 2**63, 2**127 + 1, None])
    async def test_object_ids_of_any_size(self, store: Store, object_id: int | None) -> None:
        """Numbers of any size and sign are taken, and none at all where the store needs none."""
        if object_id is None and store.needs_object_id:
            pytest.skip("the store needs an object_id")
        key = replace(_key(store), object_id=object_id)
        await _put(store, key, b"this")
        assert await _read(store, key) == b"this"

    async def test_many_puts_at_once(self, store: Store) -> None:
        """Twenty concurrent puts give twenty right files."""
        keys = [_key(store) for _ in range(20)]
        await asyncio.gather(*(_put(store, key, _pieces(_BLOB[n:])) for n, key in enumerate(keys)))
        found = await asyncio.gather(*(_read(store, key) for key in keys))
        assert [len(blob) for blob in found] == [len(_BLOB) - n for n in range(20)]
        assert all(blob == _BLOB[n:] for n, blob in enumerate(found))

    @pytest.mark.parametrize("before", [0, 10, 3_000_000])
    async def test_a_failing_source_leaves_nothing(self, store: Store, before: int) -> None:
        """Its error comes through, no part of the file stands there, and the put can be made again."""
        key = _key(store)

        async def broken() -> AsyncIterator[bytes]:
            yield bytes(before)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await _put(store, key, broken())
        assert await _is_missing(store, key), "a part of the file was left"
        await _put(store, key, b"whole")
        assert await _read(store, key) == b"whole"

    @pytest.mark.parametrize("before", [0, 10, 3_000_000])
    async def test_a_put_cancelled_while_it_waits_leaves_nothing(self, store: Store, before: int) -> None:
        """When the source hangs and the task is cancelled, no part of the file stands there."""
        key = _key(store)
        hangs = asyncio.Event()

        async def hanging() -> AsyncIterator[bytes]:
            yield bytes(before)
            hangs.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(_put(store, key, hanging()))
        await hangs.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _is_missing(store, key), "a part of the file was left"

    @pytest.mark.parametrize("kind", ["bytes", "async iterator"])
    async def test_a_put_cancelled_at_any_step_leaves_nothing(self, store: Store, kind: str) -> None:
        """Wherever the cancellation comes, the call ends with the file whole and returns, or without it."""
        cancelled = []
        for steps in range(1, 16):
            key = _key(store)
            task = asyncio.create_task(_put(store, key, await _source(kind, _BLOB)))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                cancelled.append(key)
                assert await _is_missing(store, key), f"cancelled at step {steps}, and the file is there"
            else:
                assert await _read(store, key) == _BLOB
        await asyncio.sleep(0.05)
        for key in cancelled:
            assert await _is_missing(store, key), "the file appeared after the call was over"

    async def test_a_name_is_never_overwritten(self, store: Store) -> None:
        """A second put raises StoreFileExistsError, and the file stays what it was."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        await keyed.put_object(name, b"first")
        for data in (b"second", _pieces(b"third"), b""):
            with pytest.raises(StoreFileExistsError):
                await keyed.put_object(name, data)
        assert await _read_object(keyed, name) == b"first"

    async def test_of_many_puts_of_one_name_one_wins(self, store: Store) -> None:
        """Eight at once: one returns, seven raise, the file is the winner's."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        blobs = [bytes([n]) * 100_000 for n in range(8)]
        results = await asyncio.gather(*(keyed.put_object(name, blob) for blob in blobs), return_exceptions=True)
        winners = [blob for blob, result in zip(blobs, results, strict=True) if result is None]
        assert len(winners) == 1
        assert sum(isinstance(result, StoreFileExistsError) for result in results) == 7
        assert await _read_object(keyed, name) == winners[0]

    async def test_size_and_time_of_a_file(self, store: Store) -> None:
        """``head_object`` and the listing tell them alike; a missing file is an error."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        before = datetime.now(UTC)
        await keyed.put_object(name, _BLOB)
        found = await keyed.head_object(name)
        assert (found.name, found.size) == (name, len(_BLOB))
        assert abs(found.modified_at - before) < timedelta(minutes=5)
        assert [one async for one in keyed.list_objects(name)] == [found]
        with pytest.raises(StoreFileNotFoundError):
            await keyed.head_object(name + "x")

    async def test_an_empty_file(self, store: Store) -> None:
        """It can be put, told, read and deleted as any other."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        await keyed.put_object(name, b"")
        assert (await keyed.head_object(name)).size == 0
        assert await _read_object(keyed, name) == b""
        await keyed.delete_object(name)
        assert await _names(keyed, name) == []

    @pytest.mark.parametrize(
        ("start", "end"),
        [(0, None), (0, 0), (0, 1), (3, 7), (5, 5), (99, None), (50, 1000), (100, None), (100, 200), (500, 600)],
    )
    async def test_a_range_of_a_file(self, store: Store, start: int, end: int | None) -> None:
        """It is what slicing the bytes gives, beyond the end too."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        await keyed.put_object(name, bytes(range(100)))
        assert await _read_object(keyed, name, start, end) == bytes(range(100))[start:end]

    @pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 4), (0, -1)])
    async def test_a_range_that_cannot_be(self, store: Store, start: int, end: int) -> None:
        """Negative or reversed, it is a ValueError."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        await keyed.put_object(name, b"some")
        with pytest.raises(ValueError, match="start"):
            await keyed.get_object(name, start=start, end=end)

    async def test_listing_is_in_order_of_name(self, store: Store) -> None:
        """Also where a directory's name is the beginning of a file's, and from any name on."""
        keyed = _keyed(store)
        base = f"contract/{secrets.token_hex(8)}/"
        rests = ("a-b", "a.jpg", "a/1", "a/2/3", "a0", "ab/c", "abc", "b", "B", "\u00fc", "\U0001f642")
        names = sorted(base + rest for rest in rests)
        for name in reversed(names):
            await keyed.put_object(name, b"x")
        assert await _names(keyed, base) == names
        for after in (*names, base, base + "a", base + "a/", base + "a/2", base + "zzz"):
            assert await _names(keyed, base, after) == [name for name in names if name > after]
        for prefix in ("a", "a/", "a/2", "ab", "a0", "\u00fc", "nothing", "a/2/3/4"):
            expected = [name for name in names if name.startswith(base + prefix)]
            assert await _names(keyed, base + prefix) == expected

    async def test_listing_may_be_left_early(self, store: Store) -> None:
        """A loop over it can break, and it can be made again."""
        keyed = _keyed(store)
        base = f"contract/{secrets.token_hex(8)}/"
        for n in range(3):
            await keyed.put_object(f"{base}{n}", b"x")
        listing = keyed.list_objects(base)
        assert (await anext(listing)).name == f"{base}0"
        await listing.aclose()  # type: ignore[attr-defined]
        assert len(await _names(keyed, base)) == 3

    @pytest.mark.parametrize("name", AWKWARD_NAMES)
    async def test_awkward_names(self, store: Store, name: str) -> None:
        """Each is put, read, listed, located and deleted as it is, and alone."""
        keyed = _keyed(store)
        base = f"contract/{secrets.token_hex(8)}/"
        await keyed.put_object(f"{base}other", b"other")
        await keyed.put_object(base + name, b"this")
        assert await _read_object(keyed, base + name) == b"this"
        assert await _names(keyed, base) == sorted([base + name, f"{base}other"])
        url = keyed.url_of(base + name)
        assert url.isascii()
        assert not set(url) & set(' "<>\\^`{|}')
        await keyed.delete_object(base + name)
        assert await _names(keyed, base) == [f"{base}other"]

    @pytest.mark.parametrize("name", INVALID_NAMES, ids=ascii)
    async def test_invalid_names(self, store: Store, name: str) -> None:
        """Each is refused by every method, before the source is read."""
        keyed = _keyed(store)
        source = io.BytesIO(b"not read")
        for call in (
            keyed.put_object(name, source),
            keyed.get_object(name),
            keyed.head_object(name),
            keyed.delete_object(name),
        ):
            with pytest.raises(InvalidKeyError):
                await call
        with pytest.raises(InvalidKeyError):
            keyed.url_of(name)
        assert source.tell() == 0

    @pytest.mark.parametrize("name", ["*", "?", "[ab]", "{a,b}", "a", "%", "a*"])
    async def test_only_the_very_name_is_deleted(self, store: Store, name: str) -> None:
        """No pattern and no prefix deletes another file."""
        keyed = _keyed(store)
        base = f"contract/{secrets.token_hex(8)}/"
        others = [f"{base}{rest}" for rest in ("ab", "b", "ac/d")]
        for other in (*others, base + name):
            await keyed.put_object(other, b"x")
        await keyed.delete_object(base + name)
        assert await _names(keyed, base) == sorted(others)

    async def test_many_are_deleted(self, store: Store) -> None:
        """``delete_objects`` deletes each, and a missing one or an invalid name does not hinder the others."""
        keyed = _keyed(store)
        base = f"contract/{secrets.token_hex(8)}/"
        names = [f"{base}{n}/file" for n in range(30)]
        for name in names:
            await keyed.put_object(name, b"x")
        failed = await keyed.delete_objects([*names[:20], f"{base}missing", "../x"])
        assert list(failed) == ["../x"]
        assert isinstance(failed["../x"], InvalidKeyError)
        assert await _names(keyed, base) == sorted(names[20:])

    async def test_many_are_moved(self, store: Store) -> None:
        """``move_objects`` renames each, overwrites none, and an error of one does not hinder the others."""
        keyed = _keyed(store)
        base = f"contract/{secrets.token_hex(8)}/"
        for name in ("a/1", "a/2", "a/3", "b/3"):
            await keyed.put_object(base + name, name.encode())
        new = {f"{base}a/{n}": f"{base}b/{n}" for n in range(1, 5)}
        failed = await keyed.move_objects({**new, f"{base}a/1": "../x"})
        kinds = {name.removeprefix(base): type(error) for name, error in failed.items()}
        assert kinds == {"a/1": InvalidKeyError, "a/3": StoreFileExistsError, "a/4": StoreFileNotFoundError}
        assert await _names(keyed, base) == [base + name for name in ("a/1", "a/3", "b/2", "b/3")]
        assert [await _read_object(keyed, base + name) for name in ("b/2", "b/3")] == [b"a/2", b"b/3"]
        assert await keyed.move_objects({f"{base}b/{n}": f"{base}c/{n}/file" for n in (2, 3)}) == {}
        assert await _names(keyed, base) == [base + name for name in ("a/1", "a/3", "c/2/file", "c/3/file")]

    async def test_what_failed_is_not_listed(self, store: Store) -> None:
        """Neither while a put is under way nor after it was cancelled is anything to be seen."""
        keyed = _keyed(store)
        base = f"contract/{secrets.token_hex(8)}/"
        hangs = asyncio.Event()

        async def hanging() -> AsyncIterator[bytes]:
            yield bytes(3_000_000)
            hangs.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(keyed.put_object(f"{base}deep/file", hanging()))
        await hangs.wait()
        assert await _names(keyed, base) == []
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _names(keyed, base) == []
