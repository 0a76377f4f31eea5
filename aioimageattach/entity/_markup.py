"""HTML and URLs of declared thumbnails for templates, without a query or I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from sqlalchemy.orm.attributes import instance_state

from .._declared.html import Candidate, Html, Links, background, fallback_element, img_element, picture_element
from .._declared.names import path_of, picture_of, public_of, stem_of
from .._declared.srcset import Declaration, Srcset
from ..context._current import thumbnail_links
from ..exc import DeclarationError
from ..store import Store
from ._derived import check_original, declarations_of, framing_of, is_marked, keyed

__all__ = ["DeclaredThumbnails", "links_of"]


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
            unless it is one of the others. Empty if no image is attached.

        Raises:
            DeclarationError: The class declares no such thumbnail.
            ContextError: No store is given or set, or that store has no thumbnail server.
            NotLoadedError: The row's columns are expired.
        """
        links = self._links(name, store)
        return () if links is None else links.candidates()

    def url(self, name: str, *, base_url: str | None = None, store: Store | None = None) -> str | None:
        """Return the URL of a declared thumbnail's fallback file, which every client can display.

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            base_url: The base URL of the site, such as ``"https://example.com/"``, for e-mails, feeds and metadata,
                where a URL must be absolute.
            store: As for :meth:`candidates`.

        Returns:
            The URL; ``None`` if no image is attached.

        Raises:
            Error: Any error of :meth:`candidates`.
        """
        links = self._links(name, store)
        if links is None:
            return None
        return links.url if base_url is None else urljoin(base_url, links.url)

    def srcset(self, name: str, *, mimetype: str | None = None, store: Store | None = None) -> str:
        """Return the value of the HTML attribute ``srcset``, unescaped; empty if no image is attached.

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            mimetype: The MIME type of the format; ``None`` for the most widely supported one.
            store: As for :meth:`candidates`.

        Raises:
            Error: Any error of :meth:`candidates`.
        """
        links = self._links(name, store)
        if links is None:
            return ""
        steps = links.ladder.steps
        chosen = [one for one in steps if one.mimetype == mimetype] if mimetype else links.ladder.compatible
        return links.srcset(chosen)

    def thumbnail_size(self, name: str, *, store: Store | None = None) -> tuple[int, int] | None:
        """Return the width and height, in pixels, of the file of :meth:`url`; ``None`` if no image is attached.

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            store: As for :meth:`candidates`.

        Raises:
            Error: Any error of :meth:`candidates`.
        """
        links = self._links(name, store)
        return None if links is None else (links.shown.width, links.shown.height)

    def img(self, name: str, *, store: Store | None = None, placeholder: bool = True, **attributes: Any) -> Html:
        """Return an ``<img>`` element that shows a declared thumbnail in the most widely supported format.

        ::

            {{ photo.img("icon", class="avatar") }}

        Args:
            name: The name of the thumbnail in ``__thumbnails__``.
            store: As for :meth:`candidates`.
            placeholder: ``False`` to omit the dominant colour, which is the background until the image is loaded if
                the class has the mixin :class:`~aioimageattach.entity.Placeholder`. It is written as a ``style``
                attribute, which a Content-Security-Policy must allow with ``style-src-attr 'unsafe-inline'``.
            attributes: Attributes of the element: ``sizes`` and ``alt``, which override the declared values, and any
                others. Write ``class_`` for ``class`` and ``data_id`` for ``data-id``. With ``fetchpriority="high"``
                the image is not loaded lazily.

        Returns:
            The element. If no image is attached, an element with the class's ``__fallback_picture__``, or an empty
            string.

        Raises:
            DeclarationError: The class declares no such thumbnail, or it has several widths and no ``sizes``.
            Error: Any error of :meth:`candidates`.
        """
        return self._element(name, store, placeholder, attributes, as_picture=False)

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
        return self._element(name, store, placeholder, attributes, as_picture=True)

    def _links(self, name: str, store: Store | None) -> Links | None:
        cls, original = self._shown()
        declaration = _declaration(cls, name)
        return None if original is None else links_of(original, declaration, store)

    def _element(
        self, name: str, store: Store | None, placeholder: bool, attributes: Mapping[str, Any], *, as_picture: bool
    ) -> Html:
        cls, original = self._shown()
        declaration = _declaration(cls, name)
        sizes = attributes.get("sizes") or declaration.sizes
        if sizes is None and isinstance(declaration.value, Srcset) and len(declaration.value.widths) > 1:
            raise DeclarationError(
                f"{cls.__name__}.__thumbnails__[{name!r}] has several widths: expected sizes, the displayed width of "
                'the image, in this call or in the Srcset, such as sizes="(min-width: 60rem) 33vw, 100vw"; without '
                "it, browsers assume that the image is as wide as the window"
            )
        if original is None or (links := links_of(original, declaration, store, escape)) is None:
            return _nothing(cls, attributes)
        values = original.__dict__
        colour = None
        if placeholder and "dominant_colour" in values:
            colour = background(values["dominant_colour"], values.get("thumbhash"), values["mimetype"])
        alt = attributes.get("alt")
        img = img_element(
            links,
            () if as_picture else links.ladder.compatible,
            sizes=sizes,
            alt=str((original.alt if alt is None else alt) or ""),
            colour=colour,
            attributes={key: value for key, value in attributes.items() if key not in ("alt", "sizes")},
        )
        return picture_element(links, sizes, img) if as_picture and links.ladder.sources else img


def _declaration(cls: type[Any], name: str) -> Declaration:
    declared = declarations_of(cls)
    found = declared.get(name)
    if found is None:
        known = ", ".join(map(repr, declared)) or "no thumbnails, because it is empty"
        raise DeclarationError(f"{cls.__name__}.__thumbnails__: expected one of {known}, got {name!r:.80}")
    return found


def links_of(
    original: Any, declaration: Declaration, store: Store | None, convert: Callable[[str], str] = str
) -> Links | None:
    """Return the files of a thumbnail with their URLs; ``None`` if its original is too large for any of them.

    Args:
        original: The row of the original.
        declaration: The declaration of the thumbnail.
        store: As for :meth:`DeclaredThumbnails.candidates`.
        convert: Escapes URLs. URLs that have parts in common are converted in parts, because a page has thousands.

    Raises:
        Error: Any error of :meth:`DeclaredThumbnails.candidates`.
    """
    original._require_loaded("width", "height", "mimetype", "original", "revision")
    revision = check_original(original)
    values = original.__dict__
    place, object_type = keyed(original._store(store), type(original)), original.object_type
    framing = declaration.relevant(framing_of(original))
    path = path_of(object_type, stem_of(revision, declaration.name, declaration.look, framing))
    ladder = declaration.ladder(values["width"], values["height"], values["mimetype"], framing)
    links = thumbnail_links(place, session=instance_state(original).session)
    if not links.is_private and is_marked(original, declaration, framing, place, object_type):
        urls = {step.tail: convert(place.url_of(path + step.tail)) for step in ladder.steps}
    else:
        before = convert(links.base_url + path)
        after = convert(links.query_of(picture_of(object_type, public_of(revision) or "")))
        urls = {step.tail: f"{before}{step.tail}{after}" for step in ladder.steps}
    return None if ladder.fallback is None else Links(ladder, ladder.fallback, urls)


def _nothing(cls: type[Any], attributes: Mapping[str, Any]) -> Html:
    url = cls.__fallback_picture__
    if url is None:
        return Html("")
    given = {key: value for key, value in attributes.items() if key not in ("alt", "sizes")}
    return fallback_element(url, str(attributes.get("alt") or ""), given)
