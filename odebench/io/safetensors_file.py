"""What can be checked of a safetensors file without torch: its header, and whether all numbers are finite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from odebench.errors import WeightError

METADATA_KEY = "odebench"
PICKLE_KINDS = {
    b"PK\x03\x04": "a zip archive, as torch.save writes it",
    b"\x1f\x8b": "a gzip archive",
    **{bytes((0x80, protocol)): "a pickle" for protocol in range(2, 6)},
}
"""How pickles and archives of them begin."""
_EXPONENTS = {
    "F64": ("<u8", 0x7FF << 52),
    "F32": ("<u4", 0xFF << 23),
    "F16": ("<u2", 0x1F << 10),
    "BF16": ("<u2", 0xFF << 7),
}
"""The unsigned type of the same width, and the bits of the exponent: all set in infinities and NaN alone (IEEE 754)."""
_WHOLE = ("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
_BLOCK = 1 << 22
"""Numbers looked at together."""


@dataclass(frozen=True)
class Header:
    """The shapes of the tensors of a file by name, and odebench's metadata object ({} where it has none)."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, Any]

    @property
    def numbers(self) -> int:
        """The number of entries of all tensors together."""
        return sum(prod(shape) for shape in self.shapes.values())


@contextmanager
def open_safetensors(path: Path, framework: str = "np") -> Iterator[Any]:
    """The open file, for as long as the context lasts. Raises WeightError, "is not a whole safetensors file: ...",
    also where a tensor cannot be read inside the context."""
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, ValueError) as error:
        raise WeightError(f"is not a whole safetensors file: {error}") from error


def read_header(path: Path) -> Header:
    """The header of a file; no tensor is loaded. Raises WeightError for a file that is not whole safetensors."""
    try:
        with open_safetensors(path) as file:
            text = metadata_text(file)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
        return Header(shapes, parse_metadata(text))
    except OSError as error:
        raise WeightError(f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise WeightError(f"its metadata under {METADATA_KEY!r} is not a JSON object") from error


def metadata_text(file: Any) -> str:
    """The JSON text of odebench's metadata in an open file; that of an empty object where it has none."""
    return str((file.metadata() or {}).get(METADATA_KEY, "{}"))


def parse_metadata(text: str) -> dict[str, Any]:
    """The JSON object of a text. Raises ValueError, "is not JSON: ..." or "is not a JSON object"."""
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise ValueError("is not a JSON object")
    return metadata


def unfit_tensor(path: Path) -> str | None:
    """What is wrong with the first tensor, by name, that holds an infinity or NaN or has a type that cannot be checked;
    None where all are finite. The file must be whole safetensors; it is read in blocks."""
    import numpy as np

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
