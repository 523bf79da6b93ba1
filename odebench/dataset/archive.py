"""The image files below a folder or in a tar archive, one after the other; nothing is extracted to the disk."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from odebench.errors import DatasetError
from odebench.progress import Progress, Step

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_FILE_BYTES = 50_000_000
_MAX_DEPTH = 5
_BLOCK = 512


@dataclass(frozen=True)
class Member:
    """An image file with its bytes, or a folder with None. The path is relative to the folder or archive being read."""

    path: PurePosixPath
    data: bytes | None


def walk_folder(folder: Path) -> list[Path]:
    """The folders and image files below `folder`, sorted, without hidden ones; links are followed. Raises
    DatasetError."""
    try:
        return sorted(_walk(folder, _MAX_DEPTH))
    except OSError as error:
        raise DatasetError(f"{error.filename} cannot be read: {error.strerror}") from error


def read_folder(folder: Path, *, progress: Progress) -> Iterator[Member]:
    """The folders and image files below `folder`. Raises DatasetError for a file that cannot be read or is too big."""
    paths = walk_folder(folder)
    with progress.track(f"decode {folder.name}", total=len(paths)) as step:
        for path in paths:
            try:
                if not path.is_dir():
                    _check_bytes(path, path.stat().st_size)
                data = None if path.is_dir() else path.read_bytes()
            except OSError as error:
                raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
            yield Member(PurePosixPath(path.relative_to(folder)), data)
            step.advance()


def read_archive(archive: Path, *, progress: Progress) -> Iterator[Member]:
    """The folders and image files in a tar archive (plain, gzip or xz), in the archive's order.

    Raises DatasetError where it is not a tar archive or is cut short, where a member points outside it or is neither
    a file nor a folder, or where an image is too big.
    """
    try:
        with (
            archive.open("rb") as raw,
            _decompressed(archive, raw) as stream,
            tarfile.open(fileobj=stream, mode="r:") as tar,
            progress.track(f"decode {archive.name}", total=archive.stat().st_size) as step,
        ):
            yield from _read_members(archive, tar, raw, step)
            _check_end(archive, tar, stream)
    except (tarfile.TarError, lzma.LZMAError, EOFError, zlib.error, OSError) as error:
        raise DatasetError(f"{archive} is not a tar archive, or is cut short: {error}; fetch it again") from error


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield path
            if depth > 1:
                yield from _walk(path, depth - 1)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def _read_members(archive: Path, tar: tarfile.TarFile, raw: BinaryIO, step: Step) -> Iterator[Member]:
    position = 0
    for member in tar:
        path = PurePosixPath(member.name)
        where = f"{archive}: {member.name}"
        if path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{where} points outside the archive; expected relative paths without '..'")
        if not member.isfile() and not member.isdir():
            raise DatasetError(f"{where} is a link or a device; expected files and folders only")
        if member.isdir() and not _hidden(path):
            yield Member(path, None)
        elif path.suffix.lower() in IMAGE_SUFFIXES and not _hidden(path):
            _check_bytes(where, member.size)
            content = tar.extractfile(member)
            assert content is not None, "a regular file has content"
            yield Member(path, content.read())
        step.advance(raw.tell() - position)
        position = raw.tell()


def _check_end(archive: Path, tar: tarfile.TarFile, stream: BinaryIO) -> None:
    """Raises DatasetError unless zeros follow the last member: tarfile misses an archive cut short between two."""
    members = tar.getmembers()
    if members:
        last = members[-1]
        size = last.size if last.isfile() else 0
        stream.seek(last.offset_data + -(-size // _BLOCK) * _BLOCK)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise DatasetError(f"{archive} is cut short or damaged after {len(members)} members; fetch it again")


def _decompressed(archive: Path, raw: BinaryIO) -> BinaryIO:
    openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
    return cast(BinaryIO, openers[archive.suffix](raw)) if archive.suffix in openers else raw


def _hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _check_bytes(where: object, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise DatasetError(f"{where} has {size:,} bytes; an image may have {MAX_FILE_BYTES:,} at most")
