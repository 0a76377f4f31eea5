"""Models for the tests of offloaded columns."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from aioimageattach.offload import (
    Stored,
    StoredBinary,
    StoredJSON,
    StoredText,
    stored,
    stored_binary,
    stored_json,
    stored_text,
)


class Base(DeclarativeBase):
    """Declarative base of these models."""


class StoredPacked(Stored[dict[str, Any]]):
    """A custom serializer."""

    kind = ".msgpack"
    mimetype = "application/msgpack"
    plain = dict

    @classmethod
    def encode(cls, value: dict[str, Any]) -> bytes:
        return msgspec.msgpack.encode(value)

    @classmethod
    def decode(cls, data: bytes) -> dict[str, Any]:
        return msgspec.msgpack.decode(data, type=dict[str, Any])


class Article(Base):
    """A class with one column of each kind."""

    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None] = mapped_column(String(40))
    body: Mapped[StoredText | None] = stored_text(compression="zstd")
    note: Mapped[StoredText | None] = stored_text(inline_below=20)
    data: Mapped[StoredBinary | None] = stored_binary(max_size=1_000_000)
    outline: Mapped[StoredJSON | None] = stored_json(compression="gzip")
    packed: Mapped[StoredPacked | None] = stored(StoredPacked)
    parts: Mapped[list[Part]] = relationship(cascade="all, delete-orphan")


class Part(Base):
    """A part of an article, with a composite key."""

    __tablename__ = "part"
    article_id: Mapped[int] = mapped_column(ForeignKey("article.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    body = stored_text(nullable=False)
    tags = stored_json(default=["new"], dedupe=True, nullable=True)


class Topic(Base):
    """A class without offloaded columns."""

    __tablename__ = "topic"
    id: Mapped[str] = mapped_column(String(10), primary_key=True)
    title: Mapped[str | None] = mapped_column(String(40))


class Draft(Base):
    """A class whose key is case-insensitive, as strings are on MariaDB."""

    __tablename__ = "draft"
    id: Mapped[str] = mapped_column(String(10).with_variant(String(10, collation="NOCASE"), "sqlite"), primary_key=True)
    body: Mapped[StoredText | None] = stored_text()
