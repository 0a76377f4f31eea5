"""The CloudFront configuration in the guide, checked against the model of its API, without running it."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from aioimageattach.stores import MemoryStore
from tests.thumbnails.models import Photo, put
from tests.thumbnails.test_server import BASE, Site

GUIDES = Path(__file__).parents[2] / "docs" / "howto"


def test_the_distribution_is_valid() -> None:
    """All members exist and have the right type, required ones are present, and references are resolved."""
    config: dict[str, Any] = json.loads((GUIDES / "cloudfront-thumbnails.json").read_text())
    model = botocore.session.get_session().get_service_model("cloudfront")
    shape = model.operation_model("CreateDistribution").input_shape
    assert shape is not None
    report = ParamValidator().validate({"DistributionConfig": config}, shape)
    assert not report.has_errors(), report.generate_report()
    [group] = config["OriginGroups"]["Items"]
    assert config["DefaultCacheBehavior"]["TargetOriginId"] == group["Id"]
    assert [one["OriginId"] for one in group["Members"]["Items"]] == [one["Id"] for one in config["Origins"]["Items"]]
    assert config["Origins"]["Items"][1]["OriginPath"] == BASE.rstrip("/")
    for found in (config["Origins"], config["OriginGroups"], group["Members"], config["CustomErrorResponses"]):
        assert found["Quantity"] == len(found["Items"])


async def test_the_policy_of_the_bucket_excludes_originals() -> None:
    """The pattern of the policy matches all names of thumbnails and no name of an original."""
    policy = json.loads((GUIDES / "cloudfront-bucket-policy.json").read_text())
    [statement] = policy["Statement"]
    pattern = statement["Resource"].partition("BUCKET/")[2]
    store = MemoryStore()
    original = await put(Photo, store)
    for url in Site(store).urls(original, "card"):
        assert fnmatchcase(url.removeprefix(BASE), pattern)
    assert not fnmatchcase(store.name_of(original.key), pattern)
