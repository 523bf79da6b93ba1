"""Downloading the published files of a data set: complete and with the published checksum, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import tempfile
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from odebench.errors import DatasetError
from odebench.io.files import file_digest
from odebench.io.https import TIMEOUT_SECONDS, USER_AGENT, Clock, in_time, pour
from odebench.progress import Progress


def fetch(urls: Sequence[str], path: Path, *, md5: str, name: str, progress: Progress) -> None:
    """Downloads a file of the data set `name` from the first of `urls` that gives one with this md5. Raises
    DatasetError, and leaves nothing behind, where none does."""
    reasons = []
    for url in urls:
        try:
            _fetch_one(url, path, md5=md5, progress=progress)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if type(error) is urllib.error.URLError else error
            reasons.append(str(reason) or type(error).__name__)
        else:
            return
    raise DatasetError(
        f"data set {name!r}: {path.name} is missing and cannot be downloaded "
        f"({'; '.join(dict.fromkeys(reasons))}); put it into {path.parent}, "
        "or use --dataset digits, which needs no download"
    )


def fetch_missing(urls: Sequence[str], path: Path, *, md5: str, name: str, progress: Progress) -> None:
    """Downloads a file of the data set `name` if it is not there. Raises DatasetError where it is damaged."""
    if not path.is_file():
        fetch(urls, path, md5=md5, name=name, progress=progress)
    elif file_md5(path) != md5:
        raise damaged(name, path, "its checksum is not the published one")


def damaged(name: str, path: Path, reason: str) -> DatasetError:
    """The error for a damaged file of the data set `name`."""
    return DatasetError(
        f"data set {name!r}: {path.name} in {path.parent} is damaged: {reason}; replace it, or delete it "
        "to have it downloaded, or use --dataset digits, which needs no download"
    )


def file_md5(path: Path) -> str:
    """The md5 of a file, in hexadecimal. Data sets were published with no better checksum."""
    return file_digest(path, hashlib.md5(usedforsecurity=False))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what torchvision prints and warns of, which differs between its versions."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _fetch_one(url: str, path: Path, *, md5: str, progress: Progress) -> None:
    request = urllib.request.Request(url, headers=USER_AGENT)
    path.parent.mkdir(parents=True, exist_ok=True)
    clock = Clock()
    with in_time(lambda: urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS), clock) as response:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            total = float(response.headers.get("Content-Length") or 0)
            with (
                os.fdopen(descriptor, "wb") as file,
                progress.track(f"download {path.name}", total=total) as step,
            ):
                pour(response, file, step=step, clock=clock)
            if file_md5(Path(temporary)) != md5:
                raise ValueError(f"{url} does not have the published checksum")
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
