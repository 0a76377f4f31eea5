"""Responses to errors, as problem details (RFC 9457), for FastAPI, Starlette and other ASGI applications."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from ._http.asgi import ASGIApp, Message, Receive, Scope, Send
from .exc import (
    ImageAttachError,
    ImageError,
    ImageTooLargeError,
    NoOriginalError,
    StoreUnavailableError,
    UnsupportedImageError,
    ValueTooLargeError,
)

__all__ = ["RESPONSES", "STATUSES", "ProblemMiddleware", "problem_of"]

STATUSES: Final[Mapping[type[ImageAttachError], int]] = {
    ImageError: 422,
    ImageTooLargeError: 413,
    UnsupportedImageError: 415,
    ValueTooLargeError: 413,
    NoOriginalError: 404,
    StoreUnavailableError: 503,
}
"""The status of the response to each kind of error. All other errors are the application's, and are not handled."""

_TITLES: Final = {
    404: "Not Found",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    503: "Service Unavailable",
}
_DETAILS: Final = {
    NoOriginalError: "there is no picture",
    StoreUnavailableError: "pictures cannot be read or stored at the moment; try again later",
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
"""What OpenAPI says about the responses; pass it, or some of it, to FastAPI as ``responses=``."""

_RETRY_AFTER: Final = 5
_log = logging.getLogger(__name__)


def problem_of(error: Exception, statuses: Mapping[type[ImageAttachError], int] = STATUSES) -> dict[str, Any] | None:
    """Return the problem details of an error that a client should see; ``None`` for all others.

    Args:
        error: The error.
        statuses: The status of each class of errors. The class of the error itself comes before its base classes.
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
    """Responds to the errors of this library with problem details, as ``application/problem+json``.

    Errors that the client can do something about get a response with a status of :data:`STATUSES`. Errors of the
    program, such as :class:`~aioimageattach.exc.NotLoadedError`, are raised as without the middleware, so that the
    server logs them and responds with 500.

    An error of this library that a background task raises after the response is logged, as
    ``aioimageattach.problems``. Without the middleware, the server closes the connection; a handler that is registered
    with ``exception_handler`` cannot prevent that, because the response has been sent by then.

    Args:
        app: The application.
        statuses: The status of each class of errors, instead of :data:`STATUSES`.
    """

    def __init__(self, app: ASGIApp, *, statuses: Mapping[type[ImageAttachError], int] = STATUSES) -> None:
        self.app = app
        self.statuses = statuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and respond to its errors."""
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
                _log.exception("a task failed after the response to %s %s", scope["method"], scope["path"])
                return
            problem = None if started else problem_of(error, self.statuses)
            if problem is None:
                raise
            await _respond(send, problem)


def _is_ours(error: Exception) -> bool:
    """Whether it is an error of this library, or Starlette's complaint that it came after the response."""
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
