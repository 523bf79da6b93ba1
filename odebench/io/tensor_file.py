"""Weights and training checkpoints as safetensors; pickles are refused, whatever they are called.

The metadata is one key of canonical JSON: safetensors writes several in random order, and equal bytes are wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from safetensors.torch import save
from torch import Tensor, nn

from odebench.errors import WeightError
from odebench.io.canonical_json import canonical_json
from odebench.io.files import write_atomically
from odebench.io.safetensors_file import METADATA_KEY, PICKLE_KINDS, metadata_text, open_safetensors, parse_metadata


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, JsonValue]) -> None:
    """Writes tensors and one JSON object, whole or not at all. Equal contents give equal bytes."""
    # cloned, since safetensors refuses tensors that share memory, such as tied weights
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    write_atomically(path, save(plain, metadata={METADATA_KEY: canonical_json(dict(metadata))}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file by name, and odebench's metadata object ({} where it has none). Raises
    WeightError for a file that is missing, a pickle, truncated, or not safetensors."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise WeightError(f"cannot read {path}: {error.strerror}") from error
    try:
        with open_safetensors(path, framework="pt") as opened:
            text = metadata_text(opened)
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
    except WeightError as error:
        # Asked only now: a safetensors file begins with a length, which may look like the start of a pickle.
        if start.startswith(tuple(PICKLE_KINDS)):
            raise WeightError(
                f"{path} is a pickle (or an archive of one), which can run code when loaded; "
                "save the state dict with safetensors.torch.save_file instead"
            ) from error
        raise WeightError(f"{path} {error}") from error
    try:
        return tensors, parse_metadata(text)
    except ValueError as error:
        raise WeightError(f"{path}: its metadata under {METADATA_KEY!r} {error}") from error


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Puts tensors into a module. Raises WeightError for tensors that are missing, unknown, of another shape or type,
    or not finite."""
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
