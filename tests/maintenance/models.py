"""The models of the maintenance tests."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Unicode
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.entity import Image, MultipleImageSet, image_attachment


class Base(DeclarativeBase):
    """The declarative base."""


class User(Base):
    """A user with one image."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(Unicode(60))
    picture = image_attachment["UserPicture"]("UserPicture")


class UserPicture(Base, Image):
    """The image of a user."""

    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)


class Post(Base):
    """A post with any number of photos."""

    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["PostPhoto", MultipleImageSet["PostPhoto"]]("PostPhoto", uselist=True)


class PostPhoto(Base, Image):
    """One photo of a post."""

    __tablename__ = "post_photo"
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
