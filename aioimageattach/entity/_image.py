"""The row of one physical image."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import BigInteger, Boolean, DateTime, Integer, String, event, tuple_
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.orm.attributes import instance_state, set_attribute

from .._declared import Srcset
from .._transaction.hooks import former_store
from ..context._current import resolve_store
from ..exc import ContextError, DeclarationError, NotLoadedError
from ..file import AsyncFile
from ..imaging._limits import DEFAULT_LIMITS, ImageLimits
from ..imaging._recipe import Recipe
from ..key import ImageKey
from ..store import Store
from ._mapping import SIZE, identity_attributes, identity_without_size, mapper_of
from ._markup import DeclaredThumbnails
from ._record import attached_as, known_store, record_of

__all__ = ["NEEDED", "Image", "set_zone", "utcnow"]

NEEDED = frozenset({"width", "height", "variant", "mimetype", "original", "revision", "created_at"})
"""The columns that an image set needs in order to list its images."""

_KEYED = frozenset({"width", "height", "mimetype", "revision"})


def utcnow() -> datetime:
    """Return the current time as an aware datetime in UTC."""
    return datetime.now(UTC)


class Image(DeclaredThumbnails):
    """Mixin of the row of one physical image: the original, or one thumbnail of it.

    Declare a class with it, your declarative base, and a foreign key to the owner that is part of the primary key::

        class UserPicture(Base, Image):
            __tablename__ = "user_picture"
            user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)

    Override :attr:`object_type` if you rename the table; :attr:`object_id` if the store uses it in file names and the
    owner's key is neither an integer nor a UUID; :attr:`alt` to provide alternative text; :attr:`__image_limits__` to
    change which images are accepted; and :attr:`__strip_metadata__` to store originals without metadata. Declare the
    sizes in which images are displayed in :attr:`__thumbnails__`.
    """

    __thumbnails__: ClassVar[Mapping[str, Srcset | Recipe]] = {}
    """The declared thumbnails by name; see the guide *Show responsive images*."""

    __fallback_picture__: ClassVar[str | None] = None
    """The URL of the image that is displayed instead of a declared thumbnail if no image is attached."""

    __image_limits__: ClassVar[ImageLimits] = DEFAULT_LIMITS
    """Limits on the images that are accepted: types, sizes and proportions."""

    __strip_metadata__: ClassVar[bool] = False
    """``True`` to remove EXIF, GPS, XMP and comments from originals in ``from_file``, ``from_blob`` and ``from_url``,
    unless the call overrides it. Thumbnails never contain such metadata."""

    if TYPE_CHECKING:
        width: Mapped[int]
        """Width of the displayed image in pixels; part of the primary key."""
        height: Mapped[int]
        """Height of the displayed image in pixels; part of the primary key."""
        variant: Mapped[str]
        """The look of a thumbnail, empty if it looks like the original; part of the primary key."""
        mimetype: Mapped[str]
        """The MIME type, such as ``"image/jpeg"``, detected from the content."""
        original: Mapped[bool]
        """``True`` for the original, ``False`` for a thumbnail."""
        created_at: Mapped[datetime]
        """The time when the row was created, in UTC."""
        revision: Mapped[str | None]
        """The unique identifier of the upload; ``None`` for a row written by SQLAlchemy-ImageAttach."""
        byte_size: Mapped[int | None]
        """Size of the file in bytes; ``None`` for a row written by SQLAlchemy-ImageAttach."""
        sha256: Mapped[str | None]
        """SHA-256 of the file in hexadecimal; ``None`` for a row written by SQLAlchemy-ImageAttach."""
    else:  # not annotated at run time: dataclass and SQLModel mappings would add them as constructor arguments
        width = mapped_column("width", Integer, primary_key=True, autoincrement=False, sort_order=1)
        height = mapped_column("height", Integer, primary_key=True, autoincrement=False, sort_order=2)
        variant = mapped_column("variant", String(32), primary_key=True, default="", sort_order=3)
        mimetype = mapped_column("mimetype", String(255), nullable=False, sort_order=4)
        original = mapped_column("original", Boolean, nullable=False, default=False, sort_order=5)
        created_at = mapped_column(
            "created_at",
            DateTime(timezone=True).with_variant(DATETIME(fsp=6), "mysql", "mariadb"),
            nullable=False,
            default=utcnow,
            sort_order=6,
        )
        revision = mapped_column("revision", String(64), nullable=True, unique=True, sort_order=7)
        byte_size = mapped_column("byte_size", BigInteger, nullable=True, sort_order=8)
        sha256 = mapped_column("sha256", String(64), nullable=True, sort_order=9)

    @property
    def object_type(self) -> str:
        """The kind of object in the store's file names: by default the table name, with ``-`` instead of ``_``."""
        return str(instance_state(self).mapper.local_table.description).replace("_", "-")

    @property
    def object_id(self) -> int:
        """The number that identifies the owner in the store's file names: its key, if that is one integer or UUID.

        Raises:
            DeclarationError: The owner's key is neither, and the class does not override this property.
        """
        found = _plain_object_id(self)
        if found is None:
            raise DeclarationError(
                f"{type(self).__name__}.object_id: expected a primary key that is one integer or UUID besides width, "
                f"height and variant, got {self.identity_map!r}; override the property object_id to return an int"
            )
        return found

    @classmethod
    def identity_attributes(cls) -> tuple[str, ...]:
        """Return the names of the primary key's attributes."""
        return identity_attributes(mapper_of(cls))

    @property
    def identity_map(self) -> dict[str, Any]:
        """The primary key without width, height and variant. The images of one set share it.

        ``post.photos.get_image_set(**image.identity_map)`` returns the set that contains the image.

        Raises:
            NotLoadedError: The row's columns are expired.
        """
        names = [name for name in self.identity_attributes() if name not in SIZE]
        self._require_loaded(*names)
        return {name: self.__dict__.get(name) for name in names}

    @hybrid_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels; in SQL expressions, a tuple of both columns."""
        self._require_loaded("width", "height")
        return self.width, self.height

    @size.inplace.setter
    def _size_setter(self, size: tuple[int, int]) -> None:
        width, height = size
        set_attribute(self, "width", width)
        set_attribute(self, "height", height)

    @size.inplace.expression
    @classmethod
    def _size_expression(cls) -> Any:
        return tuple_(cls.width, cls.height)

    @property
    def reproducible(self) -> bool:
        """``True`` if the file can be regenerated from another one, which is the case for thumbnails."""
        return not self.original

    @property
    def key(self) -> ImageKey:
        """The key that identifies the file in the store.

        Raises:
            NotLoadedError: The row's columns are expired.
        """
        found = self._stored_key()
        if found is None:
            raise self._not_loaded(*sorted(_KEYED), *identity_without_size(instance_state(self).mapper))
        return found

    def locate(self, store: Store | None = None, *, download: str | None = None) -> str:
        """Return the URL of the file. No query and no I/O.

        Args:
            store: The store; ``None`` for the store with which the image was attached in this session, or else the
                current store.
            download: The file name under which browsers save the file instead of displaying it, such as ``"cat.jpg"``.

        Raises:
            ContextError: No store is given or set.
            DeclarationError: ``download`` is given, but the store does not support it. It requires signed URLs.
            NotLoadedError: The row's columns are expired.
            ValueError: ``download`` is not a valid file name.
        """
        self._require_loaded("created_at")
        return self._store(store).locate(self, download=download)

    async def open_file(self, store: Store | None = None, use_seek: bool = False) -> AsyncFile:
        """Open the file; close it with ``async with`` or ``aclose()``.

        Args:
            store: As for :meth:`locate`.
            use_seek: ``True`` if the file must support ``seek`` and ``tell``.

        Raises:
            StoreFileNotFoundError: The store has no such file.
            ContextError: No store is given or set.
            NotLoadedError: The row's columns are expired.
        """
        attached = record_of(self).attached
        if attached is not None and attached.spool is not None:
            return attached.spool.open()
        return await self._store(store).open(self, use_seek)

    async def make_blob(self, store: Store | None = None) -> bytes:
        """Return the bytes of the file; see :meth:`open_file`."""
        async with await self.open_file(store) as file:
            return await file.read()

    @property
    def alt(self) -> str:
        """The alternative text of the image; override it if your rows contain a description.

        It is empty by default, which marks the image as decorative (WCAG 2, technique H67).
        """
        return ""

    def __html__(self) -> str:
        """Return an ``<img>`` element with the URL, width, height and :attr:`alt`, for templates."""
        url = escape(self.locate())
        return f'<img src="{url}" width="{self.width}" height="{self.height}" alt="{escape(self.alt)}">'

    def _shown(self) -> tuple[type[Any], Any]:
        return type(self), self

    def _store(self, store: Store | None) -> Store:
        state = instance_state(self)
        try:
            return resolve_store(store, known_store(self), session=state.session, bound=former_store(state))
        except ContextError as error:
            if state.key is None or state.session is not None:
                raise
            raise ContextError(
                f"no store is set, and the former session of this {type(self).__name__} had none; call "
                "set_default_store(store) at start-up, or bind_store(sessionmaker, store) before sessions are created, "
                "or pass store=..."
            ) from error

    def _loaded(self, *names: str) -> bool:
        state = instance_state(self)
        return state.key is None or state.dict.keys() >= {*names}

    def _require_loaded(self, *names: str) -> None:
        if not self._loaded(*names):
            raise self._not_loaded(*names)

    def _not_loaded(self, *names: str) -> NotLoadedError:
        state = instance_state(self)
        missing = [name for name in names if name not in state.dict]
        if not state.dict.keys().isdisjoint(state.mapper.column_attrs.keys()):  # deferred, or expired one by one
            return NotLoadedError(
                f"some columns of this {type(self).__name__} are not loaded: {', '.join(missing)}; do not defer them "
                f"in the query, or call `await session.refresh(image, {missing})`"
            )
        return NotLoadedError(
            f"the columns of this {type(self).__name__} are expired, as after a commit; call "
            "`await session.refresh(image)`, or create sessions with expire_on_commit=False"
        )

    def _stored_key(self) -> ImageKey | None:
        """Return the key of the file; ``None`` if a column that it depends on is not loaded."""
        names = identity_without_size(instance_state(self).mapper)
        if not self._loaded(*_KEYED, *names):
            return None
        overridden = type(self).object_id is not Image.object_id
        object_id = None  # until the database has generated the owner's key
        if self.revision is None or (overridden and None not in {self.__dict__.get(name) for name in names}):
            object_id = self.object_id
        elif not overridden:
            object_id = _plain_object_id(self)
        return ImageKey(self.object_type, object_id, self.width, self.height, self.mimetype, self.revision)


@event.listens_for(Image, "load", propagate=True)
@event.listens_for(Image, "refresh", propagate=True)
def set_zone(image: Image, *_: object) -> None:
    """Convert ``created_at`` to an aware datetime in UTC: some databases return it naive, others in their own zone."""
    created_at = image.__dict__.get("created_at")
    if created_at is not None:
        naive = created_at.tzinfo is None
        image.__dict__["created_at"] = created_at.replace(tzinfo=UTC) if naive else created_at.astimezone(UTC)


@event.listens_for(Image, "attribute_instrument", propagate=True)
def _instrumented(cls: type[Image], name: str, attribute: Any) -> None:
    if name == "revision":
        event.listen(attribute, "set", lambda row, revision, *_: attached_as(row, revision))  # as merge() does


def _plain_object_id(image: Image) -> int | None:
    names = identity_without_size(instance_state(image).mapper)
    value = image.__dict__.get(names[0]) if len(names) == 1 else None
    if isinstance(value, uuid.UUID):
        return value.int
    return value if type(value) is int else None
