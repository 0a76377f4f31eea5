"""Letters with attached files, for tests and for the programs that they start."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aioimageattach.offload import StoredFile, stored_file
from aioimageattach.store import KeyedStore
from tests.databases import Database
from tests.entity.models import started
from tests.offload.conftest import Sessions

PDF = b"%PDF-1.7 " + bytes(range(256)) * 40


class Base(DeclarativeBase):
    """The base of the models here."""


class Letter(Base):
    """A letter with two files, one of them small."""

    __tablename__ = "letter"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None] = mapped_column(String(40))
    scan: Mapped[StoredFile | None] = stored_file()
    stamp: Mapped[StoredFile | None] = stored_file(max_size=1000)


async def prepared(database: Database, store: KeyedStore) -> Sessions:
    return await started(database, Base.metadata, store, expire_on_commit=False)


async def scan_of(sessions: Sessions, number: int = 1) -> StoredFile:
    async with sessions() as session:
        found = (await session.get_one(Letter, number)).scan
        assert found is not None
        return found


async def attach(sessions: Sessions, blob: bytes = PDF, filename: str = "Invoice 7.pdf") -> None:
    async with sessions() as session, session.begin():
        session.add(Letter(id=1, scan=await StoredFile.from_blob(blob, filename=filename)))
