"""A real S3 server in a separate process, in memory, without authentication."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = ROOT / ".venv-s3"
BIND = "127.0.0.1"


def free_port() -> int:
    """Return a free port."""
    with socket.create_server((BIND, 0)) as listener:
        return int(listener.getsockname()[1])


def authorization(region: str) -> str:
    """Return an ``Authorization`` header that contains the region, the only part that the server reads."""
    scope = f"test/20260101/{region}/s3/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"


class Ministack:
    """The server process.

    Args:
        folder: A directory that it may write to.

    Raises:
        FileNotFoundError: Its environment is not installed.
    """

    def __init__(self, folder: Path) -> None:
        program = ENVIRONMENT / "bin" / "python"
        if not program.exists():
            raise FileNotFoundError(f"{ENVIRONMENT} is missing; `make test` and `make demo STORE=s3` make it")
        self.port = free_port()
        environment = {
            "BIND_HOST": BIND,
            "GATEWAY_PORT": str(self.port),
            "HOME": str(folder),
            "LOG_LEVEL": "ERROR",
            "PATH": os.environ.get("PATH", ""),
            "SERVICES": "s3",
            "TMPDIR": str(folder),
        }
        self._log = (folder / "ministack.log").open("wb")
        self._process = subprocess.Popen(
            [program, "-m", "ministack"], env=environment, cwd=folder, stdout=self._log, stderr=self._log
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.request("GET", "/_ministack/health") == 200:
                    return
            except OSError:
                time.sleep(0.02)
        self.close()
        raise RuntimeError(f"ministack does not answer: {Path(self._log.name).read_text()[-2000:]}")

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
        """Send a request directly to the server, and return the status."""
        connection = http.client.HTTPConnection(BIND, self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def reset(self) -> None:
        """Delete everything."""
        assert self.request("POST", "/_ministack/reset") == 200

    def create_bucket(self, name: str, region: str) -> None:
        """Create a bucket in a region."""
        body = (
            b""
            if region == "us-east-1"
            else (
                '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
            ).encode()
        )
        assert self.request("PUT", f"/{name}", body, {"Authorization": authorization(region)}) == 200

    def close(self) -> None:
        """Terminate the process."""
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
