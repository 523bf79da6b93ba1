"""Slices of an evaluation, computed apart and joined: the same bytes as in one run, but for times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from result_factory import without_times
from small_model import Told, fitted
from torch import Tensor, nn

from odebench.attack.definition import DiagnosisDefinition, load_attack
from odebench.attack.registry import ATTACKS
from odebench.dataset import Dataset, Split, describe_dataset, load_dataset
from odebench.errors import ResultError, WeightError
from odebench.evaluation.evaluate import run
from odebench.evaluation.execution import measure
from odebench.evaluation.loading import LoadedModels
from odebench.evaluation.measurements import Measurements, concatenate, read_measurements, write_measurements
from odebench.evaluation.plan import EvaluationRequest, Plan, Slice, plan
from odebench.evaluation.slice_files import cut, slice_folder, slice_path
from odebench.evaluation.sliced_evaluation import join_slices, run_slice
from odebench.io.tensor_file import read_tensors, write_tensors
from odebench.model.classifier import Classifier
from odebench.numerics.seeding import seeded
from odebench.protocol.recipe import Recipe, weights_path
from odebench.protocol.spec import AttackSpec, DatasetSlice, Evaluation, ModelSpec, ThreatModel, adaptive, fixed_step
from odebench.result.file import read_result, result_files, result_json, result_path
from odebench.result.schema import Result

EPSILONS = (0.05, 0.15)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(autouse=True)
def trained(trained_folder: Path, digits: Dataset, narrow: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the weights of a short training of each model, which is shared."""
    cache = trained_folder / "instalment"
    monkeypatch.setenv("ODEBENCH_CACHE", str(cache))
    return cache


def a_plan(
    attack: str,
    *,
    n: int = 300,
    offset: int = 0,
    chunk: int = 20,
    solver: Any = None,
    norm: str = "linf",
    epsilons: tuple[float, ...] = EPSILONS,
    **parameters: Any,
) -> Plan:
    """Of a model that is trained for little. A chunk is short where it is asked for its batch independence, and long
    where there are many steps."""
    request = EvaluationRequest(
        "ode",
        attack,
        images=Slice(n=n, offset=offset, chunk=chunk),
        horizon=0.5,
        norm=norm,
        epsilons=epsilons if norm == "linf" else (0.5, 1.0),
        solver=solver,
        changes={"epochs": 2},
        parameters=parameters,
    )
    return plan(request, describe_dataset("digits"), total=500)


def timeless(path: Path) -> str:
    """A result file without its times: created, and the seconds of its cost."""
    result = read_result(path)
    assert result_json(result) == path.read_text(encoding="utf-8")
    return result_json(without_times(result))


PLANS: dict[str, Callable[[], Plan]] = {
    "pgd, rk4": lambda: a_plan("pgd", n=150, chunk=50, steps=3),
    "worst case, euler": lambda: a_plan(
        "worst-case", n=150, chunk=50, solver=fixed_step("euler", step=0.5), epsilons=(0.1,)
    ),
    "pgd, dopri5 of torchode": lambda: a_plan(
        "pgd", n=150, chunk=50, solver=adaptive("dopri5", rtol=1e-2), steps=1, epsilons=(0.1,)
    ),
    "fgsm in l2, from an offset on": lambda: a_plan("fgsm", n=200, offset=100, norm="l2"),
    "fgsm, judged alone": lambda: a_plan("fgsm", n=200, solver=adaptive("dopri5", rtol=1e-2, backend="torchdiffeq")),
}


ALIKE = ("pgd, dopri5 of torchode", "fgsm, judged alone")
"""Slices take the same way with the solvers of the others."""


@pytest.mark.usefixtures("short_stages")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in PLANS]
)
def test_slices_joined_are_the_whole_byte_for_byte(name: str, digits: Dataset, tmp_path: Path) -> None:
    planned = PLANS[name]()
    _, whole, _ = run(planned, digits, results=tmp_path / "whole")
    slices = cut(planned.evaluation, 100)
    assert len(slices) == 2
    for rows in reversed(slices):
        run_slice(planned, digits, rows=rows, results=tmp_path / "apart")
        assert list(result_files(tmp_path / "apart")) == [], "a slice is never taken for a result"
    path = join_slices(planned.evaluation, slices=slices, results=tmp_path / "apart")
    assert path == result_path(tmp_path / "apart", planned.evaluation)
    assert timeless(path) == timeless(whole)
    assert [file for file in (tmp_path / "apart").rglob("*") if file.is_file()] == [path]
    stored = read_result(path)
    assert stored.cost.seconds > 0
    assert {letter for item in stored.epsilons for letter in item.outcomes} >= {"r", "f"}


class Noisy(nn.Module):
    """A model whose logits are noisy on images with a mark, so that a slice without one seems steady."""

    def __init__(self, net: nn.Module, *, mark: float) -> None:
        super().__init__()
        self.net, self.mark = net, mark

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        marked = (images[:, 0, 0, 0] - self.mark).abs() < 1e-6
        return logits + 0.5 * torch.randn_like(logits) * marked[:, None]


class Coupled(nn.Module):
    """A model whose logits depend on the mean of the batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits + logits.mean(0)


def in_slices(module: nn.Module, images: Tensor, labels: Tensor, *, attack: str, **parameters: Any) -> list[Result]:
    """The results of one evaluation of a module: in one piece, and joined from slices of 100 images."""
    classifier = Classifier(module, n_classes=10)
    evaluation = Evaluation(
        model=ModelSpec(name="small", arguments={}, weights="0" * 64),
        train_horizon=None,
        horizon=classifier.horizon,
        solver=classifier.solver,
        dataset=DatasetSlice(name="mine", split="test", n=len(images), offset=0),
        threat_model=ThreatModel(norm="linf", epsilons=EPSILONS),
        attack=AttackSpec(name=attack, parameters=load_attack(attack).complete(parameters), seed=0, sources=()),
        chunk=10,
        precision="fp32",
    )
    models, split = LoadedModels(classifier, "0" * 64, handed_over=False), Split(images, labels)
    whole = measure(evaluation, models, split, progress=Told()).result(evaluation)
    slices = cut(evaluation, 10)
    assert [(rows.start, rows.stop) for rows in slices] == [(0, 100), (100, 110)], "whole batches of the verdict"
    parts = [measure(evaluation, models, split, rows=rows, progress=Told()) for rows in slices]
    return [whole, concatenate(parts[::-1]).result(evaluation)]


@pytest.mark.usefixtures("few_passes")
@pytest.mark.parametrize(("kind", "flag"), [("marked", "randomised"), ("coupled", "batch-coupled")])
def test_how_a_model_is_asked_is_decided_on_the_first_chunk_of_the_whole(kind: str, flag: str, digits: Dataset) -> None:
    images, labels = digits.test.images[:110].clone(), digits.test.labels[:110]
    images[:, 0, 0, 0] = 0.0
    images[7, 0, 0, 0] = 0.625
    with seeded(0):
        net = fitted(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits, epochs=2)
    module = Coupled(net) if kind == "coupled" else Noisy(net, mark=0.625)
    whole, apart = in_slices(module.eval(), images, labels, attack="fgsm")
    assert flag in whole.flags
    assert result_json(without_times(apart)) == result_json(without_times(whole))


def test_what_is_there_is_not_computed_again_unless_data_or_weights_are_others(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = a_plan("fgsm", n=200)
    slices = cut(planned.evaluation, 100)
    paths = [run_slice(planned, digits, rows=rows, results=tmp_path) for rows in slices]
    first = [path.read_bytes() for path in paths]

    def untouchable(*_: object, **__: object) -> None:
        raise AssertionError("it is there")

    with monkeypatch.context() as patch:
        patch.setattr("odebench.evaluation.sliced_evaluation.measure", untouchable)
        for rows in slices:
            run_slice(planned, digits, rows=rows, results=tmp_path)
        pixels = digits.test.pixels.clone()
        pixels[0, 0, 0, 0] += 1
        other = replace(digits, test=type(digits.test)(pixels, digits.test.labels))
        with pytest.raises(AssertionError, match="it is there"):
            run_slice(planned, other, rows=slices[0], results=tmp_path)
        patch.setattr("odebench.evaluation.sliced_evaluation.versions", lambda: None)
        with pytest.raises(AssertionError, match="it is there"):
            run_slice(planned, digits, rows=slices[0], results=tmp_path)
    assert [path.read_bytes() for path in paths] == first

    paths[0].write_bytes(first[0][: len(first[0]) // 2])
    run_slice(planned, digits, rows=slices[0], results=tmp_path)
    tensors, _ = read_tensors(paths[0])
    assert tensors["letters.0"].shape == (100, 1)

    own_weights(planned.recipe, tmp_path / "cache", monkeypatch)
    run_slice(planned, digits, rows=slices[1], results=tmp_path)
    with pytest.raises(ResultError, match=r"slices from image 0 and from 100 differ in found: other weights"):
        join_slices(planned.evaluation, slices=slices, results=tmp_path)
    run_slice(planned, digits, rows=slices[0], results=tmp_path)
    path = join_slices(planned.evaluation, slices=slices, results=tmp_path)
    assert join_slices(planned.evaluation, slices=slices, results=tmp_path) == path, "a join may be tried again"
    assert run_slice(planned, digits, rows=slices[0], results=tmp_path).exists() is False, "and so may a slice"


def own_weights(recipe: Recipe, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, metadata = read_tensors(weights_path(recipe))
    monkeypatch.setenv("ODEBENCH_CACHE", str(cache))
    write_tensors(weights_path(recipe), {name: tensor * 1.01 for name, tensor in tensors.items()}, metadata)


def test_slices_that_are_missing_or_damaged_are_named(digits: Dataset, tmp_path: Path) -> None:
    planned = a_plan("fgsm", n=300)
    slices = cut(planned.evaluation, 100)
    for rows in slices:
        run_slice(planned, digits, rows=rows, results=tmp_path)
    with pytest.raises(ResultError, match="the slices from image 0 and from 200 do not follow one another"):
        join_slices(planned.evaluation, slices=(slices[0], slices[2]), results=tmp_path)
    path = slice_path(tmp_path, planned.evaluation, slices[1])
    tensors, metadata = read_tensors(path)
    for spoilt in ({}, {"portion": "{}"}, {"portion": metadata["portion"].replace('"useless":0', '"useless":"0"')}):
        write_tensors(path, tensors, spoilt)
        with pytest.raises(WeightError, match="is not a slice of an evaluation") as raised:
            join_slices(planned.evaluation, slices=slices, results=tmp_path)
        assert str(path) in str(raised.value)
    path.unlink()
    with pytest.raises(WeightError, match="cannot read"):
        join_slices(planned.evaluation, slices=slices, results=tmp_path)
    assert not result_path(tmp_path, planned.evaluation).exists()


def test_slices_may_come_from_processors_of_several_names(digits: Dataset, tmp_path: Path) -> None:
    planned = a_plan("fgsm", n=200)
    whole = tmp_path / "whole"
    slices = cut(planned.evaluation, 100)
    for rows in slices:
        run_slice(planned, digits, rows=rows, results=whole)
    path = slice_path(whole, planned.evaluation, slices[1])
    ours = read_measurements(slice_path(whole, planned.evaluation, slices[0])).setup.found.device
    second = read_measurements(path)

    def named(device: str) -> Measurements:
        found = second.setup.found.model_copy(update={"device": device})
        return replace(second, setup=second.setup.model_copy(update={"found": found}))

    write_measurements(path, named("cuda (Card)"))
    with pytest.raises(ResultError, match="differ in found"):
        join_slices(planned.evaluation, slices=slices, results=whole)
    write_measurements(path, named("cpu (Another, AVX2)"))
    joint = read_result(join_slices(planned.evaluation, slices=slices, results=whole))
    assert joint.found.device == "; ".join(sorted(["cpu (Another, AVX2)", ours]))


@pytest.mark.usefixtures("short_stages")
def test_a_portion_comes_back_from_its_file(digits: Dataset, tmp_path: Path) -> None:
    planned = a_plan("worst-case", n=200, chunk=100, solver=fixed_step("euler", step=0.5))
    path = run_slice(planned, digits, rows=slice(100, 200), results=tmp_path)
    portion = read_measurements(path)
    write_measurements(tmp_path / "again", portion)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert (portion.first, len(portion)) == (100, 100)
    with pytest.raises(AssertionError, match="a whole evaluation"):
        portion.result(planned.evaluation)


def test_an_evaluation_is_cut_into_whole_chunks_and_batches() -> None:
    evaluation = a_plan("fgsm", n=500).evaluation

    def lengths(evaluation: Evaluation, images: int | None) -> list[int]:
        slices = cut(evaluation, images)
        assert [rows.start for rows in slices[1:]] == [rows.stop for rows in slices[:-1]]
        return [rows.stop - rows.start for rows in slices]

    assert lengths(evaluation, 100) == [100] * 5
    assert lengths(evaluation, 1) == [100] * 5
    assert lengths(evaluation, 101) == [200, 200, 100]
    assert lengths(evaluation, 500) == lengths(evaluation, None) == []
    assert lengths(evaluation.model_copy(update={"chunk": 150}), 100) == [300, 200]
    attacks = [load_attack(name) for name in ATTACKS.entries()]
    whole = [one.name for one in attacks if isinstance(one, DiagnosisDefinition) or one.needs_candidates]
    assert len(whole) == 3
    for name in whole:
        other = evaluation.model_copy(update={"attack": evaluation.attack.model_copy(update={"name": name})})
        assert lengths(other, 100) == []


def test_slices_of_two_evaluations_lie_apart(digits: Dataset, tmp_path: Path) -> None:
    plans = [a_plan("fgsm", n=200), a_plan("noise", n=200, draws=2)]
    for planned in plans:
        for rows in cut(planned.evaluation, 100):
            run_slice(planned, digits, rows=rows, results=tmp_path)
    join_slices(plans[0].evaluation, slices=cut(plans[0].evaluation, 100), results=tmp_path)
    assert not slice_folder(tmp_path, plans[0].evaluation).exists()
    assert len(list(slice_folder(tmp_path, plans[1].evaluation).iterdir())) == 2
