"""Weights and training checkpoints as safetensors; pickles are refused, whatever they are called.

The metadata is one key that holds canonical JSON: safetensors writes several keys in random order, and equal
contents must be equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from odebench.errors import WeightError
from odebench.io.canonical_json import canonical_json
from odebench.io.files import PICKLE_STARTS, write_atomically

METADATA_KEY = "odebench"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, JsonValue]) -> None:
    """Writes tensors and one JSON object, whole or not at all. Equal contents give equal bytes."""
    # safetensors refuses tensors that share memory, such as tied weights
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    write_atomically(path, save(plain, metadata={METADATA_KEY: canonical_json(dict(metadata))}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file and its metadata object ({} where it has none of ours).

    Raises WeightError for a file that is missing, a pickle, truncated, or not safetensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise WeightError(f"cannot read {path}: {error.strerror}") from error
    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(METADATA_KEY, "{}")
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
    except (SafetensorError, ValueError) as error:
        # Asked only now: the length that a safetensors file begins with may look like a pickle's start.
        if start.startswith(PICKLE_STARTS):
            raise WeightError(
                f"{path} is a pickle (or an archive of one), which can run code when loaded; "
                "save the state dict with safetensors.torch.save_file instead"
            ) from error
        raise WeightError(f"{path} is not a whole safetensors file: {error}") from error
    return tensors, _metadata(path, text)


def _metadata(path: Path, text: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightError(f"{path}: its metadata under {METADATA_KEY!r} is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise WeightError(f"{path}: its metadata under {METADATA_KEY!r} is not a JSON object")
    return metadata


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Puts tensors into a module. Raises WeightError for missing, unknown, misshapen or non-finite ones."""
    wanted = module.state_dict()
    for name in wanted:
        if name not in tensors:
            raise WeightError(f"{source} has no tensor {name!r}: it belongs to another model than this one")
    for name, tensor in tensors.items():
        if name not in wanted:
            raise WeightError(f"{source} has a tensor {name!r} that this model does not: it belongs to another one")
        if tensor.shape != wanted[name].shape:
            raise WeightError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, this model needs {tuple(wanted[name].shape)}"
            )
        if tensor.dtype != wanted[name].dtype:
            raise WeightError(f"{source}: {name} is {tensor.dtype}, this model needs {wanted[name].dtype}")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightError(f"{source}: {name} holds NaN or infinity; the weights are damaged")
    module.load_state_dict(dict(tensors))
