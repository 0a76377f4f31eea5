"""Importable callables for recipes, which report their findings by the size of the image that they return."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

import pyvips

from aioimageattach._threads import run_pixels
from aioimageattach.imaging import ImageLimits, Recipe, _wire, render
from aioimageattach.imaging import _isolation as isolation
from tests import photos


def painted(image: pyvips.Image) -> pyvips.Image:
    return image.invert()


def loaded(image: pyvips.Image) -> pyvips.Image:
    """Return an image as wide as the number of heavy modules that are loaded."""
    return image.crop(0, 0, 1 + sum(name in sys.modules for name in ("sqlalchemy", "aiohttp")), 1)


def whole_package(image: pyvips.Image) -> pyvips.Image:
    import aioimageattach

    assert aioimageattach.Recipe(width=3).width == 3
    assert "sqlalchemy" not in sys.modules
    assert aioimageattach.Image
    return image.crop(0, 0, 2 if "sqlalchemy" in sys.modules else 1, 1)


def process(image: pyvips.Image) -> pyvips.Image:
    """Return an image as wide as the process id."""
    return pyvips.Image.black(os.getpid() % 16_000 + 1, 1, bands=3)


def raising(image: pyvips.Image) -> pyvips.Image:
    raise KeyError("mine")


def sleeping(image: pyvips.Image) -> pyvips.Image:
    time.sleep(30)
    return image


def greedy(image: pyvips.Image) -> pyvips.Image:
    bytearray(2_000_000_000)
    return image


def swollen(image: pyvips.Image) -> pyvips.Image:
    """Return an image of 1.8 GB."""
    return pyvips.Image.black(30_000, 20_000, bands=3).copy_memory()


hoard: list[bytearray] = []


def hoarding(image: pyvips.Image) -> pyvips.Image:
    """Keep memory, and then raise another error of libvips."""
    hoard.append(bytearray(250_000_000))
    return image.crop(0, 0, 100_000, 1)


def killed(image: pyvips.Image) -> pyvips.Image:
    os.kill(os.getpid(), signal.SIGKILL)
    return image


def crashed(image: pyvips.Image) -> pyvips.Image:
    os.kill(os.getpid(), signal.SIGSEGV)
    return image


def gone(image: pyvips.Image) -> pyvips.Image:
    os._exit(7)
    return image


def confined(image: pyvips.Image) -> pyvips.Image:
    """Return an image that is 2 wide if no file can be written, and one higher without a network."""
    width, height = 1, 1
    file = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
    try:
        os.write(file, b"x")
    except OSError:
        width = 2
    os.close(file)
    with socket.socket() as sock:
        try:
            sock.connect(("127.0.0.1", 9))
        except OSError as error:
            height += error.errno == 101  # ENETUNREACH: even the loopback interface is down
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
    return image.crop(0, 0, width, height)


def answering(image: pyvips.Image, head: bytes, body: bytes = b"") -> pyvips.Image:
    """Return the response of a compromised worker."""
    with socket.socket(fileno=os.dup(0)) as sock:
        _wire.send(sock, head, [body])
        time.sleep(30)
    return image


def prepared(image: pyvips.Image, head: bytes) -> pyvips.Image:
    """Make the worker send the given response to the next request."""
    from aioimageattach.imaging import _worker

    answer = _worker._respond

    def once(*_: object) -> tuple[object, list[bytes]]:
        _worker._respond = answer
        return json.loads(head), []

    _worker._respond = once
    return image


def host() -> list[int]:
    """Return the process ids of the workers, after one has made a thumbnail for this process."""
    [made] = render(photos.webp(), [Recipe(width=20)], ImageLimits(isolated=True))
    assert made.width == 20
    return [worker._process.pid for worker in isolation._pool._all]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Do the same for each request to a server."""
    body = json.dumps(await run_pixels(host)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
