"""The scripts that measure efforts, and the strong attack that they are held against."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from small_model import grey_images, linear, predicted, smallest_radius

from odebench.attack.builtin import PGD, SQUARE
from odebench.attack.definition import Stage
from odebench.dataset import load_dataset
from odebench.model.classifier import Classifier
from odebench.numerics.projection import ROUNDING, distance

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_strong_attack_fells_a_linear_model_wherever_it_can(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    strong = script("strong_attack", monkeypatch)
    model, images = linear(5), grey_images(30)
    labels, epsilon = predicted(model, images), {"linf": 0.01, "l2": 0.07}[norm]
    found = strong.strongest(
        Classifier(model.requires_grad_(False), n_classes=5),
        images,
        labels,
        norm=norm,
        epsilon=epsilon,
        budget=strong.Budget(steps=30, restarts=2),
    )
    radius = smallest_radius(model, images, labels, norm=norm)
    clear = (radius / epsilon - 1).abs() > 0.01
    fell = predicted(model, found) != labels
    assert 3 < fell.sum() < 27
    assert torch.equal(fell[clear], (radius < epsilon)[clear])
    assert (distance(images, found, norm=norm) <= epsilon + ROUNDING).all()


def test_the_strong_attack_imports_nothing_of_the_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "odebench.attack" not in (BENCHMARKS / "strong_attack.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_falls_and_passes_are_counted_stage_by_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    effort = script("effort", monkeypatch)
    few = (
        Stage("pgd 2", PGD, PGD.complete({"steps": 2})),
        Stage("square 5", SQUARE, SQUARE.complete({"queries": 5}), most_images=4),
    )
    monkeypatch.setattr("odebench.attack.worst_case_stages.stages", lambda *_, **__: few)
    data = load_dataset("digits")
    given: dict[str, Any] = {"effort": "fast", "norm": "linf", "seed": 0, "n": 100, "data_dir": None}
    found = effort.measured("ode-ablated", data, one_radius=False, **given)
    assert found.images == 100
    assert list(found.standing) == [0.05, 0.1, 0.15]
    counts = list(found.standing.values())
    assert counts == sorted(counts, reverse=True)
    assert sum(found.falls.values()) <= 100 - counts[-1]
    # Two gradients of each standing image at each radius, and the verdicts, whose batches hold 100.
    assert 400 <= found.passes["pgd 2"] <= 3 * 100 * (4 + 4)
    assert found.passes["square 5"] < found.passes["pgd 2"]
    total = effort.Yield()
    for _ in range(2):
        total.add(found)
    assert total.images == 200
    lines = total.lines("fast")
    assert lines[2].startswith(f"| pgd 2 | {2 * found.falls['pgd 2']} | {found.passes['pgd 2'] / 100:.1f} | ")
    assert lines[-2] == "standing of 200: " + ", ".join(
        f"{2 * count} at {epsilon:g}" for epsilon, count in found.standing.items()
    )
