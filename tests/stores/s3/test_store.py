"""The store in a bucket."""

from __future__ import annotations

import pytest

from aioimageattach.stores.s3 import S3Store
from aioimageattach.testing import StoreContract


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, s3_store: S3Store) -> S3Store:
        return s3_store
