"""Sources of credentials, their renewal, and that nothing reveals them."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.exceptions
import botocore.session
import pytest

from aioimageattach.exc import StorePermissionError, StoreUnavailableError
from aioimageattach.stores.s3 import (
    BotocoreCredentials,
    ChainedCredentials,
    Credentials,
    DefaultCredentials,
    EnvironmentCredentials,
    ProfileCredentials,
)
from aioimageattach.stores.s3._credentials.cache import CredentialCache
from aioimageattach.stores.s3._credentials.sources import to_source

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
KEYS = Credentials("AKID", "canary-secret", "canary-token")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home directory, and no environment variables of AWS."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    return tmp_path / ".aws"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Vault:
    """A source that returns new credentials on each call, once its gate is open."""

    def __init__(self, clock: Clock, lifetime: float | None = 3600) -> None:
        self.clock = clock
        self.lifetime = lifetime
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: BaseException | None = None

    async def __call__(self) -> tuple[str, str, str | None, datetime | None]:
        self.asked += 1
        number = self.asked
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        ends = None if self.lifetime is None else self.clock() + timedelta(seconds=self.lifetime)
        return f"AKID{number}", "canary-secret", "canary-token", ends


def cache_of(lifetime: float | None = 3600) -> tuple[CredentialCache, Vault, Clock]:
    clock = Clock()
    vault = Vault(clock, lifetime)
    return CredentialCache(to_source(vault), clock=clock), vault, clock


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "s"), "access_key: expected"),
        (("a b", "s"), "access_key: expected"),
        (("a", "canary\n"), "secret_key: expected"),
        (("a", "s", ""), "token: expected"),
        (("a", "s", "canary\r\nX: 1"), "token: expected"),
        (("a", None), "secret_key: expected"),
        (("a", "s", None, datetime(2026, 1, 1)), "expires_at: expected a datetime with a time zone"),
    ],
)
def test_invalid_credentials(arguments: tuple[Any, ...], message: str) -> None:
    """The message names the invalid part and repeats no part."""
    with pytest.raises(ValueError, match=message) as caught:
        Credentials(*arguments)
    assert "canary" not in str(caught.value)


async def test_nothing_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """No repr, format, pickle or log of credentials, sources and caches contains the secret or the token."""
    caplog.set_level(logging.DEBUG)
    source = ChainedCredentials(Credentials("AKID", "canary-secret", "canary-token"), EnvironmentCredentials())
    cache = CredentialCache(source)
    await cache.get()
    for thing in (KEYS, source, cache, [KEYS], {"a": KEYS}):
        logging.getLogger("test").info("%s %r", thing, thing)
        assert "canary" not in f"{thing}" + repr(thing) + str(thing)
    assert "canary" not in caplog.text
    assert "AKID" in repr(KEYS)
    for thing in (KEYS, source, cache):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    assert copy.deepcopy(KEYS) is copy.copy(KEYS) is KEYS
    assert replace(KEYS, token=None) == Credentials("AKID", "canary-secret")


async def test_static_keys_are_available_immediately() -> None:
    """Static keys can be used for signing before anything has been awaited."""
    cache = CredentialCache(Credentials("AKID", "secret"))
    assert cache.peek() == await cache.get() == cache.peek() == Credentials("AKID", "secret")


async def test_the_environment_is_read_on_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment are available without waiting; without keys, ``fetch`` returns ``None``."""
    source = EnvironmentCredentials()
    assert source.peek() is None
    assert await source.fetch() is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert source.peek() == Credentials("AKID", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert await source.fetch() == Credentials("AKID", "secret", "token")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKID"}, "expected AWS_SECRET_ACCESS_KEY with AWS_ACCESS_KEY_ID, found none"),
        ({"AWS_SECRET_ACCESS_KEY": "canary"}, "expected AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, found none"),
        ({"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "canary\n"}, "environment: secret_key: expected"),
    ],
)
async def test_an_incomplete_environment_is_an_error(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], message: str
) -> None:
    """A single key, or one with a line end, is an error, and no other source is tried."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorePermissionError, match=message) as caught:
        await DefaultCredentials().fetch()
    assert caught.value.code == "NoCredentials"
    assert "canary" not in "".join(traceback.format_exception(caught.value))


CREDENTIALS_FILE = """
[default]
aws_access_key_id = DEFAULT
aws_secret_access_key = s%cret
[other]
aws_access_key_id=OTHER
aws_secret_access_key=secret
aws_session_token=token
[role]
aws_access_key_id=BASE
aws_secret_access_key=secret
"""
CONFIG_FILE = """
[default]
region = eu-west-1
[profile config only]
s3 =
    addressing_style = path
aws_access_key_id = CONFIG
aws_secret_access_key = secret
[profile "quoted"]
aws_access_key_id = QUOTED
aws_secret_access_key = secret
[profile role]
role_arn = arn:aws:iam::1:role/r
[profile other]
aws_access_key_id = NOT-THIS
aws_secret_access_key = secret
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, Credentials("DEFAULT", "s%cret")),
        ("other", Credentials("OTHER", "secret", "token")),
        ("config only", Credentials("CONFIG", "secret")),
        ("quoted", Credentials("QUOTED", "secret")),
    ],
)
@pytest.mark.parametrize("way", ["argument", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
async def test_a_profile_is_read_from_the_shared_files(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, expected: Credentials | None, way: str
) -> None:
    """A profile, given by name or environment, is read from either file; the credentials file takes precedence."""
    (home / "credentials").write_text(CREDENTIALS_FILE, "utf-8")
    (home / "config").write_text(CONFIG_FILE, "utf-8")
    if way == "argument":
        source = ProfileCredentials(name)
    else:
        source = ProfileCredentials()
        monkeypatch.setenv(way, name or "")
    assert source.peek() is None
    assert await source.fetch() == expected


@pytest.mark.parametrize("by_environment", [True, False])
async def test_paths_of_the_shared_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool) -> None:
    """The paths can be given by arguments or the environment, and ``~`` is the home directory."""
    (tmp_path / "keys").write_text(CREDENTIALS_FILE, "utf-8")
    (tmp_path / "conf").write_text(CONFIG_FILE, "utf-8")
    if by_environment:
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
        monkeypatch.setenv("AWS_CONFIG_FILE", "~/conf")
        files = {}
    else:
        files = {"credentials_file": "~/keys", "config_file": tmp_path / "conf"}
    assert await ProfileCredentials("other", **files).fetch() == Credentials("OTHER", "secret", "token")
    assert await ProfileCredentials("quoted", **files).fetch() == Credentials("QUOTED", "secret")


async def test_a_missing_profile_is_an_error_only_if_it_is_named(home: Path) -> None:
    """Without files and without a name, the source just has no credentials."""
    assert await ProfileCredentials().fetch() is None
    with pytest.raises(StorePermissionError, match=r"expected the profile 'gone' in .*/\.aws/credentials or"):
        await ProfileCredentials("gone").fetch()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"canary = 1", "expected a file of profiles: MissingSectionHeaderError"),
        (b"[default]\ncanary", "expected a file of profiles: ParsingError"),
        (b"[default]\na=\xffcanary", "cannot be read: UnicodeDecodeError"),
        (
            b"[default]\naws_secret_access_key=canary",
            "expected aws_access_key_id with aws_secret_access_key, found none",
        ),
        (b"[default]\naws_access_key_id=a b\naws_secret_access_key=canary", "profile 'default': access_key: expected"),
    ],
)
async def test_a_shared_file_that_cannot_be_read_is_an_error(home: Path, content: bytes, message: str) -> None:
    """The error names the file and repeats no line of it."""
    (home / "credentials").write_bytes(content)
    with pytest.raises(StorePermissionError, match=message) as caught:
        await ProfileCredentials().fetch()
    assert str(home / "credentials") in str(caught.value)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


async def test_a_shared_file_that_is_a_directory_is_an_error(home: Path) -> None:
    """The error contains the reason of the operating system."""
    (home / "config").mkdir()
    with pytest.raises(StorePermissionError, match="cannot be read: IsADirectoryError"):
        await ProfileCredentials().fetch()


async def test_the_order_of_sources(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is arguments, environment, shared files; a named profile precedes the environment."""
    (home / "credentials").write_text(CREDENTIALS_FILE, "utf-8")
    assert (await CredentialCache(DefaultCredentials()).get()).access_key == "DEFAULT"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert (await CredentialCache(DefaultCredentials()).get()).access_key == "ENV"
    assert DefaultCredentials().peek() == Credentials("ENV", "secret")
    assert (await CredentialCache(DefaultCredentials(profile_name="other")).get()).access_key == "OTHER"


@pytest.mark.parametrize("installed", [True, False])
async def test_the_error_without_credentials(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    """The error states the remedies, with and without botocore."""
    if not installed:
        monkeypatch.setitem(sys.modules, "botocore.session", None)
    cache = CredentialCache(DefaultCredentials())
    with pytest.raises(StorePermissionError, match="expected S3 credentials, found none: pass access_key") as caught:
        await cache.get()
    assert caught.value.code == "NoCredentials"
    assert cache.peek() is None


Answer = Callable[[str, str], tuple[int, str]]


@pytest.fixture
def metadata() -> Iterator[tuple[str, list[str], list[Answer]]]:
    """A server with given responses that records the requests."""
    asked: list[str] = []
    answers: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked.append(f"{self.command} {self.path}")
            status, text = answers[0](self.path, body or self.headers.get("X-aws-ec2-metadata-token", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked, answers
        server.shutdown()
        thread.join()


def ends_in(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_credentials_of_a_container(
    monkeypatch: pytest.MonkeyPatch, metadata: tuple[str, list[str], list[Answer]]
) -> None:
    """Credentials of a container's task have an expiry, and are requested again after a rejection."""
    url, asked, answers = metadata
    ends = ends_in(6)
    answers.append(
        lambda path, body: (
            200,
            json.dumps({"AccessKeyId": "TASK", "SecretAccessKey": "s", "Token": "t", "Expiration": ends}),
        )
    )
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/creds")
    cache = CredentialCache(DefaultCredentials())
    expected = Credentials("TASK", "s", "t", datetime.fromisoformat(ends))
    assert await cache.get() == await cache.get() == expected
    assert asked == ["GET /creds"]
    cache.forget()
    assert await cache.get() == expected
    assert asked == ["GET /creds", "GET /creds"]


async def test_credentials_of_an_instance(
    monkeypatch: pytest.MonkeyPatch, metadata: tuple[str, list[str], list[Answer]]
) -> None:
    """Credentials of an instance's role come from version 2 of its metadata service."""
    url, asked, answers = metadata

    def answer(path: str, token: str) -> tuple[int, str]:
        if path == "/latest/api/token":
            return 200, "imds-token"
        if token != "imds-token":
            return 401, ""
        if path.endswith("/security-credentials/"):
            return 200, "role"
        keys = {"AccessKeyId": "ROLE", "SecretAccessKey": "s", "Token": "t", "Expiration": ends_in(6)}
        return 200, json.dumps({**keys, "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": ends_in(-1)})

    answers.append(answer)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
    found = await BotocoreCredentials().fetch()
    assert found is not None
    assert (found.access_key, found.token) == ("ROLE", "t")
    assert found.expires_at is not None
    assert found.expires_at > datetime.now(UTC)
    assert asked[0] == "PUT /latest/api/token"


STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>WEB</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t</SessionToken><Expiration>{ends}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


@pytest.mark.parametrize("granted", [True, False])
async def test_credentials_of_a_web_identity(
    monkeypatch: pytest.MonkeyPatch, metadata: tuple[str, list[str], list[Answer]], tmp_path: Path, granted: bool
) -> None:
    """The token in a file is exchanged for keys; the error for a rejection does not repeat the server's message."""
    url, _, answers = metadata

    def answer(path: str, body: str) -> tuple[int, str]:
        assert "WebIdentityToken=jwt-token" in body
        if granted:
            return 200, STS.format(ends=ends_in(6))
        return 403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>canary</Message></Error></ErrorResponse>"

    answers.append(answer)
    (tmp_path / "token").write_text("jwt-token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    if granted:
        assert (await CredentialCache(DefaultCredentials()).get()).access_key == "WEB"
    else:
        with pytest.raises(StorePermissionError, match="WithWebIdentity failed with AccessDenied") as caught:
            await CredentialCache(DefaultCredentials()).get()
        assert "canary" not in str(caught.value)


PROCESS = f"{sys.executable} {{file}}"
PRINTS = 'print(\'{"Version": 1, "AccessKeyId": "PROCESS", "SecretAccessKey": "s"}\')'
KEYS_OF = "aws_access_key_id = {0}\naws_secret_access_key = s\n"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"}
WEB = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": "{token}"}
FILE, CONFIG = KEYS_OF.format("FILE"), KEYS_OF.format("CONFIG")
ROLE = "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n"
BASE = f"[profile base]\n{KEYS_OF.format('BASE')}"


@pytest.mark.parametrize("named", [False, True], ids=["by environment", "by the program"])
@pytest.mark.parametrize(
    ("environment", "credentials", "config", "expected"),
    [
        (ENVIRONMENT, FILE, CONFIG, "ENV"),
        ({}, FILE, CONFIG, "FILE"),
        ({}, "", CONFIG, "CONFIG"),
        ({}, FILE, "credential_process = {process}\n", "FILE"),
        ({}, "", "credential_process = {process}\n" + CONFIG, "PROCESS"),
        ({}, "credential_process = {process}\n", CONFIG, "PROCESS"),
        (WEB, FILE, CONFIG, "WEB"),
        (WEB, "", "credential_process = {process}\n", "WEB"),
        ({**WEB, **ENVIRONMENT}, FILE, "", "ENV"),
        ({}, FILE, "role_arn = arn:aws:iam::123456789012:role/r\nweb_identity_token_file = {token}\n", "WEB"),
        ({}, FILE, ROLE, "ROLE"),
        (WEB, FILE, ROLE, "ROLE"),
        (ENVIRONMENT, "", ROLE, "ENV"),
        ({**ENVIRONMENT, "AWS_SESSION_TOKEN": "t"}, "", "", "ENV"),
        ({**ENVIRONMENT, "AWS_SECURITY_TOKEN": "u", "AWS_SESSION_TOKEN": "t"}, "", "", "ENV"),
        ({}, f"{FILE}aws_session_token = t\n", "", "FILE"),
        ({}, f"{FILE}aws_security_token = t\n", "", "FILE"),
        ({}, "", "region = eu-west-1\n", None),
        ({}, "", "sso_session = none\n" + CONFIG, "CONFIG"),
    ],
)
async def test_the_same_credentials_as_botocore(
    monkeypatch: pytest.MonkeyPatch,
    metadata: tuple[str, list[str], list[Answer]],
    home: Path,
    named: bool,
    environment: dict[str, str],
    credentials: str,
    config: str,
    expected: str | None,
) -> None:
    """For any combination of settings, the same credentials are selected; a named profile takes precedence."""
    url, _, answers = metadata

    def answer(path: str, body: str) -> tuple[int, str]:
        text = STS.format(ends=ends_in(6))
        return 200, text if "WebIdentity" in body else text.replace("WithWebIdentity", "").replace("WEB", "ROLE")

    answers.append(answer)
    values = {"process": PROCESS.format(file=home / "process.py"), "token": str(home / "token")}
    (home / "process.py").write_text(PRINTS)
    (home / "token").write_text("jwt-token")
    (home / "credentials").write_text(f"[mine]\n{credentials.format(**values)}" if credentials else "")
    (home / "config").write_text(f"[profile mine]\n{config.format(**values)}\n{BASE}")
    for name, value in {**environment, "AWS_ENDPOINT_URL_STS": url, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value.format(**values))
    if not named:
        monkeypatch.setenv("AWS_PROFILE", "mine")
    theirs = botocore.session.Session(profile="mine" if named else None).get_credentials()
    keys = None if theirs is None else theirs.get_frozen_credentials()
    ours = await DefaultCredentials("mine" if named else None).fetch()
    if keys is None:
        assert ours is None
    else:
        assert ours is not None
        assert (ours.access_key, ours.secret_key, ours.token) == (keys.access_key, keys.secret_key, keys.token)
    if not named:
        assert expected == (None if ours is None else ours.access_key)


@pytest.mark.parametrize(
    "setting", ["role_arn = r", "credential_process = x", "login_session = x", "sso_account_id = 1"]
)
async def test_settings_that_need_botocore(home: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """Without botocore, the error names the setting and the package to install."""
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    (home / "config").write_text(f"[default]\n{setting}\n{CONFIG}")
    with pytest.raises(StorePermissionError, match=rf"profile 'default': {setting.split()[0]} .*aioimageattach\[aws\]"):
        await DefaultCredentials().fetch()


SIGN_ON = """[sso-session corp]
sso_start_url = https://example.test/start
sso_region = eu-west-1
[profile mine]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = role
[profile broken]
credential_process = {process}
[profile circle]
role_arn = r
source_profile = other
[profile other]
role_arn = r
source_profile = circle
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "run `aws sso login --profile mine`"),
        ("broken", "credential_process failed; run it to see why"),
        ("circle", "InfiniteLoopConfigError: .*circle"),
    ],
)
async def test_errors_of_botocore(home: Path, name: str, message: str) -> None:
    """The message states the remedy, and repeats no output of a process."""
    (home / "process.py").write_text("import sys; sys.exit('canary')")
    (home / "config").write_text(SIGN_ON.format(process=PROCESS.format(file=home / "process.py")))
    with pytest.raises(StorePermissionError, match=message) as caught:
        await ProfileCredentials(name).fetch()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("error", ["LoginRefreshRequired", "MetadataRetrievalError", "CredentialRetrievalError"])
async def test_other_errors_of_botocore(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    """Of errors that may repeat a server's message, only the class is shown."""
    kind = getattr(botocore.exceptions, error)

    def refuse(self: Any) -> None:
        raise kind(error_msg="canary", provider="container-role")

    monkeypatch.setattr(botocore.session.Session, "get_credentials", refuse)
    with pytest.raises(StorePermissionError) as caught:
        await BotocoreCredentials().fetch()
    expected = "run `aws login`" if error.startswith("Login") else f"{error} of container-role"
    assert expected in str(caught.value)
    assert "canary" not in str(caught.value)


async def test_the_region_of_a_role(
    home: Path, monkeypatch: pytest.MonkeyPatch, metadata: tuple[str, list[str], list[Answer]]
) -> None:
    """Roles are assumed in the region of the client, not in that of the profile."""
    url, asked, answers = metadata
    answers.append(lambda path, body: (200, STS.replace("WithWebIdentity", "").format(ends=ends_in(6))))
    (home / "config").write_text(f"[default]\nregion = eu-west-1\n{ROLE}\n{BASE}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
    regions: list[str] = []
    original = botocore.session.Session.create_client

    def create(self: Any, service: str, *args: Any, **kwargs: Any) -> Any:
        client = original(self, service, *args, **kwargs)
        regions.append(client.meta.region_name)
        return client

    monkeypatch.setattr(botocore.session.Session, "create_client", create)
    for region in ("eu-central-1", None):
        assert (await DefaultCredentials(region=region).fetch()) is not None
    assert regions == ["eu-central-1", "eu-west-1"]
    assert len(asked) == 2


async def test_the_region_of_a_profile(home: Path) -> None:
    """The region is read from the config file; sources without settings have none."""
    (home / "config").write_text("[default]\nregion = eu-west-3\n[profile other]\n")
    assert await DefaultCredentials().find_region() == "eu-west-3"
    assert await ProfileCredentials("other").find_region() is None
    assert await Credentials("a", "b").find_region() is None
    assert await ChainedCredentials(Credentials("a", "b"), ProfileCredentials()).find_region() == "eu-west-3"
    assert await CredentialCache(ChainedCredentials()).find_region() is None
    assert ChainedCredentials().peek() is None
    assert "default" not in repr(ProfileCredentials())
    assert repr(BotocoreCredentials("work")) == "BotocoreCredentials('work')"


async def test_the_expiry_of_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_CREDENTIAL_EXPIRATION determines when the variables are read again."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for text in ("2026-11-20T12:30:00Z", "2026-11-20T12:30:00", "2026-11-20T13:30:00+01:00"):
        monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", text)
        found = EnvironmentCredentials().peek()
        assert found is not None
        assert found.expires_at == datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "soon")
    with pytest.raises(StorePermissionError, match="AWS_CREDENTIAL_EXPIRATION: expected a time"):
        EnvironmentCredentials().peek()


async def test_an_unknown_profile_is_an_error_of_this_library(home: Path) -> None:
    """A profile that botocore does not know raises an error of this library."""
    with pytest.raises(StorePermissionError, match="botocore could not get credentials: ProfileNotFound"):
        await BotocoreCredentials("gone").fetch()


async def test_keys_of_botocore_without_an_expiry(home: Path) -> None:
    """Keys in a file have neither a token nor an expiry."""
    (home / "credentials").write_text("[default]\naws_access_key_id=A\naws_secret_access_key=s\n")
    assert await BotocoreCredentials().fetch() == Credentials("A", "s")


async def test_a_callable_may_return_credentials() -> None:
    """A callable can return ``Credentials`` instead of a tuple."""

    async def provider() -> Credentials:
        return KEYS

    assert await to_source(provider).fetch() is KEYS


async def test_credentials_without_an_expiry_are_fetched_once() -> None:
    """Credentials without an expiry are not renewed until they are rejected."""
    cache, vault, clock = cache_of(lifetime=None)
    first = await cache.get()
    clock.forward(10**8)
    assert await cache.get() is first
    assert cache.peek() is first
    cache.forget()
    assert cache.peek() is None
    assert (await cache.get()).access_key == "AKID2"
    assert vault.asked == 2


async def test_credentials_are_renewed_before_their_expiry() -> None:
    """Credentials are renewed five minutes before their expiry, and not earlier."""
    cache, vault, clock = cache_of(3600)
    assert cache.peek() is None
    first = await cache.get()
    clock.forward(3600 - 301)
    assert await cache.get() is first
    clock.forward(1)
    assert (await cache.get()).access_key == "AKID2"
    assert vault.asked == 2


async def test_concurrent_callers_share_one_fetch() -> None:
    """A hundred tasks without credentials call the source once."""
    cache, vault, _ = cache_of()
    vault.gate.clear()
    tasks = [asyncio.create_task(cache.get()) for _ in range(100)]
    await asyncio.sleep(0)
    vault.gate.set()
    assert {credentials.access_key for credentials in await asyncio.gather(*tasks)} == {"AKID1"}
    assert vault.asked == 1


async def test_only_one_caller_waits_for_a_renewal() -> None:
    """During a renewal, the other callers get the current credentials."""
    cache, vault, clock = cache_of()
    first = await cache.get()
    clock.forward(3500)
    vault.gate.clear()
    one = asyncio.create_task(cache.get())
    await asyncio.sleep(0)
    assert await asyncio.wait_for(cache.get(), 5) is first
    vault.gate.set()
    assert (await one).access_key == "AKID2"


async def test_a_fetch_continues_for_the_remaining_callers() -> None:
    """The call of the source continues as long as one caller waits, and all of them get its result."""
    cache, vault, _ = cache_of()
    vault.gate.clear()
    one = asyncio.create_task(cache.get())
    await asyncio.sleep(0)
    others = [asyncio.create_task(cache.get()) for _ in range(5)]
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    others[0].cancel()
    vault.gate.set()
    assert {(await task).access_key for task in others[1:]} == {"AKID1"}
    assert vault.asked == 1
    assert others[0].cancelled()


async def test_an_error_is_raised_in_all_callers_and_not_kept() -> None:
    """All waiting callers get the error, without secrets, and the next caller calls the source again."""
    cache, vault, _ = cache_of()
    vault.gate.clear()
    vault.error = RuntimeError("canary")
    tasks = [asyncio.create_task(cache.get()) for _ in range(3)]
    await asyncio.sleep(0)
    vault.gate.set()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, StoreUnavailableError)
        assert str(result) == "the source of the credentials failed: RuntimeError"
        assert result.__cause__ is vault.error
    assert vault.asked == 1
    vault.error = None
    assert (await cache.get()).access_key == "AKID2"


async def test_an_error_is_never_reported_as_unretrieved() -> None:
    """asyncio does not log an error that was raised in the callers."""
    cache, vault, _ = cache_of()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    vault.error = RuntimeError("down")
    with pytest.raises(StoreUnavailableError):
        await cache.get()
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_valid_credentials_are_used_if_the_renewal_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A warning is logged at most every half minute; after the expiry, an error is raised."""
    cache, vault, clock = cache_of()
    first = await cache.get()
    vault.error = RuntimeError("canary")
    clock.forward(3600 - 100)
    assert await cache.get() is first
    assert await cache.get() is first
    assert vault.asked == 2
    clock.forward(30)
    assert await cache.get() is first
    assert vault.asked == 3
    clock.forward(69)
    assert await cache.get() is first
    assert vault.asked == 4
    clock.forward(1)
    assert cache.peek() is None
    with pytest.raises(StoreUnavailableError, match="the source of the credentials failed: RuntimeError"):
        await cache.get()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert "2026-11-20 13:00:00+00:00" in caplog.text
    assert "canary" not in caplog.text


async def test_a_source_that_returns_expired_credentials() -> None:
    """Expired credentials are used, because the local clock may be wrong, and renewed every half minute."""
    cache, vault, clock = cache_of(lifetime=-3600)
    first = await cache.get()
    assert await cache.get() is first
    assert cache.peek() is None
    clock.forward(30)
    assert (await cache.get()).access_key == "AKID2"
    assert vault.asked == 2


async def test_only_rejected_credentials_are_forgotten() -> None:
    """A hundred requests with the same rejected credentials lead to one renewal."""
    cache, vault, _ = cache_of()
    old = await cache.get()
    cache.forget(old)
    new = await cache.get()
    for _ in range(100):
        cache.forget(old)
    assert await cache.get() is new
    assert vault.asked == 2


def test_several_event_loops_share_a_cache() -> None:
    """Event loops share fetched credentials, but a loop never waits for a fetch of another loop."""
    cache, vault, _ = cache_of()
    first = asyncio.run(cache.get())
    assert asyncio.run(cache.get()) is first
    assert vault.asked == 1
    barrier = threading.Barrier(2, timeout=10)

    async def slowly() -> Credentials:
        await asyncio.to_thread(barrier.wait)
        return KEYS

    shared = CredentialCache(to_source(slowly))
    found: list[Credentials] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(shared.get()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [KEYS, KEYS]


def test_credentials_are_a_source_of_themselves() -> None:
    """Static credentials are themselves a source, and are available without waiting."""
    assert KEYS.peek() is KEYS
    assert asyncio.run(CredentialCache(KEYS).get()) is KEYS


# --- in the background -----------------------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_credentials_are_renewed_in_the_background() -> None:
    """Credentials are renewed without a call, for a worker that only signs URLs."""
    asked = 0

    async def role() -> Credentials:
        nonlocal asked
        asked += 1
        return Credentials(f"AKID{asked}", "s", "t", datetime.now(UTC) + timedelta(seconds=1.4))

    cache = CredentialCache(to_source(role))
    await cache.get()
    await until(lambda: asked >= 3)
    await until(lambda: cache.peek() is not None)
    await cache.aclose()
    await cache.aclose()
    count = asked
    await asyncio.sleep(1.5)
    assert asked == count


async def test_a_failed_renewal_is_retried(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log, and the error about signed URLs, contain the reason; signing works again after the source does."""
    monkeypatch.setattr(CredentialCache, "RETRY", timedelta(seconds=0.1))
    broken = False

    async def role() -> Credentials:
        if broken:
            raise StorePermissionError("the role is gone")
        return Credentials("AKID", "s", "t", datetime.now(UTC) + timedelta(seconds=1.4))

    cache = CredentialCache(to_source(role))
    assert "await connect()" in cache.explain()
    await cache.get()
    broken = True
    await until(lambda: cache.peek() is None and "have expired and could not be renewed" in caplog.text)
    assert cache.explain().endswith("and were not renewed: the role is gone")
    broken = False
    await until(lambda: cache.peek() is not None)
    await cache.aclose()
    unknown = CredentialCache(to_source(role))
    broken = True
    with pytest.raises(StorePermissionError):
        await unknown.get()
    assert unknown.explain() == "the credentials could not be fetched: the role is gone"


async def test_closing_cancels_a_renewal() -> None:
    """Closing does not wait for a source that does not respond."""
    asked = 0

    async def role() -> Credentials:
        nonlocal asked
        asked += 1
        if asked > 1:
            await asyncio.Event().wait()
        return Credentials("AKID", "s", "t", datetime.now(UTC) + timedelta(seconds=1.4))

    cache = CredentialCache(to_source(role))
    await cache.get()
    await until(lambda: asked == 2)
    await cache.aclose()
    assert [task for task in asyncio.all_tasks() if "_keep" in repr(task)] == []


async def test_the_timer_does_not_keep_the_cache_alive(caplog: pytest.LogCaptureFixture) -> None:
    """The timer holds no reference to the cache."""
    asked: list[None] = []

    async def role() -> Credentials:
        asked.append(None)
        return Credentials("AKID", "s", "t", datetime.now(UTC) + timedelta(seconds=1.2))

    cache = CredentialCache(to_source(role))
    await cache.get()
    del cache
    gc.collect()
    await asyncio.sleep(1.3)
    assert len(asked) == 1
