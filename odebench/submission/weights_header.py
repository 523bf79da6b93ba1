"""What a weights file says of itself before any tensor is loaded, and pickles under whatever name. No torch here."""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from odebench.errors import WeightError

_ARCHIVES = {
    b"PK\x03\x04": "a zip archive, as torch.save writes it",
    b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x93NUMPY": "a numpy array",
    b"\x89HDF": "an HDF5 file",
    b"\x7fELF": "a program",
    b"MZ\x90": "a program",
}
_BINARY_PICKLE = re.compile(rb"\x80[\x00-\x05]")
_IMPORTED = re.compile(r"[\w.]+ [\w.]+")
_OPCODES = 200_000
"""How many instructions are looked at: enough for every text, few enough for no file to take long."""
_EXPONENTS = {
    "F64": ("<u8", 0x7FF << 52),
    "F32": ("<u4", 0xFF << 23),
    "F16": ("<u2", 0x1F << 10),
    "BF16": ("<u2", 0xFF << 7),
}
"""The bits of a number's exponent, all of which are set in infinities and NaN alone (IEEE 754)."""
_WHOLE = ("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
_BLOCK = 1 << 22
"""How many numbers are looked at together."""
_IMPORTING = ("GLOBAL", "INST", "STACK_GLOBAL")


@dataclass(frozen=True)
class Header:
    """The shapes of the tensors of a weights file by name, and odebench's metadata object ({} where it has none)."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, Any]

    @property
    def numbers(self) -> int:
        """How many numbers the tensors hold together."""
        return sum(prod(shape) for shape in self.shapes.values())


def read_header(path: Path, *, key: str = "odebench") -> Header:
    """The header of a safetensors file; no tensor is loaded. Raises WeightError for what is not a whole one."""
    try:
        with safe_open(path, framework="np") as opened:
            text = (opened.metadata() or {}).get(key, "{}")
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in sorted(opened.keys())}
    except OSError as error:
        raise WeightError(f"cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        raise WeightError(f"is not a whole safetensors file: {error}") from error
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise WeightError(f"its metadata under {key!r} is not a JSON object")
    return Header(shapes, metadata)


def unfit_tensor(path: Path) -> str | None:
    """What is wrong with the first tensor, by name, of a whole safetensors file that holds an infinity or NaN, or
    numbers of a type that cannot be looked at; None where nothing is. The file is read in blocks."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tensors = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    for name, tensor in sorted(tensors.items()):
        kind, (first, last) = tensor["dtype"], tensor["data_offsets"]
        if kind in _WHOLE or first == last:
            continue
        if kind not in _EXPONENTS:
            return f"{name} has the type {kind}; save it as {', '.join(_EXPONENTS)} or whole numbers"
        bits, mask = np.dtype(_EXPONENTS[kind][0]), _EXPONENTS[kind][1]
        numbers = np.memmap(path, bits, "r", 8 + length + first, (last - first) // bits.itemsize)
        for start in range(0, len(numbers), _BLOCK):
            if np.any(numbers[start : start + _BLOCK] & bits.type(mask) == mask):
                return (
                    f"{name} holds numbers that are not finite; list weights that did not diverge (a buffer that must "
                    "be infinite is made by the model: persistent=False)"
                )
    return None


def foreign_kind(data: bytes) -> str | None:
    """What a file's bytes are, if they are a pickle, an archive or a program; None for anything else.
    Nothing is unpacked."""
    for start, kind in _ARCHIVES.items():
        if data.startswith(start):
            return kind
    return "a pickle" if _BINARY_PICKLE.match(data) else hidden_kind(data)


def hidden_kind(data: bytes) -> str | None:
    """What a file may be read as beside what its beginning says: a zip archive is read from its end, and a pickle that
    begins with a text has no mark."""
    return zip_kind(io.BytesIO(data)) or ("a pickle" if _imports(data) else None)


def zip_kind(file: Path | IO[bytes]) -> str | None:
    """What a file may be read as from its end, if it is a zip archive, too."""
    return "a zip archive with something before it" if zipfile.is_zipfile(file) else None


def _imports(data: bytes) -> bool:
    """Whether the bytes are a whole pickle that would import something, such as one of protocol 0. Nothing is run."""
    found = False
    try:
        for opcode, argument, _ in islice(pickletools.genops(data), _OPCODES):
            if opcode.name in _IMPORTING:
                found = found or opcode.name == "STACK_GLOBAL" or bool(_IMPORTED.fullmatch(str(argument)))
    except Exception:  # pickletools raises whatever a broken stream makes it stumble on
        return False
    return found
