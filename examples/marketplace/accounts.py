"""Sign-up and sign-in, with scrypt hashes of passwords, and random cookies of which the database has only hashes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from secrets import compare_digest, token_bytes, token_urlsafe
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from .models import SignIn, User


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions.begin() as session:
        yield session


Session = Annotated[AsyncSession, Depends(open_session, scope="function")]


async def visitor(request: Request, session: Session) -> User | None:
    cookie = SignIn.token == digest(request.cookies.get(COOKIE, ""))
    return await session.scalar(select(User).join(SignIn).where(cookie, SignIn.expires_at > datetime.now(UTC)))


Visitor = Annotated[User | None, Depends(visitor)]


async def signed_in(user: Visitor) -> User:
    if user is None:
        raise HTTPException(401, "Please sign in first.")
    return user


Seller = Annotated[User, Depends(signed_in)]


def same_origin(request: Request) -> None:
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "This request was sent by another site.")


class Credentials(BaseModel):
    name: Annotated[str, Field(min_length=2, max_length=40, pattern=r"^\S+( \S+)*$")]
    password: Annotated[str, Field(min_length=8, max_length=200)]


COOKIE = "marketplace"
router = APIRouter(prefix="/api", tags=["accounts"], dependencies=[Depends(same_origin)])


@router.post("/users", status_code=201)
async def sign_up(credentials: Credentials, request: Request, response: Response, session: Session) -> None:
    session.add(user := User(name=credentials.name, password=await scrypt(credentials.password, token_bytes(16))))
    try:
        await session.flush()
    except IntegrityError:
        raise HTTPException(409, "This name is taken.") from None
    remember(user, request, response, session)


@router.post("/session", status_code=201)
async def sign_in(credentials: Credentials, request: Request, response: Response, session: Session) -> None:
    user = await session.scalar(select(User).where(User.name == credentials.name))
    known = user.password if user else bytes(80)  # an unknown name takes as long as a wrong password
    if not compare_digest(await scrypt(credentials.password, known[:16]), known) or user is None:
        raise HTTPException(403, "The name or the password is wrong.")
    remember(user, request, response, session)


@router.delete("/session", status_code=204)
async def sign_out(request: Request, response: Response, session: Session) -> None:
    await session.execute(delete(SignIn).where(SignIn.token == digest(request.cookies.get(COOKIE, ""))))
    response.delete_cookie(COOKIE)


def remember(user: User, request: Request, response: Response, session: AsyncSession) -> None:
    token, end = token_urlsafe(32), datetime.now(UTC) + timedelta(days=14)
    session.add(SignIn(token=digest(token), user_id=user.id, expires_at=end))
    response.set_cookie(COOKIE, token, expires=end, httponly=True, samesite="lax", secure=request.url.scheme == "https")


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def scrypt(password: str, salt: bytes) -> bytes:
    return salt + await asyncio.to_thread(hashlib.scrypt, password.encode(), salt=salt, n=2**14, r=8, p=1)
