"""XML documents of S3: parsing, rejection of invalid ones, and comparison with botocore."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import botocore.session
import pytest
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import given, settings
from hypothesis import strategies as st

from aioimageattach.exc import InvalidKeyError, StoreError, StoreUnavailableError
from aioimageattach.stores.s3 import _documents as documents
from aioimageattach.stores.s3 import _xml as xml
from aioimageattach.stores.s3._documents import Part
from aioimageattach.stores.s3._http import responses
from aioimageattach.stores.s3._http.responses import (
    DeleteFailure,
    DeleteResult,
    ListedObject,
    ListedUpload,
    ListPage,
    UploadsPage,
)
from aioimageattach.stores.s3._xml import S3ErrorInfo, S3ErrorInResponse, UnexpectedResponse
from tests.stores.s3.oracle import AWKWARD

NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
WRITABLE = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1)

PAGE = f"""{HEAD}<ListBucketResult {NS}><Name>bucket</Name><Prefix></Prefix><KeyCount>2</KeyCount>
<MaxKeys>2</MaxKeys><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
<NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J==</NextContinuationToken>
<Contents><Key>a+b%2Bc/%C3%A9</Key><LastModified>2026-11-20T12:30:05.123Z</LastModified>
<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>0</Size><StorageClass>STANDARD</StorageClass></Contents>
<Contents><Key>b.png</Key><LastModified>2026-11-20T12:30:05.000Z</LastModified>
<ETag>"0-2"</ETag><Size>5497558138880</Size><Owner><ID>1</ID><DisplayName>n</DisplayName></Owner></Contents>
<CommonPrefixes><Prefix>c+d/</Prefix></CommonPrefixes>
</ListBucketResult>"""


@pytest.fixture(scope="module")
def s3() -> ServiceModel:
    return botocore.session.Session().get_service_model("s3")


def theirs(operation: OperationModel, body: bytes) -> dict[str, Any]:
    parsed = create_parser("rest-xml").parse({"headers": {}, "status_code": 200, "body": body}, operation.output_shape)
    return dict(parsed)


def shape(body: bytes) -> Any:
    """Return the names, texts and children of a document in order, without details that may differ."""

    def of(element: ElementTree.Element) -> Any:
        return element.tag, (element.text or "").strip(), [of(child) for child in element]

    return of(ElementTree.fromstring(body))


def test_a_listing_is_parsed() -> None:
    """Keys and prefixes are decoded, times have a zone, and ETags have no quotes."""
    assert responses.parse_list(PAGE.encode()) == ListPage(
        objects=(
            ListedObject(
                "a b+c/é",
                0,
                datetime(2026, 11, 20, 12, 30, 5, 123000, UTC),
                "d41d8cd98f00b204e9800998ecf8427e",
            ),
            ListedObject("b.png", 5497558138880, datetime(2026, 11, 20, 12, 30, 5, tzinfo=UTC), "0-2"),
        ),
        prefixes=("c d/",),
        truncated=True,
        next_token="1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J==",
    )


def test_a_listing_of_an_old_server_is_parsed() -> None:
    """Without encoding, namespace, ETag and token, keys are returned unchanged, and there is no next page."""
    body = (
        "  \n<?xml version='1.0'?><ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key> a+b%20 </Key>"
        "<LastModified>Fri, 20 Nov 2026 12:30:05 GMT</LastModified><Size>1</Size></Contents></ListBucketResult>"
    )
    assert responses.parse_list(body.encode()) == ListPage(
        (ListedObject(" a+b%20 ", 1, datetime(2026, 11, 20, 12, 30, 5, tzinfo=UTC), ""),), (), True, None
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(WRITABLE, max_size=5))
def test_botocore_parses_the_same_listing(s3: ServiceModel, keys: list[str]) -> None:
    """For any keys, botocore parses a listing to the same values."""
    root = ElementTree.Element("ListBucketResult", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    for number, key in enumerate(keys):
        item = ElementTree.SubElement(root, "Contents")
        for name, text in {"Key": key, "LastModified": "2026-11-20T12:30:05.5Z", "Size": str(number)}.items():
            ElementTree.SubElement(item, name).text = text
    body = ElementTree.tostring(root, encoding="utf-8")
    expected = [
        (item["Key"], item["Size"], item["LastModified"])
        for item in theirs(s3.operation_model("ListObjectsV2"), body).get("Contents", [])
    ]
    assert [(item.key, item.size, item.modified_at) for item in responses.parse_list(body).objects] == expected
    assert [item.key for item in responses.parse_list(body).objects] == keys


def test_a_result_of_a_bulk_deletion_is_parsed(s3: ServiceModel) -> None:
    """Deleted keys and failures are distinguished, as in botocore."""
    body = (
        f"{HEAD}<DeleteResult {NS}><Deleted><Key>a &amp; b</Key></Deleted><Error><Key>c</Key>"
        "<Code>AccessDenied</Code><Message>Access\n  Denied</Message></Error><Error><Key>d</Key></Error></DeleteResult>"
    ).encode()
    assert responses.parse_delete_result(body) == DeleteResult(
        ("a & b",), (DeleteFailure("c", "AccessDenied", "Access Denied"), DeleteFailure("d", "", ""))
    )
    expected = theirs(s3.operation_model("DeleteObjects"), body)
    assert [item["Key"] for item in expected["Deleted"]] == ["a & b"]
    assert [item["Key"] for item in expected["Errors"]] == ["c", "d"]


def test_responses_about_uploads_are_parsed() -> None:
    """Responses for started, listed, completed and copied uploads are parsed."""
    begun = f"{HEAD}<InitiateMultipartUploadResult {NS}><UploadId> VXBsb2Fk </UploadId></InitiateMultipartUploadResult>"
    assert responses.parse_upload_id(begun.encode()) == "VXBsb2Fk"
    done = (
        f"{HEAD}\n \n<CompleteMultipartUploadResult {NS}><ETag>&#34;abc-2&#34;</ETag></CompleteMultipartUploadResult>"
    )
    assert responses.parse_etag(done.encode()) == "abc-2"
    copied = "<CopyObjectResult><LastModified>2026-11-20T12:30:05</LastModified><ETag>x</ETag></CopyObjectResult>"
    at = datetime(2026, 11, 20, 12, 30, 5, tzinfo=UTC)
    assert responses.parse_etag(copied.encode()) == "x"
    upload = "<Upload><Key>a+b</Key><UploadId>1</UploadId><Initiated>2026-11-20T21:30:05+09:00</Initiated></Upload>"
    listed = f"<ListMultipartUploadsResult>{upload}<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"
    assert responses.parse_uploads(listed.encode()) == UploadsPage((ListedUpload("a+b", "1", at),), False, None, None)
    more = (
        "<ListMultipartUploadsResult><EncodingType>url</EncodingType><NextKeyMarker>a+b</NextKeyMarker>"
        f"<NextUploadIdMarker>1</NextUploadIdMarker>{upload}<IsTruncated>true</IsTruncated></ListMultipartUploadsResult>"
    )
    assert responses.parse_uploads(more.encode()) == UploadsPage((ListedUpload("a b", "1", at),), True, "a b", "1")


ERROR = f"""{HEAD}<Error><Code>AuthorizationHeaderMalformed</Code><Message>The region 'us-east-1' is wrong;
expecting 'eu-central-1'</Message><Region>eu-central-1</Region><Endpoint>b.s3.test</Endpoint>
<RequestId>4442587FB7D0A2F9</RequestId><HostId>abc=</HostId><ServerTime>2026-11-20T12:30:05Z</ServerTime>
<StringToSign>canary</StringToSign><SignatureProvided>canary</SignatureProvided><Token-0>canary</Token-0></Error>"""
INFO = S3ErrorInfo(
    "AuthorizationHeaderMalformed",
    "The region 'us-east-1' is wrong; expecting 'eu-central-1'",
    "eu-central-1",
    "b.s3.test",
    "4442587FB7D0A2F9",
    "abc=",
    datetime(2026, 11, 20, 12, 30, 5, tzinfo=UTC),
)


@pytest.mark.parametrize("body", [ERROR, f"<ErrorResponse>{ERROR.removeprefix(HEAD)}</ErrorResponse>", f"  {ERROR}"])
def test_an_error_is_parsed(body: str) -> None:
    """The useful elements are kept, but not those that repeat the signature."""
    assert xml.parse_error(body.encode()) == INFO
    assert "canary" not in repr(xml.parse_error(body.encode()))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body><h1>502 Bad Gateway</h1></body></html>",
        b'{"code": "NoSuchKey"}',
        ERROR.encode()[:-9],
        b"<Error>" + b" " * xml.MAX_ERROR + b"<Code>NoSuchKey</Code></Error>",
        b'<!DOCTYPE a [<!ENTITY x "y">]><Error><Code>&x;</Code></Error>',
    ],
    ids=lambda body: str(body[:20]),
)
def test_bodies_that_are_not_errors_of_s3(body: bytes) -> None:
    """A proxy's page, a truncated body or that of another service is parsed as ``None``, without an error."""
    assert xml.parse_error(body) is None


@pytest.mark.parametrize("body", [b"<ErrorResponse/>", b"<Error><Code/><Message> </Message></Error>"])
def test_errors_without_a_code(body: bytes) -> None:
    """Errors without a code are still recognised."""
    assert xml.parse_error(body) == S3ErrorInfo()


@pytest.mark.parametrize("root", ["InitiateMultipartUpload", "InitiateMultipartUploadOutput", "Anything"])
def test_the_name_of_the_root_does_not_matter(root: str) -> None:
    """Servers based on gofakes3, such as rclone, omit "Result" from the names of root elements."""
    assert responses.parse_upload_id(f"<{root}><UploadId>1</UploadId></{root}>".encode()) == "1"
    assert responses.parse_etag(f'<{root}><ETag>"e"</ETag></{root}>'.encode()) == "e"
    page = f"<{root}><IsTruncated>TRUE</IsTruncated><NextMarker>m</NextMarker>{ITEM}</{root}>"
    found = responses.parse_list(page.encode())
    assert ([item.key for item in found.objects], found.truncated, found.next_marker) == (["a"], True, "m")


@pytest.mark.parametrize(
    ("parse", "body", "message"),
    [
        (responses.parse_upload_id, b"<a><UploadId> </UploadId></a>", "expected a value in <UploadId>"),
        (responses.parse_etag, b'<a><ETag>""</ETag></a>', "expected a value in <ETag>"),
        (responses.parse_etag, b"<html><body>Console</body></html>", "expected <ETag> in <html>"),
        (responses.parse_delete_result, b"<html/>", "expected <DeleteResult>, got <html>"),
        (responses.parse_uploads, b"<html/>", "expected a listing, got <html>"),
    ],
)
def test_documents_without_evidence(parse: Any, body: bytes, message: str) -> None:
    """A document without the requested elements is not a success."""
    with pytest.raises(UnexpectedResponse, match=message):
        parse(body)


def test_the_length_of_an_error_message_is_limited() -> None:
    """A server can neither flood the logs nor inject lines into them."""
    info = xml.parse_error(f"<Error><Code>{'c' * 999}</Code><Message>a\n\x85b{'x' * 999}</Message></Error>".encode())
    assert (len(info.code), len(info.message)) == (100, 500)
    assert info.message.startswith("a bxx")


PARSERS = [
    responses.parse_list,
    responses.parse_delete_result,
    responses.parse_upload_id,
    responses.parse_etag,
    responses.parse_uploads,
]


@pytest.mark.parametrize("parse", PARSERS)
def test_an_error_in_a_successful_response_is_raised(parse: Any) -> None:
    """An error in the body of a 200 response is raised."""
    with pytest.raises(S3ErrorInResponse, match="AuthorizationHeaderMalformed") as caught:
        parse(ERROR.encode())
    assert caught.value.info == INFO


ITEM = "<Contents><Key>a</Key><Size>1</Size><LastModified>2026-11-20T12:30:05Z</LastModified></Contents>"


def listing(content: str) -> bytes:
    return f"<ListBucketResult>{content}</ListBucketResult>".encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "expected XML, got an empty body"),
        (PAGE.encode()[:-1], "expected XML"),
        (PAGE.encode("utf-16"), "expected UTF-8"),
        (PAGE.replace("<List", "<!DOCTYPE a><List").encode("utf-16"), "expected UTF-8"),
        (PAGE.replace("<List", "<!DOCTYPE a><List").encode("utf-16-le"), "expected UTF-8"),
        (b"<ListBucketResult>&bomb;</ListBucketResult>", "expected XML"),
        (b"<ListBucketResult>\xff</ListBucketResult>", "expected UTF-8"),
        (b"<other/>", "expected a listing, got <other>"),
        (b'<!DOCTYPE a [<!ENTITY x "yyyy">]><ListBucketResult>&x;</ListBucketResult>', "expected no document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><ListBucketResult/>', "expected no document type"),
        (listing(" " * xml.MAX_RESPONSE), "expected at most 8,388,608 bytes"),
        (listing("<a/>" * 200_001), "at most 200,000 elements and attributes"),
        (
            b"<a " + b" ".join(b"b%d=''" % n for n in range(200_001)) + b"/>",
            "at most 200,000 elements and attributes",
        ),
        (listing(ITEM.replace("<Key>a</Key>", "")), "expected <Key> in <Contents>"),
        (listing(ITEM.replace("1</Size>", "-1</Size>")), "expected a size, got '-1'"),
        (listing(ITEM.replace("1</Size>", "1_0</Size>")), "expected a size, got '1_0'"),
        (listing(ITEM.replace("1</Size>", f"{'9' * 5000}</Size>")), "expected a size, got"),
        (listing(ITEM.replace("2026-11-20", "yesterday")), "expected a time, got"),
        (listing(ITEM.replace("2026-11-20T12:30:05Z", "0001-01-01T00:00:00+14:00")), "expected a time, got"),
        (listing(f"<EncodingType>url</EncodingType>{ITEM.replace('>a<', '>%FF<')}"), "expected keys in UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_listings_are_refused(body: bytes, message: str) -> None:
    """A truncated, hostile or foreign response raises a transient error and needs little memory."""
    with pytest.raises(UnexpectedResponse, match=message):
        responses.parse_list(body)


def test_other_invalid_responses_are_refused() -> None:
    """An upload without an identifier, and a listing with an undecodable key, are rejected."""
    with pytest.raises(StoreUnavailableError, match="expected <UploadId> in "):
        responses.parse_upload_id(b"<InitiateMultipartUploadResult><UploadId/></InitiateMultipartUploadResult>")
    with pytest.raises(StoreUnavailableError, match="expected keys in UTF-8"):
        responses.parse_uploads(
            b"<ListMultipartUploadsResult><EncodingType>url</EncodingType><NextKeyMarker>%FF</NextKeyMarker>"
            b"</ListMultipartUploadsResult>"
        )


def test_a_listing_of_objects_instead_of_uploads() -> None:
    """A server without support for uploads lists objects, which is treated as a missing operation."""
    with pytest.raises(S3ErrorInResponse, match="NotImplemented"):
        responses.parse_uploads(b"<ListBucketResult/>")


def test_a_deeply_nested_response() -> None:
    """Neither parsing nor freeing a document of 90,000 levels crashes the process."""
    assert responses.parse_list(listing("<a>" * 90_000 + "</a>" * 90_000)).objects == ()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_response_raises_only_errors_of_this_library(data: st.DataObject) -> None:
    """A response that was truncated or altered in any way results in a value or an error of this library."""
    body = bytearray(data.draw(st.sampled_from([PAGE, ERROR])).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=6))
    xml.parse_error(bytes(body))
    for parse in PARSERS:
        try:
            parse(bytes(body))
        except (StoreError, S3ErrorInResponse):
            pass


def test_the_document_of_a_bulk_deletion(s3: ServiceModel) -> None:
    """Unusual keys are written as by botocore, and are parsed unchanged."""
    keys = [*(key for key in AWKWARD if key.isprintable()), "a\tb", "<&>\"'"]
    body = documents.build_delete(keys)
    operation = s3.operation_model("DeleteObjects")
    params = {"Bucket": "b", "Delete": {"Objects": [{"Key": key} for key in keys], "Quiet": True}}
    expected = shape(create_serializer("rest-xml").serialize_to_request(params, operation)["body"])
    assert sorted(map(str, shape(body)[2])) == sorted(map(str, expected[2]))
    assert shape(body)[0] == expected[0]
    root = ElementTree.fromstring(body)
    assert [element.text for element in root.iter() if element.tag.endswith("Key")] == keys


def test_line_ends_in_a_key_are_escaped() -> None:
    """XML would change line ends that are not escaped."""
    key = "a\r\n\tb\r"
    root = ElementTree.fromstring(documents.build_delete([key]))
    assert [element.text for element in root.iter() if element.tag.endswith("Key")] == [key]


@pytest.mark.parametrize("key", ["a\x00", "\x1f", "\ud800", "\uffff"])
def test_a_key_that_xml_cannot_write_is_refused(key: str) -> None:
    """Such a key is not replaced by another one, which would delete a different object."""
    with pytest.raises(InvalidKeyError, match="expected characters that XML can represent") as caught:
        documents.build_delete(["fine", key])
    assert caught.value.name == key


@pytest.mark.parametrize("count", [0, 1001])
def test_too_many_deletions_are_refused(count: int) -> None:
    """A request can contain 1 to 1,000 keys."""
    with pytest.raises(ValueError, match="keys: expected 1 to 1,000"):
        documents.build_delete(["a"] * count)


def test_the_document_that_completes_an_upload(s3: ServiceModel) -> None:
    """Parts are written in order of their numbers, with their checksums, as by botocore."""
    body = documents.build_complete(
        [Part(2, '"b"', ("crc32", "AAAAAA==")), Part(10, "<c>", ("crc64nvme", "AA==")), Part(1, "a")]
    )
    parts = [
        {"PartNumber": 1, "ETag": '"a"'},
        {"PartNumber": 2, "ETag": '"b"', "ChecksumCRC32": "AAAAAA=="},
        {"PartNumber": 10, "ETag": '"<c>"', "ChecksumCRC64NVME": "AA=="},
    ]
    request = create_serializer("rest-xml").serialize_to_request(
        {"Bucket": "b", "Key": "k", "UploadId": "u", "MultipartUpload": {"Parts": parts}},
        s3.operation_model("CompleteMultipartUpload"),
    )

    def unordered(item: Any) -> Any:
        return item[0], item[1], sorted(map(str, item[2]))

    ours, expected = shape(body), shape(request["body"])
    assert ours[0] == expected[0]
    assert [unordered(part) for part in ours[2]] == [unordered(part) for part in expected[2]]


@pytest.mark.parametrize("numbers", [[], [0], [10_001], [1, 1]])
def test_invalid_parts_are_refused(numbers: list[int]) -> None:
    """There must be at least one part, numbers are from 1 to 10,000, and none is repeated."""
    with pytest.raises(ValueError, match="parts: expected at least one, with distinct numbers from 1 to 10,000"):
        documents.build_complete(Part(number, "e") for number in numbers)
