"""Check requests like S3: credentials, complete signature, signed body and time.

Expected signatures are calculated by botocore, which is independent of the signer under test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import policy
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from hashlib import sha256
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from botocore.auth import HmacV1Auth, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

SKEW = timedelta(minutes=15)
STAMP = "%Y%m%dT%H%M%SZ"
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([a-z0-9;._-]+), ?"
    r"Signature=([0-9a-f]{64})"
)
LITERALS = {"UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
UNSIGNABLE = {"host", "user-agent", "accept", "accept-encoding", "connection", "content-length"}


@dataclass(frozen=True)
class Key:
    """A key that the server knows."""

    secret: str
    token: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Asked:
    """A request as received."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def key(self) -> str:
        """The requested key, without the bucket of a path-style request."""
        return unquote(self.path.lstrip("/").partition("/")[2])


@dataclass(frozen=True)
class Refusal(Exception):
    """An error response."""

    status: int
    code: str
    message: str = "no"
    extra: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        extra = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in self.extra.items())
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message>{extra}"
            "<RequestId>REQ0123456789</RequestId><HostId>host+id=</HostId></Error>"
        ).encode()


class Judge:
    """The check of requests.

    Args:
        keys: The known keys by access key.
        versions: The accepted versions of signatures.
    """

    def __init__(self, keys: Mapping[str, Key], versions: tuple[str, ...] = ("v4",)) -> None:
        self.keys = dict(keys)
        self.versions = versions

    def check(self, asked: Asked) -> None:
        """Raise a :class:`Refusal` for a request that S3 refuses."""
        headers = asked.headers
        if asked.method in ("PUT", "POST") and "content-length" not in headers:
            raise Refusal(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if headers.get("content-type", "").startswith("multipart/form-data"):
            self._check_form(asked)
        elif "X-Amz-Signature" in asked.query:
            self._check_v4_query(asked)
        elif headers.get("authorization", "").startswith("AWS4"):
            self._check_v4(asked)
        elif headers.get("authorization", "").startswith("AWS "):
            self._check_v2(asked)
        elif {"Signature", "Expires"} <= asked.query.keys():
            self._check_v2_query(asked)
        else:
            raise Refusal(403, "AccessDenied", "Access Denied")

    def _known(self, access_key: str, token: str | None, now: datetime) -> ReadOnlyCredentials:
        known = self.keys.get(access_key)
        if known is None:
            raise Refusal(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist.")
        if known.expires_at is not None and now >= known.expires_at:
            raise Refusal(400, "ExpiredToken", "The provided token has expired.")
        if known.token != token:
            raise Refusal(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
        return ReadOnlyCredentials(access_key, known.secret, token)

    def _check_version(self, version: str) -> None:
        if version not in self.versions:
            raise Refusal(
                400,
                "InvalidRequest",
                "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
            )

    def _check_v4(self, asked: Asked) -> None:
        self._check_version("v4")
        headers = asked.headers
        found = AUTHORIZATION.fullmatch(headers["authorization"])
        if found is None:
            raise Refusal(400, "AuthorizationHeaderMalformed", "The authorization header is malformed.")
        access_key, day, region, listed, signature = found.groups()
        stamp = headers.get("x-amz-date", "")
        if not re.fullmatch(r"\d{8}T\d{6}Z", stamp) or not stamp.startswith(day):
            raise Refusal(403, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
        if abs(_time(stamp) - asked.at) > SKEW:
            raise Refusal(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
                {"RequestTime": stamp, "ServerTime": asked.at.strftime("%Y-%m-%dT%H:%M:%SZ")},
            )
        keys = self._known(access_key, headers.get("x-amz-security-token"), asked.at)
        payload = headers.get("x-amz-content-sha256")
        if payload is None:
            raise Refusal(400, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
        self._compare(asked, asked.target, keys, region, stamp, listed.split(";"), signature, payload)
        if payload not in LITERALS and payload != sha256(asked.body).hexdigest():
            raise Refusal(400, "XAmzContentSHA256Mismatch", "The provided header does not match what was computed.")

    def _check_v4_query(self, asked: Asked) -> None:
        self._check_version("v4")
        query = asked.query
        try:
            access_key, day, region, *rest = query["X-Amz-Credential"].split("/")
            stamp, seconds = query["X-Amz-Date"], int(query["X-Amz-Expires"])
            begins, listed = _time(stamp), query["X-Amz-SignedHeaders"].split(";")
        except (KeyError, ValueError):
            raise Refusal(400, "AuthorizationQueryParametersError", "a parameter is missing or malformed") from None
        if rest != ["s3", "aws4_request"] or not stamp.startswith(day) or not 0 <= seconds <= 604800:
            raise Refusal(400, "AuthorizationQueryParametersError", "X-Amz-Expires must be less than a week")
        if begins - asked.at > SKEW:
            raise Refusal(403, "AccessDenied", "Request is not valid yet")
        if asked.at > begins + timedelta(seconds=seconds):
            raise Refusal(403, "AccessDenied", "Request has expired")
        keys = self._known(access_key, query.get("X-Amz-Security-Token"), asked.at)
        path, _, rest_of_query = asked.target.partition("?")
        pairs = [pair for pair in rest_of_query.split("&") if not pair.startswith("X-Amz-Signature=")]
        target = f"{path}?{'&'.join(pairs)}"
        self._compare(asked, target, keys, region, stamp, listed, query["X-Amz-Signature"], "UNSIGNED-PAYLOAD")

    def _compare(
        self,
        asked: Asked,
        target: str,
        keys: ReadOnlyCredentials,
        region: str,
        stamp: str,
        listed: list[str],
        signature: str,
        payload: str,
    ) -> None:
        unsigned = {
            name
            for name in asked.headers
            if (name.startswith("x-amz-") or name in ("content-md5", "host")) and name not in listed
        }
        if unsigned:
            raise Refusal(
                403,
                "AccessDenied",
                "There were headers present in the request which were not signed",
                {"HeadersNotSigned": ", ".join(sorted(unsigned))},
            )
        if any(name not in asked.headers for name in listed):
            raise Refusal(403, "SignatureDoesNotMatch", "a signed header is missing")
        signed = {name: asked.headers[name] for name in listed} | {"X-Amz-Content-SHA256": payload}
        if "x-amz-content-sha256" in signed:
            del signed["X-Amz-Content-SHA256"]
        request = AWSRequest(asked.method, f"http://{asked.headers['host']}{target}", signed)
        request.context["timestamp"] = stamp
        auth = _Verifier(keys, "s3", region, payload, set(listed))
        text = auth.string_to_sign(request, auth.canonical_request(request))
        if auth.signature(text, request) != signature:
            raise Refusal(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
                {"StringToSign": text, "SignatureProvided": signature, "AWSAccessKeyId": keys.access_key},
            )

    def _check_v2(self, asked: Asked) -> None:
        self._check_version("v2")
        access_key, _, signature = asked.headers["authorization"].removeprefix("AWS ").partition(":")
        keys = self._known(access_key, asked.headers.get("x-amz-security-token"), asked.at)
        if abs(parsedate_to_datetime(asked.headers["date"]) - asked.at) > SKEW:
            raise Refusal(403, "RequestTimeTooSkewed", "The difference is too large.")
        request = AWSRequest(asked.method, f"http://{asked.headers['host']}{asked.target}", dict(asked.headers))
        auth = _OldVerifier(keys, asked.headers["date"])
        # Like Ceph, sign a parameter without a value by its name alone, in whatever form it was sent.
        split = _Split(asked.path, re.sub("=(?=&|$)", "", asked.target.partition("?")[2]))
        expected = auth.sign_string(auth.canonical_string(asked.method, split, request.headers))
        if expected != signature:
            raise Refusal(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")

    def _check_v2_query(self, asked: Asked) -> None:
        self._check_version("v2")
        query = asked.query
        keys = self._known(query["AWSAccessKeyId"], query.get("x-amz-security-token"), asked.at)
        if asked.at.timestamp() > int(query["Expires"]):
            raise Refusal(403, "AccessDenied", "Request has expired")
        request = AWSRequest(asked.method, f"http://{asked.headers['host']}{asked.path}", {})
        auth = _OldVerifier(keys, query["Expires"])
        split = _Split(asked.path, "")
        expected = auth.sign_string(auth.canonical_string(asked.method, split, request.headers))
        if expected != query["Signature"]:
            raise Refusal(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")

    def _check_form(self, asked: Asked) -> None:
        head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
        fields: dict[str, str] = {}
        for part in BytesParser(policy=policy.HTTP).parsebytes(head + asked.body).iter_parts():
            name = part.get_param("name", header="content-disposition")
            payload = part.get_payload(decode=True)
            fields[str(name).lower()] = payload.decode("latin-1") if isinstance(payload, bytes) else ""
        access_key, day, region, *_ = fields["x-amz-credential"].split("/")
        keys = self._known(access_key, fields.get("x-amz-security-token"), asked.at)
        request = AWSRequest("POST", "http://x/", {})
        request.context["timestamp"] = f"{day}T000000Z"
        if S3SigV4Auth(keys, "s3", region).signature(fields["policy"], request) != fields["x-amz-signature"]:
            raise Refusal(403, "SignatureDoesNotMatch", "The policy is not signed so.")


class _Verifier(S3SigV4Auth):  # type: ignore[misc]
    """A signer that signs exactly the headers that the request declares as signed, with its payload hash."""

    def __init__(self, keys: ReadOnlyCredentials, service: str, region: str, payload: str, listed: set[str]) -> None:
        super().__init__(keys, service, region)
        self._payload = payload
        self._listed = listed

    def payload(self, request: AWSRequest) -> str:
        return self._payload

    def headers_to_sign(self, request: AWSRequest) -> object:
        found = AWSRequest("GET", "http://x/", {}).headers
        for name, value in request.headers.items():
            if name.lower() in self._listed:
                found[name.lower()] = value
        return found


class _OldVerifier(HmacV1Auth):  # type: ignore[misc]
    """A signer of version 2 that uses the date of the request."""

    def __init__(self, keys: ReadOnlyCredentials, date: str) -> None:
        super().__init__(keys)
        self._date = date

    def _get_date(self) -> str:
        return self._date


@dataclass(frozen=True)
class _Split:
    path: str
    query: str


def _time(stamp: str) -> datetime:
    return datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)
