"""Files written whole or not at all, and their sha256."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from odebench.errors import OdebenchError
from odebench.io.text import raw_stream, shown


class FileError(OdebenchError):
    """A file or folder cannot be read or written."""


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` to a temporary file and renames it, so that readers see the old file or the new one. Raises
    FileError, and leaves nothing behind, if the folder cannot be written in or the disk is full; also for a device,
    which would be replaced by a file."""
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise FileError(f"cannot write {path}: it is no regular file; name another")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise FileError(f"cannot write {path}: {_reason(error)}; {_free(error)}name another folder") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_output(text: str, path: Path | None, *, escaped: bool = False) -> None:
    """Writes text to a file as a whole, directly to a device such as /dev/stdout, or to standard output if `path` is
    None. Characters that cannot be seen are escaped, unless all of it has been `escaped` in another way. Raises
    FileError."""
    text = text if escaped else shown(text)
    if path is None:
        (raw_stream(sys.stdout) if escaped else sys.stdout).write(text)
    elif path.exists() and not path.is_file():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise FileError(f"cannot write {path}: {error.strerror}; name another file") from error
    else:
        write_atomically(path, text.encode())


def check_writable(folder: Path) -> None:
    """Creates a folder and tries to write in it, before any work is done. Raises FileError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FileError(f"cannot write in {folder}: {_reason(error)}; name another folder") from error


SUMS_FILE = "SHA256SUMS"
"""The file that lists the sha256 of published files beside it, as `sha256sum -c` reads it."""


def noted_sha256(path: Path) -> str | None:
    """The sha256 that was noted for a file when it was written, beside it or in its folder's list; None if none was."""
    for file, name in ((_note_of(path), path.name), (path.parent / SUMS_FILE, path.name)):
        try:
            lines = file.read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            continue
        for line in lines:
            digest, _, named = line.partition("  ")
            if named == name:
                return digest
    return None


def note_sha256(path: Path) -> str:
    """Notes beside a file what its sha256 is, and returns it."""
    found = sha256_file(path)
    write_atomically(_note_of(path), f"{found}  {path.name}\n".encode())
    return found


def list_sha256(folder: Path, pattern: str, *, new: Iterable[Path]) -> None:
    """Writes a folder's list of its files of a pattern, where those that were listed before are not `new`."""
    written = set(new)
    digests = {
        path.name: (None if path in written else noted_sha256(path)) or sha256_file(path)
        for path in sorted(folder.glob(pattern))
    }
    text = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    write_atomically(folder / SUMS_FILE, text.encode())


def _note_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    return file_digest(path, hashlib.sha256())


def file_digest(path: Path, found: hashlib._Hash) -> str:
    """The digest of a file's bytes, in hexadecimal, by a new hash object."""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _reason(error: OSError) -> str:
    # mkdir says "File exists" for a file in place of the folder
    return f"{error.filename} is not a folder" if isinstance(error, FileExistsError) else str(error.strerror)


def _free(error: OSError) -> str:
    return "free space or " if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) else ""
