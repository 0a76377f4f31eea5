"""The models of the marketplace: users, their sign-ins, products, and the images of products."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import ClassVar
from uuid import UUID, uuid4

from sqlalchemy import DateTime, ForeignKey, Numeric, String, UniqueConstraint, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from aioimageattach import Image, ImageLimits, Placeholder, Srcset, ThumbnailMarks, image_attachment


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    password: Mapped[bytes]  # a salt and an scrypt hash


class SignIn(Base):
    __tablename__ = "sign_in"
    token: Mapped[bytes] = mapped_column(primary_key=True)  # the SHA-256 of the cookie
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))


class Photo(Base, Image, Placeholder, ThumbnailMarks):
    __tablename__ = "photo"
    __table_args__ = (UniqueConstraint("product_id", "position"),)
    __image_limits__ = ImageLimits(max_bytes=20_000_000)
    __strip_metadata__ = True
    __thumbnails__: ClassVar = {
        "icon": Srcset([96, 192], aspect=(1, 1), sizes="96px"),
        "card": Srcset([320, 640], aspect=(4, 3), sizes="(min-width: 40rem) 20rem, 100vw"),
        "page": Srcset([480, 960, 1920], sizes="(min-width: 60rem) 60rem, 100vw", formats=["avif", "webp"]),
    }
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)
    photo_id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    position: Mapped[int | None]
    caption: Mapped[str] = mapped_column(String(200), default="")

    @property
    def alt(self) -> str:
        return self.caption or ""  # None before the flush, which sets the default


class Product(Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(String(2000))
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    seller_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    seller: Mapped[User] = relationship(lazy="selectin")
    photos = image_attachment(Photo, uselist=True, order_by=Photo.position, max_pictures=12)


def create_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(url, connect_args={"timeout": 30})
    if engine.dialect.name == "sqlite":  # docs/howto/transactions.md gives the reasons
        event.listen(engine.sync_engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


async def create_tables(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
