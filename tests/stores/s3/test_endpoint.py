"""The URLs of buckets and objects on different servers."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointProviderError

from aioimageattach.exc import InvalidKeyError
from aioimageattach.stores.s3._http.endpoint import Endpoint, dns_suffix


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
    """The bucket is part of the host or of the path, and the region is part of the host."""
    assert endpoint.url("eu-west-1", "a b") == expected


def test_the_url_of_the_bucket() -> None:
    """With the bucket in the host, the URL ends with a slash, because a request line requires a path."""
    assert Endpoint("pictures").url("x", query="uploads=") == "https://pictures.s3.x.amazonaws.com/?uploads="
    assert Endpoint("pictures", "http://x:1").url("x", query="uploads=") == "http://x:1/pictures?uploads="
    assert Endpoint("pictures", "http://x:1").url("x") == "http://x:1/pictures"


@pytest.mark.parametrize("key", ["..", "a/../b", "./a", "", "é" * 513])
def test_no_key_leaves_the_bucket(key: str) -> None:
    """Keys with segments that proxies would resolve are rejected."""
    with pytest.raises(InvalidKeyError):
        Endpoint("pictures").url("x", key)


@pytest.mark.parametrize("bucket", ["", "ab", "a/b", "a..b", "-ab", "ab-", "a b", "é" * 5, "x" * 256, "a?b", "../x"])
def test_invalid_bucket_names(bucket: str) -> None:
    """A bucket name that could change the path or the host is rejected."""
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
def test_invalid_endpoints(template: str) -> None:
    """An invalid endpoint is rejected, and the message does not repeat a password."""
    with pytest.raises(ValueError, match="endpoint_url: expected") as caught:
        Endpoint("pictures", template)
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def amazon() -> tuple[EndpointProvider, list[str]]:
    """Amazon's own rules for the hosts of S3, as botocore evaluates them, and all regions."""
    loader = botocore.session.Session().get_component("data_loader")
    partitions = loader.load_data("partitions")
    regions = [name for one in partitions["partitions"] for name in one["regions"] if not name.endswith("-global")]
    return EndpointProvider(loader.load_service_model("s3", "endpoint-rule-set-1"), partitions), regions


@pytest.mark.parametrize("bucket", ["pictures", "my.pictures", "Upper_Case", "under_score"])
@pytest.mark.parametrize(
    "options",
    [{}, {"dual_stack": True}, {"fips": True}, {"dual_stack": True, "fips": True}, {"accelerate": True}],
    ids=str,
)
def test_the_hosts_of_amazon(amazon: tuple[EndpointProvider, list[str]], bucket: str, options: dict[str, Any]) -> None:
    """The hosts in all regions and partitions are those of Amazon's own rules."""
    provider, regions = amazon
    assert len(regions) > 40
    assert {"eu-south-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1", "us-isob-east-1", "eusc-de-east-1"} <= {
        *regions
    }
    compared = 0
    for region in regions:
        try:
            expected = provider.resolve_endpoint(
                Bucket=bucket,
                Region=region,
                UseFIPS=options.get("fips", False),
                UseDualStack=options.get("dual_stack", False),
                Accelerate=options.get("accelerate", False),
                ForcePathStyle=False,
                UseGlobalEndpoint=False,
                DisableAccessPoints=False,
                DisableMultiRegionAccessPoints=False,
            ).url
        except EndpointProviderError:
            continue  # there is no such host
        compared += 1
        if bucket != "pictures" and options.get("accelerate"):
            continue
        assert Endpoint(bucket, **options).bucket_url(region) == expected
    assert compared or (options.get("accelerate") and bucket != "pictures")


@pytest.mark.parametrize(
    ("bucket", "options", "message"),
    [
        ("pictures--use1-az4--x-s3", {}, "directory buckets require sessions"),
        ("pictures-abc--op-s3", {}, "S3 on Outposts is another service"),
        ("pictures--table-s3", {}, "table buckets contain no objects"),
        ("mfzwi23gnjvgw.mrap", {}, "multi-region access points require Signature Version 4A"),
        (
            "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
            {},
            "multi-region access points require Signature Version 4A",
        ),
        ("arn:aws:s3:eu-west-1:123456789012:accesspoint/mine", {}, "use the access point's alias"),
        ("Upper", {"path_style": False}, "because the bucket 'Upper' cannot be part of a host name"),
        ("under_score", {"path_style": False}, "because the bucket 'under_score' cannot be part of a host name"),
        ("my.pictures", {"accelerate": True}, "accelerate: expected"),
        ("pictures", {"accelerate": True, "fips": True}, "accelerate: expected"),
        ("pictures", {"accelerate": True, "path_style": True}, "accelerate: expected"),
        ("pictures", {"template": "https://example.com", "fips": True}, "endpoint_url: expected None with dual_stack"),
        (
            "pictures",
            {"template": "https://pictures.nyc3.digitaloceanspaces.com"},
            "expected the server's URL without the bucket",
        ),
        (
            "pictures",
            {"template": "https://pictures.example.com", "path_style": False},
            "expected the server's URL without the bucket",
        ),
        ("pictures", {"template": "http://127.0.0.1:9000/pictures"}, "expected the server's URL without the bucket"),
        ("pictures", {"template": "http://127.0.0.1:9000/pictures/x/"}, "expected the server's URL without the bucket"),
    ],
)
def test_incompatible_options(bucket: str, options: dict[str, Any], message: str) -> None:
    """Incompatible options are rejected immediately, and the message names the remedy."""
    with pytest.raises(ValueError, match=message):
        Endpoint(bucket, **options)


def test_a_server_that_is_named_like_the_bucket() -> None:
    """A bucket whose name is the beginning of the host name can be used with an explicit ``path_style``."""
    assert Endpoint("minio", "https://minio.example.com", True).bucket_url("x") == "https://minio.example.com/minio"
    assert Endpoint("pictures", "https://picturesque.example.com").path_style
    assert Endpoint("my.pictures", path_style=False).bucket_url("x") == "https://my.pictures.s3.x.amazonaws.com"


def test_the_domains_of_partitions() -> None:
    """The domain of a partition is derived from the name of the region."""
    assert [dns_suffix(name) for name in ("eu-south-1", "us-gov-east-1", "cn-northwest-1")] == [
        "amazonaws.com",
        "amazonaws.com",
        "amazonaws.com.cn",
    ]


def test_properties_of_an_endpoint() -> None:
    """An endpoint has properties for Amazon's servers, for the region in the host, and for TLS."""
    aws, own = Endpoint("pictures"), Endpoint("pictures", "http://127.0.0.1:9000")
    assert (aws.label, aws.is_aws, aws.has_region, aws.is_encrypted) == (
        "https://s3.{region}.amazonaws.com",
        True,
        True,
        True,
    )
    assert (own.is_aws, own.has_region, own.is_encrypted) == (False, False, False)


AT_AWS = "https://pictures.s3.us-east-1.amazonaws.com/a%20b?x=1"
AT_HOME = "http://s3.example.com:81/pictures/a"


@pytest.mark.parametrize(
    ("template", "url", "location"),
    [
        (None, AT_AWS, "https://pictures.s3-eu-west-1.amazonaws.com/a%20b?x=1"),
        ("https://s3.{region}.example.com", "https://s3.a.example.com/x", "https://s3.b.example.com/x"),
        ("http://s3.example.com:81", AT_HOME, "http://b.s3.example.com:81/pictures/a"),
        ("http://s3.example.com:81", AT_HOME, AT_HOME),
        (
            None,
            "https://pictures.s3.cn-north-1.amazonaws.com.cn/a",
            "https://pictures.s3.cn-northwest-1.amazonaws.com.cn/a",
        ),
    ],
)
def test_redirects_within_the_server_are_followed(template: str, url: str, location: str) -> None:
    """A redirect to another host of the same domain is followed."""
    assert Endpoint("pictures", template).redirected(url, location) == location


@pytest.mark.parametrize(
    ("template", "url", "location"),
    [
        (None, AT_AWS, "https://pictures.s3.amazonaws.com.evil.example/a%20b?x=1"),
        (None, AT_AWS, "https://evilamazonaws.com/a%20b?x=1"),
        (None, AT_AWS, "http://pictures.s3.eu-west-1.amazonaws.com/a%20b?x=1"),
        (None, AT_AWS, "https://pictures.s3.eu-west-1.amazonaws.com/other?x=1"),
        (None, AT_AWS, "https://pictures.s3.eu-west-1.amazonaws.com/a%20b"),
        (None, AT_AWS, "https://user@pictures.s3.eu-west-1.amazonaws.com/a%20b?x=1"),
        (None, AT_AWS, "/a%20b?x=1"),
        ("http://s3.example.com:81", AT_HOME, "http://s3.example.com:82/pictures/a"),
        ("http://s3.example.com:81", AT_HOME, "http://example.com:81/pictures/a"),
        ("http://s3.example.com:81", AT_HOME, "http://169.254.169.254:81/pictures/a"),
    ],
)
def test_other_redirects_are_not_followed(template: str, url: str, location: str) -> None:
    """Redirects to another domain, port or path, without TLS, or with a user name, are not followed."""
    assert Endpoint("pictures", template).redirected(url, location) is None
