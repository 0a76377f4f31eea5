"""The models that the tests of faults stand on."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Unicode, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from aioimageattach.entity import Image, MultipleImageSet, image_attachment
from aioimageattach.offload import StoredBinary, stored_binary


class Base(DeclarativeBase):
    """The base of the models here."""


class User(Base):
    """Has one picture, a name that no other has, and two columns whose values are in the store."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(Unicode(60), unique=True)
    picture = image_attachment["UserPicture"]("UserPicture")
    body: Mapped[StoredBinary | None] = stored_binary(compression="gzip")
    small: Mapped[StoredBinary | None] = stored_binary()


class UserPicture(Base, Image):
    """The picture of a user, with two columns of the application's own."""

    __tablename__ = "user_picture"
    user_id: Mapped[int] = mapped_column(
        ForeignKey("user.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True
    )
    caption: Mapped[str | None] = mapped_column(Unicode(60))
    hidden: Mapped[bool] = mapped_column(default=False, server_default=false())


class Post(Base):
    """Has any number of photos, and of leaves."""

    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos = image_attachment["PostPhoto", MultipleImageSet["PostPhoto"]]("PostPhoto", uselist=True)
    leaves: Mapped[list[Leaf]] = relationship(cascade="all, delete-orphan")


class PostPhoto(Base, Image):
    """One photo of a post."""

    __tablename__ = "post_photo"
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)


class Leaf(Base):
    """Part of a post, with a value in the store."""

    __tablename__ = "leaf"
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredBinary] = stored_binary()
