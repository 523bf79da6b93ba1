"""Downloading one weights file over https: limited in size, resumed, checked, and redirected to https only."""

from __future__ import annotations

import builtins
import errno
import http.client
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from odebench.errors import WeightError
from odebench.io.files import FileError, sha256_file
from odebench.io.safetensors_file import PICKLE_KINDS, open_safetensors
from odebench.progress import Progress, Step

LIMIT_BYTES = 512 * 2**20
"""Larger files are fetched only if their size is given."""
MAX_REDIRECTS = 5
TIMEOUT_SECONDS = 30
MOST_SECONDS = 3600.0
"""How long one download may take; the next call continues it."""
GRACE_SECONDS, FEWEST_BYTES = 30.0, 2048
"""A server that has sent fewer bytes a second than the second, after so long, is not waited for."""
USER_AGENT = {"User-Agent": "odebench"}
LOOPBACK_SWITCH = "ODEBENCH_LOOPBACK_HTTP"
"""This environment variable, set to 1, allows http to this machine itself, to try out a server."""

_BLOCK, _START = 1 << 16, 512
_REDIRECTS = (301, 302, 303, 307, 308)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RemoteError(WeightError):
    """Weights cannot be fetched, or are not those that were asked for."""


class UnfitError(Exception):
    """The downloaded file is not the one that was asked for; the message says why."""


class Clock:
    """The time that a download takes: `seconds` at most, and not much longer than its bytes need."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = MOST_SECONDS if seconds is None else min(seconds, MOST_SECONDS)
        self.began, self.received = time.monotonic(), 0

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.monotonic() - self.began)

    def tick(self, received: int) -> None:
        """Counts bytes. Raises TimeoutError if they come too slowly, or the time is over."""
        self.received += received
        passed = time.monotonic() - self.began
        if passed > self.seconds:
            raise TimeoutError(f"not whole after {self.seconds:g} s; run it again to go on from there")
        if passed > GRACE_SECONDS and self.received < FEWEST_BYTES * passed:
            raise TimeoutError(
                f"{self.received:,} bytes in {passed:.0f} s are fewer than {FEWEST_BYTES} a second: try another time"
            )


def download(
    url: str, path: Path, *, sha256: str, bytes: int | None, progress: Progress, seconds: float | None = None
) -> None:
    """Downloads a file to `path`, within `seconds` (None: an hour). Continues a partial download, or starts again if
    that is of another file.

    Raises RemoteError for another file than asked for, FileError for a full disk, and OSError or HTTPException if the
    connection fails; the next call then continues.
    """
    part = path.with_suffix(".part")
    limit = LIMIT_BYTES if bytes is None else bytes
    clock = Clock(seconds)
    while True:
        have = part.stat().st_size if part.exists() else 0
        try:
            if have != bytes:
                _receive(url, part, have=have, bytes=bytes, limit=limit, progress=progress, clock=clock)
            check_whole(part, sha256)
            part.replace(path)
            return
        except UnfitError as error:
            part.unlink(missing_ok=True)
            if not have:
                raise RemoteError(f"{url} is refused: {error}") from error
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            part.unlink(missing_ok=True)
            raise FileError(
                f"cannot write {part}: {error.strerror}; free space, or name another folder in ODEBENCH_CACHE"
            ) from error


def _receive(
    url: str, part: Path, *, have: int, bytes: int | None, limit: int, progress: Progress, clock: Clock
) -> None:
    """Appends what the server sends to a partial file of `have` bytes, or replaces it if the server sends the whole.

    Raises RemoteError before a byte is written, UnfitError, and OSError or HTTPException if the connection ends early.
    """
    with in_time(lambda: _open(url, have), clock) as response:
        done = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        if done and not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            raise UnfitError("the server sent another range than requested")
        total = bytes if response.length is None else done + response.length
        if total is not None and bytes is not None and total != bytes:
            raise RemoteError(f"{url} is refused: the server announces {total:,} bytes, not {bytes:,}")
        if total is not None and total > limit:
            raise RemoteError(f"{url} is refused: it has {total:,} bytes, more than {limit:,}; &bytes=N allows N")
        start = b"" if done else _first(response, clock)
        if not done and len(start) < min(_START, total or 0):
            raise _cut(len(start), total)
        if not done and (kind := _other_kind(start)) is not None:
            raise RemoteError(f"{url} is refused: it is {kind}")
        with (
            progress.track(f"download {url.rpartition('/')[2][:20]}", total=total or 0, done=done) as step,
            part.open("ab" if done else "wb") as file,
        ):
            file.write(start)
            try:
                done = pour(response, file, step=step, clock=clock, done=done + len(start), limit=limit)
            except http.client.IncompleteRead as error:
                file.write(error.partial)
                raise _cut(file.tell(), total) from error
            except ValueError as error:
                raise UnfitError(f"the server sends {error}") from error
    if total is not None and done < total:
        raise _cut(done, total)


def _cut(done: int, total: int | None) -> ConnectionError:
    of_all = "" if total is None else f" of {total:,}"
    return ConnectionError(f"cut off after {done:,}{of_all} bytes; run it again to go on from there")


def _open(url: str, offset: int) -> Any:
    """The response of an address from byte `offset` on, after redirects, each of which was checked."""
    opener = urllib.request.OpenerDirector()  # without handlers that follow redirects, read files or speak FTP
    for handler in _HANDLERS:
        opener.add_handler(handler())
    headers = USER_AGENT | ({"Range": f"bytes={offset}-"} if offset else {})
    for _ in range(MAX_REDIRECTS + 1):
        try:
            return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            target = error.headers.get("Location") if error.code in _REDIRECTS else None
            if offset and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                error.close()
                raise UnfitError("the server has no such range") from error
            if target is None:
                raise
            error.close()
            came_from, url = url, urljoin(url, target)
            if not allowed(url):
                raise RemoteError(f"{came_from} is refused: it redirects to {plain(url)}, not to https") from error
    raise RemoteError(f"{url} is refused: it comes after more than {MAX_REDIRECTS} redirects")


def _other_kind(start: bytes) -> str | None:
    """What a file is that begins with `start`; None if it begins like safetensors."""
    if start[8:9] == b"{":
        return None
    if not start:
        return "empty"
    if start.startswith(tuple(PICKLE_KINDS)):
        return "a pickle (or an archive of one), which can run code when loaded; only safetensors are taken"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "a web page (HTML), not safetensors; give the address of the file itself"
    return "not safetensors"


def check_whole(path: Path, sha256: str | None) -> None:
    """Raises UnfitError unless the file has this sha256, if given, and is whole safetensors; reads no tensor."""
    if sha256 is not None and (found := sha256_file(path)) != sha256:
        raise UnfitError(f"it has sha256 {found[:12]}, not {sha256[:12]}: it is not the file that was meant")
    with path.open("rb") as file:
        kind = _other_kind(file.read(_START))
    if kind is not None:
        raise UnfitError(f"it is {kind}")
    try:
        with open_safetensors(path):
            pass
    except WeightError as error:
        raise UnfitError(f"it {error}") from error


def _first(response: Any, clock: Clock) -> builtins.bytes:
    """The first bytes of a response, or all where there are fewer."""
    start = b""
    while len(start) < _START and (block := response.read1(_START - len(start))):
        start += block
        clock.tick(len(block))
    return start


def in_time(connect: Callable[[], Any], clock: Clock) -> Any:
    """What `connect` returns, in the time that is left: a server may send its headers byte by byte. Raises
    TimeoutError, and whatever `connect` raises."""
    answers: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((connect(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=max(0.0, min(clock.left, 2 * TIMEOUT_SECONDS)))
    except queue.Empty:
        raise TimeoutError("the server does not answer") from None
    if error is not None:
        raise error
    return answer


def pour(response: Any, file: IO[bytes], *, step: Step, clock: Clock, done: int = 0, limit: int | None = None) -> int:
    """Copies a server's response to a file as it comes, and returns the size of the file, which had `done` bytes
    before. Raises ValueError above the limit, TimeoutError where it comes too slowly."""
    while block := response.read1(_BLOCK):
        clock.tick(len(block))
        done += len(block)
        if limit is not None and done > limit:
            raise ValueError(f"more than {limit:,} bytes")
        file.write(block)
        step.advance(len(block))
    return done


def allowed(url: str) -> bool:
    """Whether an address may be fetched: https without a password, or http to this machine if that is switched on."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    loopback = parts.hostname in _LOOPBACK and os.environ.get(LOOPBACK_SWITCH) == "1"
    known = parts.scheme == "https" or (parts.scheme == "http" and loopback)
    return known and bool(parts.hostname) and parts.username is None


def plain(text: object) -> str:
    """The text of a server as one line that cannot control a terminal: at most 200 characters, the printable ones."""
    return "".join(letter for letter in str(text)[:200] if letter.isprintable())
