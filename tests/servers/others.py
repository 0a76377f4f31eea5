"""Other S3-compatible servers from package registries, each in a separate process."""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import aiohttp

from aioimageattach.stores.s3 import Credentials
from aioimageattach.stores.s3._credentials.cache import utc_now
from aioimageattach.stores.s3._signing.v4 import SignerV4
from tests.servers.gate import ACCESS_KEY, SECRET_KEY
from tests.servers.ministack import BIND, ROOT, free_port

__all__ = ["SERVERS", "OtherServer"]

ENVIRONMENT = ROOT / ".venv-s3-servers"
BUCKET = "pictures"
REGION = "us-east-1"


class OtherServer(ABC):
    """A server process.

    Args:
        folder: A directory that it may write to.

    Raises:
        FileNotFoundError: Its environment is not installed.
    """

    program: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        program = ENVIRONMENT / "bin" / self.program
        if not program.exists():
            raise FileNotFoundError(f"{ENVIRONMENT} is missing; `make install` makes it")
        self.port = free_port()
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [program, *self.arguments(folder)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    @abstractmethod
    def arguments(self, folder: Path) -> list[str]:
        """Return the arguments of the program."""

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://{BIND}:{self.port}"

    async def create_bucket(self) -> None:
        """Create the bucket if it does not exist, as soon as the server responds."""
        deadline = time.monotonic() + 60
        credentials = Credentials(ACCESS_KEY, SECRET_KEY)
        url = f"{self.url}/{BUCKET}"
        async with aiohttp.ClientSession() as session:
            while True:
                headers = SignerV4(REGION).sign("PUT", url, {"Content-Length": "0"}, credentials, now=utc_now())
                try:
                    async with session.put(url, headers=headers) as response:
                        assert response.status in (200, 409), await response.text()  # or it already exists
                        return
                except aiohttp.ClientConnectionError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise RuntimeError(Path(self._log.name).read_text()[-2000:]) from None
                    time.sleep(0.05)

    def close(self) -> None:
        """Terminate the process."""
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


class Rclone(OtherServer):
    """rclone serves a directory. It checks signatures, but does not support ``If-None-Match``."""

    program = "rclone"

    def arguments(self, folder: Path) -> list[str]:
        (folder / "data").mkdir()
        address, keys = f"{BIND}:{self.port}", f"{ACCESS_KEY},{SECRET_KEY}"
        return ["serve", "s3", "--config", "", "--addr", address, "--auth-key", keys, str(folder / "data")]


class Moto(OtherServer):
    """moto keeps all objects in memory and checks no signatures."""

    program = "moto_server"

    def arguments(self, folder: Path) -> list[str]:
        return ["-H", BIND, "-p", str(self.port)]


SERVERS: dict[str, type[OtherServer]] = {"rclone": Rclone, "moto": Moto}
"""The servers by name."""
