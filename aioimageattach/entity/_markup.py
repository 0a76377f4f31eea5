"""HTML and URLs of declared thumbnails for templates, without a query or I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from sqlalchemy.orm.attributes import instance_state

from .._declared.html import (
    Candidate,
    Html,
    background,
    compatible,
    fallback_element,
    fallback_of,
    img_element,
    picture_element,
    srcset_of,
)
from .._declared.names import path_of, picture_of, public_of, stem_of
from .._declared.srcset import Declaration, Srcset
from ..context._current import thumbnail_links
from ..exc import DeclarationError
from ..store import Store
from ._derived import check_original, declarations_of, framing_of, is_marked, keyed

__all__ = ["DeclaredThumbnails"]


class DeclaredThumbnails:
    """Base class of images and image sets that renders declared thumbnails."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _shown(self) -> tuple[type[Any], Any]:
            """Return the image class, and the original or ``None``."""
            ...

    def candidates(self, name: str, *, store: Store | None = None) -> tuple[Candidate, ...]:
        """Return the files of a declared thumbnail, calculated without a query or I/O.

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            store: The store of the original; ``None`` for the one it was attached with in this session, or the current
                one.

        Returns:
            The files, with the preferred format first and each format ordered by width. The fallback file comes last,
            unless it is one of the others. Empty if no picture is attached.

        Raises:
            DeclarationError: The class declares no such thumbnail.
            ContextError: No store is given or set, or that store has no thumbnail server.
            NotLoadedError: The row's columns are expired.
        """
        cls, original = self._shown()
        declaration = _declaration(cls, name)
        return () if original is None else _candidates(original, declaration, store)

    def url(self, name: str, *, base_url: str | None = None, store: Store | None = None) -> str | None:
        """Return the URL of a declared thumbnail's fallback file, which every client can display.

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            base_url: The base URL of the site, such as ``"https://example.com/"``, for e-mails, feeds and metadata,
                where a URL must be absolute.
            store: As for :meth:`candidates`.

        Returns:
            The URL; ``None`` if no picture is attached.

        Raises:
            Error: Any error of :meth:`candidates`.
        """
        shown = fallback_of(self.candidates(name, store=store))
        if shown is None:
            return None
        return shown.url if base_url is None else urljoin(base_url, shown.url)

    def srcset(self, name: str, *, mimetype: str | None = None, store: Store | None = None) -> str:
        """Return the value of the HTML attribute ``srcset``, unescaped; empty if no picture is attached.

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            mimetype: The MIME type of the format; ``None`` for the most widely supported one.
            store: As for :meth:`candidates`.

        Raises:
            Error: Any error of :meth:`candidates`.
        """
        found = self.candidates(name, store=store)
        return srcset_of([one for one in found if one.mimetype == mimetype] if mimetype else compatible(found))

    def thumbnail_size(self, name: str, *, store: Store | None = None) -> tuple[int, int] | None:
        """Return the width and height, in pixels, of the file of :meth:`url`; ``None`` if no picture is attached.

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            store: As for :meth:`candidates`.

        Raises:
            Error: Any error of :meth:`candidates`.
        """
        shown = fallback_of(self.candidates(name, store=store))
        return None if shown is None else (shown.width, shown.height)

    def img(self, name: str, *, store: Store | None = None, placeholder: bool = True, **attributes: Any) -> Html:
        """Return an ``<img>`` element that shows a declared thumbnail in the most widely supported format.

        ::

            {{ photo.img("icon", class="avatar") }}

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            store: As for :meth:`candidates`.
            placeholder: ``False`` to omit the dominant colour, which is the background until the picture is loaded if
                the class has the mixin :class:`~aioimageattach.entity.Placeholder`. It is written as a ``style``
                attribute, which a Content-Security-Policy must allow with ``style-src-attr 'unsafe-inline'``.
            attributes: Attributes of the element: ``sizes`` and ``alt``, which override the declared values, and any
                others. Write ``class_`` for ``class`` and ``data_id`` for ``data-id``. With ``fetchpriority="high"``
                the picture is not loaded lazily.

        Returns:
            The element. If no picture is attached, an element with the class's ``__fallback_picture__``, or an empty
            string.

        Raises:
            DeclarationError: The class declares no such thumbnail, or it has several widths and no ``sizes``.
            Error: Any error of :meth:`candidates`.
        """
        return self._element(name, store, placeholder, attributes)[2]

    def picture(self, name: str, *, store: Store | None = None, placeholder: bool = True, **attributes: Any) -> Html:
        """Return a ``<picture>`` element that offers a declared thumbnail in all its formats; see :meth:`img`.

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            store: As for :meth:`candidates`.
            placeholder: As for :meth:`img`.
            attributes: As for :meth:`img`. All except ``sizes`` are set on the ``<img>`` inside it.

        Raises:
            Error: Any error of :meth:`img`.
        """
        candidates, sizes, img = self._element(name, store, placeholder, attributes, alone=False)
        types = {one.mimetype for one in candidates if not one.fallback}
        return picture_element([one for one in candidates if one.mimetype in types], sizes, img) if types else img

    def _element(
        self, name: str, store: Store | None, placeholder: bool, attributes: Mapping[str, Any], *, alone: bool = True
    ) -> tuple[tuple[Candidate, ...], str | None, Html]:
        cls, original = self._shown()
        declaration = _declaration(cls, name)
        sizes = attributes.get("sizes") or declaration.sizes
        ladder = isinstance(declaration.value, Srcset) and len(declaration.value.widths) > 1
        if sizes is None and ladder:
            raise DeclarationError(
                f"{cls.__name__}.__thumbnails__[{name!r}] has several widths: expected sizes, the displayed width of "
                'the picture, in this call or in the Srcset, such as sizes="(min-width: 60rem) 33vw, 100vw"; without '
                "it, browsers load the widest file"
            )
        if original is None:
            return (), None, _nothing(cls, attributes)
        found = _candidates(original, declaration, store)
        shown = fallback_of(found)
        if shown is None:
            return (), None, _nothing(cls, attributes)
        values = original.__dict__
        colour = None
        if placeholder and "dominant_colour" in values:
            colour = background(values["dominant_colour"], values.get("thumbhash"), values["mimetype"])
        others = {key: value for key, value in attributes.items() if key not in ("alt", "sizes")}
        alt = attributes.get("alt")
        img = img_element(
            shown,
            compatible(found) if alone else (),
            sizes=sizes,
            alt=original.alt if alt is None else str(alt),
            colour=colour,
            attributes=others,
        )
        return found, sizes if ladder else None, img


def _declaration(cls: type[Any], name: str) -> Declaration:
    declared = declarations_of(cls)
    found = declared.get(name)
    if found is None:
        known = ", ".join(map(repr, declared)) or "no thumbnails, because it is empty"
        raise DeclarationError(f"{cls.__name__}.__thumbnails__: expected one of {known}, got {name!r:.80}")
    return found


def _candidates(original: Any, declaration: Declaration, store: Store | None) -> tuple[Candidate, ...]:
    original._require_loaded("width", "height", "mimetype", "original", "revision")
    revision = check_original(original)
    values = original.__dict__
    place, object_type = keyed(original._store(store), type(original)), original.object_type
    framing = declaration.relevant(framing_of(original))
    path = path_of(object_type, stem_of(revision, declaration.name, declaration.look, framing))
    ladder = declaration.ladder(values["width"], values["height"], values["mimetype"], framing)
    links = thumbnail_links(place, session=instance_state(original).session)
    if not links.is_private and is_marked(original, declaration, framing, place, object_type):
        urls = [place.url_of(path + step.tail) for step in ladder.steps]
    else:
        before = links.base_url + path
        after = links.query_of(picture_of(object_type, public_of(revision) or ""))
        urls = [f"{before}{step.tail}{after}" for step in ladder.steps]
    return tuple(
        [
            Candidate(url, step.width, step.height, step.mimetype, step is ladder.fallback)
            for url, step in zip(urls, ladder.steps, strict=True)
        ]
    )


def _nothing(cls: type[Any], attributes: Mapping[str, Any]) -> Html:
    url = cls.__fallback_picture__
    if url is None:
        return Html("")
    given = {key: value for key, value in attributes.items() if key not in ("alt", "sizes")}
    return fallback_element(url, str(attributes.get("alt") or ""), given)
