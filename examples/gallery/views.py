"""What pages show, read off the loaded rows once: no query, no waiting, and templates that only write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aioimageattach import ImageSubset

from . import thumbnails
from .models import Photo, Post


@dataclass(frozen=True, slots=True)
class Tile:
    """One photograph, with the addresses of the sizes there are by now. An address is a calculation."""

    order_index: int
    original: str
    src: str
    srcset: str
    width: int
    height: int
    files: int
    ready: bool

    @classmethod
    def of(cls, photo: ImageSubset[Photo]) -> Tile:
        """Look at a photograph that is there."""
        original = photo.require_original()
        images = sorted(photo, key=lambda image: image.width)
        return cls(
            order_index=original.order_index,
            original=original.locate(),
            src=images[0].locate(),  # until there are thumbnails it is the original itself
            srcset=", ".join(f"{image.locate()} {image.width}w" for image in images),
            width=original.width,
            height=original.height,
            files=len(images),
            ready=not thumbnails.missing(images),
        )


@dataclass(frozen=True, slots=True)
class Card:
    """One post with its photographs."""

    post: Post
    tiles: list[Tile]


def cards(posts: Iterable[Post]) -> list[Card]:
    """Look at posts whose rows are loaded."""
    return [Card(post, [Tile.of(photo) for photo in post.photos]) for post in posts]
