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
from .._transaction.hooks import store_left
from ..context import resolve_store
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
"""The columns without which an image set cannot say what it has."""

_KEYED = frozenset({"width", "height", "mimetype", "revision"})


def utcnow() -> datetime:
    """Return the present, aware, in UTC, to the microsecond on every database."""
    return datetime.now(UTC)


class Image(DeclaredThumbnails):
    """Mixin of the row of one physical image: the original, or one thumbnail of it.

    Declare a class with it, your declarative base, and a foreign key to the owner that is part of the primary key::

        class UserPicture(Base, Image):
            __tablename__ = "user_picture"
            user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)

    Override :attr:`object_type` when the table gets another name, :attr:`object_id` for a store whose names are made
    of it and an owner whose key is neither an integer nor a UUID, :attr:`alt` to describe pictures in words,
    :attr:`__image_limits__` to accept other pictures, and :attr:`__strip_metadata__` to store originals without
    metadata. Declare the sizes in which pictures are shown in :attr:`__thumbnails__`.
    """

    __thumbnails__: ClassVar[Mapping[str, Srcset | Recipe]] = {}
    """The declared thumbnails by name; see the guide *Responsive pictures*."""

    __fallback_picture__: ClassVar[str | None] = None
    """The URL of what is shown in place of a declared thumbnail if nothing is attached; ``None`` for nothing."""

    __image_limits__: ClassVar[ImageLimits] = DEFAULT_LIMITS
    """What pictures are accepted, and how large."""

    __strip_metadata__: ClassVar[bool] = False
    """Whether EXIF, GPS, XMP and comments are removed from originals that are attached with ``from_file`` or
    ``from_blob``, unless the call says otherwise. Thumbnails never have them."""

    if TYPE_CHECKING:
        width: Mapped[int]
        """Width of the displayed picture in pixels; part of the primary key."""
        height: Mapped[int]
        """Height of the displayed picture in pixels; part of the primary key."""
        variant: Mapped[str]
        """The look, where it is not that of the original; part of the primary key."""
        mimetype: Mapped[str]
        """Such as ``"image/jpeg"``, found in the content."""
        original: Mapped[bool]
        """Whether this is the original or made from it."""
        created_at: Mapped[datetime]
        """When the row was made, in UTC."""
        revision: Mapped[str | None]
        """Which upload; ``None`` for a row of SQLAlchemy-ImageAttach."""
        byte_size: Mapped[int | None]
        """Size of the file in bytes; ``None`` for a row of SQLAlchemy-ImageAttach."""
        sha256: Mapped[str | None]
        """Fingerprint of the file, 64 hexadecimal digits; ``None`` for a row of SQLAlchemy-ImageAttach."""
    else:  # un-annotated at run time: dataclass and SQLModel mappings would make constructor arguments of them
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
        """What kind of picture this is to the store: the table's name with ``-`` for ``_``, unless overridden."""
        return str(instance_state(self).mapper.local_table.description).replace("_", "-")

    @property
    def object_id(self) -> int:
        """Whose picture this is to the store: the owner's key, if it is one integer or UUID.

        Raises:
            DeclarationError: It is neither, and the class does not say what else it is.
        """
        found = _plain_object_id(self)
        if found is None:
            raise DeclarationError(
                f"{type(self).__name__}.object_id: the key besides width, height and variant is "
                f"{self.identity_map!r}, not one integer or UUID; define a property object_id that makes an int of it"
            )
        return found

    @classmethod
    def identity_attributes(cls) -> tuple[str, ...]:
        """Return the names of the primary key's attributes."""
        return identity_attributes(mapper_of(cls))

    @property
    def identity_map(self) -> dict[str, Any]:
        """The values of the primary key, without width, height and variant: what the images of one set share.

        ``post.photos.get_image_set(**image.identity_map)`` is the set of the image.
        """
        names = [name for name in self.identity_attributes() if name not in SIZE]
        self._require_loaded(*names)
        return {name: self.__dict__.get(name) for name in names}

    @hybrid_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels; in SQL a pair to compare with."""
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
        """Whether the file can be made again from another one."""
        return not self.original

    @property
    def key(self) -> ImageKey:
        """What the store knows the file by.

        Raises:
            NotLoadedError: The row's columns are expired.
        """
        found = self._stored_key()
        if found is None:
            raise self._not_loaded()
        return found

    def locate(self, store: Store | None = None, *, download: str | None = None) -> str:
        """Return the URL of the file: a calculation, with no query and no I/O.

        Args:
            store: The store; ``None`` for the one it was attached with in this session, or the current one.
            download: The name under which browsers save the file instead of displaying it, such as ``"cat.jpg"``.

        Raises:
            ContextError: No store is named anywhere.
            DeclarationError: ``download`` is given, and the store cannot name downloads: only signed URLs can.
            NotLoadedError: The row's columns are expired.
            ValueError: ``download`` is not the name of a file.
        """
        self._require_loaded("created_at")
        return self._store(store).locate(self, download=download)

    async def open_file(self, store: Store | None = None, use_seek: bool = False) -> AsyncFile:
        """Open the file; close it with ``async with`` or ``aclose()``.

        Args:
            store: As for :meth:`locate`.
            use_seek: Whether it has to have ``seek`` and ``tell``.

        Raises:
            StoreFileNotFoundError: The store has no such file.
            ContextError: No store is named anywhere.
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
        """What the picture shows, in words, for those who do not see it; override it where your rows know.

        Empty by default, which says that the text around it says as much (WCAG 2, technique H67).
        """
        return ""

    def __html__(self) -> str:
        """Return an ``<img>`` element, for templates: its URL, its sides, and :attr:`alt`."""
        url = escape(self.locate())
        return f'<img src="{url}" width="{self.width}" height="{self.height}" alt="{escape(self.alt)}">'

    def _shown(self) -> tuple[type[Any], Any]:
        return type(self), self

    def _store(self, store: Store | None) -> Store:
        state = instance_state(self)
        try:
            return resolve_store(store, known_store(self), session=state.session, bound=store_left(state))
        except ContextError as error:
            if state.key is None or state.session is not None:
                raise
            raise ContextError(
                f"no store is set, and none is known from the session that this {type(self).__name__} has left: call "
                "set_default_store(store) at start-up, or pass store=..., or bind_store(sessionmaker, store) before "
                "sessions are made, and close them"
            ) from error

    def _loaded(self, *names: str) -> bool:
        state = instance_state(self)
        return state.key is None or state.dict.keys() >= {*names}

    def _require_loaded(self, *names: str) -> None:
        if not self._loaded(*names):
            raise self._not_loaded()

    def _not_loaded(self) -> NotLoadedError:
        return NotLoadedError(
            f"the columns of this {type(self).__name__} are expired, as after a commit: "
            "`await session.refresh(image)`, or make sessions with expire_on_commit=False"
        )

    def _stored_key(self) -> ImageKey | None:
        """The key of the file; ``None`` where the columns it is made of are not loaded."""
        names = identity_without_size(instance_state(self).mapper)
        if not self._loaded(*_KEYED, *names):
            return None
        overridden = type(self).object_id is not Image.object_id
        object_id = None  # as long as the database has yet to make the owner's key
        if self.revision is None or (overridden and None not in {self.__dict__.get(name) for name in names}):
            object_id = self.object_id
        elif not overridden:
            object_id = _plain_object_id(self)
        return ImageKey(self.object_type, object_id, self.width, self.height, self.mimetype, self.revision)


@event.listens_for(Image, "load", propagate=True)
@event.listens_for(Image, "refresh", propagate=True)
def set_zone(image: Image, *_: object) -> None:
    """Let what the database says of a time be aware and in UTC: some give it without a zone, some in their own."""
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
