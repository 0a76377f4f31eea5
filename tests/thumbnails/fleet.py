"""taskiq workers in separate processes, which tests and the benchmark start, kill and start again.

A worker runs ``taskiq worker tests.thumbnails.fleet:worker_broker``. It reads the location of its files and its queue
from the environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from taskiq import AsyncBroker

from aioimageattach import Image, Srcset
from aioimageattach._declared.maker import Original, Thumbnail
from aioimageattach.imaging import render
from aioimageattach.stores.fs import FileSystemStore
from aioimageattach.taskiq import ThumbnailTasks
from aioimageattach.thumbnails._maker import ThumbnailMaker
from tests.thumbnails.broker import URL, broker_of
from tests.thumbnails.models import all_thumbnails

_ROOT = Path(__file__).parent.parent.parent


class Base(DeclarativeBase):
    """The declarative base."""


class Snapshot(Base, Image):
    """An image with five thumbnails."""

    __tablename__ = "snapshot"
    __thumbnails__ = {
        "icon": Srcset([24], aspect=(1, 1), fallback=None),
        "card": Srcset([60, 120, 240], sizes="100vw"),
    }
    id: Mapped[int] = mapped_column(primary_key=True)


class Poster(Base, Image):
    """An image with four files, as on a typical page."""

    __tablename__ = "poster"
    __thumbnails__ = {"card": Srcset([320, 640, 1280], sizes="100vw")}
    id: Mapped[int] = mapped_column(primary_key=True)


CLASSES: list[type[Image]] = [Snapshot, Poster]


def worker_broker() -> AsyncBroker:
    """Return the broker of a worker."""
    broker = broker_of(os.environ["FLEET_QUEUE"], os.environ["FLEET_URL"])
    ThumbnailTasks(broker, FileSystemStore(os.environ["FLEET_FILES"], "/", fsync=False), CLASSES)
    return broker


class Worker:
    """A worker process.

    Args:
        queue: The name of its queue.
        files: The directory of its store.
        url: The address of RabbitMQ.
        core: The core it runs on; ``None`` for any.
    """

    def __init__(self, queue: str, files: Path, url: str = URL, core: int | None = None) -> None:
        self._environment = {
            **os.environ,
            "FLEET_QUEUE": queue,
            "FLEET_FILES": str(files),
            "FLEET_URL": url,
            "PYTHONPATH": str(_ROOT),
        }
        command = [sys.executable, "-m", "taskiq", "worker", "tests.thumbnails.fleet:worker_broker"]
        self._command = [*command, "--workers", "1", "--max-async-tasks", "4", "--log-level", "WARNING"]
        if core is not None:
            self._command = ["taskset", "-c", str(core), *self._command]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the process, or start it again."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, cwd=_ROOT, start_new_session=True, stdout=subprocess.DEVNULL
        )

    def stop(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process group, and wait until the process has ended."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self._process.wait()
            self._process = None


def thumbnails_of(maker: ThumbnailMaker, name: str) -> tuple[Original, list[Thumbnail]]:
    """Return the original with a name, and its declared thumbnails."""
    original = Original.parse(name)
    assert original is not None
    return original, all_thumbnails(maker, original)


def wrong_files(files: FileSystemStore, name: str, blob: bytes) -> list[str]:
    """Return the declared files of an original that are missing or differ from a rendering of it.

    Args:
        files: The store.
        name: The name of the original.
        blob: The original.
    """
    original, thumbnails = thumbnails_of(ThumbnailMaker(files, CLASSES), name)
    assert original.name == name
    steps = {one.name_of(step): one.recipe_of(step) for one in thumbnails for step in one.ladder.steps}

    def rendered(path: str, others: Sequence[str]) -> bytes:
        """Render the file from one decode with some others."""
        together = [one for one in steps if one == path or one in others]
        return render(blob, [steps[one] for one in together])[together.index(path)].blob

    def is_wrong(path: str) -> bool:
        file = Path(files.path) / path
        if not file.exists():
            return True
        content = file.read_bytes()
        rest = [one for one in steps if one != path]
        # After a worker was killed, only the missing files are rendered, which share a decode that differs.
        subsets = (others for count in range(len(rest), -1, -1) for others in combinations(rest, count))
        return all(rendered(path, others) != content for others in subsets)

    return [path for path in steps if is_wrong(path)]
