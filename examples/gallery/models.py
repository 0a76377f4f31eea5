"""The models of the gallery: authors with one avatar each, and posts with any number of photographs."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import DateTime, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from aioimageattach import Image, ImageLimits, Placeholder, Srcset, ThumbnailMarks, image_attachment

LIMITS = ImageLimits(max_bytes=20_000_000)
"""Limits on uploads. Type and size are read from the content before a pixel is decoded."""


class Base(DeclarativeBase):
    """The declarative base of the gallery."""


class Avatar(Base, Image, ThumbnailMarks):
    """An author's avatar. An author has one, so the author's key is sufficient as its key.

    Its thumbnails are made before it is committed. The marks record this, so their URLs point directly to the store.
    """

    __tablename__ = "avatar"
    __image_limits__ = LIMITS
    __thumbnails__ = {"face": Srcset([48, 96, 192], aspect=(1, 1), sizes="48px")}

    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"), primary_key=True)


class Author(Base):
    """A person who posts photographs."""

    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60), unique=True)
    avatar = image_attachment(Avatar)


class Photo(Base, Image, Placeholder):
    """A photograph of a post. ``order_index`` distinguishes the photographs of a post.

    Its thumbnails are made in the background once it is committed, or earlier if a browser requests them; until they
    arrive, the page shows its dominant colour.
    """

    __tablename__ = "photo"
    __image_limits__ = LIMITS
    __placeholder_on_attach__ = True
    __thumbnails__ = {"tile": Srcset([320, 640, 1280, 2560])}

    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)


class Post(Base):
    """Photographs with a common title."""

    __tablename__ = "post"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(120))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship()
    photos = image_attachment(Photo, uselist=True)
