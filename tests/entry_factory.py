"""Valid entries for tests of everything that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from odebench.dataset.builtin import DIGITS
from odebench.io.canonical_json import canonical_json
from odebench.io.files import sha256_file
from odebench.model.definition import load_definition

SHAPES: dict[str, tuple[int, ...]] = {"stem.weight": (4, 1, 3, 3), "stem.bias": (4,), "head.weight": (10, 4)}
NUMBERS = 36 + 4 + 40

TEXT = """\
id: mine
model: model:Net
arguments: {channels: 4}
datasets:
  - {name: digits, horizons: [1, 2], parameters: 80}
solver: {method: rk4, backend: torchdiffeq, step: 0.25}
training: {loss: cross-entropy, epochs: 15, learning_rate: 0.01}
teacher: resnet
weights:
  - {dataset: digits, horizon: 1, train_seed: 0, file: one.safetensors, sha256: SHA, bytes: SIZE}
  - dataset: digits
    horizon: 2
    train_seed: 0
    url: https://example.org/two.safetensors
    sha256: "1111111111111111111111111111111111111111111111111111111111111111"
    bytes: 1000
authors: [Ada Lovelace]
licence: MIT
paper: arXiv:2203.05103
claims:
  - dataset: digits
    horizon: 1
    train_seed: 0
    norm: linf
    epsilon: 0.1
    attack: pgd
    n: 500
    clean_accuracy: 0.97
    robust_accuracy: 0.35
"""

REGISTERED = """\
id: listed
model: ode-ablated
arguments: {epochs: 1}
datasets:
  - {name: digits, parameters: 8}
training: {epochs: 1, learning_rate: 0.01}
weights:
  - {dataset: digits, train_seed: 0, file: one.safetensors, sha256: SHA, bytes: SIZE}
authors: [Ada Lovelace]
licence: MIT
claims:
  - {dataset: digits, train_seed: 0, norm: l2, epsilon: 1/4, attack: cw, n: 100, robust_accuracy: 0.5,
     parameters: {steps: 10}}
"""

CODE = """\
from pathlib import Path

Path(__file__).with_name("trace").write_text("it was imported")


class Net:
    pass
"""
"""A module that leaves a trace where it is imported."""


def write_weights(path: Path, shapes: dict[str, tuple[int, ...]] = SHAPES) -> None:
    """A small weights file."""
    generator = np.random.default_rng(0)
    save_file({name: generator.random(shape, dtype=np.float32) for name, shape in shapes.items()}, path)


def write_entry(folder: Path, *changes: tuple[str, str]) -> Path:
    """An entry called mine below `folder`, with texts of its entry.yaml replaced; returns its own folder."""
    mine = folder / "mine"
    mine.mkdir(parents=True)
    write_weights(mine / "one.safetensors")
    (mine / "README.md").write_text("# mine\n\nA small one.\n", encoding="utf-8")
    (mine / "model.py").write_text(CODE, encoding="utf-8")
    weights = mine / "one.safetensors"
    (mine / "entry.yaml").write_text(TEXT, encoding="utf-8")
    change_entry(mine, *changes)
    text = (mine / "entry.yaml").read_text(encoding="utf-8")
    text = text.replace("SHA", sha256_file(weights)).replace("SIZE", str(weights.stat().st_size))
    (mine / "entry.yaml").write_text(text, encoding="utf-8")
    return mine


def write_registered_entry(folder: Path) -> Path:
    """An entry called listed below `folder`, of a built-in model, with weights that its recipe might have found."""
    mine = folder / "listed"
    mine.mkdir(parents=True)
    recipe = load_definition("ode-ablated").recipe(DIGITS, changes={"epochs": 1})
    metadata = {"odebench": canonical_json({"recipe": recipe.model_dump(mode="json")})}
    save_file({"weight": np.zeros((4, 2), np.float32)}, mine / "one.safetensors", metadata)
    (mine / "README.md").write_text("# listed\n", encoding="utf-8")
    weights = mine / "one.safetensors"
    text = REGISTERED.replace("SHA", sha256_file(weights)).replace("SIZE", str(weights.stat().st_size))
    (mine / "entry.yaml").write_text(text, encoding="utf-8")
    return mine


def change_entry(mine: Path, *changes: tuple[str, str]) -> None:
    """Replaces texts of an entry.yaml, each of which must stand there once."""
    text = (mine / "entry.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (mine / "entry.yaml").write_text(text, encoding="utf-8")
