"""Weights come whole and as they were meant, or not at all, whatever a server does."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from candidate_factory import made
from safetensors.torch import save

from odebench.attack.candidate_file import write_candidates
from odebench.cli import _exit_code
from odebench.dataset import load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.errors import OdebenchError, UsageError
from odebench.io import https as download
from odebench.io.files import FileError
from odebench.io.https import LOOPBACK_SWITCH, RemoteError
from odebench.io.remote_weights import Address, fetch, parse_address, weights_file
from odebench.model.definition import load_definition
from odebench.model.training import build
from odebench.result.file import read_result, result_files

WEIGHTS = save({"weight": torch.arange(60_000.0)})
"""Several blocks long, so that what has come of it before a cut is more than none."""
HTML = b"\n <!DOCTYPE html><html><body>please log in</body></html>" + b" " * 600
Reply = Callable[["Handler"], None]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers as the test's site says, and remembers what was asked."""

    server: Any

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        reply = self.server.replies.get(self.path)
        if reply is None:
            self.send_error(404)
        else:
            reply(self)

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Site:
    """A web server on this machine."""

    url: str
    replies: dict[str, Reply]
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def fetch(self, path: str = "/file", *, data: bytes = WEIGHTS, **more: Any) -> Path:
        return fetch(self.url + path, **({"sha256": sha256(data)} | more))


def serve(context: ssl.SSLContext | None = None) -> Iterator[Site]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None
    scheme = "http" if context is None else "https"
    site = Site(f"{scheme}://127.0.0.1:{server.server_address[1]}", {})
    server.replies, server.asked = site.replies, site.asked
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv(LOOPBACK_SWITCH, "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield from serve()


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[], dict[str, bytes]]:
    """What lies in the cache folder, by name."""

    def kept() -> dict[str, bytes]:
        found = (tmp_path / "cache").rglob("*")
        return {path.name: path.read_bytes() for path in found if path.is_file()}

    return kept


Kept = Callable[[], dict[str, bytes]]


def whole(data: bytes, *, length: int | None = None, ranges: bool = False) -> Reply:
    """Sends all of it, or from the byte that was asked for where the server knows `ranges`."""

    def reply(handler: Handler) -> None:
        asked = handler.headers.get("Range")
        if ranges and asked is not None:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                handler.head(416, Content_Length=0)
                return
            body = data[start:]
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.head(206, Content_Length=len(body), Content_Range=span)
        else:
            body = data
            handler.head(200, Content_Length=len(body) if length is None else length)
        handler.wfile.write(body)

    return reply


def unmeasured(data: bytes) -> Reply:
    def reply(handler: Handler) -> None:
        handler.head(200)
        handler.wfile.write(data)

    return reply


def chunked(data: bytes, *, announced: int) -> Reply:
    """One chunk, of which more is announced than sent."""

    def reply(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.head(200, Transfer_Encoding="chunked", Connection="close")
        handler.wfile.write(f"{announced:x}\r\n".encode() + data)

    return reply


def redirect(target: str, *, status: int = 302) -> Reply:
    return lambda handler: handler.head(status, Location=target, Content_Length=0)


# --- what comes whole --------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once(site: Site, kept: Kept, tmp_path: Path) -> None:
    site.replies["/file"] = whole(WEIGHTS)
    path = site.fetch()
    assert path == tmp_path / "cache" / "remote" / f"{sha256(WEIGHTS)}.safetensors"
    assert path.read_bytes() == WEIGHTS
    assert site.fetch(sha256=sha256(WEIGHTS).upper(), bytes=len(WEIGHTS)) == path
    assert site.asked == [("/file", None)]
    assert list(kept()) == [path.name]


def test_a_cached_file_that_was_changed_is_fetched_again(site: Site, kept: Kept) -> None:
    site.replies["/file"] = whole(WEIGHTS)
    site.fetch().write_bytes(b"something else")
    assert site.fetch().read_bytes() == WEIGHTS
    assert len(site.asked) == 2


def test_a_cached_file_is_compared_with_the_size(site: Site) -> None:
    site.replies["/file"] = whole(WEIGHTS)
    site.fetch()
    with pytest.raises(RemoteError, match=r"/file with this sha256 is [\d,]+ bytes, not 7; correct one of them"):
        site.fetch(bytes=7)


def test_another_folder_can_be_named(site: Site, tmp_path: Path) -> None:
    site.replies["/file"] = unmeasured(WEIGHTS)
    assert site.fetch(folder=tmp_path / "mine").parent == tmp_path / "mine"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int, site: Site) -> None:
    site.replies |= {"/file": redirect("next", status=status), "/next": redirect(f"{site.url}/last")}
    site.replies["/last"] = whole(WEIGHTS)
    assert site.fetch().read_bytes() == WEIGHTS


# --- cut off, and gone on with -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_cut_is_gone_on_with(ranges: bool, site: Site, kept: Kept) -> None:
    site.replies["/file"] = whole(WEIGHTS[:100_000], length=len(WEIGHTS))
    with pytest.raises(RemoteError, match=r"cut off after 100,000 of 240,\d+ bytes; run it again to go on from there"):
        site.fetch()
    assert kept() == {f"{sha256(WEIGHTS)}.part": WEIGHTS[:100_000]}
    site.replies["/file"] = whole(WEIGHTS, ranges=ranges)
    assert site.fetch().read_bytes() == WEIGHTS
    assert site.asked == [("/file", None), ("/file", "bytes=100000-")]
    assert list(kept()) == [f"{sha256(WEIGHTS)}.safetensors"]


def test_a_cut_chunk_is_gone_on_with(site: Site, kept: Kept) -> None:
    site.replies["/file"] = chunked(WEIGHTS[:100_000], announced=len(WEIGHTS))
    with pytest.raises(RemoteError, match=r"cut off after [\d,]+ bytes; run it again"):
        site.fetch()
    (begun,) = kept().values()
    assert 50_000 < len(begun) <= 100_000
    site.replies["/file"] = whole(WEIGHTS, ranges=True)
    assert site.fetch().read_bytes() == WEIGHTS
    assert site.asked[-1] == ("/file", f"bytes={len(begun)}-")


def test_a_cut_at_once_leaves_nothing(site: Site, kept: Kept) -> None:
    site.replies["/file"] = whole(WEIGHTS[:20], length=len(WEIGHTS))
    with pytest.raises(RemoteError, match="cut off after 20 of"):
        site.fetch()
    assert kept() == {}


def part(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cache" / "remote" / f"{sha256(WEIGHTS)}.part"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)


def test_a_whole_part_needs_no_server(tmp_path: Path, kept: Kept) -> None:
    part(tmp_path, WEIGHTS)
    url = "https://127.0.0.1:9/file"
    assert fetch(url, sha256=sha256(WEIGHTS), bytes=len(WEIGHTS)).read_bytes() == WEIGHTS
    assert list(kept()) == [f"{sha256(WEIGHTS)}.safetensors"]


@pytest.mark.parametrize(
    "damaged",
    [b"x" * 1000, WEIGHTS + b"more", b"x" * len(WEIGHTS)],
    ids=["another beginning", "too long", "another file"],
)
@pytest.mark.parametrize("size", [None, len(WEIGHTS)])
def test_a_part_that_does_not_match_is_thrown_away(
    damaged: bytes, size: int | None, site: Site, kept: Kept, tmp_path: Path
) -> None:
    part(tmp_path, damaged)
    site.replies["/file"] = whole(WEIGHTS, ranges=True)
    assert site.fetch(bytes=size).read_bytes() == WEIGHTS
    assert site.asked[-1] == ("/file", None)
    assert len(kept()) == 1


def test_another_range_than_was_asked_for_is_not_appended(site: Site, tmp_path: Path) -> None:
    def reply(handler: Handler) -> None:
        if handler.headers.get("Range") is None:
            whole(WEIGHTS)(handler)
        else:
            handler.head(206, Content_Length=10, Content_Range=f"bytes 0-9/{len(WEIGHTS)}")
            handler.wfile.write(WEIGHTS[:10])

    part(tmp_path, WEIGHTS[:1000])
    site.replies["/file"] = reply
    assert site.fetch(bytes=len(WEIGHTS)).read_bytes() == WEIGHTS
    assert site.asked == [("/file", "bytes=1000-"), ("/file", None)]


def test_a_login_page_does_not_cost_the_part(site: Site, kept: Kept, tmp_path: Path) -> None:
    part(tmp_path, WEIGHTS[:1000])
    site.replies["/file"] = whole(HTML)
    with pytest.raises(RemoteError, match="HTML"):
        site.fetch()
    assert list(kept().values()) == [WEIGHTS[:1000]]


# --- what is refused ---------------------------------------------------------------------------------------------

PICKLE = pickle.dumps({"weight": list(range(1000))})
ANNOUNCED = 10**12
REFUSED = {
    "another file": (whole(save({"weight": torch.zeros(9)})), WEIGHTS, r"is refused: it has sha256 \w{12}, not \w{12}"),
    "HTML": (whole(HTML), HTML, "is refused: it is a web page .HTML., not safetensors; give the address of the file"),
    "HTML after a mark": (whole(b"\xef\xbb\xbf<html>" + HTML), HTML, "it is a web page"),
    "pickle": (whole(PICKLE), PICKLE, "is refused: it is a pickle .*, which can run code when loaded"),
    "zip": (whole(b"PK\x03\x04" + b"0" * 999), b"", "is refused: it is a pickle .or an archive of one."),
    "text": (whole(b"not weights" * 99), b"not weights" * 99, "is refused: it is not safetensors"),
    "empty": (whole(b""), b"", "is refused: it is empty"),
    "no whole safetensors": (whole(WEIGHTS[:-8]), WEIGHTS[:-8], "is refused: it is not a whole safetensors file"),
    "404": (lambda handler: handler.send_error(404), WEIGHTS, "cannot be fetched: HTTP Error 404: Not Found"),
    "500": (lambda handler: handler.send_error(500, "\x1b[2Jboo"), WEIGHTS, r"HTTP Error 500: \[2Jboo$"),
    "length too large": (
        whole(WEIGHTS, length=ANNOUNCED),
        WEIGHTS,
        "is refused: it has 1,000,000,000,000 bytes, more than 536,870,912; &bytes=N allows N",
    ),
    "length too small": (whole(WEIGHTS, length=1000), WEIGHTS, "is refused: it has sha256"),
    "to a file": (redirect("file:///etc/passwd"), WEIGHTS, "is refused: it redirects to file:///etc/passwd, not to"),
    "to http": (redirect("http://example.org/x"), WEIGHTS, "it redirects to http://example.org/x, not to https"),
    "to ftp": (redirect("ftp://127.0.0.1/x"), WEIGHTS, "it redirects to ftp://127.0.0.1/x, not to https"),
    "to data": (redirect("data:,x"), WEIGHTS, "it redirects to data:,x, not to https"),
    "to nonsense": (redirect("http://[x/"), WEIGHTS, "cannot be fetched: "),
    "to a password": (redirect("https://a:b@127.0.0.1/"), WEIGHTS, "is refused: it redirects to "),
    "in a circle": (redirect("/file"), WEIGHTS, "is refused: it comes after more than 5 redirects"),
    "nowhere": (lambda handler: handler.head(302, Content_Length=0), WEIGHTS, "cannot be fetched: HTTP Error 302"),
    "no HTTP": (lambda handler: handler.wfile.write(b"SSH-2.0\r\n"), WEIGHTS, "cannot be fetched: "),
    "silence": (lambda handler: None, WEIGHTS, "cannot be fetched: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_one_line_and_leaves_nothing(case: str, site: Site, kept: Kept) -> None:
    site.replies["/file"], data, message = REFUSED[case]
    with pytest.raises(RemoteError, match=message) as caught:
        site.fetch(data=data)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()
    assert len(site.asked) <= 6
    assert kept() == {}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (whole(WEIGHTS), r"the server announces 240,\d+ bytes, not 100,000"),
        (unmeasured(WEIGHTS), r"the server sends more than 100,000 bytes"),
        (whole(WEIGHTS[:99_000]), r"the server announces 99,000 bytes, not 100,000"),
    ],
    ids=["announced", "not announced", "too few"],
)
def test_no_more_is_taken_than_the_size_that_is_given(reply: Reply, message: str, site: Site, kept: Kept) -> None:
    site.replies["/file"] = reply
    with pytest.raises(RemoteError, match=message):
        site.fetch(bytes=100_000)
    assert kept() == {}


def test_no_more_is_taken_than_the_limit(site: Site, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LIMIT_BYTES", 100_000)
    site.replies["/file"] = unmeasured(WEIGHTS)
    with pytest.raises(RemoteError, match="the server sends more than 100,000 bytes"):
        site.fetch()
    assert kept() == {}
    assert site.fetch(bytes=len(WEIGHTS)).read_bytes() == WEIGHTS, "a size that is given is allowed"


def test_a_server_that_is_silent_for_too_long_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    done = threading.Event()
    site.replies["/file"] = lambda handler: (handler.head(200, Content_Length=9), done.wait(20))[0]
    with pytest.raises(RemoteError, match="cannot be fetched: timed out"):
        site.fetch()
    done.set()


def test_a_server_that_is_not_there_is_one_line() -> None:
    with pytest.raises(RemoteError, match=r"https://127.0.0.1:9/file cannot be fetched: .*refused$"):
        fetch("https://127.0.0.1:9/file", sha256="0" * 64)


def test_a_full_disk_leaves_nothing(site: Site, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(response: Any, file: Any, **_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "pour", full)
    site.replies["/file"] = whole(WEIGHTS)
    with pytest.raises(FileError, match=r"cannot write .*\.part: No space left on device; free space, or name another"):
        site.fetch()
    assert kept() == {}


def test_a_folder_that_cannot_be_written_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(RemoteError, match=r"cannot be fetched: .*cache"):
        site.fetch()


# --- https -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Kept) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    made = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *words.split(), *made], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for site in serve(context):
        site.replies |= {"/file": whole(WEIGHTS), "/down": redirect(site.url.replace("https", "http"))}
        with pytest.raises(RemoteError, match="certificate verify failed"):
            site.fetch()
        assert kept() == {}
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises(RemoteError, match="is refused: it redirects to http://127"):
            site.fetch("/down")
        assert site.fetch().read_bytes() == WEIGHTS


# --- addresses ---------------------------------------------------------------------------------------------------

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (f"https://x.org/a?b=c#sha256={HEX}", Address("https://x.org/a?b=c", HEX, None)),
        (f"https://x.org/a#sha256={HEX}&bytes=7", Address("https://x.org/a", HEX, 7)),
        ("hf://owner/name/folder/a.safetensors@main", Address("hf://owner/name/folder/a.safetensors@main", None, None)),
        (f"hf://owner/name/a@v1#sha256={HEX}", Address("hf://owner/name/a@v1", HEX, None)),
    ],
)
def test_an_address_says_what_is_known(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://x.org/a", r"needs the sha256 of the file, which says what is meant: https://x.org/a#sha256=HEX"),
        ("https://x.org/a#sha256=12", "a sha256 is 64 hexadecimal digits, not '12'; sha256sum FILE prints it"),
        ("https://x.org/a#sha256=../../../../etc/passwd", "a sha256 is 64 hexadecimal digits"),
        (f"https://x.org/a#sha256={HEX}&bytes=many", "bytes is the size of the file, a whole number above 0, not 'm"),
        (f"https://x.org/a#sha256={HEX}&bytes=0", "a whole number above 0, not '0'"),
        (f"https://x.org/a#sha256={HEX}&md5=1", "unknown md5 after #; give #sha256=HEX or #sha256=HEX&bytes=N"),
        (
            f"http://x.org/a#sha256={HEX}",
            "is not an address that weights can be fetched from; give a path, https:// or hf://",
        ),
        (f"http://127.0.0.1/a#sha256={HEX}", "is not an address"),
        (f"file:///etc/passwd#sha256={HEX}", "is not an address"),
        (f"https://#sha256={HEX}", "is not an address"),
        (f"https://[x/a#sha256={HEX}", "is not an address"),
        (f"https://me:secret@x.org/a#sha256={HEX}", "is not an address"),
        ("hf://owner/name@main", "is not of the form hf://owner/name/file@revision; a commit is the safest revision"),
        ("hf://owner/name/file", "is not of the form"),
    ],
)
def test_an_address_that_cannot_be_is_wrong_usage(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        weights_file(text)


def test_the_addresses_of_the_docs_can_be_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    shown = re.findall(r"--weights '?([a-z]+://[^'\s]+)", page)
    assert [address.partition(":")[0] for address in shown] == ["https", "hf"]
    for address in shown:
        parse_address(address)


def test_the_switch_for_http_is_for_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOOPBACK_SWITCH, "1")
    assert parse_address(f"http://localhost:1/a#sha256={HEX}").url == "http://localhost:1/a"
    with pytest.raises(UsageError, match="is not an address"):
        parse_address(f"http://127.0.0.1.x.org/a#sha256={HEX}")


def test_what_is_no_address_is_a_path() -> None:
    assert weights_file("folder/my.safetensors") == Path("folder/my.safetensors")


# --- Hugging Face ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str, str], bytes]:
    """The files of the hub by repository, name and revision."""
    client = pytest.importorskip("huggingface_hub")
    files: dict[tuple[str, str, str], bytes] = {}

    def hf_hub_download(repo_id: str, filename: str, *, revision: str, dry_run: bool = False) -> Any:
        if (repo_id, filename, revision) not in files:
            raise client.errors.EntryNotFoundError("404 Client Error.\n\nEntry Not Found: ask somebody else")
        data = files[repo_id, filename, revision]
        if dry_run:
            return SimpleNamespace(file_size=len(data))
        path = tmp_path / "hub" / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    monkeypatch.setattr(client, "hf_hub_download", hf_hub_download)
    return files


URL = "hf://owner/name/folder/a.safetensors@v1"
NAME = ("owner/name", "folder/a.safetensors", "v1")


def test_a_file_of_the_hub_is_fetched(hub: dict[tuple[str, str, str], bytes]) -> None:
    hub[NAME] = WEIGHTS
    for text in (URL, f"{URL}#sha256={sha256(WEIGHTS)}", f"{URL}#bytes={len(WEIGHTS)}"):
        assert weights_file(text).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        (WEIGHTS, f"#sha256={HEX}", f"is refused: it has sha256 \\w{{12}}, not {HEX[:12]}"),
        (WEIGHTS, "#bytes=7", r"is refused: it has 240,\d+ bytes, not 7"),
        (PICKLE, "", "is refused: it is a pickle"),
        (HTML, "", "is refused: it is a web page"),
        (WEIGHTS[:-8], "", "is refused: it is not a whole safetensors file"),
        (None, "", r"@v1 cannot be fetched: EntryNotFoundError: 404 Client Error\.$"),
    ],
    ids=["sha256", "size", "pickle", "HTML", "cut", "absent"],
)
def test_what_the_hub_has_is_checked(
    data: bytes | None, more: str, message: str, hub: dict[tuple[str, str, str], bytes]
) -> None:
    if data is not None:
        hub[NAME] = data
    with pytest.raises(RemoteError, match=message):
        weights_file(URL + more)


def test_what_is_too_large_is_not_fetched_from_the_hub(
    hub: dict[tuple[str, str, str], bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub[NAME] = WEIGHTS
    monkeypatch.setattr("odebench.io.remote_weights.LIMIT_BYTES", 1000)
    with pytest.raises(RemoteError, match=r"is refused: it has 240,\d+ bytes, more than 1,000"):
        weights_file(URL)
    assert not (tmp_path / "hub").exists()


def test_the_hub_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"needs huggingface_hub: pip install .huggingface_hub>=1\.0."):
        weights_file(URL)


# --- the command line --------------------------------------------------------------------------------------------


def said(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["odebench", *words])
    code = _exit_code()
    return code, capsys.readouterr().err


def test_a_run_takes_weights_from_an_address(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save(build(load_definition("resnet").recipe(DIGITS)).state_dict())
    site.replies["/resnet"] = whole(data)
    monkeypatch.chdir(tmp_path)
    words = ["run", "-m", "resnet", "-a", "fgsm", "-n", "100", "--epsilon", "0.1", "--weights"]
    code, error = said([*words, f"{site.url}/resnet#sha256={sha256(data)}"], monkeypatch, capsys)
    assert code == 0, error
    (path,) = result_files(tmp_path / "results")
    result = read_result(path)
    assert result.evaluation.model.weights == result.found.weights_sha256 == sha256(data)
    code, error = said([*words, f"{site.url}/absent#sha256={HEX}"], monkeypatch, capsys)
    assert (code, error) == (1, f"odebench: {site.url}/absent cannot be fetched: HTTP Error 404: Not Found\n")
    code, error = said([*words, f"{site.url}/resnet"], monkeypatch, capsys)
    assert code == 2
    assert "needs the sha256" in error


@pytest.mark.parametrize("command", ["diagnose -m resnet", "judge -m resnet {file}"])
def test_other_commands_take_an_address_too(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.safetensors"
    write_candidates(file, made(load_dataset("digits")))
    words = [*command.format(file=file).split(), "--weights", f"https://127.0.0.1:9/a#sha256={HEX}"]
    code, error = said(words, monkeypatch, capsys)
    assert code == 1
    assert "https://127.0.0.1:9/a cannot be fetched" in error


def test_errors_are_ours() -> None:
    assert issubclass(RemoteError, OdebenchError)
    assert RemoteError.exit_code == 1
    assert os.environ.get(LOOPBACK_SWITCH) is None, "off unless it is asked for"


def trickle(seconds: float) -> Reply:
    """Sends a byte now and then, of a file that has many."""

    def reply(handler: Handler) -> None:
        handler.head(200, Content_Length=len(WEIGHTS))
        with suppress(OSError):
            for byte in WEIGHTS:
                handler.wfile.write(bytes([byte]))
                time.sleep(seconds)

    return reply


def test_a_server_that_trickles_is_not_waited_for_and_blocks_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.replies |= {"/slow": trickle(0.05), "/file": whole(WEIGHTS)}
    monkeypatch.setattr("odebench.io.https.GRACE_SECONDS", 0.3)
    other = sha256(b"other")

    def fetch_slow() -> None:
        with suppress(RemoteError):
            site.fetch("/slow", sha256=other)

    slow = threading.Thread(target=fetch_slow)
    began = time.monotonic()
    slow.start()
    assert site.fetch().read_bytes() == WEIGHTS, "while the other is under way"
    slow.join(20)
    assert not slow.is_alive()
    with pytest.raises(RemoteError, match=r"/slow cannot be fetched: .* bytes in \d s are fewer than 2048 a second"):
        site.fetch("/slow", sha256=other)
    monkeypatch.setattr("odebench.io.https.GRACE_SECONDS", 60.0)
    with pytest.raises(RemoteError, match=r"not whole after 0\.2 s; run it again to go on from there"):
        site.fetch("/slow", sha256=sha256(b"third"), seconds=0.2)
    assert time.monotonic() - began < 20


def test_a_server_that_does_not_come_to_answer_is_left(site: Site) -> None:
    def silent(handler: Handler) -> None:
        time.sleep(1.5)

    site.replies["/silent"] = silent
    with pytest.raises(RemoteError, match="/silent cannot be fetched: the server does not answer"):
        site.fetch("/silent", seconds=0.3)
