"""Start the gallery and show it in a browser."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import webbrowser
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn

from .app import create_app


class Server(uvicorn.Server):
    """A server that opens a browser once it is ready.

    Args:
        config: The configuration.
        url: The page to open; ``None`` to open no browser.
    """

    def __init__(self, config: uvicorn.Config, url: str | None) -> None:
        super().__init__(config)
        self.url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the server, and open the browser."""
        await super().startup(sockets)
        if self.started and self.url is not None:
            await asyncio.to_thread(webbrowser.open, self.url)


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens on a port; without one, on port 8000, or on a free port if that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port is not None:
        return socket.create_server((host, port), family=family)
    try:
        return socket.create_server((host, 8000), family=family)
    except OSError:
        return socket.create_server((host, 0), family=family)


def main() -> None:
    """Read the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m examples.gallery", description=__doc__)
    folder = Path(__file__).with_name("data")
    parser.add_argument("--data", type=Path, default=folder, help="the directory of the database and the files")
    parser.add_argument("--store", choices=("directory", "s3"), default="directory", help="(%(default)s)")
    fleet_help = "use PostgreSQL, a bucket, RabbitMQ and two workers (GALLERY_POSTGRESQL_URL, GALLERY_RABBITMQ_URL)"
    parser.add_argument("--fleet", action="store_true", help=fleet_help)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, help="the port (8000, or a free one if that is taken)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    options = parser.parse_args()
    listener = listen(options.host, options.port)
    url = f"http://{options.host}:{listener.getsockname()[1]}/"
    # uvicorn raises a signal again after its shutdown; the services that were started must end, too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        bucket, fleet, data, place = None, None, options.data, options.data
        try:
            if options.fleet:
                from .fleet import services

                fleet = stack.enter_context(services())
            if options.fleet or options.store == "s3":
                from .bucket import private_bucket

                bucket = stack.enter_context(private_bucket())
                data = Path(stack.enter_context(TemporaryDirectory()))
                place = f"a private bucket at {bucket.client.endpoint.template}, until it ends"
                if fleet is not None:
                    processes = stack.enter_context(fleet.workers(bucket))
                    place += "; the processes {} and {} make the thumbnails".format(*processes)
        except (ImportError, OSError, RuntimeError) as error:
            parser.exit(2, f"{parser.prog}: {error}\n")
        print(f"The gallery is at {url} and keeps its pictures in {place}; Ctrl+C ends it.", flush=True)
        config = uvicorn.Config(create_app(data, bucket, fleet), log_level="warning")
        Server(config, None if options.no_browser else url).run([listener])


if __name__ == "__main__":
    main()
