"""Generate missing thumbnails for all owners, for example after a new size was added to a design."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
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
from ..entity._looks import as_recipes
from ..exc import DeclarationError, ImageError, NoOriginalError, StoreError, UsageError
from ..imaging._recipe import Recipe
from ..key import ImageKey
from ..store import Store
from ._plan import ThumbnailPlan, Thumbnails

__all__ = ["BATCH", "CONCURRENCY", "generate"]

BATCH: Final = 50
"""Number of owners per transaction."""

CONCURRENCY: Final = 8
"""Number of originals fetched and resized concurrently. Image processing has an additional, lower limit."""

_FAILURES_OF_A_TRANSACTION: Final = (ImageError, NoOriginalError, StoreError, SQLAlchemyError)


class _RowPlan(ThumbnailPlan):
    """Generates thumbnails with rows."""

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
        super().__init__()
        self._sessions = sessions
        self._attachment = attachment
        self._recipes = recipes
        self._store = store
        self._batch = batch
        self._concurrency = concurrency
        self._where = where
        self._extra_kwargs = extra_kwargs

    async def _run(self) -> AsyncGenerator[Thumbnails, None]:
        async with self._sessions() as session:
            self.progress.total = await session.scalar(self._total())
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

    def _total(self) -> Select[Any]:
        query = select(func.count()).select_from(self._owner).join(getattr(self._owner, self._attachment.key))
        return query.where(self._attachment.mapper.class_.original, *self._where)

    def _query(self, after: tuple[Any, ...] | None) -> Select[Any]:
        """Return the query for the next owners with images, after a primary key."""
        mapper = self._attachment.parent
        columns = [getattr(self._owner, mapper.get_property_by_column(column).key) for column in mapper.primary_key]
        images = getattr(self._owner, self._attachment.key)
        query = select(self._owner).where(images.any(self._attachment.mapper.class_.original), *self._where)
        query = query.options(*self._options)
        return (query if after is None else query.where(beyond(columns, after))).order_by(*columns).limit(self._batch)

    async def _page(self, after: tuple[Any, ...] | None) -> tuple[list[tuple[Any, ...]], list[Thumbnails]]:
        """Process the next owners in one transaction. If it fails, process each owner in a separate transaction."""
        async with self._sessions() as session:
            owners = (await session.scalars(self._query(after))).all()
            keys = [tuple(inspect(owner).identity) for owner in owners]
            try:
                return keys, self._counted(*await self._make(session, owners))
            except _FAILURES_OF_A_TRANSACTION:
                pass  # caused by one owner or by a concurrent transaction: process each owner separately
        return keys, [made for key in keys for made in await self._retry(key)]

    async def _retry(self, key: tuple[Any, ...]) -> list[Thumbnails]:
        async with self._sessions() as session:
            owner = await session.get(self._owner, key, options=self._options)
            try:
                return self._counted(*await self._make(session, [] if owner is None else [owner]))
            except _FAILURES_OF_A_TRANSACTION as error:
                return self._counted(1, [], [Thumbnails(self._owner, key, {}, error=error)])

    def _counted(self, looked: int, made: list[Thumbnails], failures: list[Thumbnails]) -> list[Thumbnails]:
        self._count(looked, made, failures)
        return made

    # --- images ------------------------------------------------------------------------------------------------------

    async def _make(
        self, session: AsyncSession, owners: Sequence[object]
    ) -> tuple[int, list[Thumbnails], list[Thumbnails]]:
        """Generate the thumbnails of some owners and commit. Return the number of images, results and failures."""
        pictures = [(owner, picture) for owner in owners for picture in self._pictures(owner)]
        failures: list[Thumbnails] = []

        async def generate_one(item: tuple[object, BaseImageSet[Any]]) -> None:
            owner, picture = item
            try:
                await picture.generate_thumbnails(self._recipes, self._store, extra_kwargs=self._extra_kwargs)
            except (UsageError, SQLAlchemyError):
                raise  # every image would fail, or the transaction has failed
            except Exception as error:  # includes errors of a recipe's callables and of third-party stores
                identity = tuple(inspect(owner).identity)
                failures.append(Thumbnails(type(owner), identity, picture.identity, error=error))

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
) -> Plan[Thumbnails]:
    """Return a plan that generates the missing thumbnails of each image of each owner.

    ::

        plan = generate(sessions, User.picture, [150, Recipe(width=600, format="webp")])
        await plan.execute()

    Each batch of owners is processed in a separate transaction. An interrupted plan can be run again: existing
    thumbnails are not generated again. The application can keep running in the meantime. If an image fails, the
    others are still processed; see :attr:`Plan.failures <aioimageattach.maintenance.Plan.failures>`.

    Args:
        sessions: Factory of the sessions, one for each batch.
        attachment: The attachment as an attribute of its class, such as ``User.picture``.
        recipes: Widths in pixels, or recipes.
        enlarge: ``True`` if a width in pixels may be larger than that of the original. Recipes have their own
            ``enlarge``.
        store: Store of the originals and of the thumbnails; ``None`` means the current store.
        batch: Number of owners per transaction.
        concurrency: Number of originals fetched and resized concurrently.
        where: Conditions on the owners, such as ``User.is_active``, combined with AND.
        extra_kwargs: Arguments for the constructor of the image class, for each thumbnail.

    Returns:
        The plan. It yields the new thumbnails of each image. Its progress counts images; ``made`` counts
        thumbnails, and ``bytes`` is their total size.

    Raises:
        DeclarationError: ``attachment`` is not an image attachment.
        ValueError: ``recipes`` is empty, or a number is below 1.

    Effects: The plan does nothing until it is awaited or iterated over. If a batch is cancelled, its rows and files are
    rolled back; those of earlier batches are kept.
    """
    for label, number in (("batch", batch), ("concurrency", concurrency), ("recipes", len(recipes))):
        if number < 1:
            raise ValueError(f"{label}: expected at least 1, got {number}")
    relationship = getattr(attachment, "property", None)
    if not isinstance(relationship, RelationshipProperty) or not issubclass(relationship.mapper.class_, Image):
        raise DeclarationError(f"expected an image attachment of a class, such as User.picture, got {attachment!r:.80}")
    conditions = (where,) if isinstance(where, ColumnElement) else tuple(where)
    return _RowPlan(
        sessions,
        relationship,
        as_recipes(recipes, enlarge=enlarge),
        store,
        batch,
        concurrency,
        conditions,
        extra_kwargs or {},
    )
