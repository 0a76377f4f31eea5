"""Files over HTTP: this library on two servers, compared with Starlette, aiohttp, granian, Caddy and nginx."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from aioimageattach.key import ImageKey

from .measure import save, say

SIZES = {"small": 10 * 1024, "medium": 100 * 1024, "large": 5 * 1024 * 1024, "unchanged": 10 * 1024}
CONNECTIONS = 16
SECONDS = 3
COLD_FILES = 2000
APPS = "tests.bench.serving_apps"
TICKS = os.sysconf("SC_CLK_TCK")

Command = tuple[list[str], dict[str, str]]


def name_of(number: int, width: int = 100) -> str:
    """Return the name of a file of the store."""
    return ImageKey("picture", None, width, 100, "image/jpeg", f"{number:026d}").file_name()


def commands(root: Path, port: int) -> dict[str, Command]:
    """Return the commands that start each server on a port, with one process and its best event loop."""
    python, there = sys.executable, {"BENCH_ROOT": str(root)}
    uvicorn = [python, "-m", "uvicorn", "--port", str(port), "--no-access-log", "--log-level", "error"]
    granian = [python, "-m", "granian", "--interface", "asgi", "--port", str(port), "--workers", "1", "--no-log"]
    found: dict[str, Command] = {
        "ours, uvicorn": ([*uvicorn, f"{APPS}:ours"], there),
        "ours, granian": ([*granian, f"{APPS}:ours"], there),
        "ours, granian, pathsend": ([*granian, f"{APPS}:pathsend"], there),
        "Starlette, uvicorn": ([*uvicorn, f"{APPS}:starlette"], there),
        "Starlette, granian": ([*granian, f"{APPS}:starlette"], there),
        "aiohttp": ([python, "-m", APPS, str(port)], there),
        "granian, static mount": (
            [*granian, "--static-path-route", "/files", "--static-path-mount", str(root), f"{APPS}:nothing"],
            there,
        ),
    }
    if shutil.which("caddy"):
        (root / "Caddyfile").write_text(
            f"{{\n\tadmin off\n\tauto_https off\n}}\n:{port} {{\n\thandle_path /files/* {{\n"
            f"\t\troot * {root}\n\t\tfile_server\n\t}}\n}}\n"
        )
        caddy = ["caddy", "run", "--config", str(root / "Caddyfile"), "--adapter", "caddyfile"]
        found["Caddy"] = (caddy, {"HOME": str(root), "GOMAXPROCS": "1"})
    if shutil.which("nginx"):
        (root / "nginx.conf").write_text(
            f"daemon off;\nmaster_process off;\nuser root;\npid {root}/nginx.pid;\nerror_log /dev/null;\n"
            f"events {{}}\nhttp {{ types {{ image/jpeg jpg; }} access_log off; sendfile on; tcp_nopush on;\n"
            f"keepalive_requests 1000000; open_file_cache max=1000; open_file_cache_valid 10s;\n"
            f"server {{ listen 127.0.0.1:{port}; location /files/ {{ alias {root}/;\n"
            f'add_header Cache-Control "public, max-age=31536000, immutable"; '
            f"add_header X-Content-Type-Options nosniff; "
            f"add_header Content-Security-Policy \"default-src 'none'; sandbox\"; "
            f"add_header Cross-Origin-Resource-Policy same-site; }} }} }}\n"
        )
        found["nginx"] = (["nginx", "-c", str(root / "nginx.conf")], {})
    return found


@contextmanager
def running(command: Command, port: int) -> Iterator[int]:
    """Run a server; yield its process."""
    words, environment = command
    path = Path(__file__).parent.parent.parent
    process = subprocess.Popen(
        words, cwd=path, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"{words[:3]} does not answer: {process.stderr and process.stderr.read()!r}"
                    ) from None
                time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu_of(pid: int) -> float:
    """Return the CPU time of a process and its descendants, in seconds."""
    fields = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in family(pid)]
    return sum(int(found[11]) + int(found[12]) for found in fields) / TICKS


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def load(url: str, seconds: int, *headers: str) -> dict[str, float]:
    """Request a URL with wrk at full speed; return requests, requests per second, and the 99th percentile in ms."""
    options = [word for header in headers for word in ("-H", header)]
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", *options, url]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(text)
    requests = re.search(r"(\d+) requests in ([\d.]+)s", text)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    assert requests is not None
    assert late is not None
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}[late[2]]
    return {
        "requests": int(requests[1]),
        "per_second": int(requests[1]) / float(requests[2]),
        "p99_ms": float(late[1]) * unit,
    }


def measured(pid: int, url: str, seconds: int, *headers: str) -> dict[str, float]:
    """Return the result of :func:`load` with the CPU time of the server per 1,000 requests, in seconds."""
    before = cpu_of(pid)
    found = load(url, seconds, *headers)
    return {**found, "cpu": (cpu_of(pid) - before) / found["requests"] * 1000}


def tag_of(url: str) -> str:
    """Return the entity tag of a file."""
    with urlopen(url) as answer:
        return str(answer.headers["ETag"])


def medians(samples: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def hot(root: Path, part: str, rounds: int) -> dict[str, Any]:
    """Request one file from each server in turn, repeatedly, or with the entity tag of the current version."""
    name = name_of(0)
    (root / name).parent.mkdir(parents=True)
    (root / name).write_bytes(os.urandom(SIZES[part]))
    port = free_port()
    url = f"http://127.0.0.1:{port}/files/{name}"
    contenders = [(who, command) for who, command in commands(root, port).items() if takes_part(who, part)]
    samples: dict[str, list[dict[str, float]]] = {who: [] for who, _ in contenders}
    for number in range(rounds):
        first = number % len(contenders)
        for who, command in contenders[first:] + contenders[:first]:
            with running(command, port) as pid:
                headers = [f"If-None-Match: {tag_of(url)}"] if part == "unchanged" else []
                load(url, 1, *headers)
                found = measured(pid, url, SECONDS, *headers)
            samples[who].append(found)
            say(
                f"  {who:26} {found['per_second']:9.0f}/s  {found['cpu']:.3f} s CPU per 1,000"
                f"  p99 {found['p99_ms']:.2f} ms"
            )
    return {
        who: {
            **medians(found),
            "times_starlette": median_ratio(found, samples["Starlette, uvicorn"], "per_second"),
            "times_nginx_cpu": median_ratio(found, samples["nginx"], "cpu") if "nginx" in samples else None,
        }
        for who, found in samples.items()
    }


def takes_part(who: str, part: str) -> bool:
    """Return whether a server is measured: some have no tags, and granian reads large files itself."""
    if part == "unchanged":
        return who in ("ours, uvicorn", "ours, granian", "Starlette, uvicorn", "aiohttp", "Caddy", "nginx")
    return part == "large" or "pathsend" not in who


def overhead(root: Path, rounds: int) -> dict[str, float]:
    """Request from one process in turn a file, the same messages from memory, and the file with its tag.

    Returns the CPU time per request in microseconds.
    """
    name = name_of(0)
    (root / name).parent.mkdir(parents=True)
    (root / name).write_bytes(os.urandom(SIZES["small"]))
    port = free_port()
    words, environment = commands(root, port)["ours, uvicorn"]
    ours, bare = (f"http://127.0.0.1:{port}/{where}/{name}" for where in ("files", "bare"))
    samples: list[tuple[float, float, float]] = []
    with running(([*words[:-1], f"{APPS}:overhead"], environment), port) as pid:
        for url in (ours, bare):
            load(url, 1)
        condition = f"If-None-Match: {tag_of(ours)}"
        for _ in range(rounds):
            turns = (ours,), (bare,), (ours, condition)
            file, memory, unchanged = (1e3 * measured(pid, url, 1, *headers)["cpu"] for url, *headers in turns)
            samples.append((file, memory, unchanged))
            say(f"  file {file:.1f} µs, from memory {memory:.1f} µs, unchanged {unchanged:.1f} µs")
    return {
        "file": statistics.median(file for file, _, _ in samples),
        "memory": statistics.median(memory for _, memory, _ in samples),
        "unchanged": statistics.median(unchanged for _, _, unchanged in samples),
        "more": statistics.median(file - memory for file, memory, _ in samples),
        "times": statistics.median(file / memory for file, memory, _ in samples),
    }


def median_ratio(mine: list[dict[str, float]], theirs: list[dict[str, float]], figure: str) -> float:
    """Return the median of the ratios within each round."""
    return statistics.median(one[figure] / other[figure] for one, other in zip(mine, theirs, strict=True))


def cold(root: Path) -> dict[str, Any]:
    """Request many files that are not in the page cache once each, and measure the delay of the event loop."""
    names = [name_of(number, 200) for number in range(COLD_FILES)]
    blob = os.urandom(SIZES["medium"])
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(blob)
    os.sync()
    port = free_port()
    found: dict[str, Any] = {}
    for who, command in commands(root, port).items():
        if who not in ("ours, uvicorn", "Starlette, uvicorn"):
            continue
        with running(command, port) as pid:
            asyncio.run(_lag(port))
            forgotten = sum(forget(root / name) for name in names)
            time.sleep(1)
            idle = asyncio.run(_lag(port))
            before, began = cpu_of(pid), time.perf_counter()
            asyncio.run(_ask_each(port, names))
            seconds, cpu = time.perf_counter() - began, cpu_of(pid) - before
            lag = asyncio.run(_lag(port))
        found[who] = {
            "per_second": len(names) / seconds,
            "cpu": cpu / len(names) * 1000,
            "cold": forgotten / len(names),
            "idle": idle,
            "lag": lag,
        }
        say(f"  {who:26} {found[who]}")
    return found


def forget(path: Path) -> bool:
    """Remove a file from the page cache; return whether that was possible."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


async def _lag(port: int) -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /lag HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def _ask_each(port: int, names: list[str]) -> None:
    waiting = iter(names)

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        for name in waiting:
            writer.write(f"GET /files/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
        writer.close()

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


def run(rounds: int, part: str) -> None:
    """Measure one part, and save the result as ``serving.PART``."""
    if not shutil.which("wrk"):
        raise SystemExit("wrk is needed to measure: apt-get install wrk")
    # not in a file system in memory, which does not support non-blocking reads
    with TemporaryDirectory(dir=Path(__file__).parent) as folder:
        root = Path(folder)
        if part == "overhead":
            save("serving.overhead", {**overhead(root, rounds), "connections": CONNECTIONS})
        elif part == "cold":
            save("serving.cold", {"servers": cold(root), "connections": CONNECTIONS})
        else:
            servers = hot(root, part, min(rounds, 5))
            save(f"serving.{part}", {"servers": servers, "connections": CONNECTIONS, "seconds": SECONDS})
