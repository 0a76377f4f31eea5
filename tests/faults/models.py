"""The models of the fault tests."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Unicode, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.offload import StoredBinary, StoredFile, stored_binary, stored_file


class Base(DeclarativeBase):
    """Declarative base of these models."""


class User(Base):
    """An owner of one picture, with a unique name, two offloaded columns and an attached file."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(Unicode(60), unique=True)
    picture = image_attachment["UserPicture"]("UserPicture")
    body: Mapped[StoredBinary | None] = stored_binary(compression="gzip")
    small: Mapped[StoredBinary | None] = stored_binary()
    scan: Mapped[StoredFile | None] = stored_file()


class UserPicture(Base, Image):
    """The picture of a user, with two columns of the application."""

    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(
        ForeignKey("user.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True
    )
    caption: Mapped[str | None] = mapped_column(Unicode(60))
    hidden: Mapped[bool] = mapped_column(default=False, server_default=false())


class Post(Base):
    """An owner of any number of photos and leaves."""

    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["PostPhoto", MultipleImageSet["PostPhoto"]]("PostPhoto", uselist=True)
    leaves: Mapped[list[Leaf]] = relationship(cascade="all, delete-orphan")


class PostPhoto(Base, Image):
    """A photo of a post."""

    __tablename__ = "post_photo"
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)


class Leaf(Base):
    """A part of a post with an offloaded value."""

    __tablename__ = "leaf"
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredBinary] = stored_binary()
