"""Signature Version 4, compared with Amazon's test cases and botocore; invalid requests are rejected."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from hypothesis import given, settings

from aioimageattach.stores.s3 import Credentials
from aioimageattach.stores.s3._signing.v4 import EMPTY_SHA256, UNSIGNED_PAYLOAD, SignerV4
from tests.stores.s3.oracle import Request, batches

DATA = json.loads((Path(__file__).parents[2] / "data/sigv4/vectors.json").read_text("utf-8"))
CONTEXT = DATA["context"]
CASES = [pytest.param(case, id=case["name"]) for case in DATA["cases"]]
# Each example has ten requests, and each request is signed in headers and in a URL.
EXAMPLES = 500 if os.environ.get("CI") else 50
NOW = datetime(2026, 11, 20, 12, 30, 5, tzinfo=UTC)
KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
DOCUMENTED = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
URL = "https://bucket.s3.us-east-1.amazonaws.com/key.png"
CLOCK = [NOW]


@pytest.fixture(scope="module", autouse=True)
def _botocore_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: CLOCK[0].astimezone(UTC))
        yield


class HeaderOracle(botocore.auth.S3SigV4Auth):
    """A signer of botocore with a given payload hash."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.keys, "s3", request.region)
        self.hash = request.payload_hash

    def payload(self, request: AWSRequest) -> str:
        return self.hash


def signature(authorization: str) -> str:
    return authorization.rpartition("Signature=")[2]


def parse(case: Mapping[str, Any]) -> tuple[str, str, dict[str, str], str]:
    """Return the method, URL, headers and payload hash of one of Amazon's test cases."""
    head, _, body = case["request"].partition("\n\n")
    # Amazon treats a folded line as another value.
    first, *lines = re.sub(r"\n +", ",", head).split("\n")
    method, _, target = first.removesuffix(" HTTP/1.1").partition(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    url = f"https://{headers.pop('Host')}{quote(target, safe='/?&=~%')}"
    return method, url, headers, hashlib.sha256(body.encode()).hexdigest()


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0]["header_signature"]])
def test_headers_are_signed_as_amazon_signs_them(case: Mapping[str, Any]) -> None:
    """Each of Amazon's cases has Amazon's signature in its Authorization header."""
    method, url, headers, payload_hash = parse(case)
    token = headers.pop("X-Amz-Security-Token", case["token"])
    signed = SignerV4(CONTEXT["region"], service=CONTEXT["service"]).sign(
        method,
        url,
        headers,
        Credentials(CONTEXT["access_key"], CONTEXT["secret_key"], token),
        now=datetime.fromisoformat(CONTEXT["timestamp"]),
        payload_hash=payload_hash,
    )
    assert signature(signed["authorization"]) == case["header_signature"]


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0]["query_signature"]])
def test_urls_are_signed_as_amazon_signs_them(case: Mapping[str, Any]) -> None:
    """Each of Amazon's cases has Amazon's signature in its URL."""
    method, url, headers, payload_hash = parse(case)
    signed = SignerV4(CONTEXT["region"], service=CONTEXT["service"]).presign(
        method,
        url,
        Credentials(CONTEXT["access_key"], CONTEXT["secret_key"], case["token"]),
        now=datetime.fromisoformat(CONTEXT["timestamp"]),
        expires_in=CONTEXT["expires_in"],
        headers=headers,
        payload_hash=payload_hash,
    )
    assert signed.rpartition("X-Amz-Signature=")[2] == case["query_signature"]


@pytest.mark.parametrize(
    ("method", "target", "headers", "payload_hash", "expected"),
    [
        (
            "GET",
            "test.txt",
            {"Range": "bytes=0-9"},
            EMPTY_SHA256,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "test%24file.text",
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "?lifecycle", {}, EMPTY_SHA256, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "GET",
            "?max-keys=2&prefix=J",
            {},
            EMPTY_SHA256,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_examples_of_the_api_reference(
    method: str, target: str, headers: dict[str, str], payload_hash: str, expected: str
) -> None:
    """The signatures of the examples in the Amazon S3 API Reference are reproduced."""
    signed = SignerV4("us-east-1").sign(
        method,
        f"https://examplebucket.s3.amazonaws.com/{target}",
        headers,
        DOCUMENTED,
        now=datetime(2013, 5, 24, tzinfo=UTC),
        payload_hash=payload_hash,
    )
    assert signature(signed["authorization"]) == expected


def test_the_presigned_example_of_the_api_reference() -> None:
    """The example of a presigned URL in the Amazon S3 API Reference is reproduced."""
    url = SignerV4("us-east-1").presign(
        "GET",
        "https://examplebucket.s3.amazonaws.com/test.txt",
        DOCUMENTED,
        now=datetime(2013, 5, 24, tzinfo=UTC),
        expires_in=86400,
    )
    assert url == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.mark.no_cover  # other tests reach every line; measuring thousands of requests takes minutes
@settings(max_examples=EXAMPLES, deadline=None)
@given(batches)
def test_botocore_signs_the_same(batch: list[Request]) -> None:
    """Signatures of any request, in headers and in URLs, are those of botocore."""
    for request in batch:
        CLOCK[0] = request.now
        judge_headers(request)
        judge_url(request)


def judge_headers(request: Request) -> None:
    theirs = request.aws
    HeaderOracle(request).add_auth(theirs)
    ours = SignerV4(request.region).sign(
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


def judge_url(request: Request) -> None:
    theirs = request.aws
    botocore.auth.S3SigV4QueryAuth(request.keys, "s3", request.region, request.expires_in).add_auth(theirs)
    ours = SignerV4(request.region).presign(
        request.method,
        request.url,
        request.credentials,
        now=request.now,
        expires_in=request.expires_in,
        headers=request.headers,
    )
    assert urlsplit(ours)[:3] == urlsplit(theirs.url)[:3]
    assert query_of(ours) == query_of(theirs.url)


def query_of(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def test_a_presigned_url_is_identical_to_that_of_botocore() -> None:
    """If botocore does not rewrite the query, the whole URL is identical."""
    url = f"{URL}?response-content-type=image%2Fpng&versionId="
    CLOCK[0] = NOW
    sent = AWSRequest("GET", url)
    keys = replace(KEYS, access_key="A+/K~", token="a+/==")
    botocore.auth.S3SigV4QueryAuth(keys, "s3", "eu-west-1", 60).add_auth(sent)
    assert sent.url == SignerV4("eu-west-1").presign("GET", url, keys, now=NOW, expires_in=60)


def test_parameters_are_sorted_after_encoding_by_name_then_value() -> None:
    """Sorting whole pairs, or sorting before encoding, would result in a different order."""
    signer = SignerV4("us-east-1")
    one = signer.presign("GET", f"{URL}?a-b=1&a=2&a=1&%C3%A9=&z=3", KEYS, now=NOW, expires_in=1)
    other = signer.presign("GET", f"{URL}?%C3%A9&a=1&a=2&a-b=1&z=3", KEYS, now=NOW, expires_in=1)
    assert one.rpartition("=")[2] == other.rpartition("=")[2]


@pytest.mark.parametrize("name", ["User-Agent", "accept-encoding", "EXPECT", "traceparent", "Connection"])
def test_headers_that_proxies_change_are_not_signed(name: str) -> None:
    """Proxies and tracing tools can change these headers without invalidating the signature."""
    signer = SignerV4("us-east-1")
    signed = [signer.sign("GET", URL, {name: value}, KEYS, now=NOW) for value in ("one", "two")]
    assert [headers[name] for headers in signed] == ["one", "two"]
    assert signed[0]["authorization"] == signed[1]["authorization"]
    urls = [signer.presign("GET", URL, KEYS, now=NOW, expires_in=9, headers={name: v}) for v in ("one", "two")]
    assert urls[0] == urls[1]


@pytest.mark.parametrize("name", ["x-amz-meta-a", "Content-Type", "If-None-Match", "content-length"])
def test_other_headers_are_signed(name: str) -> None:
    """A different value of any other header results in a different signature."""
    signer = SignerV4("us-east-1")
    signed = {signer.sign("PUT", URL, {name: value}, KEYS, now=NOW)["authorization"] for value in ("one", "two")}
    assert len(signed) == 2


def test_a_former_signature_is_replaced() -> None:
    """A request that is signed again, at another time and with another token, has no part of the old signature."""
    signer = SignerV4("us-east-1")
    old = signer.sign("PUT", URL, {"X-Amz-Meta-A": "1"}, replace(KEYS, token="old"), now=NOW, payload_hash="0" * 64)
    old = {name.title(): value for name, value in old.items()}
    later = NOW + timedelta(days=1)
    again = signer.sign("PUT", URL, old, KEYS, now=later)
    again["host"] = again.pop("Host")
    assert again == signer.sign("PUT", URL, {"X-Amz-Meta-A": "1"}, KEYS, now=later)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://EXAMPLE.com:443/a", "example.com"),
        ("http://example.com:80", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("https://[::1]:9000/a", "[::1]:9000"),
    ],
)
def test_the_host_has_no_default_port(url: str, host: str) -> None:
    """The host is signed as HTTP clients send it."""
    assert SignerV4("auto").sign("GET", url, {}, KEYS, now=NOW)["host"] == host


def test_a_given_host_is_kept() -> None:
    """Behind a proxy, the signed host can differ from that of the URL."""
    signed = SignerV4("auto").sign("GET", "http://proxy:3128/a", {"Host": "s3.test"}, KEYS, now=NOW)
    direct = SignerV4("auto").sign("GET", "http://s3.test/a", {}, KEYS, now=NOW)
    assert signed["authorization"] == direct["authorization"]
    assert (signed["Host"], "host" in signed) == ("s3.test", False)


@pytest.mark.parametrize(
    ("url", "start"),
    [
        ("http://h.test", "http://h.test/?X-Amz-Algorithm="),
        ("http://h.test?a=/b", "http://h.test/?a=/b&X-Amz-Algorithm="),
        ("http://h.test/a//b/", "http://h.test/a//b/?X-Amz-Algorithm="),
    ],
)
def test_a_presigned_url_is_the_url_and_a_signature(url: str, start: str) -> None:
    """The URL is not rewritten; the signature is appended."""
    assert SignerV4("auto").presign("GET", url, KEYS, now=NOW, expires_in=1).startswith(start)


def test_the_time_is_converted_to_utc() -> None:
    """The same time in any time zone results in the same signature."""
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    signer = SignerV4("us-east-1")
    assert signer.sign("GET", URL, {}, KEYS, now=NOW) == signer.sign("GET", URL, {}, KEYS, now=there)


def test_signing_keys_are_not_reused_for_other_scopes() -> None:
    """A signer that has signed with other keys and on other days signs like a new one."""
    signer = SignerV4("us-east-1")
    other = replace(KEYS, secret_key="other")
    for credentials, now in [(KEYS, NOW), (other, NOW), (KEYS, NOW + timedelta(days=1)), (KEYS, NOW)]:
        assert signer.sign("GET", URL, {}, credentials, now=now) == SignerV4("us-east-1").sign(
            "GET", URL, {}, credentials, now=now
        )


POST = {"content-type": "image/png", "x-amz-meta-a": "é"}


@pytest.mark.parametrize("token", [None, "token+/="])
def test_a_form_is_signed_as_botocore_signs_it(token: str | None) -> None:
    """botocore signs the same policy and adds the same fields."""
    credentials = replace(KEYS, token=token)
    fields = SignerV4("eu-west-1").presign_post(
        "bucket",
        "a/b.png",
        credentials,
        now=NOW,
        expires_in=600,
        fields=POST,
        conditions=[["content-length-range", 1, 9]],
    )
    CLOCK[0] = NOW
    request = AWSRequest("POST", "https://bucket.s3.amazonaws.com/")
    policy = json.loads(base64.b64decode(fields["policy"]))
    request.context["s3-presign-post-fields"] = {"key": "a/b.png", **POST}
    request.context["s3-presign-post-policy"] = {
        "expiration": "2026-11-20T12:40:05Z",
        "conditions": [
            {"bucket": "bucket"},
            {"key": "a/b.png"},
            *({name: value} for name, value in POST.items()),
            ["content-length-range", 1, 9],
        ],
    }
    botocore.auth.S3SigV4PostAuth(credentials, "s3", "eu-west-1").add_auth(request)
    theirs = request.context["s3-presign-post-fields"]
    ordered = sorted(policy["conditions"], key=json.dumps)
    assert ordered == sorted(request.context["s3-presign-post-policy"]["conditions"], key=json.dumps)
    assert policy["expiration"] == "2026-11-20T12:40:05Z"
    assert {**theirs, "policy": 0, "x-amz-signature": 0} == {**fields, "policy": 0, "x-amz-signature": 0}
    judge = botocore.auth.S3SigV4PostAuth(credentials, "s3", "eu-west-1")
    assert judge.signature(fields["policy"], request) == fields["x-amz-signature"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.sign("GET", "ftp://h/a", {}, KEYS, now=NOW), "url: expected"),
        (
            lambda s: s.sign("GET", URL, {}, KEYS, now=NOW.replace(tzinfo=None)),
            "now: expected a datetime with a time zone",
        ),
        (lambda s: s.presign("GET", URL, KEYS, now=NOW, expires_in=0), "expires_in: expected 1 to 604800"),
        (lambda s: s.presign("GET", URL, KEYS, now=NOW, expires_in=604801), "expires_in: expected 1 to 604800"),
        (lambda s: s.presign_post("b", "k", KEYS, now=NOW, expires_in=604801), "expires_in: expected 1 to 604800"),
        (lambda s: SignerV4(""), "region: expected letters"),
        (lambda s: SignerV4("eu west"), "region: expected letters"),
        (lambda s: SignerV4("us-east-1", service="s3/x"), "service: expected letters"),
    ],
)
def test_invalid_requests_are_refused(call: Any, message: str) -> None:
    """The message states what was expected."""
    with pytest.raises(ValueError, match=message):
        call(SignerV4("us-east-1"))


def test_nothing_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """The repr, pickle, logs and caches of a used signer contain no secret."""
    caplog.set_level(logging.DEBUG)
    signer = SignerV4("us-east-1")
    credentials = Credentials("AKID", "canary-secret", "canary-token")
    expected = signer.sign("GET", URL, {}, credentials, now=NOW)
    shown = [repr(signer), str(signer), f"{signer}", repr(signer._scope), caplog.text]
    assert repr(signer) == "SignerV4('us-east-1', service='s3')"
    assert not any("canary" in text for text in shown)
    pickled = pickle.dumps(signer)
    assert b"canary" not in pickled
    assert pickle.loads(pickled)._scope.day == ""
    assert pickle.loads(pickled).sign("GET", URL, {}, credentials, now=NOW) == expected


def test_signing_loads_no_client() -> None:
    """Importing the signers loads neither aiohttp nor botocore."""
    code = (
        "import sys, aioimageattach.stores.s3, aioimageattach.stores.s3._signing.v4, aioimageattach.stores.s3._xml;"
        "sys.exit(any(name.partition('.')[0] in ('aiohttp', 'botocore') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_a_hash_the_body_is_unsigned() -> None:
    """The payload hash is always sent and signed; by default, it excludes the body."""
    signed = SignerV4("us-east-1").sign("PUT", URL, {}, KEYS, now=NOW)
    assert signed["x-amz-content-sha256"] == UNSIGNED_PAYLOAD == "UNSIGNED-PAYLOAD"
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date," in signed["authorization"]
