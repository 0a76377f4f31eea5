"""The descriptor that presents a relationship as image sets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, overload

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import InstrumentedAttribute, Mapper, RelationshipProperty, relationship
from sqlalchemy.orm.attributes import instance_dict, instance_state, set_committed_value
from sqlalchemy.orm.descriptor_props import ConcreteInheritedProperty
from typing_extensions import TypeVar

from .._greenlet import in_bridge
from ..exc import DeclarationError
from ._collection import Collection
from ._groups import invalidate_groups
from ._image import Image
from ._mapping import AttachmentOptions, attachment_of, register_attachment
from ._multiple import MultipleImageSet
from ._single import SingleImageSet

if TYPE_CHECKING:
    from typing import Never, Self

__all__ = ["image_attachment"]

I = TypeVar("I", bound=Image, default=Any)  # noqa: E741
S = TypeVar("S", default=SingleImageSet[I])

_DEFAULTS = {"lazy": "selectin", "cascade": "all, delete-orphan", "overlaps": "__*"}
_REFUSED: Final[dict[str, tuple[object, ...] | None]] = {
    "collection_class": None,
    "lazy": ("dynamic", "noload", "write_only"),
    "secondary": None,
    "viewonly": (True,),
}
"""Arguments of a relationship that image sets do not support, with the rejected values; ``None`` rejects any value."""


class image_attachment(Generic[I, S]):  # noqa: N801 - the name users know
    """An attribute of a mapped class that attaches one image, or many, to each instance.

    It adds an ordinary one-to-many relationship named ``<attribute>_images`` to the mapping. On an instance, the
    attribute returns the image set. On the class, it returns the relationship's attribute, for use in
    ``selectinload(User.picture)``, joins and ``any()``. By default, image rows are loaded with their owner
    (``lazy="selectin"``) and deleted with it.

    ::

        picture = image_attachment(UserPicture)
        picture = image_attachment["UserPicture"]("UserPicture")     # typed, if the class is defined later
        picture: ClassVar[image_attachment[UserPicture]] = image_attachment("UserPicture")   # dataclass, SQLModel
        photos = image_attachment(PostPhoto, uselist=True)

    Args:
        argument: The image class, its name, or a callable that returns it.
        uselist: ``True`` if an owner has many images.
        max_pictures: The maximum number of images per owner, with ``uselist=True``; ``None`` means no limit. The
            flush checks it while the owner is locked, and raises :exc:`~aioimageattach.exc.TooManyPicturesError`.
        arguments: Other arguments of :func:`sqlalchemy.orm.relationship`.

    Raises:
        DeclarationError: An argument is invalid, or the relationship would not be a plain list of rows.
    """

    argument: type[I] | str | Callable[[], type[I]]
    """The image class, its name, or a callable that returns it."""
    uselist: bool
    """``True`` if an owner has many images."""
    max_pictures: int | None
    """The maximum number of images per owner; ``None`` means no limit."""
    arguments: dict[str, Any]
    """The other arguments of the relationship."""
    name: str
    """The name of the attribute."""

    # Overloads of __init__ could not change the type of image_attachment["P"](...), a single image by default, to a
    # list of images.
    @overload
    def __new__(
        cls: type[image_attachment[I, SingleImageSet[I]]],
        argument: type[I] | str | Callable[[], type[I]],
        *,
        uselist: Literal[False] = False,
        **arguments: Any,
    ) -> image_attachment[I, SingleImageSet[I]]: ...
    @overload
    def __new__(
        cls: type[image_attachment[I, Any]],
        argument: type[I] | str | Callable[[], type[I]],
        *,
        uselist: Literal[True],
        max_pictures: int | None = None,
        **arguments: Any,
    ) -> image_attachment[I, MultipleImageSet[I]]: ...
    def __new__(
        cls,
        argument: Any,
        *,
        uselist: bool = False,
        max_pictures: int | None = None,
        **arguments: Any,
    ) -> Any:
        """Check the arguments and store them."""
        for name, values in _REFUSED.items():
            if name in arguments and (values is None or arguments[name] in values):
                raise DeclarationError(
                    f"image_attachment(): expected a one-to-many relationship with an ordinary list of rows, got "
                    f"{name}={arguments[name]!r:.80}; omit the argument"
                )
        if max_pictures is not None and (type(max_pictures) is not int or max_pictures < 1 or not uselist):
            raise DeclarationError(
                f"image_attachment(): expected max_pictures to be an int of at least 1, with uselist=True, got "
                f"max_pictures={max_pictures!r:.80}, uselist={uselist!r}"
            )
        self = super().__new__(cls)
        self.argument = argument
        self.uselist = uselist
        self.max_pictures = max_pictures
        self.arguments = arguments
        self.name = ""
        return self

    if not TYPE_CHECKING:  # pragma: no branch - the arguments in brackets are only for type checkers

        def __class_getitem__(cls, item):
            return cls

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @property
    def key(self) -> str:
        """The name of the relationship."""
        return f"{self.name}_images"

    @overload
    def __get__(self, instance: None, owner: type) -> InstrumentedAttribute[list[I]]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> S: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        if instance is None:
            attribute = getattr(owner, self.key, None)
            return self if attribute is None else attribute  # the class is not mapped yet
        try:
            mapper: Mapper[Any] = instance_state(instance).mapper
        except AttributeError:
            raise DeclarationError(
                f"{type(instance).__name__}.{self.name}: expected a mapped class, got {type(instance).__name__}, which "
                "is not mapped"
            ) from None
        if self.key not in mapper.relationships:
            raise DeclarationError(
                f"{type(instance).__name__}.{self.name} has no relationship, because a class with concrete inheritance "
                f"does not inherit it; declare {self.name} again on {type(instance).__name__}"
            )
        _load_in_bridge(instance, self.key)
        rows: Collection[I] = Collection(instance, self.name, attachment_of(mapper.relationships[self.key]))
        return MultipleImageSet(rows) if self.uselist else SingleImageSet(rows)

    def __set__(self, instance: object, value: Never) -> None:
        raise DeclarationError(
            f"{type(instance).__name__}.{self.name} does not support assignment; use "
            f"`await owner.{self.name}.from_file(...)`"
        )

    def __delete__(self, instance: object) -> None:
        raise DeclarationError(
            f"{type(instance).__name__}.{self.name} does not support `del`; use `await owner.{self.name}.delete()`"
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


@event.listens_for(Mapper, "before_mapper_configured")
def _translate_back_populates(mapper: Mapper[Any], cls: type) -> None:
    """Replace an attachment's name in ``back_populates`` of an image class by the name of its relationship."""
    for prop in list(mapper._props.values()) if issubclass(cls, Image) else ():
        if isinstance(prop, RelationshipProperty) and isinstance(name := prop.back_populates, str):
            prop._setup_entity()
            found = next((vars(base)[name] for base in prop.mapper.class_.__mro__ if name in vars(base)), None)
            if isinstance(found, image_attachment):
                prop.back_populates = found.key


@event.listens_for(Mapper, "after_mapper_constructed")
def _add_relationships(mapper: Mapper[Any], cls: type) -> None:
    for base in cls.__mro__:
        if mapper.concrete and mapper.inherits is not None and base is mapper.inherits.class_:
            break  # its images have foreign keys to another table
        for name, value in list(vars(base).items()):
            if isinstance(value, image_attachment):
                value.name = name  # Python does not call __set_name__ if a declared_attr returned the attachment
                if _lacks_relationship(mapper, value.key):
                    arguments: dict[str, Any] = {**_DEFAULTS, **value.arguments}
                    rows: RelationshipProperty[Any] = relationship(value.argument, **arguments)
                    mapper.add_property(value.key, rows)
                    register_attachment(mapper, rows, AttachmentOptions(value.uselist, value.max_pictures))
                    invalidate_groups(getattr(cls, value.key), value.key)
                    event.listen(mapper, "after_insert", partial(_set_empty_list, value.key), propagate=True)


def _load_in_bridge(owner: object, key: str) -> None:
    """Load the rows if SQLAlchemy may load attributes implicitly, as in ``awaitable_attrs`` and ``run_sync``."""
    state = instance_state(owner)
    if state.key is not None and key not in state.dict and state.session_id is not None and in_bridge():
        with suppress(InvalidRequestError):  # lazy="raise"
            getattr(owner, key)


def _set_empty_list(key: str, mapper: Mapper[Any], connection: Connection, owner: object) -> None:
    """Set an empty list of images on a new owner without images.

    Otherwise SQLAlchemy would load the list on first access, which synchronous methods cannot do.
    """
    if key in mapper.relationships and key not in instance_dict(owner):
        set_committed_value(owner, key, [])


def _lacks_relationship(mapper: Mapper[Any], key: str) -> bool:
    """Return whether a mapper has no relationship of that name, or only a placeholder for a concrete parent's."""
    return not mapper.has_property(key) or isinstance(mapper.get_property(key), ConcreteInheritedProperty)
