"""What the gallery keeps: authors with one avatar each, posts with any number of photographs."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import DateTime, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from aioimageattach import Image, ImageLimits, image_attachment

LIMITS = ImageLimits(max_bytes=20_000_000)
"""What may be uploaded; what a picture is, and how large, is read from its content before a pixel is decoded."""


class Base(DeclarativeBase):
    """The tables of the gallery."""


class Avatar(Base, Image):
    """One size of an author's avatar. One author has one avatar, so the author's key is all it needs."""

    __tablename__ = "avatar"
    __image_limits__ = LIMITS

    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"), primary_key=True)


class Author(Base):
    """Somebody who posts."""

    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60), unique=True)
    avatar = image_attachment(Avatar)


class Photo(Base, Image):
    """One size of one photograph of a post. ``order_index`` tells the photographs of a post apart."""

    __tablename__ = "photo"
    __image_limits__ = LIMITS

    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    order_index: Mapped[int] = mapped_column(primary_key=True)


class Post(Base):
    """Some photographs under one title."""

    __tablename__ = "post"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(120))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship()
    photos = image_attachment(Photo, uselist=True)
