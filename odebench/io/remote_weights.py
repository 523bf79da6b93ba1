"""Weights from https addresses or from Hugging Face: whole and with the expected sha256, or not at all.

A file and a partial download are named in the cache folder by the expected sha256. So a second call finds the file, or
continues the download, and never has to trust a server.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from odebench.errors import UsageError
from odebench.io.files import sha256_file
from odebench.io.folders import cache_folder
from odebench.io.https import LIMIT_BYTES, RemoteError, UnfitError, allowed, check_whole, download, plain
from odebench.io.text import first_line
from odebench.progress import SILENT, Progress

_HUB = "hf://"


@dataclass(frozen=True)
class Address:
    """Where weights are, and their sha256 and size if these are known beforehand."""

    url: str
    sha256: str | None
    bytes: int | None


def weights_file(text: str, *, progress: Progress = SILENT) -> Path:
    """The file that a text names: a path as it is, or an address, which is fetched. Raises UsageError, RemoteError."""
    if "://" not in text:
        return Path(text)
    address = parse_address(text)
    return fetch(address.url, sha256=address.sha256, bytes=address.bytes, progress=progress)


def parse_address(text: str) -> Address:
    """The address of a text such as https://host/file#sha256=HEX or hf://owner/name/file@revision. Both forms take
    #sha256=HEX, and &bytes=N for the size. Raises UsageError."""
    url, _, fragment = text.partition("#")
    given = dict(parse_qsl(fragment, keep_blank_values=True))
    if strange := sorted(set(given) - {"sha256", "bytes"}):
        raise UsageError(f"{url}: unknown {', '.join(strange)} after #; give #sha256=HEX or #sha256=HEX&bytes=N")
    size = given.get("bytes")
    if size is not None and (not re.fullmatch(r"[0-9]{1,15}", size) or int(size) == 0):
        raise UsageError(f"{url}: bytes is the size of the file, a whole number above 0, not {size!r}")
    _check_address(url, given.get("sha256"))
    return Address(url, given.get("sha256"), None if size is None else int(size))


def fetch(
    url: str,
    *,
    sha256: str | None,
    bytes: int | None = None,
    folder: Path | None = None,
    seconds: float | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Fetches the safetensors file at an address and returns its path in `folder`, by default in the cache folder.

    `sha256` is required for https; files of hf:// lie in the hub's own cache and are taken without it, too. `bytes` is
    the exact size, if known; it takes `seconds` at most (None: an hour). If the connection breaks, or is too slow, the
    next call continues; any other failure leaves nothing. Raises UsageError for an invalid address, FileError for a
    full disk, else RemoteError.
    """
    _check_address(url, sha256)
    sha256 = None if sha256 is None else sha256.lower()
    if url.startswith(_HUB):
        return _from_hub(url, sha256=sha256, bytes=bytes)
    folder = cache_folder() / "remote" if folder is None else folder
    path = folder / f"{sha256}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{sha256}.lock"):
            if not path.exists() or sha256_file(path) != sha256:
                download(url, path, sha256=str(sha256), bytes=bytes, progress=progress, seconds=seconds)
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise RemoteError(f"{url} cannot be fetched: {plain(reason) or type(error).__name__}") from error
    if bytes not in (None, path.stat().st_size):
        raise RemoteError(
            f"{url} with this sha256 is {path.stat().st_size:,} bytes, not {bytes:,}; correct one of them"
        )
    return path


def _check_address(url: str, sha256: str | None) -> None:
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"{url}: a sha256 is 64 hexadecimal digits, not {sha256!r}; sha256sum FILE prints it")
    if url.startswith(_HUB):
        _hub_file(url)
    elif not allowed(url):
        raise UsageError(f"{url} is not an address that weights can be fetched from; give a path, https:// or hf://")
    elif sha256 is None:
        raise UsageError(f"{url} needs the sha256 of the file, which says what is meant: {url}#sha256=HEX")


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """A context that one process at a time enters for a file, if the system can lock it."""
    descriptor = None
    try:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            while descriptor is None:
                opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(opened, fcntl.LOCK_EX)
                if _is_still(file, opened):
                    descriptor = opened
                else:
                    os.close(opened)
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                file.unlink()  # who waits for this one takes another then
            os.close(descriptor)


def _is_still(file: Path, opened: int) -> bool:
    """Whether an open file still lies where it was opened."""
    try:
        return os.path.samestat(file.stat(), os.fstat(opened))
    except OSError:
        return False


def _hub_file(url: str) -> tuple[str, str, str]:
    """Repository, file and revision of hf://owner/name/file@revision. Raises UsageError."""
    found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)/([^@]+)@([^@]+)", url)
    if found is None:
        raise UsageError(f"{url} is not of the form hf://owner/name/file@revision; a commit is the safest revision")
    return found[1], found[2], found[3]


def _from_hub(url: str, *, sha256: str | None, bytes: int | None) -> Path:
    repository, name, revision = _hub_file(url)
    if find_spec("huggingface_hub") is None:
        raise UsageError(f"{url} needs huggingface_hub: pip install 'huggingface_hub>=1.0'")
    import huggingface_hub

    limit = LIMIT_BYTES if bytes is None else bytes
    try:
        about: Any = huggingface_hub.hf_hub_download(repository, name, revision=revision, dry_run=True)
        _check_size(about.file_size, bytes=bytes, limit=limit)
        path = Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        _check_size(path.stat().st_size, bytes=bytes, limit=limit)
        check_whole(path, sha256)
    except UnfitError as error:
        raise RemoteError(f"{url} is refused: {error}") from error
    except Exception as error:  # the hub's client raises many kinds of its own
        said = plain(first_line(error))
        raise RemoteError(f"{url} cannot be fetched: {type(error).__name__}: {said}") from error
    return path


def _check_size(size: int | None, *, bytes: int | None, limit: int) -> None:
    if size is not None and bytes is not None and size != bytes:
        raise UnfitError(f"it has {size:,} bytes, not {bytes:,}")
    if size is not None and size > limit:
        raise UnfitError(f"it has {size:,} bytes, more than {limit:,}; &bytes=N allows N")
