"""Test the installed package: importing it loads neither aiohttp nor libvips, and an image can be attached."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aioimageattach

assert "site-packages" in Path(aioimageattach.__file__).parts, aioimageattach.__file__
assert not {"aiohttp", "pyvips"} & set(sys.modules), "importing the package has loaded aiohttp or pyvips"

import pyvips
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.context import store_context
from aioimageattach.entity import Image, image_attachment
from aioimageattach.stores import MemoryStore


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    picture = image_attachment("UserPicture")


class UserPicture(Base, Image):
    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


async def main(original: bytes) -> None:
    engine = create_async_engine("sqlite+aiosqlite:///smoke.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    with store_context(MemoryStore()):
        async with AsyncSession(engine) as session:
            session.add(user := User(id=1))
            await user.picture.from_blob(original)
            await user.picture.generate_thumbnail(width=150)
            await session.commit()
        async with AsyncSession(engine) as session:
            user = await session.get_one(User, 1)
            assert user.picture.find_thumbnail(width=150).size == (150, 120)
            assert await user.picture.make_blob() == original
    await engine.dispose()


asyncio.run(main(pyvips.Image.gaussnoise(640, 512).cast("uchar").write_to_buffer(".jpg")))
print("the wheel works")
