"""Safe file names for uploads, and the names of attached files in a store."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioimageattach._filenames import (
    SERVED_TYPES,
    clean_filename,
    clean_mimetype,
    guess_mimetype,
    make_attachment_name,
    parse_attachment_name,
)
from aioimageattach._http.disposition import check_filename
from aioimageattach._names import EXTENSIONS, check_name, is_own_name, revision_of
from aioimageattach.stores.fs._paths import check_path

SHA256 = "0123456789abcdef" * 4

CLEANED = {
    "Invoice 7.pdf": "Invoice 7.pdf",
    "../../x": "x",
    "/etc/passwd": "passwd",
    r"C:\Users\me\cat.jpg": "cat.jpg",
    "a\r\nSet-Cookie: x=y.pdf": "a Set-Cookie_ x=y.pdf",
    "a\0b.txt": "ab.txt",
    'say "hi" <now>|*?.txt': "say _hi_ _now____.txt",
    "gpj.\u202etxt.exe": "gpj.txt.exe",
    "Screen\u202fshot\u00a0 1.png": "Screen shot 1.png",
    "Ma\u0308rz.pdf": "M\u00e4rz.pdf",
    "日本語.docx": "日本語.docx",
    "🎉.gif": "🎉.gif",
    "\udcff\ud800.png": "png",
    ".htaccess": "htaccess",
    "trailing. . ": "trailing",
    "CON.txt": "_CON.txt",
    "com¹.txt": "_com¹.txt",
    "nul": "_nul",
    "": "file",
    "..": "file",
    " / ": "file",
}


@pytest.mark.parametrize("given_name", CLEANED)
def test_hostile_file_names(given_name: str) -> None:
    """Directories, control characters and reserved names are removed; harmless characters are kept."""
    assert clean_filename(given_name) == CLEANED[given_name]


def test_long_file_names_keep_their_extension() -> None:
    """A long name is cut between characters, before the extension; a long extension is cut, too."""
    assert clean_filename("x" * 300 + ".pdf") == "x" * 196 + ".pdf"
    assert clean_filename("日" * 300 + ".tar.gz") == "日" * 65 + ".gz"
    assert clean_filename("x." + "y" * 300) == "x." + "y" * 198
    assert clean_filename("x" * 195 + "." * 10 + "y" * 90 + ".pdf") == "x" * 195 + ".pdf"


@given(st.text(max_size=400) | st.text(alphabet="./\\ \r\n:con.txtä\u0308\u202e", max_size=40))
def test_any_text_becomes_a_file_name(text: str) -> None:
    """Cleaning a name twice changes nothing more, and the result is valid in a path and as the name of a download."""
    name = clean_filename(text)
    assert clean_filename(name) == name
    assert check_path(f"a/{name}") == f"a/{name}"
    assert check_filename(name) == name
    assert len(name.encode()) <= 201
    assert unicodedata.is_normalized("NFC", name)


TYPES = {
    "application/pdf": "application/pdf",
    "Text/HTML; charset=utf-8": "text/html",
    " image/PNG ": "image/png",
    "application/vnd.ms-excel.sheet.macroEnabled.12": "application/vnd.ms-excel.sheet.macroenabled.12",
    "": "application/octet-stream",
    "pdf": "application/octet-stream",
    "text/html\r\nX: y": "application/octet-stream",
    "a/../../b": "application/octet-stream",
    "a/" + "b" * 200: "application/octet-stream",
    "テキスト/plain": "application/octet-stream",
}


@pytest.mark.parametrize("declared", TYPES)
def test_mime_types(declared: str) -> None:
    """Parameters are removed, and any string that is not a MIME type becomes ``application/octet-stream``."""
    assert clean_mimetype(declared) == TYPES[declared]


def test_served_types_are_inert_in_browsers() -> None:
    """Pages, scripts, style sheets and drawings are never served under their own MIME type."""
    for extension in (".html", ".htm", ".xhtml", ".svg", ".xml", ".js", ".mjs", ".css", ".mht", ".swf", ".wasm", ""):
        assert guess_mimetype(f"x{extension}") == "application/octet-stream"
    risky = ("html", "xml", "script", "css", "svg", "flash", "wasm", "multipart", "rfc822")
    assert [one for one in SERVED_TYPES.values() if any(word in one for word in risky)] == [
        one for one in SERVED_TYPES.values() if "openxmlformats" in one
    ]
    assert set(EXTENSIONS.values()) - set(SERVED_TYPES) == {".svg"}
    assert guess_mimetype("CAT.JPG") == "image/jpeg"


@given(st.text(max_size=300), st.text(max_size=100) | st.sampled_from(sorted(TYPES)), st.integers(0, 10**15 - 1))
def test_a_name_in_a_store_contains_the_metadata(filename: str, mimetype: str, size: int) -> None:
    """Size, checksum, type and file name can be parsed from a name, which every store accepts."""
    name, kind = clean_filename(filename), clean_mimetype(mimetype)
    made = make_attachment_name("user.invoice", size=size, sha256=SHA256, mimetype=kind, filename=name)
    assert parse_attachment_name(made.name) == made
    assert (made.filename, made.mimetype, made.size, made.sha256) == (name, kind, size, SHA256)
    assert made.served_type == guess_mimetype(name)
    assert check_path(made.name) == check_name(made.name)
    assert is_own_name(made.name)
    assert revision_of(made.name) == made.revision
    assert len(f"@{made.name}") + 80 - len("user.invoice") <= 512


def test_other_extensions_get_an_inert_one() -> None:
    """``.bin`` is appended to a name whose extension is unknown, or is ``.bin`` itself."""
    ends = {"evil.html": "evil.html.bin", "a.bin": "a.bin.bin", "README": "README.bin", "a.pdf": "a.pdf"}
    for filename, end in ends.items():
        made = make_attachment_name("a", size=1, sha256=SHA256, mimetype="text/html", filename=filename)
        assert made.name.rpartition("/")[2] == end
        assert parse_attachment_name(made.name) == made


@pytest.mark.parametrize(
    "change",
    [
        ("/x.pdf", "/"),
        ("/x.pdf", "/.bin"),
        ("/x.pdf", "/a/x.pdf"),
        ("/x.pdf", "/.."),
        ("/x.pdf", "/x\n.pdf"),
        ("/x.pdf", "/x\\.pdf"),
        (".7.", ".07."),
        (".7.", "."),
        ("~", "/"),
        ("0123", "012"),
        ("a.b/", "a.b/0"),
    ],
)
def test_other_names_are_not_those_of_attached_files(change: tuple[str, str]) -> None:
    """A name that this library cannot have generated is not parsed, so such a file is never deleted."""
    made = make_attachment_name("a.b", size=7, sha256=SHA256, mimetype="text/plain", filename="x.pdf")
    assert parse_attachment_name(made.name.replace(*change)) is None
