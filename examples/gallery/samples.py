"""Sample photographs: those of the project's tests, if the gallery runs from a checkout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio
from sqlalchemy.ext.asyncio import AsyncSession

from .models import Author, Post

FOLDER = Path(__file__).parents[2] / "tests" / "photos"  # its README names their sources

AVAILABLE = FOLDER.is_dir()


@dataclass(frozen=True, slots=True)
class Sample:
    """A post, its author, and the names of their files."""

    author: str
    avatar: str
    title: str
    photos: tuple[str, ...]


SAMPLES = (
    Sample("SpaceX", "rocket", "Lift-off", ("rocket",)),
    Sample("NASA", "astronaut", "Looking further", ("hubble", "astronaut")),
    Sample("scikit-image", "chelsea", "An afternoon with Chelsea", ("chelsea", "coffee", "camera")),
)


async def load(session: AsyncSession) -> None:
    """Add the sample posts to the session."""
    for sample in SAMPLES:
        author = Author(name=sample.author)
        post = Post(title=sample.title, author=author)
        async with await anyio.open_file(FOLDER / f"{sample.avatar}.jpg", "rb") as file:
            await author.avatar.from_file(file)
        await author.avatar.generate_thumbnails()
        for order_index, name in enumerate(sample.photos):
            async with await anyio.open_file(FOLDER / f"{name}.jpg", "rb") as file:
                await post.photos.get_image_set(order_index=order_index).from_file(file)
        session.add(post)
        await session.flush()  # flush each post, so that the last one is the newest
