"""A headless Chromium, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.databases import REQUIRED

__all__ = ["CHROMIUM", "Browser", "browser"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 60.0  # seconds; a busy machine measures coverage, too


class Browser:
    """A browser tab.

    Attributes:
        errors: Errors that the browser has reported: failed scripts, and violated policies.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._number = 0
        self._loaded = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def listen(self) -> None:
        """Read messages of the browser until it ends."""
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                answer = self._answers.pop(event["id"])
                if "error" in event:
                    answer.set_exception(RuntimeError(str(event["error"])))
                else:
                    answer.set_result(event["result"])
            elif event["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif event["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(event["params"]["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                self.errors.append(event["params"]["entry"]["text"])

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        return await asyncio.wait_for(answer, PATIENCE)

    async def window(self, width: int, height: int = 900, scale: float = 1) -> None:
        """Set the size of the window, in CSS pixels, and the density of the screen."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    async def show(self, url: str) -> None:
        """Open a page, and wait until everything on it is loaded."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), PATIENCE)

    async def run(self, script: str) -> Any:
        """Return the value of an expression, which may be a promise."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression is true, also while the page changes."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    if await self.run(f"document.readyState === 'complete' && Boolean({script})"):
                        return
                except RuntimeError:  # there is no page at the moment, or not all of it
                    pass
                await asyncio.sleep(0.05)

    async def fill(self, **values: str) -> None:
        """Type into the fields with these names."""
        for name, value in values.items():
            await self.run(f"document.querySelector('[name={name}]').value = {json.dumps(value)}")

    async def click(self, selector: str) -> None:
        """Click on the first element that a selector finds."""
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")

    async def choose(self, selector: str, *paths: Path) -> None:
        """Choose files in a field."""
        found = await self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        files = [str(path) for path in paths]
        await self.call("DOM.setFileInputFiles", files=files, objectId=found["result"]["objectId"])

    async def overflow(self) -> int:
        """Return the number of pixels by which the page is wider than the window."""
        page = "document.documentElement"
        return int(await self.run(f"{page}.scrollWidth - {page}.clientWidth"))

    async def screenshot(self, path: Path) -> None:
        """Write the content of the window as a PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))


@asynccontextmanager
async def browser(profile: Path) -> AsyncGenerator[Browser, None]:
    """Start a browser with an empty profile, or skip the test if there is none."""
    if CHROMIUM is None:
        (pytest.fail if REQUIRED else pytest.skip)("a browser is needed: apt-get install chromium")
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while (match := re.search(rb"listening on ws://([^/]+)/", await process.stderr.readline())) is None:
                pass
        async with aiohttp.ClientSession() as client:
            tabs = await (await client.get(f"http://{match[1].decode()}/json")).json()
            url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with client.ws_connect(url, max_msg_size=0) as socket:
                tab = Browser(socket)
                listening = asyncio.create_task(tab.listen())
                for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
                    await tab.call(f"{domain}.enable")
                await tab.call("Network.setCacheDisabled", cacheDisabled=True)
                yield tab
                listening.cancel()
                await asyncio.wait([listening])
    finally:
        process.terminate()
        await process.communicate()
