"""The image rows of one owner: an ordinary relationship, seen from an image set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Column, select
from sqlalchemy.ext.asyncio import AsyncSession, async_object_session
from sqlalchemy.orm import InstanceState, RelationshipProperty, with_parent
from sqlalchemy.orm.attributes import instance_state, set_attribute, set_committed_value

from ..exc import DeclarationError, DetachedError, NotLoadedError
from ..transaction.hooks import session_lock
from ._sets import owner_columns
from .image import NEEDED, Image

__all__ = ["Rows"]

I = TypeVar("I", bound=Image)  # noqa: E741


class Rows(Generic[I]):
    """The image rows of one owner: an ordinary relationship, seen from an image set."""

    __slots__ = ("name", "owner", "relationship")

    def __init__(self, owner: object, name: str, relationship: RelationshipProperty[Any]) -> None:
        self.owner: object = owner
        self.name: str = name
        self.relationship: RelationshipProperty[Any] = relationship

    @property
    def cls(self) -> type[I]:
        """The class of the rows."""
        return cast("type[I]", self.relationship.mapper.class_)

    @property
    def state(self) -> InstanceState[Any]:
        """The owner's state."""
        return instance_state(self.owner)

    @property
    def columns(self) -> dict[str, str]:
        """The rows' attributes that hold the owner's key, with the owner's attributes they are copied from."""
        return owner_columns(self.cls, self.relationship)

    @property
    def loaded(self) -> bool:
        """Whether :meth:`all` needs no query."""
        return self._loaded() is not None

    def all(self) -> list[I]:
        """The rows that are there and not about to be deleted.

        Raises:
            NotLoadedError: They are not loaded.
        """
        rows = self._loaded()
        if rows is None:
            attribute = f"{type(self.owner).__name__}.{self.name}"
            raise NotLoadedError(
                f"the images of {attribute} are not loaded: query with "
                f"`select(...).options(selectinload({attribute}))`, or `await owner.{self.name}.load()` first; "
                "sessions made with expire_on_commit=False keep them after a commit"
            )
        return rows

    def _loaded(self) -> list[I] | None:
        """The rows that are there, if all of them can be read without a query."""
        owner = self.state
        if owner.key is not None and self.relationship.key not in owner.dict:
            return None
        rows: Sequence[I] = getattr(self.owner, self.relationship.key)
        deleted = () if owner.session is None else owner.session.deleted
        found = []
        for row in rows:
            state = instance_state(row)
            if state.was_deleted or (deleted and row in deleted) or (owner.session is not None and state.detached):
                continue
            if state.key is not None and not state.dict.keys() >= NEEDED:
                return None
            found.append(row)
        return found

    def session(self) -> AsyncSession | None:
        """The session of the owner; ``None`` where it was not added to one yet.

        Raises:
            DetachedError: It was in one, and is no longer.
            DeclarationError: It is in one that is not used through an ``AsyncSession``.
        """
        session = async_object_session(self.owner)
        if session is None:
            if self.state.session is not None:
                raise DeclarationError(f"{type(self.owner).__name__} is in a Session; image sets need an AsyncSession")
            if self.state.key is not None:
                raise DetachedError(
                    f"this {type(self.owner).__name__} is in no session: merge it into one before changing its images"
                )
        return session

    async def load(self, *, again: bool = False) -> None:
        """Load the rows, unless they are; pending changes are not flushed."""
        if self.loaded and not again:
            return
        session = self.session()
        if session is None:
            return
        async with session_lock(session.sync_session):
            if self.loaded and not again:
                return
            await self._load(session, fresh=again)

    async def load_locked(self, session: AsyncSession) -> None:
        """Load the rows as they are committed now, and lock them against changes; the session's lock is held."""
        await self._load(session, locked=True)

    async def _load(self, session: AsyncSession, *, fresh: bool = False, locked: bool = False) -> None:
        attribute = getattr(type(self.owner), self.relationship.key)
        query = select(self.cls).where(with_parent(self.owner, attribute))
        if self.relationship.order_by:
            query = query.order_by(*self.relationship.order_by)
        if locked:
            query = query.with_for_update(read=True)
        query = query.execution_options(populate_existing=fresh or locked)
        with session.no_autoflush:
            if self.state.expired_attributes.intersection(self.columns.values()):
                await session.refresh(self.owner, list(self.columns.values()))
            rows = list(await session.scalars(query))
        pending = [row for row in self.state.dict.get(self.relationship.key, ()) if instance_state(row).pending]
        self._are(rows)
        for row in pending:  # by events: taken for loaded ones, they could not be taken away again
            self.append(row)

    def _are(self, rows: Sequence[object]) -> None:
        set_committed_value(self.owner, self.relationship.key, rows)

    def build(self, values: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> I:
        """Return a new row that belongs to the owner, in no session and no collection yet."""
        row = self.cls(*args, **kwargs) if args or kwargs else self._new()
        if self.state.key is not None:
            for name, source in self.columns.items():
                set_attribute(row, name, self.state.dict[source])
        for name, value in values.items():
            set_attribute(row, name, value)
        return cast("I", row)

    def _new(self) -> object:
        """A row made without the constructor, which may ask for what only we know."""
        mapper = self.relationship.mapper
        row = mapper.class_manager.new_instance()
        if isinstance(mapper.polymorphic_on, Column):
            kind = mapper.get_property_by_column(mapper.polymorphic_on)
            set_attribute(row, kind.key, mapper.polymorphic_identity)
        return row

    def append(self, row: I) -> None:
        """Make the row one of the owner's; it is inserted with the next flush."""
        getattr(self.owner, self.relationship.key).append(row)

    def inserted(self, row: I) -> None:
        """Note that a row of the owner's was inserted."""
        self._are([*getattr(self.owner, self.relationship.key), row])

    async def remove(self, row: I) -> None:
        """Take a row away; it is deleted with the next flush."""
        session = self.session()
        if session is None or instance_state(row).key is None:
            rows = getattr(self.owner, self.relationship.key)
            rows.pop(next(number for number, other in enumerate(rows) if other is row))  # remove() would compare
            if self.state.key is None:  # nothing to delete in the database, even where a rolled back flush was before
                rest = list(rows)
                self._are([])
                for other in rest:
                    self.append(other)
            return
        async with session_lock(session.sync_session):
            if any(other is row for other in self.all()):
                await session.delete(row)
