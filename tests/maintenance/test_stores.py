"""Stores with two names for a file, and two names for a store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from aioimageattach.key import ImageKey
from aioimageattach.maintenance import sweep, verify
from aioimageattach.migration import migrate
from aioimageattach.stores import MemoryStore, MirrorStore, OverlayStore
from aioimageattach.stores.fs import FileSystemStore
from tests.maintenance.conftest import Place, names_in
from tests.maintenance.models import Base


async def test_a_mirror_of_two_layouts(place: Place) -> None:
    """A legacy file has a different name in each store, and neither is an orphan, also after swapping the stores."""
    new = MemoryStore()
    for number in range(1, 6):
        key = ImageKey("user-picture", number, 30, 20, "image/png")
        await place.row(key, revision=None)
        for store in (place.store, new):
            await store.put(key, b"blob", reproducible=False)
    await place.rows(20)
    for store in (place.store, new):
        orphan = ImageKey("user-picture", 99, 30, 20, "image/png")
        await store.put(orphan, b"blob", reproducible=False)
    before = [await names_in(place.store), await names_in(new)]
    for mirror in (MirrorStore(place.store, new), MirrorStore(new, place.store)):
        plan = sweep(place.sessions, Base, mirror, delete=True, grace=timedelta(0), force=True)
        assert {orphan.name for orphan in [one async for one in plan]} <= {
            "user-picture/99/0/99.30x20.png",
            "user-picture/99/30x20.png",
        }
        found = {mismatch.problem async for mismatch in verify(place.sessions, Base, mirror)}
        assert found == set()
    assert [len(await names_in(place.store)), len(await names_in(new))] == [len(one) - 1 for one in before]


async def test_one_directory_by_two_names(place: Place, tmp_path: Path) -> None:
    """A directory is recognised as the same one if it is given with a trailing slash or by a symbolic link."""
    await place.rows(3)
    (link := tmp_path / "link").symlink_to(place.store.path)
    for path in (f"{place.store.path}/", link, f"{link}/."):
        other = FileSystemStore(path, "/other/")
        with pytest.raises(ValueError, match="in another place"):
            migrate(place.sessions, Base, place.store, other)
        with pytest.raises(ValueError, match="in another place"):
            migrate(place.sessions, Base, MirrorStore(place.store, MemoryStore()), other)
        with pytest.raises(ValueError, match="keep the same files"):
            OverlayStore(other, place.store)
        with pytest.raises(ValueError, match="keep the same files"):
            MirrorStore(place.store, other)
