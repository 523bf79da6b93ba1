"""Another device than the CPU: the same code on it, and the same letters.

By default on an emulated one (see emulated_device), to the bit; with `-m gpu` on a card, whose kernels round otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import Linear, SmallOde, fitted, grey_images, judged, linear, outcomes, predicted
from torch import Tensor, nn

import odebench
from odebench.dataset import Dataset, Split, load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.errors import ModelError, UsageError
from odebench.evaluation import environment
from odebench.evaluation.checks.gradient import gradient_fidelity
from odebench.evaluation.verdict import Judge
from odebench.io.tensor_file import read_tensors
from odebench.model import training
from odebench.model.classifier import Classifier, Gradient
from odebench.model.definition import load_definition
from odebench.numerics.seeding import seeded
from odebench.progress import Silent, Step
from odebench.protocol.recipe import Recipe, weights_path
from odebench.protocol.spec import adaptive, fixed_step
from odebench.result.schema import Result

emulated_device = pytest.importorskip("emulated_device")

CARD = "an emulated card"
CUDA = "cuda"


@pytest.fixture(params=[emulated_device.NAME, pytest.param(CUDA, marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device's name. What odebench asks torch.cuda for is answered by the emulated one."""
    name: str = request.param
    if name == CUDA:
        if not torch.cuda.is_available():
            pytest.skip("no card")
        return name
    if not emulated_device.AVAILABLE:
        pytest.skip("torch before 2.10 takes no device written in Python")
    emulated_device.install()
    emulated_device.calls.clear()
    monkeypatch.setattr(environment, "devices", lambda: ["cpu", emulated_device.NAME])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: CARD)
    return name


def generator_state(device: str) -> Tensor:
    """The state of the device's own random numbers."""
    state: Tensor = torch.cuda.get_rng_state() if device == CUDA else emulated_device.module.generator.get_state()
    return state


def comparable(result: Result, device: str) -> object:
    """What must be equal on the CPU and on the device: all, but on a card, which rounds otherwise, the letters."""
    return [each.outcomes for each in result.epsilons] if device == CUDA else found(result)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    whole = load_dataset("digits")
    assert whole.train is not None
    train = Split(whole.train.images[:60], whole.train.labels[:60])
    return Dataset("digits", whole.classes, train, None, whole.test)


@pytest.fixture(scope="module")
def small(digits: Dataset) -> nn.Module:
    """A Neural ODE that knows its 60 train images."""
    with seeded(0):
        net = SmallOde()
    return fitted(net, digits, epochs=25)


def found(result: Result) -> dict[str, Any]:
    """All of a result but where and how long it was computed."""
    return result.model_dump(
        mode="json",
        exclude={"created": True, "cost": {"seconds": True, "stages": {"__all__": {"seconds"}}}, "found": {"device"}},
    )


def test_the_device_keeps_cudas_rules(device: str) -> None:
    here, there = torch.ones(3, device=device), torch.ones(3)
    assert (here + 1).device.type == device
    assert (here * torch.tensor(2.0)).tolist() == [2, 2, 2]
    assert here[torch.tensor([0, 2])].tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    with pytest.raises(RuntimeError, match="same device"):
        there[torch.zeros(1, dtype=torch.long, device=device)]
    with pytest.raises(TypeError, match="numpy"):
        here.numpy()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device=device, generator=torch.Generator())
    with seeded(0):
        assert not torch.equal(torch.rand(3), torch.rand(3, device=device).cpu())


LINEAR: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "fgsm l2": {},
    "pgd": {"steps": 4},
    "pgd l2": {"steps": 4},
    "cw l2": {"searches": 2, "steps": 4},
    "apgd-ce": {"steps": 5},
    "apgd-ce l2": {"steps": 5},
    "apgd-dlr": {"steps": 5},
    "apgd-t": {"steps": 5, "targets": 2},
    "pgd-margin": {"steps": 4, "targets": 2, "restarts": 2},
    "pgd-margin l2": {"steps": 4, "targets": 2, "restarts": 2},
    "smoothed": {"steps": 3, "targets": 2, "draws": 2, "directions": 8},
    "fab-t": {"steps": 3, "targets": 2},
    "fab-t l2": {"steps": 3, "targets": 2},
    "square": {"queries": 12},
    "square l2": {"queries": 12},
    "noise": {"draws": 3},
    "transfer": {"steps": 4},
    "worst-case": {},
    "diagnosis": {"steps": 3},
}
WITH_SOURCES = ("transfer", "worst-case", "diagnosis")


def attacked_linear(case: str, device: str) -> Result:
    attack, _, norm = case.partition(" ")
    net, images = linear(4), grey_images(6)
    labels = predicted(net, images)
    labels[0] = (labels[0] + 1) % 4
    # The worst case is long: nearly all of its images fall early.
    epsilon = 0.2 if norm else 0.03 if attack == "worst-case" else 0.02
    return judged(
        net,
        images,
        labels,
        n_classes=4,
        attack=attack,
        norm=norm or "linf",
        epsilons=(epsilon, 2 * epsilon) if attack in ("fgsm", "apgd-ce") else (epsilon,),
        chunk=6,
        sources={"other": linear(4, seed=7)} if attack in WITH_SOURCES else None,
        device=device,
        **LINEAR[case],
    )


ALIKE = (
    *("pgd", "fgsm l2", "apgd-ce l2", "apgd-dlr", "apgd-t", "pgd-margin", "fab-t", "square", "square l2", "transfer"),
    *("diagnosis", "smoothed"),
)
"""Other tests here take the same way, in the other norm or as a stage."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in ALIKE else ()) for case in LINEAR]
)
def test_an_attack_finds_the_same_on_both_devices(case: str, device: str) -> None:
    here = attacked_linear(case, device)
    if device == CUDA:
        assert here.found.device == f"cuda ({torch.cuda.get_device_name()})"
    else:
        assert emulated_device.calls["aten::mm"] + emulated_device.calls["aten::addmm"] > 10
        assert here.found.device == f"{device} ({CARD})" or here.found.device == f"{device}:0 ({CARD})"
    assert comparable(here, device) == comparable(attacked_linear(case, "cpu"), device)
    assert found(here) == found(attacked_linear(case, device))


def test_candidates_of_a_file_are_judged_on_the_device(device: str) -> None:
    net, images = linear(4), grey_images(6)
    labels = predicted(net, images)
    given = {0.1: (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(3)).sign())}

    def judge(place: str) -> object:
        asked = {"attack": "candidates", "given": given, "file_sha256": "0" * 64, "credit": "me"}
        result = judged(copy.deepcopy(net), images, labels, n_classes=4, chunk=6, device=place, **asked)
        return comparable(result, device)

    assert judge(device) == judge("cpu")


SOLVERS = {
    "rk4": fixed_step(step=0.5),
    "dopri5": adaptive(),
    "dopri5 that fails": adaptive(rtol=1e-6, max_steps=2),
    "dopri5 of torchdiffeq": adaptive(backend="torchdiffeq"),
    "dopri5 of torchdiffeq that fails": adaptive(rtol=1e-6, max_steps=1, backend="torchdiffeq"),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_a_solver_integrates_on_the_device(
    solver: str, gradient: Gradient, device: str, small: nn.Module, digits: Dataset
) -> None:
    images = digits.test.images[:4].clone()
    images[1] = torch.nan

    def ask(place: str) -> tuple[Tensor, ...]:
        asked = {"solver": SOLVERS[solver], "gradient": gradient, "device": place}
        classifier = Classifier(copy.deepcopy(small), n_classes=10, **asked)
        points = images.to(place).requires_grad_()
        answer = classifier.answer(points)
        assert answer.nfe is not None
        (slope,) = torch.autograd.grad(answer.logits.square().sum(), points)
        places = {tensor.device.type for tensor in (answer.logits, answer.failed, answer.nfe, slope)}
        assert places == {place}
        return answer.logits.detach().cpu(), answer.failed.cpu(), answer.nfe.cpu(), slope.cpu()

    here, there = ask(device), ask("cpu")
    if device != CUDA:
        torch.testing.assert_close(here, there, equal_nan=True)
        return
    # The first step of dopri5 comes from a difference of two rates that rounding decides, so steps differ a little.
    torch.testing.assert_close(here[:3], there[:3], equal_nan=True, rtol=1e-4, atol=1e-4)
    apart = (here[3] - there[3]).nan_to_num().norm() / there[3].nan_to_num().norm().clamp_min(1e-9)
    assert apart < (1e-3 if "dopri5" in solver else 1e-5)
    assert torch.equal(here[3].isnan(), there[3].isnan())


def test_the_gradient_is_checked_on_the_device(device: str, small: nn.Module, digits: Dataset) -> None:
    def check(place: str) -> dict[str, Any]:
        classifier = Classifier(copy.deepcopy(small), n_classes=10, device=place)
        options: dict[str, Any] = {"norm": "linf", "epsilon": 0.1, "adjoint": True}
        return gradient_fidelity(classifier, digits.test.images[:3], **options).model_dump()

    here, there = check(device), check("cpu")
    assert here["status"] == there["status"] == "pass"
    assert here["evidence"]["adjoint_cosine"] == pytest.approx(there["evidence"]["adjoint_cosine"], abs=1e-4)
    assert here["figure"] == pytest.approx(there["figure"], abs=1e-4)


class Noting(SmallOde):
    """A Neural ODE that remembers the type and the device of its states' rates."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[torch.dtype, str]] = set()

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        rate = super().field(t, state)
        self.seen.add((rate.dtype, rate.device.type))
        return rate


def test_bf16_proposes_on_the_device_and_fp32_judges(device: str, small: nn.Module, digits: Dataset) -> None:
    images, labels = digits.test.images[:4], digits.test.labels[:4]
    letters = []
    for place in (device, "cpu"):
        net = Noting()
        net.load_state_dict(small.state_dict())
        asked: dict[str, Any] = {
            "attack": "pgd",
            "steps": 4,
            "precision": "bf16",
            "surrogate": fixed_step("euler", step=1.0),
        }
        letters.append(outcomes(judged(net, images, labels, chunk=4, handed_over=False, device=place, **asked)))
        assert net.seen == {(torch.bfloat16, place), (torch.float32, place)}
    assert letters[0] == letters[1]
    assert "f" in letters[0]


def test_spsa_estimates_the_same_gradients_on_the_device(device: str) -> None:
    net, images = linear(4), grey_images(4)
    labels = predicted(net, images)
    asked: dict[str, Any] = {"attack": "spsa", "steps": 2, "targets": 2, "directions": 8, "handed_over": False}
    here, there = (
        judged(copy.deepcopy(net), images, labels, n_classes=4, epsilons=(0.03,), chunk=4, device=place, **asked)
        for place in (device, "cpu")
    )
    assert comparable(here, device) == comparable(there, device)


class Stopping(Silent):
    """Progress that is interrupted after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def say(self, line: str) -> None:
        assert "starting over" not in line

    @contextmanager
    def track(self, title: str, *, total: float, done: float = 0) -> Iterator[Step]:
        yield self

    def advance(self, steps: float = 1, *, note: str = "") -> None:
        self.left -= steps
        if self.left < 0:
            raise KeyboardInterrupt


def trained(recipe: Recipe, data: Dataset, folder: Path, device: str, *, stop_after: int | None = None) -> bytes:
    if stop_after is not None:
        with pytest.raises(KeyboardInterrupt):
            training.find_or_train(recipe, data, folder=folder, device=device, progress=Stopping(stop_after))
        assert list(folder.glob("*.partial"))
    done = training.find_or_train(recipe, data, folder=folder, device=device, progress=Stopping(10**9))
    assert {tensor.device.type for tensor in done.module.state_dict().values()} == {device}
    assert done.module(data.test.images[:2].to(device)).device.type == device
    return done.path.read_bytes()


def said(recipe: Recipe, tensors: dict[str, Tensor], data: Dataset) -> Tensor:
    """The probabilities that a model of these weights gives for some test images."""
    module = training.build(recipe)
    module.load_state_dict(tensors)
    return training.predict(module.eval(), data.test.images[:50]).softmax(1)


@pytest.mark.parametrize("adversary", ["none", "madry", pytest.param("trades", marks=pytest.mark.slow)])
def test_a_training_on_the_device_learns_the_same_and_goes_on_where_it_stopped(
    adversary: str, device: str, digits: Dataset, tmp_path: Path
) -> None:
    assert digits.train is not None
    changes: dict[str, Any] = {"epochs": 2, "batch_size": 30}
    if adversary != "none":
        changes |= {"adversary": adversary, "adversary_steps": 1}
    name = "resnet" if adversary == "madry" else "kd-ode"
    definition = load_definition(name)
    # two steps of the solver, not four, except where rounding may turn an adversary's sign
    horizon = 0.5 if adversary == "none" else None
    recipe = definition.recipe(DIGITS, horizon=horizon, train_seed=0, changes=changes)
    if recipe.teacher is not None:
        teacher = load_definition("resnet").recipe(DIGITS, train_seed=0, changes={"epochs": 1, "batch_size": 60})
        recipe = recipe.model_copy(update={"teacher": teacher})
    if adversary == "trades":
        recipe = recipe.model_copy(update={"augmentation": "flip-crop"})
    before = generator_state(device)
    here = trained(recipe, digits, tmp_path / "whole", device)
    assert torch.equal(generator_state(device), before)
    assert trained(recipe, digits, tmp_path / "halves", device, stop_after=3) == here
    there, _ = read_tensors(weights_path(recipe, tmp_path / "whole"))
    trained(recipe, digits, tmp_path / "cpu", "cpu")
    own, _ = read_tensors(weights_path(recipe, tmp_path / "cpu"))
    if device == CUDA:  # AdamW makes a whole step of a gradient that is rounding alone, so what the models say counts
        torch.testing.assert_close(said(recipe, there, digits), said(recipe, own, digits), rtol=0, atol=0.02)
        return
    # A step moves a weight by up to 1e-2. What the adversary adds is a sign, which a last bit of a gradient may turn.
    torch.testing.assert_close(there, own, rtol=1e-3, atol=5e-4 if adversary == "trades" else 1e-4)


def test_seeding_leaves_the_devices_generator_as_it_was(device: str) -> None:
    torch.rand(3, device=device)
    before = generator_state(device)
    with seeded(5):
        first = torch.rand(3, device=device).tolist()
    assert torch.equal(generator_state(device), before)
    with seeded(5):
        assert torch.rand(3, device=device).tolist() == first
    training.build(load_definition("resnet").recipe(DIGITS, train_seed=1))
    assert torch.equal(generator_state(device), before)


class Noisy(Linear):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits + 0.05 * torch.randn_like(logits)


@pytest.mark.usefixtures("few_passes")
def test_a_model_that_draws_on_the_device_is_voted_on(device: str) -> None:
    net, images = linear(4), grey_images(2)
    labels = predicted(net, images)

    def judge() -> Result:
        noisy = Noisy(net.weight, net.bias)
        return judged(noisy, images, labels, n_classes=4, attack="fgsm", epsilons=(0.02,), chunk=2, device=device)

    first, torch_state = judge(), generator_state(device)
    assert "randomised" in first.flags
    assert "unseeded" not in first.flags
    assert found(judge()) == found(first)
    assert torch.equal(generator_state(device), torch_state)


class Astray(Linear):
    """A model of a user who forgot the device."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.zeros(4)


def test_a_model_with_a_tensor_on_the_cpu_is_an_error_in_a_line(device: str) -> None:
    net = linear(4)
    with pytest.raises(ModelError, match="Astray raised RuntimeError: Expected all tensors to be on the same device"):
        Judge(Classifier(Astray(net.weight, net.bias), n_classes=4, device=device)).answer(grey_images(2))


def test_the_doors_take_the_devices_name(device: str, digits: Dataset) -> None:
    test = Split(digits.test.images[:4], digits.test.labels[:4])
    few = Dataset("digits", digits.classes, digits.train, None, test)
    given: dict[str, Any] = {"attacks": ["fgsm"], "threat_model": odebench.ThreatModel(norm="linf", epsilons=(0.1,))}
    here, there = (
        odebench.evaluate(linear(10), few, images=odebench.Slice(chunk=4), device=place, **given)[0]
        for place in (device, "cpu")
    )
    assert comparable(here, device) == comparable(there, device)
    with pytest.raises(UsageError, match=f"no device 'other' on this machine; there is cpu, {device}"):
        odebench.evaluate(linear(10), few, device="other", **given)
