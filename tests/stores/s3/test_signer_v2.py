"""Signature Version 2, compared with documented examples and botocore; invalid requests are rejected."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import HmacV1Auth, HmacV1PostAuth, HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from hypothesis import given, settings

from aioimageattach.stores.s3 import Credentials
from aioimageattach.stores.s3._signing.v2 import SUBRESOURCES, SignerV2
from tests.stores.s3.oracle import Request, batches

EXAMPLES = 100 if os.environ.get("CI") else 20
KEYS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW = datetime(2026, 11, 20, 12, 30, 5, tzinfo=UTC)
URL = "https://s3.test/bucket/key.png"


class HeaderOracle(HmacV1Auth):
    """A signer of botocore with a given time."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.keys)
        self.now = request.now

    def _get_date(self) -> str:
        return format_datetime(self.now.astimezone(UTC), usegmt=True)


class QueryOracle(HmacV1QueryAuth):
    """A signer of botocore with a given expiry time."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.keys)
        self.expires = int(request.now.timestamp()) + request.expires_in

    def _get_date(self) -> str:
        return str(self.expires)


def test_the_presigned_example_of_the_user_guide() -> None:
    """The example in the Amazon S3 User Guide is reproduced."""
    url = SignerV2("johnsmith").presign(
        "GET",
        "https://johnsmith.s3.amazonaws.com/photos/puppy.jpg",
        KEYS,
        now=datetime.fromtimestamp(1175139620 - 60, UTC),
        expires_in=60,
    )
    assert url == (
        "https://johnsmith.s3.amazonaws.com/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE"
        "&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620"
    )


@pytest.mark.no_cover  # other tests reach every line; measuring thousands of requests takes minutes
@settings(max_examples=EXAMPLES, deadline=None)
@given(batches)
def test_botocore_signs_the_same(batch: list[Request]) -> None:
    """Signatures of any request, in headers and in URLs, are those of botocore."""
    for request in batch:
        theirs = request.aws
        HeaderOracle(request).add_auth(theirs)
        ours = SignerV2().sign(
            request.method,
            request.url,
            request.headers,
            request.credentials,
            now=request.now,
            payload_hash=request.payload_hash,
        )
        assert ours.pop("host") in request.url.lower()
        assert {name.lower(): value for name, value in ours.items()} == {
            name.lower(): value for name, value in theirs.headers.items()
        }

        trimmed = {name: value.strip(" \t") for name, value in request.headers.items()}
        theirs = replace(request, headers=trimmed).aws
        QueryOracle(request).add_auth(theirs)
        url = SignerV2().presign(
            request.method,
            request.url,
            request.credentials,
            now=request.now,
            expires_in=request.expires_in,
            headers=request.headers,
        )
        assert sorted(urlsplit(url).query.split("&")) == sorted(urlsplit(theirs.url).query.split("&"))
        assert urlsplit(url)[:3] == urlsplit(theirs.url)[:3]


def test_signed_parameters_are_part_of_the_url() -> None:
    """The token and ``x-amz-`` headers become part of the URL, after an existing query, as in botocore."""
    credentials = Credentials("AKID", "secret", "token+/=")
    headers = {"x-amz-acl": "private", "content-type": "image/png"}
    request = Request("PUT", f"{URL}?acl", headers, credentials, "", NOW, "", 60)
    theirs = request.aws
    QueryOracle(request).add_auth(theirs)
    url = SignerV2().presign("PUT", f"{URL}?acl", credentials, now=NOW, expires_in=60, headers=headers)
    assert url.startswith(f"{URL}?acl&AWSAccessKeyId=AKID&Signature=")
    assert "x-amz-security-token=token%2B%2F%3D" in url
    assert sorted(urlsplit(url).query.split("&")) == sorted(urlsplit(theirs.url).query.split("&"))


def test_the_parameters_that_botocore_signs_are_signed() -> None:
    """Two of the parameters that botocore signs are not used by any server; all others are signed."""
    assert set(HmacV1Auth.QSAOfInterest) - SUBRESOURCES == {"defaultObjectAcl", "storageClass"}


@pytest.mark.parametrize("name", sorted(SUBRESOURCES))
def test_subresources_are_signed(name: str) -> None:
    """A parameter that selects a subresource changes the signature, as in botocore."""
    request = Request("GET", f"{URL}?z=1&{name}=a%20b", {}, KEYS, "", NOW, "", 1)
    theirs = request.aws
    HeaderOracle(request).add_auth(theirs)
    signed = SignerV2().sign("GET", request.url, {}, KEYS, now=NOW)["authorization"]
    assert signed == theirs.headers["Authorization"]
    assert signed != SignerV2().sign("GET", URL, {}, KEYS, now=NOW)["authorization"]


@pytest.mark.parametrize("host", ["bucket.s3.test", "BUCKET.s3.test"])
def test_a_bucket_in_the_host_is_signed_with_the_path(host: str) -> None:
    """URLs of both styles have the same signature, and another host contains no bucket."""
    signer = SignerV2("bucket")
    virtual = signer.sign("GET", f"https://{host}/key.png", {}, KEYS, now=NOW)
    assert virtual["authorization"] == signer.sign("GET", URL, {}, KEYS, now=NOW)["authorization"]


def test_a_former_signature_is_replaced() -> None:
    """A request that is signed again has no part of the old signature; a given host is kept."""
    token = Credentials("A", "s", "token")
    old = SignerV2().sign("PUT", URL, {"x-amz-meta-a": "1", "X-Amz-Date": "old"}, token, now=NOW)
    again = SignerV2().sign("PUT", URL, old, KEYS, now=NOW + timedelta(hours=1))
    assert again == SignerV2().sign("PUT", URL, {"x-amz-meta-a": "1"}, KEYS, now=NOW + timedelta(hours=1))


@pytest.mark.parametrize("token", [None, "token+/="])
def test_a_form_is_signed_as_botocore_signs_it(token: str | None) -> None:
    """botocore signs the same policy and adds the same fields."""
    credentials = Credentials("AKID", "secret", token)
    fields = SignerV2().presign_post(
        "bucket", "a/${filename}", credentials, now=NOW, expires_in=600, fields={"acl": "private"}
    )
    policy = json.loads(base64.b64decode(fields["policy"]))
    conditions: list[Any] = [{"bucket": "bucket"}, ["starts-with", "$key", "a/"], {"acl": "private"}]
    request = AWSRequest("POST", "https://s3.test/bucket")
    request.context["s3-presign-post-fields"] = {"key": "a/${filename}", "acl": "private"}
    request.context["s3-presign-post-policy"] = {"expiration": "2026-11-20T12:40:05Z", "conditions": conditions}
    HmacV1PostAuth(credentials).add_auth(request)
    assert policy == request.context["s3-presign-post-policy"]
    assert fields == request.context["s3-presign-post-fields"]


def test_invalid_requests_are_refused() -> None:
    """The message states what was expected."""
    with pytest.raises(ValueError, match="now: expected a datetime with a time zone"):
        SignerV2().sign("GET", URL, {}, KEYS, now=NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="expires_in: expected at least 1 second, got 0"):
        SignerV2().presign("GET", URL, KEYS, now=NOW, expires_in=0)
    with pytest.raises(ValueError, match="expires_in: expected at least 1 second, got -1"):
        SignerV2().presign_post("b", "k", KEYS, now=NOW, expires_in=-1)


def test_the_repr() -> None:
    """The repr contains the bucket, and no secret."""
    assert repr(SignerV2("bucket")) == "SignerV2(bucket='bucket')"
