"""Calls accept the parameters that the manual of SQLAlchemy-ImageAttach documents, or are listed as differences."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from aioimageattach.context import current_store, store_context
from aioimageattach.file import FileProxy, ReusableFileProxy, SeekableFileProxy
from aioimageattach.store import Store
from aioimageattach.stores import MemoryStore

PAGE = (Path(__file__).parents[1] / "docs" / "explanation" / "differences.md").read_text("utf-8")

SIGNATURES = {
    "context:LocalProxyStore": "get_current_object repr_string",
    "context:push_store_context": "store",
    "context:store_context": "store",
    "entity:BaseImageSet.find_thumbnail": "width height",
    "entity:BaseImageSet.from_blob": "blob store extra_args extra_kwargs",
    "entity:BaseImageSet.from_file": "file store extra_args extra_kwargs",
    "entity:BaseImageSet.from_raw_file": "raw_file store size mimetype original extra_args extra_kwargs",
    "entity:BaseImageSet.generate_thumbnail": "ratio width height filter store _preprocess_image _postprocess_image",
    "entity:BaseImageSet.locate": "store",
    "entity:BaseImageSet.make_blob": "store",
    "entity:BaseImageSet.open_file": "store use_seek",
    "entity:Image.locate": "store",
    "entity:Image.make_blob": "store",
    "entity:Image.open_file": "store use_seek",
    "file:FileProxy": "wrapped",
    "file:FileProxy.read": "size",
    "file:FileProxy.readline": "size",
    "file:FileProxy.readlines": "sizehint",
    "file:ReusableFileProxy": "wrapped",
    "file:SeekableFileProxy": "wrapped",
    "file:SeekableFileProxy.seek": "offset whence",
    "migration:MigrationPlan.execute": "callback",
    "migration:migrate": "session declarative_base source destination",
    "migration:migrate_class": "session cls source destination",
    "store:Store.delete": "image",
    "store:Store.delete_file": "object_type object_id width height mimetype",
    "store:Store.get_file": "object_type object_id width height mimetype",
    "store:Store.get_url": "object_type object_id width height mimetype",
    "store:Store.locate": "image",
    "store:Store.open": "image use_seek",
    "store:Store.put_file": "file object_type object_id width height mimetype reproducible",
    "store:Store.store": "image file",
    "stores.fs:BaseFileSystemStore": "path",
    "stores.fs:FileSystemStore": "path base_url",
    "stores.fs:HttpExposedFileSystemStore": "path prefix host_url_getter cors",
    "stores.fs:StaticServerMiddleware": "app url_path dir_path block_size cors",
    "stores.fs:guess_extension": "mimetype",
    "stores.s3:S3Store": "bucket access_key secret_key max_age prefix public_base_url region max_retry",
    "stores.s3:S3SandboxStore": (
        "underlying overriding access_key secret_key max_age underlying_prefix overriding_prefix"
        " underlying_region overriding_region max_retry"
    ),
}
RENAMED = {
    "_preprocess_image": "preprocess",
    "_postprocess_image": "postprocess",
    "declarative_base": "base",
    "sizehint": "hint",
}


@pytest.mark.parametrize("place", SIGNATURES)
def test_parameters(place: str) -> None:
    """Each call accepts the parameters in the manual under the same names, and positional ones in the same order."""
    module, _, path = place.partition(":")
    found = importlib.import_module(f"aioimageattach.{module}")
    for name in path.split("."):
        found = getattr(found, name)
    parameters = [one for one in inspect.signature(found).parameters.values() if one.name != "self"]
    expected = [RENAMED.get(name, name) for name in SIGNATURES[place].split()]
    assert [one for one in expected if one not in {parameter.name for parameter in parameters}] == []
    positional = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert positional == [one for one in expected if one in positional]


@pytest.mark.parametrize("name", RENAMED)
def test_renamed_parameters_are_listed(name: str) -> None:
    """The page *Differences* names both the old and the new name of a parameter."""
    old, new = (re.compile(rf"\b{one}=") for one in (name, RENAMED[name]))
    assert any(old.search(line) and new.search(line) for line in PAGE.splitlines())


def test_the_current_store_equals_the_store() -> None:
    """Inside a context, ``current_store`` and the store are equal in both directions."""
    store, other = MemoryStore(), MemoryStore()
    with store_context(store):
        assert current_store == store
        assert store == current_store
        assert current_store != other


def test_an_incomplete_store_is_abstract() -> None:
    """``Store``, and a subclass that implements none of its four methods, cannot be instantiated."""

    class Incomplete(Store):
        pass

    for cls in (Store, Incomplete):
        with pytest.raises(TypeError, match="abstract"):
            cls()  # type: ignore[abstract]


async def test_a_reused_file_rewinds(tmp_path: Path) -> None:
    """Leaving the block does not close the file, and restores its position, so that it can be read again."""
    (tmp_path / "x").write_bytes(b"abcdef")
    with (tmp_path / "x").open("rb") as wrapped:
        file = ReusableFileProxy(wrapped)
        for _ in range(2):
            async with file:
                assert await file.read(size=4) == b"abcd"
        async with file:
            await file.seek(offset=-2, whence=2)
            assert await file.readline(size=1) == b"e"
        assert await file.tell() == 0
        assert not wrapped.closed
    assert issubclass(ReusableFileProxy, SeekableFileProxy)
    assert issubclass(SeekableFileProxy, FileProxy)
