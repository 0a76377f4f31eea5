"""The JSON API and the pages of the marketplace, with SQLite and PostgreSQL, directories and buckets."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from aioimageattach.testing import assert_consistent
from examples.marketplace.app import create_app
from tests import photos
from tests.databases import Servers
from tests.examples.market import PASSWORD, Base, Buckets, Market, buckets, market, store_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def s3() -> Iterator[Buckets]:
    """Two buckets, started when a test first uses them."""
    with buckets() as found:
        yield found


@pytest.fixture(
    params=[
        "aiosqlite-directory",
        pytest.param("asyncpg-directory", marks=pytest.mark.thorough),
        pytest.param("aiosqlite-s3", marks=pytest.mark.thorough),
        "asyncpg-s3",
    ]
)
async def anywhere(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Market]:
    """A marketplace on each database, with each kind of store."""
    driver, kind = request.param.split("-")
    database = servers.database(driver, tmp_path)
    settings = {
        "DATABASE_URL": database.url.render_as_string(hide_password=False),
        "DATA_DIR": str(tmp_path),
        "SECRET_KEY": "a secret of the tests",
    }
    if kind == "s3":
        found: Buckets = request.getfixturevalue("s3")
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        settings |= found.settings()
    async with market(settings) as one:
        yield one
    await database.aclose()


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Market]:
    """A marketplace on SQLite, with directories."""
    url = f"sqlite+aiosqlite:///{tmp_path}/marketplace.sqlite"
    async with market({"DATABASE_URL": url, "DATA_DIR": str(tmp_path), "SECRET_KEY": "a secret of the tests"}) as one:
        yield one


async def fetch(one: Market, url: str) -> httpx.Response:
    """Get a file from the application, or from the server of its URL."""
    if url.startswith(("/", "http://testserver/")):
        return await one.client.get(url)
    async with httpx.AsyncClient() as client:
        return await client.get(url)


async def test_a_seller_offers_sorts_replaces_and_deletes(anywhere: Market) -> None:
    """Pictures are returned in their order with public thumbnails of the right size; deleted ones leave nothing."""
    one = anywhere
    assert (await one.sign_up()).status_code == 201
    address = await one.offer("chelsea", "coffee", "rocket")
    found = await one.photos(address)
    assert [photo["width"] for photo in found] == [451, 600, 640]
    for photo in found:
        icon = photo["thumbnails"]["icon"]
        answer = await fetch(one, icon["src"])
        assert Image.open(io.BytesIO(answer.content)).size == (icon["width"], icon["height"]) == (192, 192)
        assert "/originals/" not in icon["src"] + icon["srcset"]

    ids = [photo["photo_id"] for photo in found]
    order = {"order": [ids[2], ids[0], ids[2], "00000000-0000-0000-0000-000000000000"]}
    assert (await one.client.put(f"{address}/order", json=order["order"])).status_code == 204
    assert [photo["photo_id"] for photo in await one.photos(address)] == [ids[2], ids[0], ids[1]]

    caption = {"caption": "Lift-off & away"}
    assert (await one.client.patch(f"{address}/photos/{ids[2]}", json=caption)).status_code == 204
    answer = await one.client.put(f"{address}/photos/{ids[2]}", files={"file": photos.photo("hubble")})
    assert answer.json()["width"] == 1000
    first = (await one.photos(address))[0]
    assert (first["photo_id"], first["alt"], first["width"]) == (ids[2], "Lift-off & away", 1000)
    page = (await one.client.get(address.removeprefix("/api"))).text
    assert 'alt="Lift-off &amp; away"' in page
    assert page.count("<picture>") == 3

    assert (await one.client.delete(f"{address}/photos/{ids[0]}")).status_code == 204
    assert [photo["photo_id"] for photo in await one.photos(address)] == [ids[2], ids[1]]
    store, _ = store_of(one.settings)
    await assert_consistent(one.sessions, Base, store)
    assert (await one.client.delete(address)).status_code == 204
    assert (await one.client.get(address)).status_code == 404
    assert [info async for info in store.list_objects()] == []
    await store.aclose()


async def test_originals_are_private_and_thumbnails_are_public(anywhere: Market) -> None:
    """Only the seller gets the signed URL of an original, whose pixels are those uploaded."""
    one = anywhere
    await one.sign_up()
    address = await one.offer("coffee")
    [photo] = await one.photos(address)
    answer = await one.client.get(f"{address}/photos/{photo['photo_id']}/original")
    url = answer.headers["location"]
    assert answer.status_code == 303
    downloaded = await fetch(one, url)
    assert 'filename="original.jpeg"' in downloaded.headers["content-disposition"]
    assert Image.open(io.BytesIO(downloaded.content)).tobytes() == photos.opened("coffee").tobytes()
    assert (await fetch(one, url.partition("?")[0])).status_code == 403
    for thumbnail in photo["thumbnails"].values():
        assert (await fetch(one, thumbnail["src"])).status_code == 200
    one.client.cookies.clear()
    assert (await one.client.get(f"{address}/photos/{photo['photo_id']}/original")).status_code == 401


async def test_urls_of_marked_thumbnails_point_to_the_store(anywhere: Market) -> None:
    """After the background task, no URL points to the application's thumbnail server."""
    one = anywhere
    await one.sign_up()
    address = await one.offer("chelsea", "rocket")
    public = one.settings.get("THUMBNAILS_URL", "http://testserver/pictures/")
    pages = [(await one.client.get(url)).text for url in ("/", address.removeprefix("/api"))]
    urls = [url for page in pages for url in re.findall(r'(?:src|content)="([^"]+/photo\.t/[^"]+)"', page)]
    sources = [
        part.split(" ")[0]
        for page in pages
        for one in re.findall(r'srcset="([^"]+)"', page)
        for part in one.split(", ")
    ]
    assert len(urls) == 4
    assert len(sources) > 6
    assert {url.startswith(public) for url in urls + sources} == {True}
    for url in sources:
        assert (await fetch(one, unescape(url))).headers["content-type"] in ("image/avif", "image/webp")


async def test_only_the_seller_can_change_a_product(shop: Market) -> None:
    """All changes by others are refused, and visitors have to sign in."""
    await shop.sign_up("Mia")
    address = await shop.offer("chelsea", "coffee")
    before = await shop.photos(address)
    photo = f"{address}/photos/{before[0]['photo_id']}"
    file = {"file": photos.photo("rocket")}
    attempts: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"{address}/photos", {"files": {"photos": photos.photo("rocket")}}),
        ("PUT", photo, {"files": file}),
        ("PATCH", photo, {"json": {"caption": "Mine"}}),
        ("DELETE", photo, {}),
        ("GET", f"{photo}/original", {}),
        ("PUT", f"{address}/order", {"json": [before[1]["photo_id"]]}),
        ("DELETE", address, {}),
    ]
    await shop.client.delete("/api/session")
    for status, name in ((401, None), (403, "Noah")):
        if name:
            await shop.sign_up(name)
        for method, url, body in attempts:
            assert (await shop.client.request(method, url, **body)).status_code == status, (method, url)
    assert await shop.photos(address) == before
    assert "data-order" not in (await shop.client.get(address.removeprefix("/api"))).text


async def test_requests_of_other_sites_are_refused(shop: Market) -> None:
    """A page of another site cannot cause changes, and scripts cannot read the cookie."""
    cookie = (await shop.sign_up()).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    address = await shop.offer()
    for site in ("cross-site", "same-site"):
        answer = await shop.client.delete(address, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 403
    assert (await shop.client.delete(address, headers={"Sec-Fetch-Site": "same-origin"})).status_code == 204


async def test_signing_in_and_out(shop: Market) -> None:
    """Names are unique, wrong passwords are refused, cookies end with the session, and hashes are salted."""
    await shop.sign_up("Mia")
    assert (await shop.sign_up("Mia")).status_code == 409
    copied = {"Cookie": "; ".join(f"{name}={value}" for name, value in shop.client.cookies.items())}
    assert (await shop.client.delete("/api/session")).status_code == 204
    answer = await shop.client.post("/api/products", json={"title": "A", "price": 1}, headers=copied)
    assert answer.status_code == 401
    for name, password, status in (("Mia", "wrong password", 403), ("Noah", PASSWORD, 403), ("Mia", PASSWORD, 201)):
        answer = await shop.client.post("/api/session", json={"name": name, "password": password})
        assert answer.status_code == status
    assert await shop.offer()
    short = await shop.client.post("/api/users", json={"name": "Eve", "password": "short"})
    assert short.status_code == 422
    async with shop.sessions() as session:
        [password] = (await session.execute(Base.metadata.tables["user"].select())).one()[2:]
    assert PASSWORD.encode() not in password
    assert len(password) == 80


async def test_refused_pictures_are_problems(shop: Market) -> None:
    """Either all pictures of a form are added or none, and the problem states the reason."""
    await shop.sign_up()
    address = await shop.offer("chelsea")
    files = [("photos", photos.photo("coffee")), ("photos", b"no picture")]
    answer = await shop.client.post(f"{address}/photos", files=files)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert (answer.json()["code"], "expected an image" in answer.json()["detail"]) == ("unreadable-image", True)
    answer = await shop.client.post(f"{address}/photos", files=[("photos", photos.photo("camera"))] * 12)
    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (422, "too-many-pictures", 12)
    missing = await shop.client.delete(f"{address}/photos/00000000-0000-0000-0000-000000000000")
    assert (missing.status_code, missing.json()["code"]) == (404, "no-original")
    unknown = await shop.client.get("/products/99")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "no-result-found")
    assert [photo["width"] for photo in await shop.photos(address)] == [451]
    await assert_consistent(shop.sessions, Base, store_of(shop.settings)[0])


async def test_the_policy_of_the_pages(shop: Market) -> None:
    """Titles are escaped, and the policy permits only pictures of the application."""
    await shop.sign_up()
    address = await shop.offer("chelsea", title="<script>alert(1)</script>")
    for url in ("/", address.removeprefix("/api")):
        page = await shop.client.get(url)
        assert "<script>alert" not in page.text
        assert "default-src 'self'; img-src 'self' ;" in page.headers["content-security-policy"]


def test_openapi_describes_pictures_and_problems(tmp_path: Path) -> None:
    """The schema contains the fields of a picture and the form of a problem."""
    api = create_app(
        {"DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/a", "DATA_DIR": str(tmp_path), "SECRET_KEY": "s" * 16}
    )
    found = api.openapi()
    assert {"photo_id", "alt", "thumbnails", "width"} <= found["components"]["schemas"]["PhotoOut"]["properties"].keys()
    answers = found["paths"]["/api/products/{product_id}/photos"]["post"]["responses"]
    assert "application/problem+json" in answers["413"]["content"]


def test_the_size_of_the_marketplace() -> None:
    """The marketplace has at most 400 lines of Python, without workarounds for the library."""
    files = (ROOT / "examples" / "marketplace").glob("*.py")
    assert sum(len(file.read_text("utf-8").splitlines()) for file in files) <= 400
