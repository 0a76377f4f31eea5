"""nginx in front of an application, configured as in the guides."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest

from tests.databases import REQUIRED


@contextmanager
def store_directory() -> Generator[Path]:
    """Create a directory for a store that nginx may read, because pytest's directories are private."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (images := Path(folder) / "images").mkdir(mode=0o755)
        yield images


@contextmanager
def nginx_before(application: str, root: Path, server: str, http: str = "") -> Generator[str]:
    """Run nginx in front of an application, and yield its URL.

    Args:
        application: The URL of the application, which the configuration calls ``http://application``.
        root: The directory of the store, which replaces ``/srv/images/``.
        server: The directives inside the server.
        http: The directives beside the server.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        if REQUIRED:
            pytest.fail("nginx is needed: apt-get install nginx-light")
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    home = root.parent
    text = f"""
        daemon off; pid {home}/pid; error_log stderr;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
            fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
            upstream application {{ server {urlsplit(application).netloc}; keepalive 16; }}
            {http}
            server {{ listen 127.0.0.1:{port}; {server} }}
        }}
    """
    (home / "nginx.conf").write_text(text.replace("/srv/images/", f"{root}/"))
    process = subprocess.Popen([program, "-c", home / "nginx.conf"], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10
        while not is_listening(port):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def is_listening(port: int) -> bool:
    """Return whether something listens on a port."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
