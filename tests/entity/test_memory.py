"""Attaching a large original takes constant memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SIZE = 100_000_000
CODE = f"""
import asyncio, os, struct, sys, threading, time, zlib
from dataclasses import replace

from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach import Image, image_attachment
from aioimageattach.stores.fs import FileSystemStore


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment("UserPicture")


class UserPicture(Base, Image):
    __tablename__ = "user_picture"
    __image_limits__ = replace(Image.__image_limits__, max_bytes=200_000_000)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


async def png(size):
    '''A PNG of about that size, of pixels that are not compressed.'''
    width = 10_000
    row = bytes(1) + os.urandom(3 * width)
    pack, height = zlib.compressobj(0), size // len(row)
    yield b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    for _ in range(height):
        data = pack.compress(row)
        if data:
            yield chunk(b"IDAT", data)
    yield chunk(b"IDAT", pack.flush()) + chunk(b"IEND", b"")


def memory():
    with open("/proc/self/status") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return [int(fields[name].split()[0]) for name in ("RssAnon", "VmRSS")]


class Watch(threading.Thread):
    '''Notes the most memory of our own that the process has, of which the map of a temporary file is none.'''

    peak, over = 0, False

    def run(self):
        while not self.over:
            self.peak = max(self.peak, memory()[0])
            time.sleep(0.002)


async def attach(engine, store, number, size):
    async with AsyncSession(engine) as session:
        user = User(id=number)
        session.add(user)
        image = await user.picture.from_file(png(size), store)
        assert image.byte_size > 0.99 * size
        await session.commit()


async def main(folder):
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    store = FileSystemStore(folder, "http://images/")
    await attach(engine, store, 1, 5_000_000)
    own, all = memory()
    watch = Watch()
    watch.start()
    await attach(engine, store, 2, {SIZE})
    watch.over = True
    watch.join()
    print(watch.peak - own, memory()[1] - all)
    await engine.dispose()


asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process's memory")
def test_a_large_original_is_not_held_in_memory(tmp_path: Path) -> None:
    """Attaching 100 MB takes less than 40 MB of memory at any time, frees it afterwards, and stores every byte."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    peak, left = (int(kibibytes) * 1024 for kibibytes in done.stdout.split())
    assert max(path.stat().st_size for path in tmp_path.rglob("*.png")) > 0.99 * SIZE
    assert 0 < peak < 40_000_000
    assert left < 20_000_000
