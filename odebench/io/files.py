"""Files written whole or not at all, and their sha256."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from odebench.errors import OdebenchError


class FileError(OdebenchError):
    """A file or folder cannot be read or written."""


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` to a temporary file and renames it, so that readers see the old file or the new one. Raises
    FileError, and leaves nothing behind, if the folder cannot be written in or the disk is full."""
    temporary: Path | None = None
    try:
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
        raise FileError(f"cannot write {path}: {_reason(error)}; free space or name another folder") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_output(text: str, path: Path | None) -> None:
    """Writes text to a file as a whole, directly to a device such as /dev/stdout, or to standard output if `path` is
    None. Raises FileError."""
    if path is None:
        sys.stdout.write(text)
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
