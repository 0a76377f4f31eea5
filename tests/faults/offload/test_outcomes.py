"""The outcome of a COMMIT that was sent is unknown: the same tests, with values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.databases import Servers
from tests.faults.offload.conftest import stored_rig_of
from tests.faults.rig import Rig
from tests.faults.test_outcomes import (  # noqa: F401 - each is collected here anew, with the rig below
    proxy,
    test_a_commit_that_takes_too_long,
    test_the_commit_never_arrives,
    test_the_reply_is_lost,
    test_the_reply_is_lost_to_another_driver,
)


@pytest.fixture(params=["asyncpg", "asyncmy"])
async def rig(request: pytest.FixtureRequest, servers: Servers, tmp_path: Any) -> AsyncIterator[Rig]:
    """The two databases that are reached over a network."""
    database = servers.database(request.param, tmp_path)
    yield await stored_rig_of(database)
    await database.aclose()
