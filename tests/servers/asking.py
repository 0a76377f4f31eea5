"""Send requests to ASGI applications in the same process, as servers do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Told:
    """The response of an application.

    Attributes:
        status: The status; 0 if the application did not respond.
        headers: The headers by lower-case name; repeated headers are joined by commas.
        bodies: The messages of the body.
        ended: ``True`` if the last message was sent.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.bodies)


class Client:
    """A client that sends requests to an application, and can disconnect during a response.

    Args:
        app: The application.
        scope: Values of every scope.
    """

    def __init__(self, app: Any, **scope: Any) -> None:
        self.app = app
        self.scope = scope

    async def ask(
        self,
        path: str,
        *headers: tuple[str, str],
        method: str = "GET",
        leave_after: int | None = None,
        **scope: Any,
    ) -> Told:
        """Send a request; optionally disconnect after a number of body messages."""
        told = Told()
        left = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            assert not told.ended, "nothing may follow the last message"
            told.messages.append(message)
            if message["type"] == "http.response.start":
                told.status = message["status"]
                for name, value in message["headers"]:
                    assert type(name) is type(value) is bytes
                    assert name == name.lower()
                    known = told.headers.get(name.decode())
                    told.headers[name.decode()] = f"{known}, {value.decode()}" if known else value.decode()
            elif message["type"] == "http.response.body":
                assert type(message.get("body", b"")) is bytes
                told.bodies.append(message.get("body", b""))
                told.ended = not message.get("more_body", False)
            if leave_after is not None and len(told.bodies) >= leave_after:
                left.set()
                await asyncio.sleep(0)

        raw: Sequence[tuple[bytes, bytes]] = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in headers
        ]
        whole = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"", "root_path": ""}
        await self.app({**whole, **self.scope, **scope}, receive, send)
        return told
