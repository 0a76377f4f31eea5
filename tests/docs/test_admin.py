"""The admin panels of the guide, in a browser."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import sys
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn

from aioimageattach import set_default_store
from tests import photos
from tests.databases import Database
from tests.docs.test_code import ROOT, run
from tests.examples.browser import browser

PAGE = ROOT / "docs" / "howto" / "admin.md"
PICTURES = "[...document.querySelectorAll('img[src*=user-picture]')]"
SHOWN = f"{PICTURES}.length > 0 && {PICTURES}.every((one) => one.complete && one.naturalWidth > 0)"
AVATAR = "[...document.querySelectorAll('.avatar')].some((one) => one.style.backgroundImage.includes('/thumbnails/'))"


@pytest.fixture
async def address(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, Path]]:
    """The URL of an application with both panels, made of the code of the page, and the directory of its files."""
    module = ModuleType("admin_page")
    namespace: dict[str, Any] = vars(module)
    namespace.update(engine=sqlite_database.engine())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("ADMIN_SECRET", "a secret of the tests")
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        await run(code, str(PAGE), namespace)
    await sqlite_database.create(namespace["Base"].metadata)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(namespace["app"], log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path / "media"
        server.should_exit = True
        await serving
    set_default_store(None)
    namespace["Base"].registry.dispose()
    namespace.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # SQLAdmin does not close the files of forms
        gc.collect()


def originals(folder: Path) -> set[str]:
    """Return the names of the original files."""
    return {path.name for path in folder.rglob("*") if path.is_file() and ".t/" not in str(path)}


@pytest.mark.filterwarnings("ignore:Exception ignored in.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
async def test_staff_at_work(address: tuple[str, Path], tmp_path: Path) -> None:
    """In both panels, an image is uploaded with a form, shown in the list, replaced and deleted."""
    url, media = address
    files = {name: tmp_path / f"{name}.jpg" for name in ("chelsea", "coffee")}
    for name, path in files.items():
        path.write_bytes(photos.photo(name))
    panels = [
        ("/admin/user", "/edit/1", "[name=remove]", "[type=submit][value=Save]", SHOWN),
        ("/panel/user", "/edit?pk=2", "[name=_upload-delete]", "[type=submit].btn-primary", AVATAR),
    ]
    async with browser(tmp_path / "profile") as tab:
        await tab.window(1000, 600)
        for panel, edit, box, save, shown in panels:
            await tab.show(f"{url}{panel}/create")
            await tab.until("document.querySelector('[name=upload]')")
            await tab.fill(name="Mia")
            await tab.choose("[name=upload]", files["chelsea"])
            await tab.click(save)
            await tab.until(f"location.pathname.endsWith('/list') && {shown}")
            [first] = originals(media)
            await tab.screenshot(tmp_path / f"{panel.split('/')[1]}.png")

            await tab.show(url + panel + edit)
            await tab.choose("[name=upload]", files["coffee"])
            await tab.click(save)
            await tab.until(f"location.pathname.endsWith('/list') && {shown}")
            [second] = originals(media)
            assert second != first

            await tab.show(url + panel + edit)
            await tab.click(box)
            await tab.click(save)
            await tab.until("location.pathname.endsWith('/list')")
            await tab.until(f"!({shown})")
            assert originals(media) == set()
