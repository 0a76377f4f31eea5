"""Problem details (RFC 9457) for errors, for FastAPI, Starlette and other ASGI applications."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from ._http.asgi import ASGIApp, Message, Receive, Scope, Send
from ._telemetry import log_fields
from .exc import (
    ImageAttachError,
    ImageError,
    ImageTooLargeError,
    NoOriginalError,
    StoreUnavailableError,
    UnsupportedImageError,
    ValueTooLargeError,
)

__all__ = ["RESPONSES", "STATUSES", "ProblemMiddleware"]

STATUSES: Final[Mapping[type[Exception], int]] = {
    ImageError: 422,
    ImageTooLargeError: 413,
    UnsupportedImageError: 415,
    ValueTooLargeError: 413,
    NoOriginalError: 404,
    StoreUnavailableError: 503,
}
"""HTTP status for each error class. All other errors are left to the application."""

_TITLES: Final = {
    404: "Not Found",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    503: "Service Unavailable",
}
_DETAILS: Final = {
    NoOriginalError: "no image is attached",
    StoreUnavailableError: "images cannot be read or stored at the moment; try again later",
}
_FIELDS: Final = ("actual", "allowed", "limit", "mimetype")
_SCHEMA: Final = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, for people"},
        "code": {"type": "string", "description": "What is wrong, for programs", "examples": ["image-too-large"]},
        "limit": {"type": "number", "description": "The limit that was exceeded"},
        "actual": {"type": "number", "description": "The value that exceeded it"},
        "mimetype": {"type": "string", "description": "The type that was detected"},
        "allowed": {"type": "array", "items": {"type": "string"}, "description": "The types that are allowed"},
    },
}

RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": title, "content": {"application/problem+json": {"schema": _SCHEMA}}}
    for status, title in _TITLES.items()
}
"""OpenAPI descriptions of the error responses, by status. Pass them, or some of them, to FastAPI as ``responses=``."""

_RETRY_AFTER: Final = 5
_log = logging.getLogger(__name__)


def _problem_of(error: Exception, statuses: Mapping[type[Exception], int]) -> dict[str, Any] | None:
    """Return the problem details of an error; ``None`` if the error is not for the client.

    The class of the error itself takes precedence over its base classes.
    """
    kind = next((kind for kind in type(error).__mro__ if kind in statuses), None)
    if kind is None:
        return None
    status = statuses[kind]
    fields = {name: _as_json(getattr(error, name, None)) for name in _FIELDS}
    return {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": next((text for other, text in _DETAILS.items() if isinstance(error, other)), str(error)),
        "code": re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__.removesuffix("Error")).lower(),
    } | {name: value for name, value in fields.items() if value is not None}


class ProblemMiddleware:
    """ASGI middleware that turns errors of this library into problem details (``application/problem+json``).

    Errors that the client can act on get a response with the status from :data:`STATUSES`. Programming errors, such as
    :class:`~aioimageattach.exc.NotLoadedError`, propagate, so that the server logs them and responds with 500.

    If a background task raises an error of this library after the response was sent, the middleware logs it to the
    logger ``aioimageattach.problems``. Without the middleware, the server would close the connection. A handler
    registered with ``exception_handler`` cannot prevent that, because the response has already been sent.

    Args:
        app: The application to wrap.
        statuses: HTTP status for each error class, instead of :data:`STATUSES`. The class of the error itself takes
            precedence over its base classes. It may contain errors of other libraries, such as SQLAlchemy's
            ``NoResultFound``, whose messages clients may see.
    """

    def __init__(self, app: ASGIApp, *, statuses: Mapping[type[Exception], int] = STATUSES) -> None:
        self.app = app
        self.statuses = statuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application and turn its errors into responses."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = finished = False

        async def send_and_watch(message: Message) -> None:
            nonlocal started, finished
            started = True
            await send(message)
            finished = message["type"] != "http.response.start" and not message.get("more_body", False)

        try:
            await self.app(scope, receive, send_and_watch)
        except Exception as error:
            if finished and _is_ours(error):
                extra = log_fields("problems.task_failed", error)
                _log.exception("a task failed after the response to %s %s", scope["method"], scope["path"], extra=extra)
                return
            problem = None if started else _problem_of(error, self.statuses)
            if problem is None:
                raise
            await _respond(send, problem)


def _is_ours(error: Exception) -> bool:
    """Return whether this is an error of this library, or an error of Starlette that such an error caused."""
    return isinstance(error, ImageAttachError) or isinstance(error.__cause__, ImageAttachError)


def _as_json(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value) or None
    return None if isinstance(value, float) and not math.isfinite(value) else value


async def _respond(send: Send, problem: dict[str, Any]) -> None:
    body = json.dumps(problem).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if problem["status"] == 503:
        headers.append((b"retry-after", b"%d" % _RETRY_AFTER))
    await send({"type": "http.response.start", "status": problem["status"], "headers": headers})
    await send({"type": "http.response.body", "body": body})
