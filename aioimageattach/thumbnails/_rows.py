"""Thumbnails that are missing, made for all owners at once: what a new size in a design needs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Select, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import RelationshipProperty, lazyload, selectinload
from sqlalchemy.sql.base import ExecutableOption

from .._inventory import beyond
from .._inventory.plan import Plan
from .._tasks import map_concurrently
from ..entity import BaseImageSet, Image, MultipleImageSet
from ..entity._thumbnails import as_recipes
from ..exc import DeclarationError, ImageError, NoOriginalError, StoreError, UsageError
from ..imaging._recipe import Recipe
from ..key import ImageKey
from ..store import Store

__all__ = ["BATCH", "CONCURRENCY", "ThumbnailFailure", "ThumbnailPlan", "ThumbnailProgress", "Thumbnails", "generate"]

BATCH: Final = 50
"""How many owners one transaction is about."""

CONCURRENCY: Final = 8
"""How many originals are fetched and resized at once; pixels have a narrower bound of their own."""

_FAILURES_OF_A_TRANSACTION: Final = (ImageError, NoOriginalError, StoreError, SQLAlchemyError)


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """What was made of one picture, and is committed.

    Args:
        owner: The class of its owner.
        identity: The owner's primary key.
        picture: What tells the picture from the owner's others; empty where there is one.
        keys: The new thumbnails.
        byte_size: Of all of them, in bytes.
    """

    owner: type[Any]
    identity: tuple[Any, ...]
    picture: dict[str, Any]
    keys: tuple[ImageKey, ...]
    byte_size: int


@dataclass(frozen=True, slots=True)
class ThumbnailFailure:
    """A picture of which the thumbnails could not be made.

    Args:
        owner: The class of its owner.
        identity: The owner's primary key.
        picture: What tells the picture from the owner's others; empty where there is one, or where it was not one
            picture of the owner's that failed, but the transaction.
        error: Why.
    """

    owner: type[Any]
    identity: tuple[Any, ...]
    picture: dict[str, Any]
    error: Exception


@dataclass(slots=True)
class ThumbnailProgress:
    """How far a plan is.

    Args:
        total: Pictures there were when it began; ``None`` before.
        done: Pictures that were looked at.
        made: Thumbnails that were made.
        bytes: Of the thumbnails.
        failed: Pictures of which none could be made.
    """

    total: int | None = None
    done: int = 0
    made: int = 0
    bytes: int = 0
    failed: int = 0


class ThumbnailPlan(Plan[Thumbnails, ThumbnailProgress]):
    """Makes missing thumbnails, lazily: iterate over it, or await :meth:`execute`. What :func:`generate` returns.

    Attributes:
        progress: How far it is.
        failures: The pictures of which none could be made.
    """

    def __init__(
        self,
        sessions: async_sessionmaker[Any],
        attachment: RelationshipProperty[Any],
        recipes: Sequence[Recipe],
        store: Store | None,
        batch: int,
        concurrency: int,
        where: Sequence[ColumnElement[bool]],
        extra_kwargs: Mapping[str, Any],
    ) -> None:
        super().__init__(ThumbnailProgress)
        self.failures: list[ThumbnailFailure] = []
        self._sessions = sessions
        self._attachment = attachment
        self._recipes = recipes
        self._store = store
        self._batch = batch
        self._concurrency = concurrency
        self._where = where
        self._extra_kwargs = extra_kwargs

    async def _run(self) -> AsyncGenerator[Thumbnails, None]:
        self.failures.clear()
        async with self._sessions() as session:
            self.progress.total = await session.scalar(self._count())
        after: tuple[Any, ...] | None = None
        while True:
            keys, found = await self._page(after)
            for made in found:
                yield made
            if not keys:
                return
            after = keys[-1]

    # --- owners ------------------------------------------------------------------------------------------------------

    @property
    def _owner(self) -> type[Any]:
        return self._attachment.parent.class_

    @property
    def _options(self) -> tuple[ExecutableOption, ...]:
        return lazyload("*"), selectinload(getattr(self._owner, self._attachment.key))

    def _count(self) -> Select[Any]:
        query = select(func.count()).select_from(self._owner).join(getattr(self._owner, self._attachment.key))
        return query.where(self._attachment.mapper.class_.original, *self._where)

    def _query(self, after: tuple[Any, ...] | None) -> Select[Any]:
        """The owners with pictures who follow on a primary key."""
        mapper = self._attachment.parent
        columns = [getattr(self._owner, mapper.get_property_by_column(column).key) for column in mapper.primary_key]
        images = getattr(self._owner, self._attachment.key)
        query = select(self._owner).where(images.any(self._attachment.mapper.class_.original), *self._where)
        query = query.options(*self._options)
        return (query if after is None else query.where(beyond(columns, after))).order_by(*columns).limit(self._batch)

    async def _page(self, after: tuple[Any, ...] | None) -> tuple[list[tuple[Any, ...]], list[Thumbnails]]:
        """Make those of some owners in one transaction; where it fails, in one for each."""
        async with self._sessions() as session:
            owners = (await session.scalars(self._query(after))).all()
            keys = [tuple(inspect(owner).identity) for owner in owners]
            try:
                return keys, self._counted(*await self._make(session, owners))
            except _FAILURES_OF_A_TRANSACTION:
                pass  # one owner's trouble, or another transaction was first: then each for itself
        return keys, [made for key in keys for made in await self._retry(key)]

    async def _retry(self, key: tuple[Any, ...]) -> list[Thumbnails]:
        async with self._sessions() as session:
            owner = await session.get(self._owner, key, options=self._options)
            try:
                return self._counted(*await self._make(session, [] if owner is None else [owner]))
            except _FAILURES_OF_A_TRANSACTION as error:
                return self._counted(1, [], [ThumbnailFailure(self._owner, key, {}, error)])

    def _counted(self, looked: int, made: list[Thumbnails], failures: list[ThumbnailFailure]) -> list[Thumbnails]:
        self.failures += failures
        self.progress.done += looked
        self.progress.failed += len(failures)
        self.progress.made += sum(len(one.keys) for one in made)
        self.progress.bytes += sum(one.byte_size for one in made)
        return made

    # --- pictures ----------------------------------------------------------------------------------------------------

    async def _make(
        self, session: AsyncSession, owners: Sequence[object]
    ) -> tuple[int, list[Thumbnails], list[ThumbnailFailure]]:
        """Make those of some owners and commit; return how many pictures they have, and what became of them."""
        pictures = [(owner, picture) for owner in owners for picture in self._pictures(owner)]
        failures: list[ThumbnailFailure] = []

        async def generate_one(item: tuple[object, BaseImageSet[Any]]) -> None:
            owner, picture = item
            try:
                await picture.generate_thumbnails(self._recipes, self._store, extra_kwargs=self._extra_kwargs)
            except (UsageError, SQLAlchemyError):
                raise  # it would fail for every picture; or the transaction has failed
            except Exception as error:  # also what a callable of a recipe or a third-party store raises
                identity = tuple(inspect(owner).identity)
                failures.append(ThumbnailFailure(type(owner), identity, picture.identity, error))

        await map_concurrently(generate_one, pictures, limit=self._concurrency)
        new = [(owner, picture, [row for row in picture if inspect(row).pending]) for owner, picture in pictures]
        await session.flush()
        made = [
            Thumbnails(
                type(owner),
                tuple(inspect(owner).identity),
                picture.identity,
                tuple(cast("ImageKey", row.key) for row in rows),
                sum(row.byte_size for row in rows),
            )
            for owner, picture, rows in new
            if rows
        ]
        await session.commit()
        return len(pictures), made, failures

    def _pictures(self, owner: object) -> list[BaseImageSet[Any]]:
        found = getattr(owner, self._attachment.key.removesuffix("_images"))
        return [picture for picture in (found if isinstance(found, MultipleImageSet) else [found]) if picture]


def generate(
    sessions: async_sessionmaker[Any],
    attachment: Any,
    recipes: Sequence[int | Recipe],
    *,
    store: Store | None = None,
    enlarge: bool = True,
    batch: int = BATCH,
    concurrency: int = CONCURRENCY,
    where: ColumnElement[bool] | Sequence[ColumnElement[bool]] = (),
    extra_kwargs: Mapping[str, Any] | None = None,
) -> ThumbnailPlan:
    """Return a plan that makes the thumbnails that are missing, for each picture of each owner.

    ::

        plan = generate(sessions, User.picture, [150, Recipe(width=600, format="webp")])
        await plan.execute()

    Each batch of owners is a transaction of its own. Stopped in the middle, and begun again, it goes on where it was:
    what is there is not made anew. An application may go on meanwhile. A picture that fails keeps no other from its
    thumbnails.

    Args:
        sessions: Makes a session for each batch.
        attachment: Such as ``User.picture``, the attribute of the class.
        recipes: Widths in pixels, or recipes.
        enlarge: Whether a width in pixels may be larger than the original's; recipes say it themselves.
        store: Where originals are, and thumbnails are to be; ``None`` for the current one.
        batch: How many owners one transaction is about.
        concurrency: How many originals are fetched and resized at once.
        where: Conditions on the owners, such as ``User.is_active``; all of them must hold.
        extra_kwargs: Passed to the image class's constructor for each thumbnail.

    Raises:
        DeclarationError: It is no attachment.
        ValueError: No recipe is given, or a number is below 1.

    Effects: Nothing is done before the plan is awaited. When a batch is cancelled, its rows and files are undone; those
    of the batches before stay.
    """
    for label, number in (("batch", batch), ("concurrency", concurrency), ("recipes", len(recipes))):
        if number < 1:
            raise ValueError(f"{label}: expected at least 1, got {number}")
    relationship = getattr(attachment, "property", None)
    if not isinstance(relationship, RelationshipProperty) or not issubclass(relationship.mapper.class_, Image):
        raise DeclarationError(f"expected an image attachment of a class, such as User.picture, got {attachment!r:.80}")
    conditions = (where,) if isinstance(where, ColumnElement) else tuple(where)
    return ThumbnailPlan(
        sessions,
        relationship,
        as_recipes(recipes, enlarge=enlarge),
        store,
        batch,
        concurrency,
        conditions,
        extra_kwargs or {},
    )
