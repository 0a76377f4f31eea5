"""The names that the package exports, and what importing it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType

import pytest

import aioimageattach
import aioimageattach.context
import aioimageattach.entity
import aioimageattach.exc


def test_all_lists_each_public_name() -> None:
    """``__all__`` lists each name once, each can be imported, and ``dir`` shows them before they are loaded."""
    assert len(set(aioimageattach.__all__)) == len(aioimageattach.__all__)
    assert [name for name in aioimageattach.__all__ if not hasattr(aioimageattach, name)] == []
    assert {*aioimageattach.__all__} <= {*dir(aioimageattach)}


def test_a_name_that_does_not_exist() -> None:
    """Accessing an unknown name raises AttributeError with the name of the package."""
    with pytest.raises(AttributeError, match=r"module 'aioimageattach' has no attribute 'nothing'"):
        aioimageattach.nothing  # noqa: B018


@pytest.mark.parametrize("module", [aioimageattach.context, aioimageattach.entity, aioimageattach.exc])
def test_exported_names_are_the_same_objects(module: ModuleType) -> None:
    """A name that both the package and a module export is the same object."""
    shared = set(aioimageattach.__all__) & set(module.__all__)
    assert shared
    assert [name for name in shared if getattr(module, name) is not getattr(aioimageattach, name)] == []


def test_names_of_the_predecessor_exist() -> None:
    """The modules of SQLAlchemy-ImageAttach exist, with the names that applications import from them."""
    from aioimageattach.context import (
        ContextError,
        LocalProxyStore,
        current_store,
        get_current_store,
        pop_store_context,
        push_store_context,
        store_context,
    )
    from aioimageattach.entity import (
        VECTOR_TYPES,
        BaseImageSet,
        Image,
        ImageSet,
        ImageSubset,
        MultipleImageSet,
        SingleImageSet,
        image_attachment,
    )

    assert ImageSet is SingleImageSet
    assert issubclass(SingleImageSet, BaseImageSet)
    assert issubclass(ImageSubset, BaseImageSet)
    assert frozenset({"image/svg+xml", "application/pdf"}) == VECTOR_TYPES
    assert all(
        map(callable, (get_current_store, pop_store_context, push_store_context, store_context, image_attachment))
    )
    assert isinstance(current_store, LocalProxyStore)
    assert issubclass(ContextError, LookupError)
    assert not issubclass(MultipleImageSet, BaseImageSet)
    assert Image.__image_limits__.types >= {"image/jpeg"}


def test_importing_the_package_loads_no_backend() -> None:
    """``import aioimageattach`` loads neither SQLAlchemy nor aiohttp nor a decoder."""
    code = (
        "import json, sys, aioimageattach\n"
        "heavy = ('sqlalchemy', 'aiohttp', 'pyvips', 'pypdfium2', 'PIL')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
