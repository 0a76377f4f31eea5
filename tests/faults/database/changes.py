"""Changes of a user's file, and statements that bypass the session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncSession

from tests.faults.rig import Rig, get

Change = Callable[[Rig, AsyncSession], Awaitable[None]]


async def replace(rig: Rig, session: AsyncSession) -> None:
    """Replace the file of a user."""
    await rig.replace(await get(session), b"new")


async def remove(rig: Rig, session: AsyncSession) -> None:
    """Remove the file of a user."""
    await rig.remove(await get(session))


async def delete_owner(rig: Rig, session: AsyncSession) -> None:
    """Delete the user."""
    await session.delete(await get(session))


CHANGES: dict[str, Change] = {change.__name__: change for change in (replace, remove, delete_owner)}


def left_by(change: Change) -> set[bytes]:
    """Return the contents of the files of all rows after a committed change."""
    return {b"new"} if change is replace else set()
