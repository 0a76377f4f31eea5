"""The table of attacks in the documentation: each row has a test, and its examples get the documented response."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.fs import FileSystemStore, StaticServer
from tests.servers.asking import Client

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/explanation/serving.md").read_text("utf-8")
TABLE = [tuple(row) for row in re.findall(r"(?m)^\| (.+?) \| (.+) \|$", PAGE.partition("| Attack | Response |")[2])]

HERE, WIRE, URLS = "fs/test_static.py", "fs/test_static_servers.py", "fs/test_exposed.py"
NAMES, RANGES, TAGS = "fs/serving/test_names.py", "../_http/test_ranges.py", "../_http/test_conditions.py"

PROOFS = {
    "`../secret.jpg`": (NAMES, "other_paths_are_not_served", WIRE, "attacks_over_the_wire"),
    "`//etc/passwd`": (NAMES, "other_paths_are_not_served", HERE, "files_that_the_store_did_not_put"),
    "NUL": (NAMES, "other_paths_are_not_served", NAMES, "any_path_can_be_parsed", WIRE, "attacks_over_the_wire"),
    "a trailing slash": (NAMES, "other_paths_are_not_served"),
    "hidden": (HERE, "files_that_the_store_did_not_put"),
    "a link": (HERE, "only_regular_files_are_opened", HERE, "symbolic_links_are_not_followed"),
    "a directory that is repeatedly replaced": (HERE, "a_directory_that_is_repeatedly_replaced_by_a_link"),
    "a FIFO": (HERE, "only_regular_files_are_opened"),
    "POST": (HERE, "files_can_only_be_read"),
    "100 ranges": (RANGES, "each_requested_byte_is_sent_once", HERE, "an_ignored_range"),
    "a list of 100,000 tags": (TAGS, "a_long_list_is_read_once"),
    "`Host`": (URLS, "allowed_hosts", URLS, "a_request_without_one_host"),
    "two hundred concurrent": (URLS, "no_request_sees_the_host_of_another"),
    "SVG": (HERE, "active_content_is_downloaded"),
    "an origin": (HERE, "other_origins"),
    "a thousand clients": (
        HERE,
        "clients_that_disconnect",
        WIRE,
        "clients_that_disconnect",
        WIRE,
        "cancelled_downloads_over_http2",
    ),
    "a hundred clients": (WIRE, "slow_clients_cost_little_memory"),
    "with `url_secret`": (
        "fs/test_signing.py",
        "a_changed_url_is_not_valid",
        "fs/test_signing.py",
        "signed_urls_are_served",
    ),
    "a file that is truncated": (HERE, "a_file_that_is_truncated_while_it_is_sent"),
}


def test_each_row_has_a_test() -> None:
    """Each row has tests that exist, in the same order."""
    assert len(TABLE) == len(PROOFS)
    for (attack, _), (start, proofs) in zip(TABLE, PROOFS.items(), strict=True):
        assert attack.startswith(start)
        for file, name in zip(proofs[::2], proofs[1::2], strict=True):
            assert f"def test_{name}(" in (ROOT / "tests/stores" / file).read_text("utf-8"), name


def spans(number: int) -> list[str]:
    """Return the inputs in a row of the table; a character may be given by its number."""
    found = re.findall(r"`(.+?)`", TABLE[number][0])
    return [re.sub(r"^U\+([0-9A-F]{4})$", lambda code: chr(int(code[1], 16)), one) for one in found]


@pytest.fixture
async def name(tmp_path: Path) -> str:
    """The name of a file of a thousand bytes, in a directory with other files."""
    store = FileSystemStore(tmp_path / "root", "/", fsync=False)
    key = ImageKey("photo", None, 320, 200, "image/jpeg", make_revision())
    await store.put(key, os.urandom(1000), reproducible=False)
    for place in ("secret.jpg", "root/secret.jpg", "root/page.html"):
        (tmp_path / place).write_bytes(b"secret")
    return store.name_of(key)


@pytest.mark.parametrize("span", [one for number in range(5) for one in spans(number)])
async def test_paths(tmp_path: Path, name: str, span: str) -> None:
    """A malicious path is 404, unescaped or not, alone, and before or after the name of an existing file."""
    http = Client(StaticServer(tmp_path / "root"))
    for path in (span, f"{span}{name}", f"{name}{span}", f"{name}/{span}"):
        for asked in (path, unquote(path, errors="replace")):
            assert (await http.ask(f"/{asked}")).status == 404
    assert (await http.ask(f"/{name}")).status == 200


async def test_methods(tmp_path: Path, name: str) -> None:
    """Each method in the row is 405."""
    http = Client(StaticServer(tmp_path / "root"))
    methods = re.findall(r"\b[A-Z]{3,}\b", TABLE[8][0]) + spans(8)
    assert {"POST", "DELETE", "get"} <= set(methods)
    for method in methods:
        assert (await http.ask(f"/{name}", method=method)).status == 405


@pytest.mark.parametrize("span", spans(9))
async def test_ranges(tmp_path: Path, name: str, span: str) -> None:
    """A malicious range is 200 or 416, and never returns more bytes than the file has."""
    http = Client(StaticServer(tmp_path / "root"))
    told = await http.ask(f"/{name}", ("Range", f"bytes={span.removeprefix('bytes=')}"))
    assert told.status in (200, 416)
    assert len(told.body) <= 1000
