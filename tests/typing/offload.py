"""What type checkers know of offloaded columns. Checked, never run."""

from __future__ import annotations

from typing import Any, assert_type

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, MappedAsDataclass, mapped_column

from aioimageattach.file import AsyncFile
from aioimageattach.offload import (
    Stored,
    StoredBinary,
    StoredJSON,
    StoredText,
    load_stored,
    stored,
    stored_binary,
    stored_json,
    stored_text,
)


class Base(DeclarativeBase):
    pass


class StoredNumbers(Stored[list[int]]):
    kind = ".bin"
    plain = list

    @classmethod
    def encode(cls, value: list[int]) -> bytes:
        return bytes(value)

    @classmethod
    def decode(cls, data: bytes) -> list[int]:
        return list(data)


class Article(Base):
    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText] = stored_text(compression="zstd")
    note: Mapped[StoredText | None] = stored_text(inline_below=100, deferred=True)
    scan = stored_binary(nullable=False, max_size=1000)
    cover = stored_binary(nullable=True)
    outline = stored_json(default=[])
    numbers = stored(StoredNumbers, dedupe=True)
    text = stored_text(nullable=True, object_type="words")


class Point(MappedAsDataclass, Base, kw_only=True):
    __tablename__ = "point"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[StoredText | None] = stored_text(default=None)


async def reading(article: Article, session: AsyncSession) -> None:
    assert_type(article.body, StoredText)
    assert_type(article.note, StoredText | None)
    assert_type(article.scan, StoredBinary)
    assert_type(article.cover, StoredBinary | None)
    assert_type(article.outline, StoredJSON)
    assert_type(article.numbers, StoredNumbers)
    assert_type(article.text, StoredText | None)
    assert_type(await article.body.load(), str)
    assert_type(article.body.value, str)
    assert_type(await article.scan.load(), bytes)
    assert_type(await article.numbers.load(), list[int])
    assert_type(await article.outline.load(), Any)
    assert_type(await article.body.open(), AsyncFile)
    assert_type((article.body.size, article.body.sha256, article.body.loaded), tuple[int, str, bool])
    assert_type(article.body.name, str | None)
    assert_type(Article.body, InstrumentedAttribute[StoredText])
    assert_type((await session.scalars(select(Article.body))).one(), StoredText)
    assert_type((await session.scalars(select(Article.cover))).one(), StoredBinary | None)
    await load_stored([article], Article.body, Article.scan, concurrency=4)


def writing(article: Article) -> None:
    article.body = StoredText("a handle")
    article.note = None
    article.scan = b"plain"
    article.scan = StoredBinary(b"a handle")
    article.cover = None
    article.cover = memoryview(b"plain")
    article.text = "plain"
    article.numbers = StoredNumbers([1])
    article.outline = {"any": ["JSON"]}
    Point(id=1, body=StoredText("a handle"))


def mistakes(article: Article) -> None:
    article.body = b"bytes"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    article.scan = "text"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    article.scan = None  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    repr(article.note.size)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    StoredText(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stored_text(compression="lzma")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    stored_text(server_default="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Point(id=1, body="plain")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
