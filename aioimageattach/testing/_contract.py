"""A conformance suite for stores: inherit from one class, and define one fixture.

::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self):
            return MyStore()

The tests are coroutines. They run with pytest-asyncio in its auto mode, or with a mark on the class
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
    raise ImportError("aioimageattach.testing needs pytest; install it in the environment of the tests") from _error

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
"""Valid names with unusual characters, which every ``KeyedStore`` must accept unchanged."""

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
"""Invalid names, which every ``KeyedStore`` must reject before it reads or writes anything."""

_BLOB: Final = bytes(range(256)) * 400 + b"the end\nwithout a line feed"
_LARGE: Final = secrets.token_bytes(64 * 1024) * 80 + b"end"


class _Reader:
    """An async file that returns fewer bytes than requested."""

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
class _StoredImage:
    key: ImageKey
    reproducible: bool = False
    created_at: datetime = datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def _key(store: Store, object_type: str = "contract") -> ImageKey:
    return ImageKey(object_type, secrets.randbits(40), 30, 20, "image/jpeg", store.make_revision())


async def _put(store: Store, key: ImageKey, source: Source) -> None:
    await store.put(key, source, reproducible=False)


async def _read(store: Store, key: ImageKey) -> bytes:
    async with await store.open(_StoredImage(key)) as file:
        return await file.read()


async def _is_missing(store: Store, key: ImageKey) -> bool:
    try:
        await _read(store, key)
    except StoreFileNotFoundError:
        return True
    return False


def _keyed(store: Store) -> KeyedStore:
    if not isinstance(store, KeyedStore):
        pytest.skip("the store is not a KeyedStore")
    return store


async def _read_object(store: KeyedStore, name: str, start: int = 0, end: int | None = None) -> bytes:
    async with await store.get_object(name, start=start, end=end) as file:
        return await file.read()


async def _names(store: KeyedStore, prefix: str, start_after: str = "") -> list[str]:
    return [found.name async for found in store.list_objects(prefix, start_after=start_after)]


class StoreContract:
    """Tests that every :class:`~aioimageattach.store.Store` must pass; more of them run for a ``KeyedStore``.

    Inherit from it in a test class with a fixture ``store``. The store may contain other files. The tests do not delete
    their files, so use a store that you can discard.
    """

    @pytest.mark.parametrize("kind", _SOURCES)
    async def test_a_file_is_read_back(self, store: Store, kind: str) -> None:
        """A file put from any kind of source has all its bytes, and the source stays open."""
        key = _key(store)
        source = await _source(kind, _BLOB)
        await _put(store, key, source)
        assert await _read(store, key) == _BLOB
        assert not getattr(source, "closed", False), "the source was closed; only its owner may close it"

    @pytest.mark.parametrize("kind", ["bytes", "file", "async file", "async iterator", "spool of pieces"])
    async def test_a_large_file_is_read_back(self, store: Store, kind: str) -> None:
        """A file of several MiB has all its bytes."""
        key = _key(store)
        await _put(store, key, await _source(kind, _LARGE))
        found = await _read(store, key)
        assert len(found) == len(_LARGE)
        assert found == _LARGE

    @pytest.mark.parametrize("kind", ["memory file", "file", "async file", "file proxy", "spool"])
    async def test_a_source_is_read_from_its_position(self, store: Store, kind: str) -> None:
        """Only the bytes after the current position of a source are put."""
        key = _key(store)
        source = await _source(kind, _BLOB)
        first = source.read(1000)  # type: ignore[union-attr]
        head = await first if asyncio.iscoroutine(first) else first
        await _put(store, key, source)
        assert head + await _read(store, key) == _BLOB  # type: ignore[operator]

    async def test_a_file_is_read_in_parts(self, store: Store) -> None:
        """``read`` with a size, ``readline``, iteration and ``readlines`` return the bytes in order."""
        key = _key(store)
        await _put(store, key, _BLOB)
        async with await store.open(_StoredImage(key)) as file:
            parts = [await file.read(10), await file.readline(), await anext(aiter(file))]
            parts += await file.readlines()
            assert await file.read(10) == b""
        assert len(parts[0]) <= 10
        assert [line[-1:] for line in parts[1:-1]] == [b"\n"] * (len(parts) - 2)
        assert b"".join(parts) == _BLOB

    async def test_seek_and_tell(self, store: Store) -> None:
        """A file opened with ``use_seek=True`` has ``seek`` and ``tell``."""
        key = _key(store)
        await _put(store, key, _BLOB)
        async with await store.open(_StoredImage(key), use_seek=True) as file:
            seek, tell = getattr(file, "seek", None), getattr(file, "tell", None)
            assert seek is not None
            assert tell is not None
            assert await seek(-7, os.SEEK_END) == len(_BLOB) - 7
            assert await file.read() == _BLOB[-7:]
            await seek(300)
            assert await tell() == 300
            assert await file.read() == _BLOB[300:]

    async def test_two_readers_do_not_disturb_each_other(self, store: Store) -> None:
        """Each opened file has its own position."""
        key = _key(store)
        await _put(store, key, _BLOB)
        async with await store.open(_StoredImage(key)) as one, await store.open(_StoredImage(key)) as other:
            await one.read(1000)
            assert await other.read() == _BLOB

    async def test_opening_a_missing_file_is_an_error(self, store: Store) -> None:
        """Opening a file that does not exist raises StoreFileNotFoundError."""
        with pytest.raises(StoreFileNotFoundError):
            await _read(store, _key(store))

    async def test_a_deleted_file_is_gone(self, store: Store) -> None:
        """A deleted file is missing, and another file is not."""
        gone, kept = _key(store), _key(store)
        await _put(store, gone, b"gone")
        await _put(store, kept, b"kept")
        await store.discard(gone)
        assert await _is_missing(store, gone)
        assert await _read(store, kept) == b"kept"

    async def test_deleting_a_missing_file_is_not_an_error(self, store: Store) -> None:
        """A file may be deleted before it exists, twice, and concurrently."""
        key = _key(store)
        await store.discard(key)
        await _put(store, key, b"once")
        await asyncio.gather(store.discard(key), store.discard(key))
        await store.discard(key)

    async def test_two_revisions_are_two_files(self, store: Store) -> None:
        """An image uploaded again gets a new file, and the old one is not overwritten."""
        old = _key(store)
        new = replace(old, revision=store.make_revision())
        await _put(store, old, b"the old image")
        await _put(store, new, b"the new one")
        assert await _read(store, old) == b"the old image", "the old file was overwritten"
        assert await _read(store, new) == b"the new one"
        await store.discard(old)
        assert await _read(store, new) == b"the new one", "deleting the old file deleted the new one"

    async def test_revisions_are_unique(self, store: Store) -> None:
        """Revisions differ, and each is valid in a key."""
        revisions = {store.make_revision() for _ in range(1000)}
        assert len(revisions) == 1000
        assert all(ImageKey("contract", 1, 1, 1, "image/png", revision) for revision in revisions)

    async def test_a_url_needs_no_file(self, store: Store) -> None:
        """The URL of a missing file is the same each time, and differs for each upload."""
        key = _key(store)
        image = _StoredImage(key)
        url = store.locate(image)
        assert url == store.locate(image)
        again = _StoredImage(replace(key, revision=store.make_revision()), created_at=image.created_at + timedelta(1))
        assert store.locate(again) != url

    @pytest.mark.parametrize("object_type", ["user-picture", "a.b", "A_b~", "9", "x" * 128])
    async def test_object_types_of_any_form(self, store: Store, object_type: str) -> None:
        """Each valid object type is accepted, and its files are separate from those of others."""
        key = _key(store, object_type)
        other = replace(key, object_type="contract-other")
        await _put(store, key, b"one")
        await _put(store, other, b"other")
        assert await _read(store, key) == b"one"
        assert await _read(store, other) == b"other"

    @pytest.mark.parametrize("object_id", [0, -1, 2**63, 2**127 + 1, None])
    async def test_object_ids_of_any_size(self, store: Store, object_id: int | None) -> None:
        """An ``object_id`` of any size and sign is accepted, and ``None`` if the store does not need it."""
        if object_id is None and store.needs_object_id:
            pytest.skip("the store needs an object_id")
        key = replace(_key(store), object_id=object_id)
        await _put(store, key, b"this")
        assert await _read(store, key) == b"this"

    async def test_concurrent_puts(self, store: Store) -> None:
        """Twenty concurrent puts create twenty correct files."""
        keys = [_key(store) for _ in range(20)]
        await asyncio.gather(*(_put(store, key, _pieces(_BLOB[n:])) for n, key in enumerate(keys)))
        found = await asyncio.gather(*(_read(store, key) for key in keys))
        assert [len(blob) for blob in found] == [len(_BLOB) - n for n in range(20)]
        assert all(blob == _BLOB[n:] for n, blob in enumerate(found))

    @pytest.mark.parametrize("before", [0, 10, 3_000_000])
    async def test_a_failing_source_leaves_nothing(self, store: Store, before: int) -> None:
        """If the source raises an error, the put raises it, leaves no part of the file, and can be repeated."""
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
    async def test_a_put_cancelled_while_its_source_waits_leaves_nothing(self, store: Store, before: int) -> None:
        """If the task is cancelled while it waits for the source, no part of the file is left."""
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
        """A put that is cancelled at any step either returns with a complete file, or raises and leaves no file."""
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
                assert await _is_missing(store, key), f"cancelled at step {steps}, but the file exists"
            else:
                assert await _read(store, key) == _BLOB
        await asyncio.sleep(0.05)
        for key in cancelled:
            assert await _is_missing(store, key), "the file appeared after the put had ended"

    async def test_a_name_is_never_overwritten(self, store: Store) -> None:
        """A second put of a name raises StoreFileExistsError, and the file is unchanged."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        await keyed.put_object(name, b"first")
        for data in (b"second", _pieces(b"third"), b""):
            with pytest.raises(StoreFileExistsError):
                await keyed.put_object(name, data)
        assert await _read_object(keyed, name) == b"first"

    async def test_one_of_many_puts_of_a_name_wins(self, store: Store) -> None:
        """Of eight concurrent puts of a name, one returns and its file is kept; seven raise an error."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        blobs = [bytes([n]) * 100_000 for n in range(8)]
        results = await asyncio.gather(*(keyed.put_object(name, blob) for blob in blobs), return_exceptions=True)
        winners = [blob for blob, result in zip(blobs, results, strict=True) if result is None]
        assert len(winners) == 1
        assert sum(isinstance(result, StoreFileExistsError) for result in results) == 7
        assert await _read_object(keyed, name) == winners[0]

    async def test_size_and_modification_time(self, store: Store) -> None:
        """``head_object`` and the listing return the same size and time; a missing file is an error."""
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
        """An empty file can be put, inspected, read and deleted."""
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
        """A range is the same slice of the bytes, also beyond the end."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        await keyed.put_object(name, bytes(range(100)))
        assert await _read_object(keyed, name, start, end) == bytes(range(100))[start:end]

    @pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 4), (0, -1)])
    async def test_an_invalid_range(self, store: Store, start: int, end: int) -> None:
        """A negative or reversed range raises ValueError."""
        keyed = _keyed(store)
        name = f"contract/{secrets.token_hex(8)}"
        await keyed.put_object(name, b"some")
        with pytest.raises(ValueError, match="start"):
            await keyed.get_object(name, start=start, end=end)

    async def test_listing_is_in_order_of_name(self, store: Store) -> None:
        """Listings are sorted, start after any name, and are correct if one name is the prefix of another directory."""
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

    async def test_a_listing_may_end_early(self, store: Store) -> None:
        """A listing can be closed before its end, and a new one can be made."""
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
        """A file with an unusual name is put, read, listed, located and deleted without affecting other files."""
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
        """Every method rejects an invalid name, before the source is read."""
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
    async def test_only_the_exact_name_is_deleted(self, store: Store, name: str) -> None:
        """Deleting a name deletes only that file: the name is neither a pattern nor a prefix."""
        keyed = _keyed(store)
        base = f"contract/{secrets.token_hex(8)}/"
        others = [f"{base}{rest}" for rest in ("ab", "b", "ac/d")]
        for other in (*others, base + name):
            await keyed.put_object(other, b"x")
        await keyed.delete_object(base + name)
        assert await _names(keyed, base) == sorted(others)

    async def test_many_files_are_deleted(self, store: Store) -> None:
        """``delete_objects`` deletes all files, also if another name is missing or invalid."""
        keyed = _keyed(store)
        base = f"contract/{secrets.token_hex(8)}/"
        names = [f"{base}{n}/file" for n in range(30)]
        for name in names:
            await keyed.put_object(name, b"x")
        failed = await keyed.delete_objects([*names[:20], f"{base}missing", "../x"])
        assert list(failed) == ["../x"]
        assert isinstance(failed["../x"], InvalidKeyError)
        assert await _names(keyed, base) == sorted(names[20:])

    async def test_many_files_are_renamed(self, store: Store) -> None:
        """``move_objects`` renames all files, also if another one fails, and overwrites none."""
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

    async def test_unfinished_files_are_not_listed(self, store: Store) -> None:
        """The listing is empty while a put is in progress, and after it was cancelled."""
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
