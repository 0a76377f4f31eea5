"""The image rows of one owner: an ordinary relationship, grouped into image sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

from sqlalchemy import Column, select
from sqlalchemy.ext.asyncio import AsyncSession, async_object_session
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import (
    flag_modified,
    instance_state,
    set_attribute,
    set_committed_value,
)

from ..exc import DeclarationError, NoOriginalError, NotLoadedError, UsageError
from ._columns import copy_values, own_columns
from ._gallery import check_max_pictures
from ._groups import Groups
from ._image import NEEDED, Image, set_zone
from ._mapping import Attachment, default_of, identity_attributes
from ._record import record_of

__all__ = ["Collection", "newest", "session_lock"]

I = TypeVar("I", bound=Image)  # noqa: E741

_LOCK: Final = "aioimageattach.lock"
_locked: ContextVar[frozenset[int]] = ContextVar("aioimageattach.locked", default=frozenset())


@asynccontextmanager
async def session_lock(session: Session) -> AsyncGenerator[None]:
    """Hold the lock that serialises the library's own statements on a session.

    It is reentrant through a context variable: a flush calls hooks of the application, which may use image sets, even
    in tasks that they create. Such calls do not wait for the lock.
    """
    if id(session) in _locked.get():
        yield
        return
    async with cast("asyncio.Lock", session.info.setdefault(_LOCK, asyncio.Lock())):
        token = _locked.set(_locked.get() | {id(session)})
        try:
            yield
        finally:
            _locked.reset(token)


class Collection(Generic[I]):
    """The image rows of one owner: an ordinary relationship, grouped into image sets."""

    __slots__ = ("attachment", "name", "owner")

    def __init__(self, owner: object, name: str, attachment: Attachment) -> None:
        self.owner: object = owner
        self.name: str = name
        self.attachment: Attachment = attachment

    def __reduce__(self) -> NoReturn:
        owner = type(self.owner).__name__
        raise UsageError(
            f"{owner}.{self.name} cannot be pickled or deep-copied without its owner: pickle or copy the {owner}"
        )

    @property
    def cls(self) -> type[I]:
        """The class of the rows."""
        return cast("type[I]", self.attachment.image.class_)

    @property
    def key(self) -> str:
        """The name of the relationship."""
        return self.attachment.relationship.key

    @property
    def state(self) -> InstanceState[Any]:
        """The owner's state."""
        return instance_state(self.owner)

    # --- without a query ---------------------------------------------------------------------------------------------

    def loaded(self, set_key: tuple[Any, ...] | None = None) -> bool:
        """Return whether the rows of one set, or of all sets, can be read without a query."""
        if self.state.key is not None and self.key not in self.state.dict:
            return False
        try:
            sets = self._groups().sets
            for rows in sets.values() if set_key is None else [sets.get(set_key, ())]:
                self._present(rows)
        except NotLoadedError:
            return False
        return True

    def set_keys(self) -> list[tuple[Any, ...]]:
        """Return the sets that have rows, each as the values of its discriminators.

        They are sorted by these values, or in the order that ``order_by`` gives their originals. Stored images
        without a position come first, because they are older than the position column.

        Raises:
            NotLoadedError: The rows are not loaded.
        """
        present = self.unordered()
        if not self.attachment.relationship.order_by:
            return sorted(present)
        numbers = {id(row): number for number, row in enumerate(self._rows())}
        position = self.attachment.position

        def rank(set_key: tuple[Any, ...]) -> tuple[int, int, int]:
            members = self.members(set_key)
            original = newest(members)
            if original is None:
                return 3, 0, numbers[id(members[0])]
            value = None if position is None else original.__dict__.get(position)
            if value is None:
                is_new = position is not None and instance_state(original).key is None
                return 2 if is_new else 0, 0, numbers[id(original)]
            return 1, value, numbers[id(original)]

        return sorted(present, key=rank)

    def unordered(self) -> list[tuple[Any, ...]]:
        """Return the same as :meth:`set_keys`, in any order."""
        return [set_key for set_key, rows in self._groups().sets.items() if self._present(rows)]

    def pictures(self) -> list[tuple[Any, ...]]:
        """Return the sets that have an original, in any order."""
        return [set_key for set_key in self.unordered() if newest(self.members(set_key)) is not None]

    def members(self, set_key: tuple[Any, ...] = ()) -> list[I]:
        """Return the rows of one set, without those that will be deleted or replaced by the next flush.

        Args:
            set_key: The values of the discriminators.

        Raises:
            NotLoadedError: The rows are not loaded.
        """
        rows = self._present(self._groups().sets.get(set_key, ()))
        pending = [row for row in rows if instance_state(row).key is None]
        if not pending:
            return rows
        if any(row.original for row in pending):
            return pending
        taken = {_look(row) for row in pending if (found := record_of(row).attached) is not None and found.replaces}
        return [row for row in rows if instance_state(row).key is None or _look(row) not in taken]

    def _set_key_of(self, row: I) -> tuple[Any, ...]:
        return tuple(row.__dict__.get(name) for name in self.attachment.discriminators)

    def _present(self, rows: Iterable[I]) -> list[I]:
        """Return the rows that are neither deleted nor marked for deletion.

        This is a hot path: it is called for each image of a page.
        """
        session = self.state.session
        deleted = {} if session is None else session._deleted
        found: list[I] = []
        for row in rows:
            state = instance_state(row)
            if state.was_deleted or (deleted and state in deleted):
                continue
            if state.key is not None:
                if session is not None and state.session_id is None:
                    continue  # expunged
                if state.expired_attributes and not _is_loaded(row):
                    raise self._not_loaded()
            found.append(row)
        return found

    def _rows(self) -> list[I]:
        unloaded = self.state.key is not None and self.key not in self.state.dict
        return [] if unloaded else cast("list[I]", getattr(self.owner, self.key))

    def _groups(self) -> Groups:
        state = self.state
        if state.key is not None and self.key not in state.dict:
            raise self._not_loaded()
        rows, key = self._rows(), ("aioimageattach", self.key)
        found: Groups | None = state.info.get(key)
        if found is None or not found.are_current(rows):
            if not all(_is_loaded(row) or instance_state(row).was_deleted for row in rows):
                raise self._not_loaded()
            found = state.info[key] = Groups.of(rows, self.attachment.discriminators)
        return found

    def _not_loaded(self) -> NotLoadedError:
        attribute = f"{type(self.owner).__name__}.{self.name}"
        return NotLoadedError(
            f"the images of {attribute} are not loaded; query with `select(...).options(selectinload({attribute}))`, "
            f"or call `await owner.{self.name}.load()` first. Sessions with expire_on_commit=False keep them after a "
            f"commit. For session.refresh(), the relationship is named {self.key!r}"
        )

    # --- with a query ------------------------------------------------------------------------------------------------

    def session(self) -> AsyncSession | None:
        """Return the session of the owner; ``None`` if the owner has not been added to one yet.

        Raises:
            UsageError: The owner is detached or was deleted.
            DeclarationError: The session is not used through an ``AsyncSession``.
        """
        if self.state.was_deleted or (self.state.session is not None and self.state in self.state.session._deleted):
            raise UsageError(f"this {type(self.owner).__name__} was deleted, so its images cannot be changed")
        session = async_object_session(self.owner)
        if session is None:
            if self.state.session is not None:
                raise DeclarationError(
                    f"expected the {type(self.owner).__name__} to be in an AsyncSession, got a Session"
                )
            if self.state.key is not None:
                raise UsageError(
                    f"this {type(self.owner).__name__} is detached from its session; merge it into a session before "
                    "changing its images"
                )
        return session

    async def load(self, set_key: tuple[Any, ...] | None = None, *, again: bool = False) -> None:
        """Load the rows unless they are already loaded. Pending changes are kept and not flushed.

        Args:
            set_key: The set to load; ``None`` for all sets.
            again: ``True`` to load the rows even if they are already loaded, because a loader condition may have hidden
                some of them.
        """
        if not again and self.loaded(set_key):
            return
        session = self.session()
        if session is None:
            return
        async with session_lock(session.sync_session):
            if again or not self.loaded(set_key):
                await self._load(session, set_key)

    async def load_locked(self, session: AsyncSession, set_key: tuple[Any, ...]) -> None:
        """Load the latest committed rows of a set, and lock them. The caller holds the session's lock."""
        await self._load(session, set_key, locked=True)

    async def _load(self, session: AsyncSession, set_key: tuple[Any, ...] | None, *, locked: bool = False) -> None:
        columns = [one.class_attribute for one in self.attachment.image.column_attrs if not one.deferred]
        query = select(self.cls, *columns)
        names = self.attachment.discriminators
        if self.key not in self.state.dict:
            set_key = None  # the list is not loaded, so the rows of one set cannot be added to it
        if set_key is not None:
            query = query.where(*(getattr(self.cls, name) == value for name, value in zip(names, set_key, strict=True)))
        relationship = self.attachment.relationship
        if relationship.order_by:
            query = query.order_by(*relationship.order_by)
        if locked:
            query = query.with_for_update(read=True, of=self.cls)
        owner_key = [name for name, _ in self.attachment.pairs]
        with session.no_autoflush:
            if self.state.expired_attributes.intersection(owner_key):
                await session.refresh(self.owner, owner_key)
            # with_parent() would keep a reference to the owner in the engine's cache of compiled statements
            owned = {
                **{name: self.state.dict[source] for source, name in self.attachment.pairs},
                **self.attachment.constants,
            }
            query = query.where(*(getattr(self.cls, name) == value for name, value in owned.items()))
            present = [] if set_key is None else [row for row in self._rows() if self._set_key_of(row) == set_key]
            rows = [_refresh(*row) for row in await session.execute(query)]
        if set_key is not None:
            known = set(map(id, present))
            if known >= set(map(id, rows)) and all(instance_state(row).dict.keys() >= NEEDED for row in present):
                return
            rows = [*(row for row in self._rows() if id(row) not in known), *rows]
        pending = [row for row in self.state.dict.get(self.key, ()) if instance_state(row).pending]
        self._set_rows([row for row in rows if not instance_state(row).pending])
        for row in pending:  # with events: as part of the committed value, they could not be removed again
            self.append(row)

    def _set_rows(self, rows: Sequence[object]) -> None:
        set_committed_value(self.owner, self.key, rows)

    async def complete(self, row: I, *, original: bool) -> None:
        """Load the columns of a row that are copied to a new one.

        Args:
            row: The row to copy from.
            original: ``True`` if the new row is an original.

        Raises:
            NoOriginalError: The row is no longer in the database.
        """
        columns = own_columns(self.attachment)
        names = sorted((columns.kept if original else columns.copied) - row.__dict__.keys())
        state, session = instance_state(row), self.session()
        if not names or session is None or not state.persistent:
            return
        identity = zip(identity_attributes(state.mapper), state.identity or (), strict=True)
        query = select(*(getattr(self.cls, name) for name in names))
        query = query.where(*(getattr(self.cls, name) == value for name, value in identity))
        async with session_lock(session.sync_session):
            with session.no_autoflush:
                found = (await session.execute(query)).first()
        if found is None:
            raise NoOriginalError(
                f"another transaction has deleted or replaced the {type(row).__name__}; load the set again"
            )
        for name, value in zip(names, found, strict=True):
            set_committed_value(row, name, value)

    async def lock(self) -> None:
        """Lock the owner until the end of the transaction, like a flush of its images, and load all rows again."""
        session = self.session()
        if session is None or self.state.key is None:
            return
        keys = [(getattr(type(self.owner), name), name) for name, _ in self.attachment.pairs]
        async with session_lock(session.sync_session):
            with session.no_autoflush:
                if self.state.expired_attributes.intersection(name for _, name in keys):
                    await session.refresh(self.owner, [name for _, name in keys])
                query = select(*(column for column, _ in keys))
                query = query.where(*(column == self.state.dict[name] for column, name in keys))
                await session.execute(query.with_for_update(key_share=True))
            await self._load(session, None)

    async def check_max_pictures(self, set_key: tuple[Any, ...]) -> None:
        """Reject a new image that would exceed the limit. The flush checks this again while the owner is locked.

        Raises:
            TooManyPicturesError: The image would exceed the limit.
        """
        limit = self.attachment.options.max_pictures
        if limit is None or len({*self.pictures(), set_key}) <= limit:
            return
        await self.load(again=True)  # another transaction may have deleted images
        check_max_pictures(self.attachment, len({*self.pictures(), set_key}))

    # --- changes -----------------------------------------------------------------------------------------------------

    def build(self, values: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any], template: I | None) -> I:
        """Return a new row that belongs to the owner, but is not in a session or collection yet.

        Args:
            values: Values of the library's columns.
            args: Positional arguments for the constructor of the image class.
            kwargs: Keyword arguments for the constructor of the image class.
            template: The row from which the application's columns are copied: the original of a thumbnail, or the
                original that a new one replaces. Constructor arguments take precedence.
        """
        row = cast("I", self.cls(*args, **kwargs) if args or kwargs else self._new())
        if template is not None:
            self._copy_columns(row, template, values["original"], args, kwargs)
        for relationship in own_columns(self.attachment).owners:  # SQLAlchemy does not load it for a pending object
            if relationship not in row.__dict__:
                set_committed_value(row, relationship, self.owner)
        if self.state.key is not None:
            for source, name in self.attachment.pairs:
                set_attribute(row, name, self.state.dict[source])
        for name, value in {**self.attachment.constants, **values}.items():
            set_attribute(row, name, value)
        image = self.attachment.image
        for name in identity_attributes(image):
            default = None if name in row.__dict__ else default_of(image, name)
            if default is not None:
                set_attribute(row, name, default())
        columns = own_columns(self.attachment)
        for name in columns.empty:
            if name not in row.__dict__:
                set_committed_value(row, name, None)
                if name in columns.ours:
                    # A row that replaces one with the same primary key is an UPDATE, which omits unmodified attributes.
                    flag_modified(row, name)
        return row

    def _copy_columns(
        self, row: I, template: I, original: bool, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        columns = own_columns(self.attachment)
        names = set(columns.kept if original else columns.copied) - kwargs.keys()
        for relationship, keys in columns.references:
            if relationship in kwargs:
                names -= keys
        if args or not kwargs.keys() <= set(self.attachment.image.attrs.keys()):  # the application's own constructor
            names -= {name for name in names if row.__dict__.get(name) is not None}
        copy_values(row, template, names, columns.references)
        position = self.attachment.position
        if original and position is not None and position in names:
            record_of(row).position = row.__dict__.get(position)

    def _new(self) -> object:
        """Create a row without calling the constructor, which may require arguments that are assigned later."""
        mapper = self.attachment.image
        row = mapper.class_manager.new_instance()
        if isinstance(mapper.polymorphic_on, Column):
            kind = mapper.get_property_by_column(mapper.polymorphic_on)
            set_attribute(row, kind.key, mapper.polymorphic_identity)
        return row

    def append(self, row: I) -> None:
        """Add the row to the owner's collection. The next flush inserts it."""
        record_of(row).owner = self.state
        key = ("aioimageattach", self.key)
        groups: Groups | None = self.state.info.get(key)
        rows = getattr(self.owner, self.key)
        rows.append(row)  # invalidates the groups; they are restored below, because grouping all rows again is slow
        if groups is not None and groups.are_current(rows):
            groups.sets.setdefault(self._set_key_of(row), []).append(row)
            self.state.info[key] = groups

    def inserted(self, row: I) -> None:
        """Add a row that was inserted to the loaded collection of the owner, without events."""
        self._set_rows([*getattr(self.owner, self.key), row])

    def remove_pending(self, set_key: tuple[Any, ...], *, replaced_by: I) -> None:
        """Remove rows of a set that were attached but not flushed yet and that a new row replaces.

        Args:
            set_key: The values of the discriminators.
            replaced_by: The new row. An original replaces all rows, a thumbnail the one with its size and look.
        """
        for row in self.members(set_key):
            if instance_state(row).key is None and (replaced_by.original or _look(row) == _look(replaced_by)):
                self._pop(row)

    def _pop(self, row: I) -> None:
        rows = getattr(self.owner, self.key)
        rows.pop(next(number for number, other in enumerate(rows) if other is row))  # remove() would compare with ==
        if self.state.key is None:  # nothing to delete in the database, even after a flush that was rolled back
            rest = list(rows)
            self._set_rows([])
            for other in rest:
                self.append(other)

    async def remove(self, rows: Sequence[I]) -> None:
        """Remove rows from the collection. The next flush deletes those that are in the database."""
        session = self.session()
        for row in rows:
            if session is None or instance_state(row).key is None:
                self._pop(row)
        if session is not None:
            async with session_lock(session.sync_session):
                for row in rows:
                    if instance_state(row).persistent:
                        await session.delete(row)


def newest(images: Sequence[I]) -> I | None:
    """Return the newest original among the images."""
    originals = [row for row in images if row.__dict__["original"]]
    return (
        max(originals, key=lambda row: row.revision or "", default=None)
        if originals[1:]
        else next(iter(originals), None)
    )


def _refresh(row: I, *values: Any) -> I:
    """Refresh the columns of a row from the database, except for changes that are not flushed.

    ``populate_existing`` would overwrite such changes, also those of every object that is loaded with the row.
    """
    state = instance_state(row)
    attributes = [one.key for one in state.mapper.column_attrs if not one.deferred]
    for name, value in zip(attributes, values, strict=False):
        if name not in state.committed_state and row.__dict__.get(name) != value:
            set_committed_value(row, name, value)
    set_zone(row)
    return row


def _look(row: Image) -> tuple[int, int, str]:
    return row.width, row.height, row.variant


def _is_loaded(row: Image) -> bool:
    state = instance_state(row)
    return state.key is None or state.dict.keys() >= NEEDED
