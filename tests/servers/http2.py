"""An HTTP/2 clear-text client that can read slowly, reset streams, and disconnect."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import h2.settings


@dataclass
class Stream:
    """The data that the server has sent on one stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False


class Http2Client:
    """A connection.

    Args:
        url: The URL of the server; HTTP/2 is used without negotiation ("prior knowledge").
        window: How many bytes the server may send on each stream before the client reads.
    """

    def __init__(self, url: str, *, window: int = 65535) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.streams: dict[int, Stream] = {}
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._socket.close()

    def get(self, path: str, **headers: str) -> int:
        """Send a request, and return the number of its stream."""
        number = self._h2.get_next_available_stream_id()
        pairs = [(":method", "GET"), (":scheme", "http"), (":authority", self._host), (":path", path)]
        self._h2.send_headers(number, [*pairs, *headers.items()], end_stream=True)
        self.streams[number] = Stream()
        self._flush()
        return number

    def reset(self, number: int) -> None:
        """Cancel a request."""
        self._h2.reset_stream(number, error_code=8)
        self._flush()

    def read_until_started(self) -> None:
        """Wait for the headers of every response."""
        while not all(stream.status for stream in self.streams.values()):
            self._receive(acknowledge=False)

    def read_whole(self, number: int) -> Stream:
        """Wait for the end of a response."""
        while not self.streams[number].ended:
            self._receive(acknowledge=True)
        return self.streams[number]

    def _receive(self, *, acknowledge: bool) -> None:
        data = self._socket.recv(65536)
        assert data, "the server has closed the connection"
        for event in self._h2.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
            if stream is None:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                stream.headers = dict(event.headers)  # type: ignore[arg-type]
                stream.status = int(stream.headers.pop(":status"))
            elif isinstance(event, h2.events.DataReceived):
                stream.body += event.data
                if acknowledge:
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                stream.ended = True
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())
