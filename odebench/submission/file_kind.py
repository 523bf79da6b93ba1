"""What a file of an entry really is, whatever its name: a pickle, an archive or a program. Nothing is unpacked."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from itertools import islice
from pathlib import Path
from typing import IO

from odebench.io.safetensors_file import PICKLE_KINDS

_KINDS = {
    **PICKLE_KINDS,
    **{bytes((0x80, protocol)): "a pickle" for protocol in (0, 1)},
    b"PK\x05\x06": "a zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x93NUMPY": "a numpy array",
    b"\x89HDF": "an HDF5 file",
    b"\x7fELF": "a program",
    b"MZ\x90": "a program",
}
"""How files begin that no entry may hold."""
_IMPORTED = re.compile(r"[\w.]+ [\w.]+")
_OPCODES = 200_000
"""The number of instructions looked at: enough for every text, few enough that no file takes long."""
_IMPORTING = ("GLOBAL", "INST", "STACK_GLOBAL")


def foreign_kind(data: bytes) -> str | None:
    """What kind of pickle, archive or program the bytes of a file are; None for anything else."""
    for start, kind in _KINDS.items():
        if data.startswith(start):
            return kind
    return hidden_kind(data)


def hidden_kind(data: bytes) -> str | None:
    """What else the bytes of a file can be read as, whatever they begin with; None for nothing else. A zip archive is
    read from its end, and a pickle of protocol 0 has no mark at its beginning."""
    return zip_kind(io.BytesIO(data)) or ("a pickle" if _imports(data) else None)


def zip_kind(file: Path | IO[bytes]) -> str | None:
    """That a file can also be read as a zip archive; None where it cannot."""
    return "a zip archive with something before it" if zipfile.is_zipfile(file) else None


def _imports(data: bytes) -> bool:
    """Whether the bytes are a whole pickle of any protocol that would import something. Nothing is run."""
    found = False
    try:
        for opcode, argument, _ in islice(pickletools.genops(data), _OPCODES):
            if opcode.name in _IMPORTING:
                found = found or opcode.name == "STACK_GLOBAL" or bool(_IMPORTED.fullmatch(str(argument)))
    except Exception:  # pickletools raises whatever a broken stream makes it stumble on
        return False
    return found
