"""The package's face: what it names, and what importing it costs."""

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


def test_all_is_what_is_there() -> None:
    """``__all__`` names each public thing of the package once, in order, and nothing else."""
    public = {
        name
        for name, value in vars(aioimageattach).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert sorted(aioimageattach.__all__) == sorted(public | {"__version__"})
    assert len(set(aioimageattach.__all__)) == len(aioimageattach.__all__)


@pytest.mark.parametrize("module", [aioimageattach.context, aioimageattach.entity, aioimageattach.exc])
def test_the_face_shows_the_things_themselves(module: ModuleType) -> None:
    """A name of the face that a module has too is the same object there."""
    shared = set(aioimageattach.__all__) & set(module.__all__)
    assert shared
    assert [name for name in shared if getattr(module, name) is not getattr(aioimageattach, name)] == []


def test_names_of_the_predecessor_are_there() -> None:
    """Users of SQLAlchemy-ImageAttach find the names they know in the modules they know."""
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
    """``import aioimageattach`` brings neither aiohttp nor a decoder; it can declare models without them."""
    code = (
        "import json, sys, aioimageattach\n"
        "print(json.dumps([name for name in ('aiohttp', 'pyvips', 'pypdfium2', 'PIL') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
