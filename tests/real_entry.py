"""Entries with small models that were really trained on digits, so that they can be run and verified."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from odebench.dataset import load_dataset
from odebench.io.files import sha256_file
from odebench.numerics.seeding import seeded

PLAIN = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, *, image_shape, n_classes, width):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.last = nn.Linear(width, n_classes)

    def forward(self, images):
        return self.last(torch.tanh(self.first(images.flatten(1))))
"""
"""A model without a field, quick to ask."""

FIELD = """\
import torch
from torch import nn

from parts import Rate


class Net(nn.Module):
    def __init__(self, *, image_shape, n_classes, width, horizon, solver):
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, width))
        self.field = Rate(width)
        self.head = nn.Linear(width, n_classes)
        self.horizon, self.solver = horizon, solver
"""
"""A Neural ODE, whose field lies in a second module, parts.py."""

PARTS = """\
import torch
from torch import nn


class Rate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.rate = nn.Linear(width, width)

    def forward(self, t, state):
        return torch.tanh(self.rate(state))
"""

_TEXT = """\
id: {name}
model: model:Net
arguments: {{width: {width}}}
datasets:
  - {{name: digits, parameters: {parameters}{horizons}}}
{solver}training: {{loss: cross-entropy, epochs: 4}}
weights:
  - {{dataset: digits, train_seed: 0, file: one.safetensors, sha256: {sha256}, bytes: {bytes}{horizon}}}
authors: [Ada Lovelace]
licence: MIT
claims: {claims}
"""

WIDTH = 16


@lru_cache(maxsize=1)
def trained() -> Mapping[str, Tensor]:
    """The weights of the model without a field after a few epochs."""
    data = load_dataset("digits").train
    assert data is not None
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10))
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(4):
            for rows in torch.split(torch.randperm(len(data)), 32):
                loss = nn.functional.cross_entropy(net(data.images[rows]), data.labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    names = {"1": "first", "3": "last"}
    return {
        f"{names[name.partition('.')[0]]}.{name.partition('.')[2]}": tensor.detach().clone()
        for name, tensor in net.state_dict().items()
    }


def field_weights() -> dict[str, Tensor]:
    """Weights of the Neural ODE that make it much the same model: the field turns the stem's answer a little."""
    plain = trained()
    return {
        "stem.1.weight": plain["first.weight"],
        "stem.1.bias": plain["first.bias"],
        "field.rate.weight": 0.1 * torch.eye(WIDTH),
        "field.rate.bias": torch.zeros(WIDTH),
        "head.weight": plain["last.weight"],
        "head.bias": plain["last.bias"],
    }


def write_real_entry(
    folder: Path,
    *,
    name: str = "mine",
    code: str = PLAIN,
    weights: Mapping[str, Tensor] | None = None,
    claims: str = "[]",
    horizon: float | None = None,
    parts: str | None = None,
) -> Path:
    """An entry below `folder` that validates and can be run; returns its own folder."""
    mine = folder / name
    mine.mkdir(parents=True)
    weights = dict(trained() if weights is None else weights)
    save_file(weights, mine / "one.safetensors")
    (mine / "README.md").write_text(f"# {name}\n\nA small one.\n", encoding="utf-8")
    (mine / "model.py").write_text(code, encoding="utf-8")
    if parts is not None:
        (mine / "parts.py").write_text(parts, encoding="utf-8")
    describe(mine, weights, claims=claims, horizon=horizon)
    return mine


def describe(mine: Path, weights: Mapping[str, Tensor], *, claims: str = "[]", horizon: float | None = None) -> None:
    """Writes the entry.yaml of an entry whose weights file is there."""
    file = mine / "one.safetensors"
    text = _TEXT.format(
        name=mine.name,
        width=WIDTH,
        parameters=sum(tensor.numel() for tensor in weights.values()),
        horizons="" if horizon is None else f", horizons: [{horizon}]",
        solver="" if horizon is None else "solver: {method: rk4, backend: torchdiffeq, step: 0.5}\n",
        sha256=sha256_file(file),
        bytes=file.stat().st_size,
        horizon="" if horizon is None else f", horizon: {horizon}",
        claims=claims,
    )
    (mine / "entry.yaml").write_text(text, encoding="utf-8")


def write_field_entry(folder: Path, *, name: str = "flow", horizon: float = 1.0) -> Path:
    """An entry of a Neural ODE below `folder`."""
    return write_real_entry(folder, name=name, code=FIELD, parts=PARTS, weights=field_weights(), horizon=horizon)
