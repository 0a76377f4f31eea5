"""A response counts as a success only with evidence in it, whatever its status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest

from aioimageattach.exc import (
    StoreError,
    StoreFileExistsError,
    StoreFileNotFoundError,
    StorePermissionError,
    StoreUnavailableError,
)
from aioimageattach.stores.s3 import S3Client
from tests.servers.gate import Answer, Gate
from tests.servers.judge import Asked, Refusal
from tests.servers.scripted import Reply, Request, Scripted, answer, error
from tests.stores.s3.conftest import MakeClient

PAGE = b"<!DOCTYPE html><html><body>Welcome to the console</body></html>"
REFUSED = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
BUSY = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
MODIFIED = {"last_modified": "Wed, 06 May 2026 07:08:09 GMT", "etag": '"tag"'}
MISSING = error(404, "")

Call = Callable[[S3Client], Awaitable[Any]]


def sent(server: Scripted) -> list[tuple[str, str]]:
    return [(request.method, request.target.partition("pictures")[2]) for request in server.requests]


KINDS = {"uploads": "start", "partNumber": "part", "uploadId": "complete", "delete": "many"}


def routed(**replies: Reply) -> Reply:
    """Return a server that has a reply for each kind of request, and otherwise responds as if no object exists."""

    async def reply(request: Request, writer: Any) -> None:
        query = request.target.partition("?")[2]
        kind = "copy" if "x-amz-copy-source" in request.headers else request.method
        for parameter, name in KINDS.items():
            if query.startswith(parameter):
                kind = name if request.method in ("POST", "PUT") else f"{request.method}_{name}"
        await replies.get(kind, MISSING)(request, writer)

    return reply


# --- puts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (answer(200, REFUSED, etag='"e"'), StorePermissionError, "200 AccessDenied"),
        (answer(200, BUSY, etag='"e"'), StoreUnavailableError, "200 SlowDown: later in 2 attempts"),
        (answer(200, PAGE, etag='"e"'), StoreUnavailableError, "not from an S3 server: expected no document type"),
        (
            answer(200, b"<html/>", etag='"e"'),
            StoreUnavailableError,
            "not from an S3 server: expected an empty body, got <html>",
        ),
        (answer(200, b"OK", etag='"e"'), StoreUnavailableError, "not from an S3 server: expected XML"),
        (answer(200, b""), StoreUnavailableError, "not from an S3 server: expected an ETag header"),
        (answer(200, b"", etag='""'), StoreUnavailableError, "not from an S3 server: expected an ETag header"),
    ],
)
async def test_a_put_requires_an_etag(
    make_client: MakeClient, reply: Reply, kind: type[StoreError], message: str
) -> None:
    """A 200 response with an error, with a page or without an ETag is not a success, and the put is undone."""
    async with Scripted([routed(PUT=reply)]) as server:
        client = make_client(server.url, max_retry=1)
        for call in (client.create("a", b"x"), client.replace("a", b"x")):
            with pytest.raises(kind, match=message):
                await call
        methods = [method for method, _ in sent(server)]
        tries = 2 if kind is StoreUnavailableError else 1
        assert methods == ["PUT"] * tries + ["HEAD"] + ["PUT"] * tries


async def test_a_put_whose_response_was_replaced_by_a_proxy(gate: Gate, make_client: MakeClient) -> None:
    """If a proxy replaces the response, the next attempt recognises its own object."""
    played: list[Answer] = []

    def replace(asked: Asked, found: Answer) -> Answer:
        if asked.method != "PUT" or played:
            return found
        played.append(found)
        return Answer(200, {"content-type": "text/html"}, PAGE)

    gate.after.append(replace)
    client = make_client(gate.url)
    etag = await client.create("a", b"x")
    assert [request.status for request in gate.log] == [200, 412, 200]
    assert (await client.head("a")).etag == etag


@pytest.mark.parametrize("options", [{}, {"multipart_threshold": 1}])
async def test_checksums_must_be_confirmed(make_client: MakeClient, options: dict[str, Any]) -> None:
    """A put fails if the server does not return the checksum, or returns another one."""
    started = answer(200, b"<a><UploadId>1</UploadId></a>")

    def server(**headers: str) -> Scripted:
        reply = answer(200, b"", etag='"e"', **headers)
        return Scripted([routed(PUT=reply, part=reply, start=started, DELETE=answer(204))])

    async with server() as scripted:
        with pytest.raises(StoreError, match=r"x-amz-checksum-crc32, which.*set checksum=None") as caught:
            await make_client(scripted.url, checksum="crc32", **options).create("a", b"x")
        assert not isinstance(caught.value, StoreUnavailableError)
        assert sent(scripted)[-1][0] in ("HEAD", "DELETE")
    async with server(x_amz_checksum_crc32="AAAAAA==") as scripted:
        with pytest.raises(StoreUnavailableError, match=r"expected x-amz-checksum-crc32: .*, got AAAAAA=="):
            await make_client(scripted.url, checksum="crc32", max_retry=0, **options).create("a", b"x")


async def test_a_part_requires_an_etag(make_client: MakeClient) -> None:
    """A part without an ETag aborts the upload, and nothing is completed."""
    for body, kind in ((PAGE, StoreUnavailableError), (REFUSED, StorePermissionError)):
        script = routed(
            start=answer(200, b"<a><UploadId>1</UploadId></a>"), part=answer(200, body), DELETE_complete=answer(204)
        )
        async with Scripted([script]) as server:
            with pytest.raises(kind, match="part 1"):
                await make_client(server.url, multipart_threshold=1, max_retry=0).create("a", b"x")
            assert sent(server) == [
                ("POST", "/a?uploads"),
                ("PUT", "/a?partNumber=1&uploadId=1"),
                ("DELETE", "/a?uploadId=1"),
            ]


@pytest.mark.parametrize("body", [PAGE, b"", b"<CompleteMultipartUploadResult/>"])
async def test_a_completed_upload_requires_an_etag(make_client: MakeClient, body: bytes) -> None:
    """Without an ETag, the upload is aborted, and an object that it may have created is deleted."""
    script = routed(
        start=answer(200, b"<a><UploadId>1</UploadId></a>"),
        part=answer(200, etag='"p"'),
        complete=answer(200, body),
        DELETE_complete=answer(204),
    )
    async with Scripted([script]) as server:
        with pytest.raises(StoreUnavailableError, match=r"complete the upload of 'a': .* not from an S3 server"):
            await make_client(server.url, multipart_threshold=1, max_retry=0).create("a", b"x")
        assert sent(server)[-2:] == [("DELETE", "/a?uploadId=1"), ("HEAD", "/a")]


# --- deletes and copies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(200, REFUSED), StorePermissionError),
        (answer(200, PAGE), StoreUnavailableError),
        (answer(404, PAGE), StoreUnavailableError),
        (error(404, "NoSuchBucket"), StoreError),
    ],
)
async def test_a_deletion_requires_an_empty_body(make_client: MakeClient, reply: Reply, kind: type[StoreError]) -> None:
    """A page, an error or a foreign 404 is not a success, also when an upload is aborted."""
    async with Scripted([reply]) as server:
        client = make_client(server.url, max_retry=0)
        for call in (client.delete("a"), client.abort_upload("a", "1")):
            with pytest.raises(kind):
                await call
    for done in (answer(204), answer(200), answer(200, b"\n"), error(404, "NoSuchKey"), answer(404)):
        async with Scripted([done]) as server:
            await make_client(server.url).delete("a")
            await make_client(server.url).abort_upload("a", "1")


async def test_an_unproven_clean_up_is_logged(make_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    """If a clean-up is answered by a page, the log states that the object may be left."""
    ids: list[str] = []

    async def put(request: Request, writer: Any) -> None:
        ids.append(request.headers["x-amz-meta-put-id"])
        await answer(200, PAGE)(request, writer)

    async def head(request: Request, writer: Any) -> None:
        await answer(200, x_amz_meta_put_id=ids[-1], **MODIFIED)(request, writer)

    async with Scripted([routed(PUT=put, HEAD=head, DELETE=answer(200, PAGE))]) as server:
        with pytest.raises(StoreUnavailableError, match="put 'a'"):
            await make_client(server.url, max_retry=0).create("a", b"x")
        assert [method for method, _ in sent(server)] == ["PUT", "HEAD", "DELETE"]
    assert "'a' may be left in the bucket: undo the put of 'a': the response is not from an S3 server" in caplog.text


async def test_a_bulk_deletion_requires_its_document(make_client: MakeClient) -> None:
    """A bulk deletion succeeds only with a document of the requested kind."""
    for body, kind in (
        (PAGE, StoreUnavailableError),
        (b"<html/>", StoreUnavailableError),
        (REFUSED, StorePermissionError),
    ):
        async with Scripted([answer(200, body)]) as server:
            failed = await make_client(server.url, max_retry=0).delete_many(["a", "b"])
            assert {name: type(error) for name, error in failed.items()} == {"a": kind, "b": kind}


@pytest.mark.parametrize("body", [PAGE, b"", b"<CopyObjectResult/>", REFUSED])
async def test_a_copy_requires_an_etag(make_client: MakeClient, body: bytes) -> None:
    """A copy without an ETag has failed, and an object that it may have created is deleted."""
    async with Scripted([routed(copy=answer(200, body))]) as server:
        with pytest.raises(StoreError, match="copy to 'b'"):
            await make_client(server.url, max_retry=0).copy("a", "b", only_new=True, content_type="image/png")
        assert [method for method, _ in sent(server)] == ["HEAD", "PUT", "HEAD"]


@pytest.mark.parametrize("status", [404, 412])
async def test_a_foreign_error_response(make_client: MakeClient, status: int) -> None:
    """A proxy's 404 does not mean that the object is missing, nor its 412 that it exists."""
    async with Scripted([answer(status, PAGE)]) as server:
        client = make_client(server.url)
        for call in (client.open("a"), client.replace("a", b"x")):
            with pytest.raises(
                StoreUnavailableError, match="the response is not from an S3 server: check endpoint_url"
            ) as caught:
                await call
            assert not isinstance(caught.value, StoreFileNotFoundError | StoreFileExistsError)
        assert len(server.requests) == 2


# --- starting uploads ------------------------------------------------------------------------------------------------

LISTED = (
    "<a><IsTruncated>false</IsTruncated>{}</a>",
    "<Upload><Key>{}</Key><UploadId>{}</UploadId><Initiated>{}</Initiated></Upload>",
)


def uploads(*found: tuple[str, str, str]) -> Reply:
    return answer(200, LISTED[0].format("".join(LISTED[1].format(*one) for one in found)).encode())


async def lost(_request: Request, writer: Any) -> None:
    writer.close()


def after(first: Reply, rest: Reply) -> Reply:
    """Return a server that has one reply for the first request, and another one for all others."""
    replies = [first]

    async def reply(request: Request, writer: Any) -> None:
        await (replies.pop() if replies else rest)(request, writer)

    return reply


NOW = "2999-01-01T00:00:00Z"
STARTED = answer(200, b"<InitiateMultipartUpload><UploadId>2</UploadId></InitiateMultipartUpload>")


async def test_the_response_of_gofakes3(make_client: MakeClient) -> None:
    """A response with another root element is accepted: the upload is started once and completed."""
    script = routed(start=STARTED, part=answer(200, etag='"p"'), complete=answer(200, b"<a><ETag>e</ETag></a>"))
    async with Scripted([script]) as server:
        assert await make_client(server.url, multipart_threshold=1).create("a", b"x") == "e"
        assert [method for method, _ in sent(server)] == ["POST", "PUT", "POST"]


@pytest.mark.parametrize("body", [PAGE, b"<a/>", b""])
async def test_an_upload_that_may_have_been_started_is_not_started_again(make_client: MakeClient, body: bytes) -> None:
    """After an invalid response, the upload that may have been started is looked for and aborted."""
    script = routed(start=answer(200, body), GET_start=uploads(("a", "1", NOW)), DELETE_complete=answer(204))
    async with Scripted([script]) as server:
        with pytest.raises(StoreUnavailableError, match=r"start the upload of 'a': .*not from an S3 server"):
            await make_client(server.url, multipart_threshold=1).create("a", b"x")
        assert [(method, target.partition("?")[0]) for method, target in sent(server)] == [
            ("POST", "/a"),
            ("GET", ""),
            ("DELETE", "/a"),
        ]


@pytest.mark.parametrize("status", [0, 500, 502])
async def test_an_upload_whose_start_is_uncertain(make_client: MakeClient, status: int) -> None:
    """The uncertain upload is aborted before another one is started; uploads of others and older ones are kept."""
    first = error(status, "InternalError") if status else lost
    found = uploads(("a", "1", NOW), ("ab", "3", NOW), ("a", "4", "2020-01-01T00:00:00Z"))
    script = routed(
        start=after(first, STARTED),
        GET_start=found,
        DELETE_complete=answer(204),
        part=answer(200, etag='"p"'),
        complete=answer(200, b"<a><ETag>e</ETag></a>"),
    )
    async with Scripted([script]) as server:
        await make_client(server.url, multipart_threshold=1).create("a", b"x")
        assert [target for method, target in sent(server) if method == "DELETE"] == ["/a?uploadId=1"]
        assert [method for method, _ in sent(server)] == ["POST", "GET", "DELETE", "POST", "PUT", "POST"]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (error(501, "NotImplemented"), "501 NotImplemented"),
        (uploads(("a", "1", NOW), ("a", "2", NOW)), "2 are in progress"),
    ],
)
async def test_an_upload_that_cannot_be_found(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture, listed: Reply, message: str
) -> None:
    """Nothing is started again, no other upload is aborted, and the log states that an upload may be left."""
    async with Scripted([routed(start=lost, GET_start=listed)]) as server:
        with pytest.raises(StoreUnavailableError, match="the connection failed"):
            await make_client(server.url, multipart_threshold=1).create("a", b"x")
        assert [method for method, _ in sent(server)] == ["POST", "GET"]
    assert "an unfinished upload of 'a' may be left in the bucket" in caplog.text
    assert message in caplog.text


async def test_an_upload_that_is_cancelled_while_it_is_started(make_client: MakeClient) -> None:
    """The server may have started the upload without a response, so it is looked for and aborted."""
    reached = asyncio.Event()

    async def wait(_request: Request, _writer: Any) -> None:
        reached.set()
        await asyncio.sleep(60)

    script = routed(start=wait, GET_start=uploads(("a", "1", NOW)), DELETE_complete=answer(204))
    async with Scripted([script]) as server:
        task = asyncio.create_task(make_client(server.url, multipart_threshold=1).create("a", b"x"))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [target for method, target in sent(server) if method == "DELETE"] == ["/a?uploadId=1"]


async def test_an_upload_that_was_not_started_is_started_again(make_client: MakeClient) -> None:
    """After a response that nothing was started, no upload is looked for."""
    script = routed(
        start=after(error(503, "SlowDown"), STARTED),
        part=answer(200, etag='"p"'),
        complete=answer(200, b"<a><ETag>e</ETag></a>"),
    )
    async with Scripted([script]) as server:
        await make_client(server.url, multipart_threshold=1).create("a", b"x")
        assert [method for method, _ in sent(server)] == ["POST", "POST", "PUT", "POST"]


# --- options ---------------------------------------------------------------------------------------------------------

COPIED = answer(200, b"<a><ETag>e</ETag></a>")


async def test_a_copy_honours_create_only(make_client: MakeClient) -> None:
    """With ``create_only="head"``, no request contains If-None-Match."""
    for option, expected in (("head", None), ("if-none-match", "*")):
        async with Scripted([routed(copy=COPIED)]) as server:
            await make_client(server.url, create_only=option).copy("a", "b", only_new=True)
            assert [request.headers.get("if-none-match") for request in server.requests] == [None, expected]


async def test_a_copy_that_is_refused_for_its_source(make_client: MakeClient) -> None:
    """Swift compares If-None-Match with the source, so the destination is checked after a 412 response."""
    async with Scripted([routed(copy=error(412, "PreconditionFailed"))]) as server:
        with pytest.raises(StoreError, match=r"there is no such object: .*set create_only='head'") as caught:
            await make_client(server.url).copy("a", "b", only_new=True)
        assert not isinstance(caught.value, StoreFileExistsError)
    there = answer(200, **MODIFIED)
    async with Scripted([routed(HEAD=after(MISSING, there), copy=error(412, "PreconditionFailed"))]) as server:
        with pytest.raises(StoreFileExistsError):
            await make_client(server.url).copy("a", "b", only_new=True)


async def test_a_copy_whose_response_was_lost(gate: Gate, make_client: MakeClient) -> None:
    """The next attempt recognises the existing copy as its own."""
    client = make_client(gate.url)
    await client.create("a", b"x")
    losses: list[None] = [None]
    gate.after.append(lambda asked, found: losses.pop() if losses and "x-amz-copy-source" in asked.headers else found)

    def refuse(asked: Asked) -> Refusal | None:
        return Refusal(412, "PreconditionFailed") if "x-amz-copy-source" in asked.headers and not losses else None

    gate.before.append(refuse)
    etag = await client.copy("a", "b", only_new=True, content_type="image/png")
    assert (await client.head("b")).etag == etag


# --- listings --------------------------------------------------------------------------------------------------------


def page(names: list[str], *, more: bool, inside: str = "") -> Reply:
    items = "".join(
        f"<Contents><Key>{name}</Key><Size>1</Size><LastModified>2026-05-06T07:08:09Z</LastModified></Contents>"
        for name in names
    )
    truncated = str(more).lower()
    return answer(200, f"<a><IsTruncated>{truncated}</IsTruncated>{inside}{items}</a>".encode())


TOKEN = "<NextContinuationToken>t</NextContinuationToken>"


@pytest.mark.parametrize(
    "pages",
    [
        [page(["a", "b"], more=True)],
        [page(["a", "b"], more=True, inside=TOKEN)],
        [page(["a", "b"], more=True, inside="<NextMarker>a</NextMarker>")],
        [page(["a"], more=True), page(["b"], more=True), page(["a"], more=True), page(["b"], more=True)] * 3,
        [page([], more=True, inside=TOKEN)],
        [page([], more=True)],
    ],
    ids=["no token", "one token", "one marker", "a circle", "empty pages", "nothing"],
)
async def test_a_listing_that_makes_no_progress(make_client: MakeClient, pages: list[Reply]) -> None:
    """The listing raises an error, because it may be incomplete."""
    async with Scripted(pages) as server:
        with pytest.raises(StoreError, match="expected a complete listing, but"):
            _ = [one async for one in make_client(server.url).list()]
        assert len(server.requests) <= 8


async def test_a_thousand_empty_pages(make_client: MakeClient) -> None:
    """Some pages may be empty, but a server that sends only empty pages is an error."""
    count = 0

    async def empty(request: Request, writer: Any) -> None:
        nonlocal count
        count += 1
        await page([], more=True, inside=TOKEN.replace(">t<", f">{count}<"))(request, writer)

    async with Scripted([empty]) as server:
        with pytest.raises(StoreError, match="expected a complete listing, but"):
            _ = [one async for one in make_client(server.url).list()]
        assert count == 1001


async def test_a_server_that_supports_only_version_one(make_client: MakeClient) -> None:
    """A listing sends one request per page, and the client drops names up to the start."""
    names = [f"n{number:03}" for number in range(1000)]

    async def listing(request: Request, writer: Any) -> None:
        marker = dict(parse_qsl(request.target.partition("?")[2])).get("marker", "")
        rest = [name for name in names if name > marker]
        await page(rest[:100], more=len(rest) > 100)(request, writer)

    async with Scripted([listing]) as server:
        client = make_client(server.url)
        assert [one.key async for one in client.list()] == names
        assert len(server.requests) == 10
        assert [one.key async for one in client.list(start_after="n949")] == names[950:]
        assert len(server.requests) == 12
        assert [one.key async for one in client.list("n00")] == names[:10]


async def test_a_listing_of_uploads_that_ignores_the_prefix(make_client: MakeClient) -> None:
    """Uploads of other names are left out, because listed uploads are aborted."""
    async with Scripted([uploads(("p/a1", "1", NOW), ("p/b", "2", NOW), ("a2", "3", NOW))]) as server:
        client = make_client(server.url, prefix="p/")
        assert [(one.key, one.upload_id) async for one in client.list_uploads("a")] == [("a1", "1")]


async def test_a_listing_of_uploads_that_makes_no_progress(make_client: MakeClient) -> None:
    """A repeated marker is an error; if the marker is missing, the last upload is used."""
    upload = LISTED[1].format("a", "1", NOW)
    for more in ("", "<NextKeyMarker>a</NextKeyMarker>"):
        body = f"<a><IsTruncated>true</IsTruncated>{more}{upload}</a>".encode()
        async with Scripted([answer(200, body)]) as server:
            with pytest.raises(StoreError, match="expected a complete listing, but"):
                _ = [one async for one in make_client(server.url).list_uploads()]
            assert "key-marker=a" in server.requests[1].target
            assert len(server.requests) == 2
    async with Scripted([answer(200, b"<a><IsTruncated>true</IsTruncated></a>")]) as server:
        with pytest.raises(StoreError, match="has no marker of the next one"):
            _ = [one async for one in make_client(server.url).list_uploads()]


# --- operations that are missing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [error(501, "NotImplemented"), error(405, "MethodNotAllowed"), answer(405)])
async def test_a_server_without_bulk_deletion(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture, reply: Reply
) -> None:
    """Bulk deletion is tried once, then objects are deleted one by one, and the log names the option."""
    async with Scripted([routed(many=reply, DELETE=answer(204))]) as server:
        client = make_client(server.url)
        assert await client.delete_many(["a", "b"]) == {}
        assert await client.delete_many(["c"]) == {}
        assert [method for method, _ in sent(server)] == ["POST", "DELETE", "DELETE", "DELETE"]
    assert caplog.text.count("set bulk_delete=False") >= 1
    assert [record.levelno for record in caplog.records if "bulk_delete" in record.getMessage()] == [logging.WARNING]
