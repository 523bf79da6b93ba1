"""The folder of a new entry, to be filled in, with comments that explain each key."""

from __future__ import annotations

from pathlib import Path

from odebench.errors import UsageError
from odebench.io.files import write_atomically
from odebench.model.registry import MODELS
from odebench.submission.entry import ENTRY_FILE, ID, MAX_ID_LETTERS, READ_ME

_ENTRY = """\
# What odebench knows of this model without running it. `odebench validate` checks it; docs/entries.md explains it.
# A number is a number: write 1.0e-3 or 0.001, since YAML takes 1e-3 for a text.

# The name of this folder, and of the model in tables: small letters, digits, dashes.
id: {id}

# module:attribute of this folder (model.py brings Net), or a name that `odebench models` lists.
model: model:Net

# What Net is built with, beside image_shape and n_classes (and horizon and solver, if it has horizons).
# For a listed model: changes of its recipe, as --set takes them, such as {{adversary: trades}}.
arguments: {{channels: 16}}

# The data sets that it is trained for. horizons: each T it is trained at; leave them and the solver out for a model
# that integrates nothing. parameters: the numbers in one weights file, all tensors together (validate counts them).
# A data set may have a solver, arguments and training of its own.
datasets:
  - {{name: digits, horizons: [1], parameters: 1}}

# The solver that it was trained with: method and step (rk4, euler, midpoint, heun3), or for an adaptive one
# {{method: dopri5, backend: torchode, rtol: 1.0e-3, atol: 1.0e-3, max_steps: 1000}}.
solver: {{method: rk4, backend: torchdiffeq, step: 0.25}}

# How it was trained, in keys of your own: what somebody needs who wants to train it again.
training: {{loss: cross-entropy, optimizer: AdamW, epochs: 15, batch_size: 32, learning_rate: 0.01}}

# What it was distilled from: the name of a model or an entry. Strike the line if there is no teacher.
# teacher: resnet

# One item for each data set, horizon and train seed, written with safetensors.torch.save_file.
# file: a file in this folder, up to 10 MB; or, for what lies elsewhere, url: https://... or hf://owner/name/file@revision.
# sha256 and bytes are those of the file; validate says what they are.
weights:
  - dataset: digits
    horizon: 1
    train_seed: 0
    file: digits-t1-seed0.safetensors
    sha256: "{zeros}"
    bytes: 1

# Who made it.
authors: []

# An open licence, as SPDX writes it: MIT, Apache-2.0, BSD-3-Clause, CC-BY-4.0 ...
licence: ""

# https://..., arXiv:1234.56789 or doi:10...; strike the line if there is none.
# paper: arXiv:1234.56789

# The figures that you claim, each for one evaluation: the first n test images, one attack, one epsilon (0.1 or 8/255).
# Accuracies are shares of n, from 0 to 1. `odebench run` prints them; they are compared with a run of the reviewer.
# claims:
#   - {{dataset: digits, horizon: 1, train_seed: 0, norm: linf, epsilon: 0.1, attack: pgd, n: 500,
#      clean_accuracy: 0.97, robust_accuracy: 0.3}}
claims: []
"""

_READ_ME = """\
# {id}

What the model is, in a few lines: its field, how it is trained, and what makes it robust.
"""

_MODEL = '''\
"""The model of the entry {id}."""

import torch
from torch import nn


class Net(nn.Module):
    """A Neural ODE classifier: odebench integrates `field` from `stem` over [0, horizon] and asks `head` for logits.

    Images are in [0, 1]: whatever scaling they need is part of the model.
    """

    def __init__(self, *, image_shape, n_classes, channels, horizon, solver):
        super().__init__()
        self.stem = nn.Conv2d(image_shape[0], channels, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes))
        self.horizon, self.solver = horizon, solver

    def field(self, t, state):
        """The time derivative of the state."""
        return torch.tanh(self.conv(state))
'''

_TRAIN = '''\
"""Trains {id} on digits, writes its weights beside this file, and prints what entry.yaml says of them."""

import hashlib
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # an entry holds no __pycache__

import torch
from model import Net
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

import odebench
from odebench.dataset import load_dataset

HORIZON, SEED, EPOCHS = 1.0, 0, 15

torch.manual_seed(SEED)
data = load_dataset("digits")
solver = odebench.fixed_step("rk4", step=0.25)
net = Net(image_shape=data.image_shape, n_classes=len(data.classes), channels=16, horizon=HORIZON, solver=solver)
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
for epoch in range(EPOCHS):
    for rows in torch.randperm(len(data.train)).split(32):
        state = odebench.integrate(net.field, net.stem(data.train.images[rows]), horizon=HORIZON, solver=solver).state
        loss = cross_entropy(net.head(state), data.train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

path = Path(__file__).with_name(f"digits-t{{HORIZON:g}}-seed{{SEED}}.safetensors")
save_file(net.state_dict(), path)
print(f"parameters: {{sum(tensor.numel() for tensor in net.state_dict().values())}}")
print(f"sha256: {{hashlib.sha256(path.read_bytes()).hexdigest()}}\\nbytes: {{path.stat().st_size}}")
'''


def new_entry(name: str, folder: Path) -> list[Path]:
    """Writes the folder of a new entry below `folder`, with comments that explain each key; returns its files.

    Raises UsageError for an invalid or taken id.
    """
    if not ID.fullmatch(name) or len(name) > MAX_ID_LETTERS:
        raise UsageError(
            f"{name!r} is no id; use small letters, digits and single dashes, at most {MAX_ID_LETTERS}, such as my-ode"
        )
    if name in MODELS.entries():
        raise UsageError(
            f"{name!r} is the name of a registered model; choose another id (--published writes that model's own entry)"
        )
    target = folder / name
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} is there already; choose another id, or edit {target / ENTRY_FILE}")
    texts = {
        ENTRY_FILE: _ENTRY.format(id=name, zeros=64 * "0"),
        READ_ME: _READ_ME.format(id=name),
        "model.py": _MODEL.format(id=name),
        "train.py": _TRAIN.format(id=name),
    }
    for file, text in texts.items():
        write_atomically(target / file, text.encode())
    return [target / file for file in texts]
