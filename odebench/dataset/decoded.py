"""The cache of decoded image folders: one safetensors file each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from odebench.errors import WeightError
from odebench.io.canonical_json import canonical_json
from odebench.io.files import write_atomically
from odebench.io.safetensors_file import METADATA_KEY
from odebench.io.tensor_file import read_tensors

_VERSION = 1
_TENSORS = ("train_pixels", "train_labels", "test_pixels", "test_labels")


@dataclass(frozen=True)
class Decoded:
    """The images of an image folder, uint8 (n, channels, height, width), and labels, int64 (n,), sorted by path."""

    classes: tuple[str, ...]
    train_pixels: Tensor
    train_labels: Tensor
    test_pixels: Tensor
    test_labels: Tensor


def write_cache(path: Path, decoded: Decoded) -> None:
    """Writes `decoded` to `path`, complete or not at all. Raises FileError where that is impossible."""
    tensors = {name: getattr(decoded, name) for name in _TENSORS}
    about = {"version": _VERSION, "classes": list(decoded.classes), "sha256": _sha256(tensors)}
    write_atomically(path, safetensors.torch.save(tensors, {METADATA_KEY: canonical_json(about)}))


def read_cache(path: Path) -> Decoded | None:
    """What `write_cache` wrote to `path`; None where there is no file, or it is damaged or of another version."""
    if not path.is_file():
        return None
    try:
        tensors, about = read_tensors(path)
        if about["version"] != _VERSION or about["sha256"] != _sha256(tensors):
            return None
        return Decoded(tuple(about["classes"]), **tensors)
    except (WeightError, OSError, KeyError, TypeError):
        return None


def _sha256(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in _TENSORS:
        found.update(str(tuple(tensors[name].shape)).encode())
        found.update(tensors[name].contiguous().view(torch.uint8).flatten().numpy().data)
    return found.hexdigest()
