"""Signed URLs of a directory, which expire."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach.exc import DeclarationError
from aioimageattach.key import ImageKey, make_revision
from aioimageattach.stores.fs import HttpExposedFileSystemStore, StaticServer, StaticServerMiddleware
from aioimageattach.stores.fs._signing import UrlSigner
from aioimageattach.testing import StoreContract
from tests.servers.asking import Client, Told

SECRET = "canary-of-a-url-secret"
NAME = "photo/01jd0/00/01jd0000000000000000000000.320x200.jpg"
NOW = 1_800_000_000.0
BLOB = os.urandom(200_000)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestSignedUrls(StoreContract):
    """A store with signed URLs passes the conformance suite."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> HttpExposedFileSystemStore:
        return HttpExposedFileSystemStore(
            tmp_path, host_url_getter=lambda: "https://example.com", url_secret="0123456789abcdef"
        )


@pytest.mark.parametrize("window", [None, 0, 60, 100_000])
def test_how_long_a_url_is_valid(clock: Clock, window: int | None) -> None:
    """A URL is valid for the minimum lifetime, at most longer by the window, and stays the same within the window."""
    signer = UrlSigner(SECRET, expires_in=600, window=window, clock=clock)
    width = 600 if window is None else window
    seen = set()
    for second in range(0, 2 * width + 2, max(1, width // 7)):
        clock.now = NOW + second
        query = signer.sign(NAME)
        seen.add(query)
        allowed = signer.verify(NAME, query.encode())
        assert allowed is not None
        assert 600 <= allowed.seconds_left <= 600 + width
        clock.now += allowed.seconds_left - 1
        assert signer.verify(NAME, query.encode()) is not None
        clock.now += 1
        assert signer.verify(NAME, query.encode()) is None
    assert len(seen) <= (2 if width == 0 else 4)


def test_urls_of_different_names_change_at_different_times(clock: Clock) -> None:
    """The URLs of different names change at different times, so that caches never expire all at once."""
    signer = UrlSigner(SECRET, clock=clock)
    expiries = {dict(parse_qsl(signer.sign(f"a/{number}")))["expires"] for number in range(50)}
    assert len(expiries) > 40


@pytest.mark.parametrize("download", [None, "cat.jpg"])
def test_a_changed_url_is_not_valid(clock: Clock, download: str | None) -> None:
    """A URL is invalid if any character or parameter is changed, omitted, added or repeated, and for another file."""
    signer = UrlSigner(SECRET, clock=clock)
    query = signer.sign(NAME, download=download)
    pairs = parse_qsl(query)
    changed = [urlencode([*pairs[:n], *pairs[n + 1 :]]) for n in range(len(pairs))]
    changed += [urlencode([*pairs, pair]) for pair in [*pairs, ("more", "1"), ("download", "dog.jpg")]]
    changed += [query[:n] + chr(ord(query[n]) ^ 1) + query[n + 1 :] for n in range(len(query))]
    changed += ["", "?", "signature", query + "&", "&" * 5000, query.replace("=", "%3D"), f"{query}&x=%ff"]
    for other in changed:
        assert signer.verify(NAME, other.encode("latin-1")) is None, other
    assert signer.verify(NAME.replace("320", "321"), query.encode()) is None
    assert signer.verify(NAME, query.encode()) is not None


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=200))
def test_every_valid_download_name_can_be_parsed(name: str, download: str) -> None:
    """Browsers receive a valid name unchanged; control characters and paths are refused."""
    signer = UrlSigner(SECRET, clock=Clock())
    if not download.isprintable() or {"/", "\\"} & set(download) or not download.strip(". "):
        with pytest.raises(ValueError, match="download: expected"):
            signer.sign(name, download=download)
        return
    allowed = signer.verify(name, signer.sign(name, download=download).encode())
    assert allowed is not None
    header = (allowed.content_disposition or b"").decode("ascii")
    assert unquote(header.partition("filename*=UTF-8''")[2]) == download
    assert header.count('"') == 2


def test_secrets_can_be_rotated(clock: Clock) -> None:
    """The first secret signs, the others are still accepted, and a removed one is not."""
    old = UrlSigner(SECRET, clock=clock)
    both = UrlSigner([b"another secret of ours", SECRET], clock=clock)
    new = UrlSigner(b"another secret of ours", clock=clock)
    assert both.verify(NAME, old.sign(NAME).encode()) is not None
    assert new.verify(NAME, both.sign(NAME).encode()) is not None
    assert new.verify(NAME, old.sign(NAME).encode()) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url_secret": "short"}, "url_secret: expected at least 16 bytes"),
        ({"url_secret": []}, "url_secret"),
        ({"url_secret": SECRET, "url_expires_in": 0}, "url_expires_in"),
        ({"url_secret": SECRET, "url_window": -1}, "url_window"),
    ],
)
def test_invalid_options(tmp_path: Path, options: dict[str, object], words: str) -> None:
    """The message names the option, but never contains the secret."""
    with pytest.raises(ValueError, match=words) as caught:
        HttpExposedFileSystemStore(tmp_path, **options)  # type: ignore[arg-type]
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("download", ["", ".", "..", "a/b", "a\\b", "a\r\nb", "a\0", "x" * 201])
def test_invalid_download_names(tmp_path: Path, download: str) -> None:
    """Invalid download names are refused, and so are download names in unsigned URLs."""
    store = HttpExposedFileSystemStore(tmp_path, host_url_getter=lambda: "https://example.com", url_secret=SECRET)
    with pytest.raises(ValueError, match="download: expected"):
        store.download_url_of(NAME, download)
    plain = HttpExposedFileSystemStore(tmp_path, host_url_getter=lambda: "https://example.com")
    with pytest.raises(DeclarationError, match="url_secret"):
        plain.download_url_of(NAME, "cat.jpg")
    assert SECRET not in repr(store)


async def ask(http: Client, url: str, *headers: tuple[str, str], method: str = "GET") -> Told:
    parts = urlsplit(url)
    return await http.ask(parts.path, *headers, method=method, query_string=parts.query.encode())


async def nothing(scope: object, receive: object, send: object) -> None:
    raise AssertionError


async def test_signed_urls_are_served(tmp_path: Path) -> None:
    """Only the signed URL is served, and only the browser may cache the file, until the URL expires."""
    store = HttpExposedFileSystemStore(tmp_path, host_url_getter=lambda: "https://example.com", url_secret=SECRET)
    http = Client(store.asgi_middleware(nothing))
    revision = make_revision()
    key = ImageKey("photo", None, 320, 200, "image/jpeg", revision)
    await store.put(key, BLOB, reproducible=False)
    url = store.url_for(key)
    assert store.has_signed_urls
    told = await ask(http, url)
    assert (told.status, told.body == BLOB) == (200, True)
    scope, age = told.headers["cache-control"].split("=")
    assert (scope, 3500 < int(age) <= 7200) == ("private, max-age", True)
    assert "content-disposition" not in told.headers
    part = await ask(http, url, ("Range", "bytes=5-9"))
    assert (part.status, part.body) == (206, BLOB[5:10])
    unchanged = await ask(http, url, ("If-None-Match", f'"{revision}"'))
    assert (unchanged.status, unchanged.headers["cache-control"].partition(",")[0]) == (304, "private")
    for bad in (url.partition("?")[0], f"{url}x", url.replace("320x200", "320x201")):
        for method in ("GET", "HEAD"):
            refused = await ask(http, bad, method=method)
            assert (refused.status, refused.headers["cache-control"]) == (403, "no-store")
    await store.discard(key)
    assert (await ask(http, url)).status == 404


async def test_another_process_serves_signed_urls(tmp_path: Path) -> None:
    """A server with the secret serves the URLs of the store; a server with the next secret serves them, too."""
    store = HttpExposedFileSystemStore(tmp_path, "p", lambda: "https://example.com", url_secret=SECRET)
    key = ImageKey("photo", None, 320, 200, "image/jpeg", make_revision())
    await store.put(key, BLOB, reproducible=False)
    url = store.url_for(key).replace("/p/", "/")
    other = "another secret of this test"
    for secrets, status in ((SECRET, 200), ([other, SECRET], 200), (other, 403)):
        assert (await ask(Client(StaticServer(tmp_path, url_secret=secrets)), url)).status == status
    middleware = StaticServerMiddleware(nothing, "/p/", tmp_path, url_secret=SECRET)
    assert (await ask(Client(middleware), store.url_for(key))).status == 200
    assert (await ask(Client(middleware), store.url_for(key).partition("?")[0])).status == 403


async def test_a_download_under_a_file_name(tmp_path: Path) -> None:
    """Browsers save the file under the name, whatever its type, also behind nginx."""
    for options in ({}, {"x_accel_redirect": "/stored/"}):
        store = HttpExposedFileSystemStore(
            tmp_path, host_url_getter=lambda: "https://example.com", url_secret=SECRET, **options
        )
        http = Client(store.asgi_middleware(nothing))
        for mimetype in ("image/jpeg", "image/svg+xml"):
            key = ImageKey("photo", None, 320, 200, mimetype, make_revision())
            await store.put(key, BLOB, reproducible=False)
            told = await ask(http, store.download_url_of(store.name_of(key), 'Кот "1".jpg'))
            assert told.headers["content-disposition"] == (
                "attachment; filename=\"___ _1_.jpg\"; filename*=UTF-8''%D0%9A%D0%BE%D1%82%20%221%22.jpg"
            )
            assert ("x-accel-redirect" in told.headers) is bool(options)


async def test_legacy_files_are_revalidated(tmp_path: Path) -> None:
    """Legacy files must be revalidated on each request."""
    (tmp_path / "photo/7/0").mkdir(parents=True)
    (tmp_path / "photo/7/0/7.320x200.jpe").write_bytes(BLOB)
    http = Client(StaticServer(tmp_path, url_secret=SECRET))
    name = "photo/7/0/7.320x200.jpe"
    told = await ask(http, f"/{name}?{UrlSigner(SECRET).sign(name)}")
    assert (told.status, told.headers["cache-control"]) == (200, "private, no-cache")


def test_secrets_are_not_pickled(tmp_path: Path) -> None:
    """A pickled store would contain the secret; a copied one signs the same URLs."""
    store = HttpExposedFileSystemStore(tmp_path, host_url_getter=lambda: "https://example.com", url_secret=SECRET)
    with pytest.raises(TypeError, match="secrets of URLs cannot be pickled"):
        pickle.dumps(store)
    for twin in copy.copy(store), copy.deepcopy(store):
        assert twin.url_of(NAME) == store.url_of(NAME)
