"""Starts the gallery and shows it in a browser."""

from __future__ import annotations

import argparse
import asyncio
import socket
import webbrowser
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn

from aioimageattach.stores.fs import LOCAL_HOSTS

from .app import create_app


class Server(uvicorn.Server):
    """Shows its page once it answers.

    Args:
        config: As for every server.
        url: The page; ``None`` to show nothing.
    """

    def __init__(self, config: uvicorn.Config, url: str | None) -> None:
        super().__init__(config)
        self.url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start answering."""
        await super().startup(sockets)
        if self.started and self.url is not None:
            await asyncio.to_thread(webbrowser.open, self.url)


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket on the port; without one on port 8000, or any other where that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port is not None:
        return socket.create_server((host, port), family=family)
    try:
        return socket.create_server((host, 8000), family=family)
    except OSError:
        return socket.create_server((host, 0), family=family)


def hosts(address: str) -> list[str]:
    """Return what the gallery is reached as when it listens on an address; the wildcard addresses have any name."""
    if address in ("0.0.0.0", "::"):
        return ["*"]
    return [*LOCAL_HOSTS, f"[{address}]" if ":" in address else address]


def main() -> None:
    """Read the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m examples.gallery", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).with_name("data"), help="where it keeps everything")
    parser.add_argument("--store", choices=("directory", "s3"), default="directory", help="(%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, help="the port (8000, or another one where that is taken)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    options = parser.parse_args()
    listener = listen(options.host, options.port)
    url = f"http://{options.host}:{listener.getsockname()[1]}/"
    with ExitStack() as stack:
        if options.store == "s3":
            from .bucket import private_bucket

            bucket = stack.enter_context(private_bucket())
            data = Path(stack.enter_context(TemporaryDirectory()))
            place = f"a private bucket at {bucket.client.endpoint.template}, until it ends"
        else:
            bucket, data, place = None, options.data, options.data
        print(f"The gallery is at {url} and keeps its pictures in {place}; Ctrl+C ends it.", flush=True)
        config = uvicorn.Config(create_app(data, bucket, hosts(options.host)), log_level="warning")
        with suppress(KeyboardInterrupt):
            Server(config, None if options.no_browser else url).run([listener])


if __name__ == "__main__":
    main()
