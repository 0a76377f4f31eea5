"""A web application that receives values as JSON, and returns them as JSON after they are loaded."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from aioimageattach.offload import StoredJSON, StoredText, load_stored
from tests.faults.stores import FaultyStore
from tests.offload.conftest import Sessions
from tests.offload.models import Article, StoredPacked


class ArticleIn(BaseModel):
    """The request body."""

    body: Annotated[StoredText, Field(description="the full text")]
    outline: StoredJSON | None = None
    packed: StoredPacked | None = None


class ArticleOut(ArticleIn):
    """The response."""

    model_config = ConfigDict(from_attributes=True)

    id: int


class Line(BaseModel):
    """An item of a list, without the value."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str | None


async def session_of(request: Request) -> AsyncSession:
    return request.app.state.sessions()


Given = Annotated[AsyncSession, Depends(session_of)]


async def create(sent: ArticleIn, session: Given) -> Article:
    async with session, session.begin():
        session.add(row := Article(id=1, title="first", **dict(sent)))
    return row


async def show(number: int, session: Given, loaded: bool = True) -> Article:
    async with session:
        row = await session.get_one(Article, number)
        if loaded:
            await load_stored([row], Article.body, Article.outline, Article.packed)
        return row


async def listing(session: Given) -> list[Article]:
    async with session:
        return list(await session.scalars(select(Article)))


def make_app(sessions: Sessions) -> FastAPI:
    app = FastAPI()
    app.state.sessions = sessions
    app.post("/articles", response_model=ArticleOut)(create)
    app.get("/articles", response_model=list[Line])(listing)
    app.get("/articles/{number}", response_model=ArticleOut)(show)
    return app


async def test_a_round_trip(sessions: Sessions, store: FaultyStore) -> None:
    """The response contains the sent value, a list needs no store, and an unloaded value is an error, not empty."""
    app = make_app(sessions)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        sent = {"body": "text 𝄞", "outline": [1, {"a": None}], "packed": {"a": [1]}}
        answer = await client.post("/articles", json=sent)
        assert (answer.status_code, answer.json()) == (200, {"id": 1, **sent})
        assert store.counts["put"] == 3
        answer = await client.get("/articles")
        assert answer.json() == [{"id": 1, "title": "first"}]
        assert store.counts["get"] == 0
        answer = await client.get("/articles/1")
        assert answer.json() == {"id": 1, **sent}
        assert store.counts["get"] == 3
        assert (await client.get("/articles/1", params={"loaded": False})).status_code == 500
        answer = await client.post("/articles", json={"body": 3, "packed": []})
        assert answer.status_code == 422
        assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", "body"], ["body", "packed"]]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(Exception, match=r"await handle\.load\(\)"):
            await client.get("/articles/1", params={"loaded": False})


def test_the_openapi_schema(sessions: Sessions) -> None:
    """In the OpenAPI schema, a text is a string, and a JSON object an object."""
    schemas = make_app(sessions).openapi()["components"]["schemas"]
    assert schemas["ArticleIn"]["properties"]["body"] == {
        "type": "string",
        "title": "Body",
        "description": "the full text",
    }
    packed = schemas["ArticleIn"]["properties"]["packed"]["anyOf"]
    assert [one.get("type") for one in packed] == ["object", "null"]
