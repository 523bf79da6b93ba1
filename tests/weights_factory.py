"""Weights files of untrained models, named as if their recipes had found them."""

from __future__ import annotations

from pathlib import Path

import torch

from odebench.dataset import load_dataset
from odebench.io.tensor_file import write_tensors
from odebench.model.training import build
from odebench.protocol.recipe import Recipe, weights_path


def written(recipe: Recipe, folder: Path, *, shift: float = 0.0) -> Path:
    """The weights of an untrained module, as if its recipe had found them."""
    path = weights_path(recipe, folder)
    tensors = {name: tensor + shift if tensor.is_floating_point() else tensor for name, tensor in tensors_of(recipe)}
    data = load_dataset("digits")
    assert data.train is not None
    write_tensors(path, tensors, {"recipe": recipe.model_dump(mode="json"), "train_sha256": data.train.sha256})
    return path


def tensors_of(recipe: Recipe) -> list[tuple[str, torch.Tensor]]:
    return list(build(recipe).state_dict().items())
