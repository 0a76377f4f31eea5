"""Types of offloaded columns. Checked, never run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import httpx
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, MappedAsDataclass, mapped_column
from starlette.datastructures import UploadFile

from aioimageattach.file import AsyncFile, Spool
from aioimageattach.offload import (
    Stored,
    StoredBinary,
    StoredFile,
    StoredJSON,
    StoredText,
    load_stored,
    stored,
    stored_binary,
    stored_file,
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
    invoice: Mapped[StoredFile] = stored_file(max_size=1000)
    receipt: Mapped[StoredFile | None] = stored_file(deferred=True)
    proof = stored_file(nullable=True)


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
    assert_type(article.invoice, StoredFile)
    assert_type(article.receipt, StoredFile | None)
    assert_type(article.proof, StoredFile | None)
    assert_type(await article.invoice.load(), Spool)
    assert_type(await article.invoice.read(), bytes)
    assert_type(await article.invoice.open(), AsyncFile)
    assert_type([chunk async for chunk in article.invoice.chunks()], list[bytes])
    assert_type((article.invoice.filename, article.invoice.mimetype), tuple[str, str])
    assert_type(article.invoice.created_at, datetime | None)
    assert_type(article.invoice.headers, dict[str, str])
    assert_type(article.invoice.locate(download=True), str)
    assert_type(Article.invoice, InstrumentedAttribute[StoredFile])
    assert_type(await article.body.open(), AsyncFile)
    assert_type((article.body.size, article.body.sha256, article.body.loaded), tuple[int, str, bool])
    assert_type(article.body.name, str | None)
    assert_type(Article.body, InstrumentedAttribute[StoredText])
    assert_type((await session.scalars(select(Article.body))).one(), StoredText)
    assert_type((await session.scalars(select(Article.cover))).one(), StoredBinary | None)
    await load_stored([article], Article.body, Article.scan, concurrency=4)


async def attaching(article: Article, upload: UploadFile, response: httpx.Response) -> None:
    article.invoice = await StoredFile.from_file(upload, max_size=1000)
    article.receipt = await StoredFile.from_file(response)
    article.receipt = await StoredFile.from_path(Path("x.pdf"), filename="y.pdf")
    article.proof = await StoredFile.from_blob(b"x", filename="x.pdf", mimetype="application/pdf")


def writing(article: Article) -> None:
    article.body = StoredText("a handle")
    article.note = None
    article.scan = b"plain"
    article.scan = StoredBinary(b"a handle")
    article.cover = None
    article.cover = memoryview(b"plain")
    article.text = "plain"
    article.receipt = None
    article.proof = article.invoice
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
    article.invoice = b"x"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    article.receipt = StoredFile.from_blob(b"x", filename="x")  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    stored_file(compression="gzip")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    stored_text(server_default="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Point(id=1, body="plain")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
