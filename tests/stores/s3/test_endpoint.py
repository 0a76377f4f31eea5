"""Where a bucket is."""

from __future__ import annotations

import pytest

from aioimageattach.exc import InvalidKeyError
from aioimageattach.stores.s3.endpoint import AWS, Endpoint


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (Endpoint("pictures"), "https://pictures.s3.eu-west-1.amazonaws.com/a%20b"),
        (Endpoint("my.pictures"), "https://s3.eu-west-1.amazonaws.com/my.pictures/a%20b"),
        (Endpoint("pictures", path_style=True), "https://s3.eu-west-1.amazonaws.com/pictures/a%20b"),
        (Endpoint("pictures", "http://127.0.0.1:9000/"), "http://127.0.0.1:9000/pictures/a%20b"),
        (Endpoint("pictures", "http://[::1]:9000"), "http://[::1]:9000/pictures/a%20b"),
        (Endpoint("pictures", "https://example.com/s3"), "https://example.com/s3/pictures/a%20b"),
        (Endpoint("pictures", "https://s3.example.com", False), "https://pictures.s3.example.com/a%20b"),
        (
            Endpoint("pictures", "https://s3.dualstack.{region}.amazonaws.com", False),
            "https://pictures.s3.dualstack.eu-west-1.amazonaws.com/a%20b",
        ),
        (
            Endpoint("pictures", "https://{region}.example.com"),
            "https://eu-west-1.example.com/pictures/a%20b",
        ),
    ],
)
def test_the_url_of_an_object(endpoint: Endpoint, expected: str) -> None:
    """The bucket is part of the host or of the path, and the region is where the endpoint says."""
    assert endpoint.url("eu-west-1", "a b") == expected


def test_the_url_of_the_bucket() -> None:
    """It ends with a slash where the bucket is in the host, since a request line needs a path."""
    assert Endpoint("pictures").url("x", query="uploads=") == "https://pictures.s3.x.amazonaws.com/?uploads="
    assert Endpoint("pictures", "http://x:1").url("x", query="uploads=") == "http://x:1/pictures?uploads="
    assert Endpoint("pictures", "http://x:1").url("x") == "http://x:1/pictures"


@pytest.mark.parametrize("key", ["..", "a/../b", "./a", "", "é" * 513])
def test_no_key_leaves_the_bucket(key: str) -> None:
    """Segments that somebody on the way would resolve are refused."""
    with pytest.raises(InvalidKeyError):
        Endpoint("pictures").url("x", key)


@pytest.mark.parametrize("bucket", ["", "ab", "a/b", "a..b", "-ab", "ab-", "a b", "é" * 5, "x" * 256, "a?b", "../x"])
def test_what_is_no_name_of_a_bucket(bucket: str) -> None:
    """It could change the path or the host."""
    with pytest.raises(ValueError, match="bucket: expected"):
        Endpoint(bucket)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "example.com",
        "ftp://example.com",
        "https://",
        "https://example.com?x=1",
        "https://example.com#x",
        "https://user:secret@example.com",
        "https://example.com/../x",
        "https://{zone}.example.com",
        "https://{region",
        "https://example.com\n",
        "https://exa mple.com",
    ],
)
def test_what_is_no_endpoint(template: str) -> None:
    """It is refused by a message that repeats no password."""
    with pytest.raises(ValueError, match="endpoint_url: expected") as caught:
        Endpoint("pictures", template)
    assert "secret" not in str(caught.value)


def test_what_is_known_of_an_endpoint() -> None:
    """Whether it is Amazon's, has a region, and is spoken to over TLS."""
    aws, own = Endpoint("pictures"), Endpoint("pictures", "http://127.0.0.1:9000")
    assert (aws.template, aws.is_aws, aws.has_region, aws.is_encrypted) == (AWS, True, True, True)
    assert (own.is_aws, own.has_region, own.is_encrypted) == (False, False, False)


AT_AWS = "https://pictures.s3.us-east-1.amazonaws.com/a%20b?x=1"
AT_HOME = "http://s3.example.com:81/pictures/a"


@pytest.mark.parametrize(
    ("template", "url", "location"),
    [
        (AWS, AT_AWS, "https://pictures.s3-eu-west-1.amazonaws.com/a%20b?x=1"),
        ("https://s3.{region}.example.com", "https://s3.a.example.com/x", "https://s3.b.example.com/x"),
        ("http://s3.example.com:81", AT_HOME, "http://b.s3.example.com:81/pictures/a"),
        ("http://s3.example.com:81", AT_HOME, AT_HOME),
    ],
)
def test_redirections_within_the_server_are_followed(template: str, url: str, location: str) -> None:
    """To another host of the same domain."""
    assert Endpoint("pictures", template).redirected(url, location) == location


@pytest.mark.parametrize(
    ("template", "url", "location"),
    [
        (AWS, AT_AWS, "https://pictures.s3.amazonaws.com.evil.example/a%20b?x=1"),
        (AWS, AT_AWS, "https://evilamazonaws.com/a%20b?x=1"),
        (AWS, AT_AWS, "http://pictures.s3.eu-west-1.amazonaws.com/a%20b?x=1"),
        (AWS, AT_AWS, "https://pictures.s3.eu-west-1.amazonaws.com/other?x=1"),
        (AWS, AT_AWS, "https://pictures.s3.eu-west-1.amazonaws.com/a%20b"),
        (AWS, AT_AWS, "https://user@pictures.s3.eu-west-1.amazonaws.com/a%20b?x=1"),
        (AWS, AT_AWS, "/a%20b?x=1"),
        ("http://s3.example.com:81", AT_HOME, "http://s3.example.com:82/pictures/a"),
        ("http://s3.example.com:81", AT_HOME, "http://example.com:81/pictures/a"),
        ("http://s3.example.com:81", AT_HOME, "http://169.254.169.254:81/pictures/a"),
    ],
)
def test_redirections_that_lead_away_are_not(template: str, url: str, location: str) -> None:
    """To another domain, port or path, without TLS, or with a user."""
    assert Endpoint("pictures", template).redirected(url, location) is None
