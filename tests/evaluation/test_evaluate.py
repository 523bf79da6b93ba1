"""Evaluations from a module to a result: figures, letters, errors, and what is skipped."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_model import SmallOde, Told
from torch import Tensor, nn

import odebench
from odebench import Dataset, Slice, ThreatModel
from odebench.attack.definition import AttackDefinition
from odebench.dataset import Split, load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.errors import AttackError, DatasetError, ModelError, ResultError, UsageError
from odebench.evaluation.evaluate import module_digest, run
from odebench.evaluation.execution import measure
from odebench.evaluation.loading import LoadedModels
from odebench.evaluation.model_reference import RegisteredModel
from odebench.evaluation.outcome_accumulator import Outcomes, ever_failed
from odebench.evaluation.plan import EvaluationRequest, Plan, plan
from odebench.evaluation.verdict import RANDOMISED_PASSES, Judge, Verdict
from odebench.io.files import FileError
from odebench.io.tensor_file import read_tensors, write_tensors
from odebench.model.classifier import Classifier
from odebench.model.definition import load_definition
from odebench.model.ode import OdeNet
from odebench.numerics.projection import ROUNDING
from odebench.numerics.seeding import seeded
from odebench.protocol.recipe import weights_path
from odebench.protocol.spec import AttackSpec, Evaluation, Solver, adaptive, fixed_step
from odebench.result.file import read_result, result_path, write_result
from odebench.result.schema import Result, letter_figures, outcomes_digest

LINF = ThreatModel(norm="linf", epsilons=(0.1,))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def halves(digits: Dataset) -> Dataset:
    """Digits below five against the others: two classes."""
    return Dataset.from_tensors("halves", digits.test.images, (digits.test.labels >= 5).long())


class Linear(nn.Module):
    """Two classes, logits (0, w.x + b), fitted by least squares."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        flat = torch.cat([images.flatten(1), torch.ones(len(images), 1)], dim=1)
        normal = flat.T @ flat + 1e-1 * torch.eye(flat.shape[1])
        solved = torch.linalg.solve(normal, flat.T @ (labels * 2.0 - 1.0))
        self.weight, self.bias = nn.Parameter(solved[:-1]), nn.Parameter(solved[-1:])

    def forward(self, images: Tensor) -> Tensor:
        margin = images.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


@pytest.fixture(scope="module")
def linear(digits: Dataset) -> Linear:
    assert digits.train is not None
    return Linear(digits.train.images, (digits.train.labels >= 5).long())


@pytest.fixture(scope="module")
def ode_net(digits: Dataset) -> SmallOde:
    """A Neural ODE that was trained on digits for a few epochs."""
    assert digits.train is not None
    with seeded(0):
        net = SmallOde()
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(6):
            for rows in torch.split(torch.randperm(len(digits.train)), 64):
                loss = nn.functional.cross_entropy(net(digits.train.images[rows]), digits.train.labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    net.zero_grad(set_to_none=True)
    return net.eval()


def evaluate(model: nn.Module, data: Dataset, **options: Any) -> Result:
    """One result: linf at 0.1 on the first hundred images, unless told otherwise."""
    options = {"threat_model": LINF, "images": Slice(n=100), **options}
    (result,) = odebench.evaluate(model, data, **options)
    return result


def outcomes(result: Result, index: int = 0) -> str:
    return result.epsilons[index].outcomes


def check(result: Result, number: int) -> Any:
    return next(check for check in result.checks if check.id == number)


# What a result says


def test_a_neural_ode_is_judged_end_to_end(ode_net: SmallOde, digits: Dataset, tmp_path: Path) -> None:
    own = Dataset.from_tensors("mine", digits.test.images[:200], digits.test.labels[:200])
    threat = ThreatModel(norm="linf", epsilons=(0.05, 0.15))
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    (result,) = odebench.evaluate(ode_net, own, threat_model=threat, name="small")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    evaluation = result.evaluation
    assert (evaluation.model.name, evaluation.horizon, evaluation.train_horizon) == ("small", 0.5, None)
    assert evaluation.solver == fixed_step(step=0.5)
    assert (evaluation.dataset.name, evaluation.dataset.n) == ("mine", 200)
    assert result.found.dataset_sha256 == own.test.sha256
    assert result.found.weights_sha256 == evaluation.model.weights == module_digest(ode_net)
    assert result.found.parameters == sum(parameter.numel() for parameter in ode_net.parameters())
    with torch.no_grad():
        correct = ode_net(own.test.images).argmax(1) == own.test.labels
    assert correct.float().mean() > 0.8
    for item in result.epsilons:
        for name, figure in letter_figures(item.outcomes).items():
            assert getattr(item.figures, name) == figure
        assert item.figures.clean_accuracy.value == pytest.approx(float(correct.float().mean()))
        assert [letter != "m" for letter in item.outcomes] == correct.tolist()
        assert item.figures.invalid == 0
        assert item.figures.norm_quantiles is not None
        assert 0 < item.figures.norm_quantiles.q05 <= item.figures.norm_quantiles.q95 <= item.epsilon + ROUNDING
        assert item.felled_by.legend == {"aa": "pgd"}
        assert item.felled_by.letters == "".join("aa" if letter == "f" else "--" for letter in item.outcomes)
    assert outcomes(result, 0).count("r") > outcomes(result, 1).count("r")
    assert outcomes(result, 1).count("f") > 50
    assert result.nfe.clean is not None
    assert result.nfe.adversarial is not None
    assert (result.nfe.clean.mean, result.nfe.clean.max, result.nfe.adversarial.mean) == (4.0, 4, 4.0)
    assert result.cost.forward > result.cost.backward > 1
    assert [check.id for check in result.checks] == [1, 2, 3, 5, 11, 14, 15, 17, 18, 19, 20, 21]
    assert {check.status for check in result.checks if check.id != 19} == {"pass"}
    assert result.flags == ()
    assert result.outcomes_sha256 == outcomes_digest(result.epsilons)
    assert read_result(write_result(result, tmp_path)) == result


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 0.1])
def test_pgd_on_a_linear_model_is_the_closed_form(linear: Linear, halves: Dataset, epsilon: float) -> None:
    images, labels = halves.test.images, halves.test.labels
    threat = ThreatModel(norm="linf", epsilons=(epsilon,))
    result = evaluate(linear, halves, threat_model=threat, images=Slice(n=500))
    with torch.no_grad():
        sign = (labels * 2 - 1).float()
        margin = sign * (linear(images)[:, 1])
        corner = (images - epsilon * (sign[:, None] * linear.weight.sign()).view_as(images)).clamp(0, 1)
        worst = sign * linear(corner)[:, 1]
    assert worst.abs().min() > 1e-5, "an image on the edge would be decided by rounding"
    expected = np.where(margin.numpy() <= 0, "m", np.where(worst.numpy() > 0, "r", "f"))
    assert outcomes(result) == "".join(expected)
    assert result.epsilons[0].figures.robust_accuracy.value == int((worst > 0).sum()) / 500
    if epsilon == 0.05:
        assert 50 < (worst > 0).sum() < 400


def test_cw_on_a_linear_model_never_beats_the_closed_form(linear: Linear, halves: Dataset) -> None:
    images, labels = halves.test.images[:100], halves.test.labels[:100]
    threat = ThreatModel(norm="l2", epsilons=(0.4,))
    result = evaluate(linear, halves, attacks=["cw"], threat_model=threat, parameters={"cw": {"steps": 60}})
    with torch.no_grad():
        length = (linear(images)[:, 1].abs() / linear.weight.norm()).numpy()
        wrong = (linear(images).argmax(1) != labels).numpy()
    for index, epsilon in enumerate(threat.epsilons):
        fooled = np.array(list(outcomes(result, index))) == "f"
        assert fooled.sum() > 5
        assert (length[fooled] <= epsilon * (1 + 1e-5)).all()
        assert not fooled[wrong].any()
    assert result.evaluation.attack.parameters["searches"] == 6
    assert check(result, 14).status == "skipped"


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_letters_do_not_depend_on_how_many_images_were_asked_for(
    ode_net: SmallOde, digits: Dataset, attack: str
) -> None:
    whole = evaluate(ode_net, digits, attacks=[attack], images=Slice(n=300))
    first = evaluate(ode_net, digits, attacks=[attack], images=Slice(n=200))
    last = evaluate(ode_net, digits, attacks=[attack], images=Slice(n=100, offset=200))
    assert outcomes(first) == outcomes(whole)[:200]
    assert outcomes(last) == outcomes(whole)[200:]
    assert first.run_key != whole.run_key != last.run_key
    assert set(outcomes(whole)) == {"m", "f", "r"}


def test_a_result_is_the_same_when_found_again(ode_net: SmallOde, digits: Dataset) -> None:
    torch.manual_seed(1)
    first = evaluate(ode_net, digits)
    torch.manual_seed(2)
    again = evaluate(ode_net, digits)
    assert (again.run_key, again.outcomes_sha256) == (first.run_key, first.outcomes_sha256)
    assert again.epsilons == first.epsilons
    other = evaluate(ode_net, digits, attack_seed=1)
    assert other.run_key != first.run_key


def test_several_attacks_give_a_result_each(linear: Linear, halves: Dataset) -> None:
    results = odebench.evaluate(linear, halves, attacks=["fgsm", "pgd"], threat_model=LINF, images=Slice(n=100))
    assert [result.evaluation.attack.name for result in results] == ["fgsm", "pgd"]
    # On a linear model one step of epsilon is the optimum already.
    assert outcomes(results[0]) == outcomes(results[1])
    assert results[0].evaluation.attack.parameters == {}


def test_the_grid_of_the_data_set_is_the_default(linear: Linear, digits: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    (result,) = odebench.evaluate(net, "digits", attacks=["fgsm"], images=Slice(n=100))
    assert result.evaluation.threat_model == ThreatModel(norm="linf", epsilons=(0.05, 0.1, 0.15))
    assert result.found.dataset_sha256 == digits.test.sha256
    assert result.nfe.clean is None


def test_a_short_last_chunk_is_evaluated(linear: Linear, halves: Dataset) -> None:
    data = Dataset.from_tensors("halves", halves.test.images[:130], halves.test.labels[:130])
    result = evaluate(linear, data, images=None)
    assert len(outcomes(result)) == 130
    tail = evaluate(linear, data, images=Slice(offset=100))
    assert outcomes(tail) == outcomes(result)[100:]


def test_a_model_that_is_never_right_has_a_result(halves: Dataset) -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), 2) + 0 * images.flatten(1)[:, :1]

    result = evaluate(Constant(), halves)
    assert outcomes(result) == "m" * 100
    assert result.epsilons[0].figures.norm_quantiles is None
    assert result.nfe.adversarial is None


# Modes of the module


class Moody(nn.Module):
    """A linear model with dropout: random in training mode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.dropout, self.still, self.inner = nn.Dropout(0.5), nn.Dropout(0.5), inner

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(self.still(self.dropout(images)))


def test_a_module_is_handed_back_as_it_was(linear: Linear, halves: Dataset) -> None:
    inner = Linear(halves.test.images, halves.test.labels)
    inner.load_state_dict(linear.state_dict())
    model = Moody(inner).train()
    model.still.eval()
    inner.bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = evaluate(model, halves)
    assert outcomes(result) == outcomes(evaluate(linear, halves))
    assert (model.training, model.dropout.training, model.still.training) == (True, True, False)
    assert (inner.weight.requires_grad, inner.bias.requires_grad) == (True, False)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_module_is_handed_back_as_it_was_after_an_error(halves: Dataset) -> None:
    class Failing(Moody):
        calls = 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            raise RuntimeError("no answer")

    model = Failing(nn.Linear(2, 2)).train()
    with pytest.raises(ModelError, match="Failing raised RuntimeError: no answer"):
        evaluate(model, halves)
    assert model.dropout.training
    assert model.calls == 0
    assert all(parameter.requires_grad for parameter in model.parameters())


class _Backsolved(torch.autograd.Function):
    """A solver with a hand-written adjoint, which asks for the gradient of its parameter in any case."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, rate: Tensor) -> Tensor:
        ctx.save_for_backward(state, rate)
        return state * rate.exp()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        state, rate = ctx.saved_tensors
        with torch.enable_grad():
            (found,) = torch.autograd.grad((state * rate.exp()).flatten(), rate, gradients[0].flatten())
        return gradients[0] * rate.exp(), found


class Backsolving(nn.Module):
    """Counts the calls of its solver, and keeps its rate flat, as torchdyn does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.nfe = inner, 0
        self.rate = nn.Parameter(torch.zeros(1))
        self.flat = self.rate.flatten() * 1.0

    def forward(self, images: Tensor) -> Tensor:
        self.nfe += 1
        self.flat = self.rate.flatten() * 1.0
        logits: Tensor = self.inner(_Backsolved.apply(images, self.flat))
        return logits


def test_an_adjoint_that_needs_its_parameters_leaves_nothing_in_the_module(linear: Linear, halves: Dataset) -> None:
    model = Backsolving(copy.deepcopy(linear)).train()
    model(halves.test.images[:4]).sum().backward()
    gradients = {name: (one.grad, one.grad.clone()) for name, one in model.named_parameters() if one.grad is not None}
    flat, told = model.flat, Told()
    result = evaluate(model, halves, progress=told, name="mine")
    assert outcomes(result) == outcomes(evaluate(linear, halves))
    assert not result.flags
    assert "mine: no gradient without those of its parameters, so every gradient costs theirs too" in told.lines
    assert len(gradients) == 3
    for name, one in model.named_parameters():
        assert one.requires_grad
        assert one.grad is gradients[name][0]
        assert torch.equal(one.grad, gradients[name][1])
    assert (model.nfe, model.flat is flat) == (1, True)


def test_a_source_may_have_an_adjoint_that_needs_its_parameters(linear: Linear, halves: Dataset) -> None:
    told, given = Told(), {"attacks": ["transfer"], "images": 20}
    source = Backsolving(copy.deepcopy(linear))
    result = evaluate(linear, halves, sources={"other": source}, progress=told, **given)
    assert outcomes(result) == outcomes(evaluate(linear, halves, sources={"other": linear}, **given))
    said = "source other: no gradient without those of its parameters, so every gradient costs theirs too"
    assert told.lines.count(said) == 1
    assert all(one.grad is None for one in source.parameters())


@pytest.mark.parametrize("break_", ["forward", "backward"])
def test_a_source_that_gives_no_gradient_is_named_before_any_attack(
    linear: Linear, halves: Dataset, break_: str
) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = linear(images)
            if break_ == "backward" and logits.requires_grad:
                logits.register_hook(lambda _: [].pop())
            return logits if break_ == "backward" else logits[:1]

    asked: list[Tensor] = []
    model = copy.deepcopy(linear)
    model.register_forward_hook(lambda _, given, __: asked.append(given[0]))
    said = {
        "forward": "Broken returned logits of shape",
        "backward": "the gradient of Broken cannot be taken: IndexError",
    }
    with pytest.raises(ModelError, match=f"^source poor: {said[break_]}"):
        odebench.evaluate(
            model, halves, attacks=["fgsm", "transfer"], sources={"poor": Broken()}, threat_model=LINF, images=20
        )
    assert not asked


def test_what_a_module_is_decides_its_digest(linear: Linear) -> None:
    class Other(Linear):
        pass

    twin = Linear(torch.rand(80, 1, 8, 8), torch.zeros(80))
    assert module_digest(twin) != module_digest(linear)
    twin.load_state_dict(linear.state_dict())
    assert module_digest(twin) == module_digest(linear)
    twin.__class__ = Other
    assert module_digest(twin) != module_digest(linear)


# Models that misbehave


class Centred(nn.Module):
    """A model that subtracts the mean of its batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        shift = images.mean(0, keepdim=True) if len(images) > 1 else 0.0
        return self.inner(images - shift)


def test_a_model_that_looks_at_the_batch_is_judged_alone(linear: Linear, halves: Dataset) -> None:
    result = evaluate(Centred(linear), halves)
    assert check(result, 15).status == "flag"
    assert "batch-coupled" in result.flags
    images, labels = halves.test.images[:100], halves.test.labels[:100]
    with torch.no_grad():
        alone = linear(images).argmax(1) == labels
        batch = Centred(linear)(images).argmax(1) == labels
    assert (alone != batch).any()
    assert [letter != "m" for letter in outcomes(result)] == alone.tolist()


def test_a_model_that_is_robust_only_in_its_batch_is_attacked_alone(linear: Linear, halves: Dataset) -> None:
    plain = evaluate(linear, halves, attacks=["pgd"], threat_model=LINF)
    hidden = evaluate(Centred(linear), halves, attacks=["pgd"], threat_model=LINF)
    assert "batch-coupled" in hidden.flags
    # Alone it is another linear model; what fells it was found where it is judged.
    fell = [letter == "f" for letter in outcomes(hidden)]
    assert sum(fell) > 20
    asked: list[int] = []
    module = Centred(linear)
    module.register_forward_hook(lambda _, given, __: asked.append(len(given[0])) if given[0].requires_grad else None)
    evaluate(module, halves, attacks=["pgd"], threat_model=LINF, images=Slice(n=20, chunk=20))
    assert asked.count(1) > 20 * len([size for size in asked if size > 1])
    assert outcomes(plain).count("f") > 20


def test_a_solver_that_shares_its_step_is_judged_alone(ode_net: SmallOde, digits: Dataset) -> None:
    solver = adaptive("dopri5", rtol=1e-2, backend="torchdiffeq")
    result = evaluate(ode_net, digits, solver=solver, images=Slice(n=10, chunk=10), attacks=["fgsm"])
    assert "batch-coupled" in result.flags
    assert result.evaluation.solver == solver
    assert len(outcomes(result)) == 10


def test_several_attacks_share_what_is_known_of_the_model(linear: Linear, halves: Dataset) -> None:
    asked: list[int] = []

    def counted(attacks: list[str]) -> tuple[int, list[Result]]:
        asked.clear()
        hook = linear.register_forward_hook(lambda *_: asked.append(1))
        found = odebench.evaluate(linear, halves, attacks=attacks, threat_model=LINF, images=Slice(n=100))
        hook.remove()
        return len(asked), found

    (one, (fgsm,)), (other, (noise,)), (both, together) = (
        counted(["fgsm"]),
        counted(["noise"]),
        counted(["fgsm", "noise"]),
    )
    assert [outcomes(result) for result in together] == [outcomes(fgsm), outcomes(noise)]
    assert [result.cost.forward for result in together] == [fgsm.cost.forward, noise.cost.forward]
    assert [result.checks for result in together] == [fgsm.checks, noise.checks]
    # Five passes of check 2, 200 points asked alone by check 15, and more.
    assert both < one + other - 200


class Noisy(nn.Module):
    """A model that sees its images through noise."""

    def __init__(self, inner: nn.Module, noise: float) -> None:
        super().__init__()
        self.inner, self.noise = inner, noise

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images + self.noise * torch.randn_like(images))
        return logits


def test_a_random_model_is_judged_over_passes_and_flagged(linear: Linear, halves: Dataset) -> None:
    told = Told()
    attacked: dict[str, Any] = {
        "attacks": ["pgd"],
        "parameters": {"pgd": {"steps": 5}},
        "threat_model": ThreatModel(norm="linf", epsilons=(0.02,)),
        "images": Slice(n=20, chunk=20),
    }
    first = evaluate(Noisy(linear, 0.05), halves, progress=told, **attacked)
    again = evaluate(Noisy(linear, 0.05), halves, **attacked)
    assert any("Noisy is randomised" in line and "20 passes" in line for line in told.lines)
    assert "randomised" in first.flags
    assert "determinism" not in first.flags
    assert check(first, 2).status == "flag"
    assert (check(first, 15).status, check(first, 17).status) == ("pass", "skipped")
    assert not {"batch-coupled", "unseeded"} & set(first.flags)
    assert outcomes(first) == outcomes(again), "the passes are seeded"
    assert {"f", "r"} <= set(outcomes(first))
    # Every gradient is averaged over as many passes.
    assert first.cost.backward >= 20


class NoisyInItsBatch(Noisy):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images / 2 + images.mean(0, keepdim=True) / 2)


@pytest.mark.usefixtures("few_passes")
def test_a_random_model_that_looks_at_its_batch_is_attacked_as_it_is_judged(linear: Linear, halves: Dataset) -> None:
    attacked: dict[str, Any] = {
        "attacks": ["pgd"],
        "parameters": {"pgd": {"steps": 5}},
        "threat_model": ThreatModel(norm="linf", epsilons=(0.02,)),
        "images": Slice(n=20, chunk=20),
    }
    honest = evaluate(Noisy(linear, 1e-3), halves, **attacked)
    hidden = evaluate(NoisyInItsBatch(linear, 1e-3), halves, **attacked)
    assert {"randomised", "batch-coupled"} <= set(hidden.flags)
    assert check(hidden, 15).status == "flag"
    assert "batch-coupled" not in honest.flags
    # Alone an image is its batch's mean: the two models are one.
    assert abs(outcomes(hidden).count("r") - outcomes(honest).count("r")) <= 1


@pytest.mark.usefixtures("few_passes")
def test_a_generator_that_no_seed_reaches_is_said(linear: Linear, halves: Dataset) -> None:
    class Own(Noisy):
        def forward(self, images: Tensor) -> Tensor:
            if not hasattr(self, "own"):
                self.own = torch.Generator().manual_seed(0)
            noise = torch.randn(images.shape, generator=self.own)
            logits: Tensor = self.inner(images + self.noise * noise)
            return logits

    told = Told()
    result = evaluate(Own(linear, 0.05), halves, attacks=["fgsm"], images=Slice(n=20, chunk=20), progress=told)
    assert {"randomised", "unseeded"} <= set(result.flags)
    assert any("letters differ between runs" in line for line in told.lines)


class Answers(nn.Module):
    """A model that gives back what it is told to."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


def no_key(images: Tensor) -> Any:
    return {}["logits"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda images: torch.zeros(len(images), 3), r"shape \(100, 3\) for 100 images of 2 classes; expected \(100,"),
        (lambda images: torch.zeros(len(images)), r"shape \(100,\) for 100 images of 2 classes"),
        (lambda images: torch.zeros(1, 2), r"shape \(1, 2\) for 100 images of 2 classes"),
        (lambda images: (torch.zeros(len(images), 2),), "Answers returned tuple, not a tensor of logits"),
        (lambda images: torch.zeros(len(images), 2, dtype=torch.long), "returned torch.int64, not floating-point"),
        (lambda images: images @ torch.zeros(3, 3), "Answers raised RuntimeError: .*"),
        (no_key, "Answers raised KeyError: 'logits'"),
    ],
)
def test_a_model_that_is_no_classifier_is_refused(
    halves: Dataset, answer: Callable[[Tensor], Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        evaluate(Answers(answer), halves)


def test_only_modules_are_judged(halves: Dataset) -> None:
    with pytest.raises(ModelError, match=r"expected a torch.nn.Module, not function"):
        evaluate(lambda images: images, halves)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"expected a torch.nn.Module, not the class Linear: make one"):
        evaluate(nn.Linear, halves)  # type: ignore[arg-type]


def test_a_solver_that_is_none_and_one_for_no_field_are_refused(linear: Linear, halves: Dataset) -> None:
    with pytest.raises(ModelError, match="Linear has no field to integrate: it takes no horizon and no solver"):
        evaluate(linear, halves, horizon=2.0)
    broken = OdeNet(image_shape=(1, 8, 8), n_classes=2, channels=4, stem="pool", horizon=1.0, solver="rk4")
    with pytest.raises(ModelError, match=r"OdeNet.solver must be an odebench.Solver, not str"):
        evaluate(broken, halves)


def test_outputs_that_hamper_attacks_are_flagged(linear: Linear, halves: Dataset) -> None:
    soft = evaluate(nn.Sequential(linear, nn.Softmax(1)), halves)
    assert soft.flags == ("logits, not probabilities",)

    saturated = evaluate(Answers(lambda images: linear(images) * 1e4).eval(), halves)
    assert "gradient availability" in saturated.flags
    assert outcomes(saturated).count("r") > outcomes(evaluate(linear, halves)).count("r")


def test_a_model_without_a_gradient_is_flagged_not_refused(linear: Linear, halves: Dataset) -> None:
    result = evaluate(Answers(lambda images: linear(images).detach()), halves)
    # The captured model cannot be taken to fp64, so its gradient cannot be confirmed either.
    assert result.flags == ("gradient availability", "random noise", "useful gradient", "opaque-gradient")
    assert check(result, 1).k == check(result, 1).n == 100 - outcomes(result).count("m")


# Gradients that cannot be confirmed


class Mirror(nn.Module):
    """A module whose logits are right and whose gradient points the other way."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(2 * images.detach() - images)
        return logits


class Single(nn.Module):
    """A module that wants single precision, so that no differences can be taken."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32, "single precision, please"
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize(("wrap", "status"), [(Mirror, "flag"), (Single, "skipped")])
def test_an_opaque_module_gets_square_and_transfer_with_twice_the_budget(
    linear: Linear, halves: Dataset, wrap: Callable[[nn.Module], nn.Module], status: str
) -> None:
    given: dict[str, Any] = {"attacks": ["worst-case"], "images": Slice(n=20, chunk=20)}
    given["parameters"] = {"worst-case": {"effort": "fast"}}
    opaque = evaluate(wrap(linear), halves, sources={"twin": linear}, **given)
    assert check(opaque, 17).status == status
    assert "opaque-gradient" in opaque.flags
    names = [name.partition(" at ")[0] for name in opaque.epsilons[0].felled_by.legend.values()]
    twice = ["pgd 20", "apgd-ce 50", "apgd-t 1x50", "transfer 50", "square 500"]
    assert names == ["fgsm", *(f"{name} doubled" for name in twice)]
    honest = evaluate(linear, halves, sources={"twin": linear}, **given)
    assert check(honest, 17).status == "pass"
    assert honest.flags == ()
    names = [name.partition(" at ")[0] for name in honest.epsilons[0].felled_by.legend.values()]
    assert names[-2:] == ["transfer 50", "square 500"]
    # The mirror hides the falls from gradients, and from nothing else.
    assert outcomes(opaque).count("r") <= outcomes(honest).count("r") + 1


def test_the_doubled_budget_is_spent(linear: Linear, halves: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: dict[str, Any] = {}

    def remember(name: str) -> Callable[..., Tensor]:
        def attack(model: nn.Module, images: Tensor, labels: Tensor, **given: Any) -> Tensor:
            spent[name] = {key: given[key] for key in ("steps", "queries") if key in given}
            return images

        return attack

    monkeypatch.setattr("odebench.attack.transfer.transfer", remember("transfer"))
    monkeypatch.setattr("odebench.attack.autoattack.square", remember("square"))
    for model in (linear, Mirror(linear)):
        given: dict[str, Any] = {"attacks": ["worst-case"], "images": Slice(n=20, chunk=20)}
        given["parameters"] = {"worst-case": {"effort": "fast"}}
        evaluate(
            model, halves, sources={"twin": linear}, threat_model=ThreatModel(norm="linf", epsilons=(1e-3,)), **given
        )
        factor = 1 if model is linear else 2
        assert spent == {"transfer": {"steps": 50 * factor}, "square": {"queries": 500 * factor}}
    # Alone too, they are asked for more.
    evaluate(Mirror(linear), halves, attacks=["square"], parameters={"square": {"queries": 7}}, images=Slice(n=100))
    assert spent["square"] == {"queries": 14}


def test_an_opaque_module_is_attacked_from_a_second_start_with_random_numbers_of_its_own(
    linear: Linear, halves: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def attack(model: nn.Module, images: Tensor, labels: Tensor, **given: Any) -> Tensor:
        seeds.append(given["seed"])
        return images

    monkeypatch.setattr("odebench.attack.foolbox.pgd", attack)
    for attacks, alone, opaque in ((["pgd"], 1, 2), (["quick-diagnosis"], 1, 1)):
        for model, count in ((linear, alone), (Mirror(linear), opaque)):
            before = seeds[:1] if model is not linear else []
            seeds.clear()
            threat = ThreatModel(norm="linf", epsilons=(1e-3,))
            evaluate(model, halves, attacks=attacks, threat_model=threat, images=Slice(n=20, chunk=20))
            assert len(seeds) == len(set(seeds)) == count
            assert before in ([], seeds[:1]), "the first start is the one that an honest module gets"


def test_a_gradient_is_looked_at_of_modules_alone_that_are_handed_over(trained: Path, digits: Dataset) -> None:
    result, _, _ = run(a_plan(), digits, results=trained / "unflagged")
    assert [check.id for check in result.checks] == [1, 2, 3, 14, 15, 18]
    assert "opaque-gradient" not in result.flags


# Randomised models


def test_candidates_for_a_random_model_are_judged_over_passes_too(linear: Linear, halves: Dataset) -> None:
    images, labels = halves.test.images[:20], halves.test.labels[:20]
    noisy = Noisy(linear, 0.05)
    asked = Classifier(noisy, n_classes=2)
    candidates = (images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    evaluation = replace_attack(evaluate(noisy, halves, attacks=["fgsm"], images=Slice(n=20, chunk=20)).evaluation)
    models = LoadedModels(asked, "0" * 64, handed_over=False)
    result = measure(evaluation, models, halves.test, candidates={0.1: candidates}).result(evaluation)
    judge = Judge(asked, passes=RANDOMISED_PASSES, seed=0)
    clean = judge.clean(images, labels)
    letters = judge.candidates(images, labels, candidates, norm="linf", epsilon=0.1).letters
    assert outcomes(result) == "".join(np.where(clean == "r", letters, clean))
    assert result.flags == ("randomised",)


def replace_attack(evaluation: Evaluation) -> Evaluation:
    """The evaluation of candidates made elsewhere, for the same model and images."""
    attack = AttackSpec(name="candidates", parameters={"file_sha256": "0" * 64, "credit": "me"}, seed=0)
    return evaluation.model_copy(update={"attack": attack})


@pytest.mark.usefixtures("few_passes")
def test_letters_of_a_random_model_do_not_depend_on_the_slice(linear: Linear, halves: Dataset) -> None:
    noisy = Noisy(linear, 0.05)
    given: dict[str, Any] = {"attacks": ["fgsm"], "threat_model": ThreatModel(norm="linf", epsilons=(0.02,))}
    whole = evaluate(noisy, halves, images=Slice(n=20, chunk=10), **given)
    part = evaluate(noisy, halves, images=Slice(n=10, offset=10, chunk=10), **given)
    assert outcomes(part) == outcomes(whole)[10:]
    assert "randomised" in part.flags
    other = evaluate(noisy, halves, images=Slice(n=20, chunk=10), attack_seed=3, **given)
    assert other.run_key != whole.run_key


# Modules that misbehave on the way


class Misbehaving(nn.Module):
    """A linear model that does something besides."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.inner(self.seen(images))
        return logits

    def seen(self, images: Tensor) -> Tensor:
        return images


class InPlace(Misbehaving):
    def seen(self, images: Tensor) -> Tensor:
        return images.mul_(0.9).add_(0.01)


def test_a_module_that_changes_its_input_in_place_changes_nothing_else(linear: Linear, halves: Dataset) -> None:
    before = halves.test.images[:100].clone()
    result = evaluate(InPlace(linear), halves, attacks=["worst-case"], parameters={"worst-case": {"effort": "fast"}})
    assert torch.equal(halves.test.images[:100], before)
    honest = evaluate(
        nn.Sequential(Shrink(), linear), halves, attacks=["worst-case"], parameters={"worst-case": {"effort": "fast"}}
    )
    assert outcomes(result) == outcomes(honest)
    assert result.flags == honest.flags == ("no-transfer",)
    assert check(result, 17).status == "pass"


class Shrink(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images * 0.9 + 0.01


class WithoutGrad(Misbehaving):
    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(images)


class Inferring(Misbehaving):
    def forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return super().forward(images)


class OnlyWeights(Misbehaving):
    """The output needs a gradient, but not that of its input."""

    def seen(self, images: Tensor) -> Tensor:
        return images.detach()


@pytest.mark.parametrize(
    "kind", [WithoutGrad, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (Inferring, OnlyWeights))]
)
def test_a_module_that_needs_gradients_off_is_attacked_without_them(
    linear: Linear, halves: Dataset, kind: Callable[[nn.Module], nn.Module]
) -> None:
    asked: dict[str, Any] = {"attacks": ["worst-case"], "images": Slice(n=20, chunk=20)}
    by_default = evaluate(kind(linear), halves, **asked)
    assert "check 17, gradient fidelity, flags" in by_default.doubt
    result = evaluate(kind(linear), halves, parameters={"worst-case": {"effort": "fast"}}, **asked)
    assert outcomes(by_default).count("r") <= outcomes(result).count("r") + 1
    assert {"gradient availability", "gradient fidelity", "opaque-gradient", "no-transfer"} <= set(result.flags)
    assert check(result, 1).k == check(result, 1).n == 20 - outcomes(result).count("m")
    assert check(result, 17).status == "flag"
    assert check(result, 17).figure == 0.0
    felled = result.epsilons[0].felled_by
    by = [felled.legend[code].partition(" at ")[0] for code in felled.codes(20) if code != "--"]
    # Random starts fell some, and square, which asks for no gradient, most of the others.
    assert set(by) <= {f"{name} doubled" for name in ("pgd 20", "apgd-ce 50", "apgd-t 1x50", "square 500")}
    assert by.count("square 500 doubled") > outcomes(result).count("r")


class Quitting(Misbehaving):
    def seen(self, images: Tensor) -> Tensor:
        if self.calls == 2:
            raise RuntimeError("out of order")
        return images


class Ungraded(Misbehaving):
    def seen(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("no gradients here")
        return images


class Stubborn(Misbehaving):
    def seen(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            images.register_hook(self.refuse)
        return images

    @staticmethod
    def refuse(gradient: Tensor) -> Tensor:
        raise AssertionError("underflow in dt 0.0")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Quitting, "Quitting raised RuntimeError: out of order"),
        (Ungraded, "Ungraded raised RuntimeError: no gradients here"),
        (Stubborn, "the gradient of Stubborn cannot be taken: AssertionError: underflow in dt 0.0"),
    ],
)
@pytest.mark.parametrize("attack", ["pgd", "quick-diagnosis"])
def test_a_module_that_raises_on_the_way_is_an_error_that_names_it(
    linear: Linear, halves: Dataset, kind: Callable[[nn.Module], nn.Module], message: str, attack: str
) -> None:
    with pytest.raises(ModelError, match=f"^{message}$"):
        evaluate(kind(linear), halves, attacks=[attack])


class Normed(nn.Module):
    """A module with batch norm, which in training mode looks at its neighbours and changes itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.norm, self.inner = nn.BatchNorm2d(1), inner
        self.norm.running_mean += 0.1
        self.norm.running_var *= 0.5

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(self.norm(images))
        return logits


def test_batch_norm_in_training_mode_is_judged_in_evaluation_mode_and_put_back(linear: Linear, halves: Dataset) -> None:
    model = Normed(linear).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = evaluate(model, halves)
    assert model.norm.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "batch-coupled" not in result.flags
    assert check(result, 17).status == "pass"
    with torch.no_grad():
        model.eval()
        right = model(halves.test.images[:100]).argmax(1) == halves.test.labels[:100]
    assert [letter != "m" for letter in outcomes(result)] == right.tolist()


def test_a_module_that_never_answers_is_failed_throughout(halves: Dataset) -> None:
    def failing_answer(images: Tensor) -> Tensor:
        return torch.full((len(images), 2), torch.nan) + 0 * images.flatten(1)[:, :1]

    result = evaluate(Answers(failing_answer), halves)
    assert outcomes(result) == "u" * 100
    assert result.epsilons[0].figures.clean_accuracy.value == 0
    assert check(result, 18).status == "flag"
    assert check(result, 18).evidence == {"clean": 100, "attacked": 0}
    assert "solver failure" in result.flags


# Parameters of the attacks


def test_parameters_reach_their_attack(linear: Linear, halves: Dataset) -> None:
    results = odebench.evaluate(
        linear,
        halves,
        attacks=["fgsm", "pgd"],
        threat_model=LINF,
        images=Slice(n=100),
        parameters={"pgd": {"steps": 3, "random_start": False}},
    )
    assert results[0].evaluation.attack.parameters == {}
    assert results[1].evaluation.attack.parameters == {
        "steps": 3,
        "random_start": False,
        "relative_step": pytest.approx(2.5 / 3),
    }
    assert check(results[1], 14).figure == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pdg": {"steps": 3}}, "parameters for pdg, which is not among the attacks"),
        ({"cw": {}, "apgd-ce": {}, "pgd": {}}, "parameters for apgd-ce, cw, which is not among the attacks"),
        ({"pgd": {"stesp": 3}}, "pgd has no parameter stesp; known: steps, random_start, relative_step"),
        ({"pgd": {"steps": 0}}, "pgd: steps must be a whole number of at least 1, not 0"),
    ],
)
def test_parameters_that_are_none_are_refused(
    linear: Linear, halves: Dataset, monkeypatch: pytest.MonkeyPatch, parameters: Any, message: str
) -> None:
    monkeypatch.setattr("odebench.evaluation.evaluate.measure", untouchable)
    with pytest.raises(UsageError, match=message):
        evaluate(linear, halves, parameters=parameters)


# Failing solvers


class Fuse(nn.Module):
    """An ODE classifier of the first pixel, whose state blows up where the last pixel is above 0.53 or so."""

    def __init__(self, solver: Solver | None = None) -> None:
        super().__init__()
        self.horizon, self.solver = 1.0, solver or fixed_step(step=0.1)

    def stem(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return torch.stack([flat[:, 0], (flat[:, -1] - 0.5).clamp_min(0)], dim=1)

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        # u' = 40 u^2 reaches infinity at 1 / (40 u): before the horizon for u above 0.025.
        return torch.stack([torch.zeros_like(state[:, 0]), 40 * state[:, 1] ** 2], dim=1)

    def head(self, state: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(state[:, 0]), state[:, 0] - 0.5], dim=1)


def fuse_data(last: Tensor, *, spread: float) -> Dataset:
    """Images of class 1 whose first pixel is 0.9; `spread` is how far apart they lie."""
    images = 0.5 + spread * (torch.rand(len(last), 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5)
    images[:, 0, 0, 0] = 0.9
    images[:, 0, -1, -1] = last
    return Dataset.from_tensors("fuse", images, torch.ones(len(last), dtype=torch.long))


def test_a_failing_solver_is_u_or_x_and_never_r() -> None:
    data = fuse_data(torch.tensor([0.9, 0.2, 0.48, 0.48, 0.9] * 20), spread=0.9)
    last = data.test.images[:, 0, -1, -1]
    result = evaluate(Fuse(), data)
    letters = np.array(list(outcomes(result)))
    assert (letters[last.numpy() > 0.8] == "u").all()
    assert (letters[last.numpy() < 0.3] == "r").all()
    # At 0.48 the random start reaches the fuse for a quarter of the images; no gradient leads there.
    reached = letters[(last.numpy() > 0.4) & (last.numpy() < 0.5)]
    assert set(reached) == {"r", "x"}
    assert 2 <= (reached == "x").sum() <= 20
    figures = result.epsilons[0].figures
    assert figures.clean_accuracy.value == 0.6
    assert figures.robust_accuracy.value == (letters == "r").mean()
    assert result.epsilons[0].felled_by.letters.count("aa") == (letters == "x").sum()
    assert figures.norm_quantiles is None
    failing = check(result, 18)
    assert (failing.status, failing.k, failing.n) == ("flag", 40 + (letters == "x").sum(), 100)
    assert "solver failure" in result.flags


def test_an_adaptive_solver_that_fails_is_x(monkeypatch: pytest.MonkeyPatch) -> None:
    def attack(model: nn.Module, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
        return torch.cat([failing(images[:2]), images[2:4], fooling(images[4:])])

    data = fuse_data(torch.tensor([0.5] * 5 + [0.9]), spread=0.5)
    solver = adaptive("dopri5", rtol=1e-2, max_steps=10)
    result = run_plugged(monkeypatch, attack, Fuse(solver), data, threat_model=REACH, images=None)
    last = data.test.images[:, 0, -1, -1]
    assert sorted(outcomes(result)) == sorted("xxrrfu")
    assert outcomes(result)[int(last.argmax())] == "u"


def test_a_point_of_failure_is_a_candidate_for_every_image_near_it() -> None:
    result = evaluate(Fuse(), fuse_data(torch.full((50,), 0.48), spread=0.001), images=None)
    assert outcomes(result) == "x" * 50
    # Another chunk is another attack, and a point out of reach is no candidate.
    far = evaluate(Fuse(), fuse_data(torch.full((50,), 0.48), spread=0.9), images=None)
    assert 0 < outcomes(far).count("x") < 25


def test_logits_that_are_not_finite_are_failures(linear: Linear, halves: Dataset) -> None:
    def answer(images: Tensor) -> Tensor:
        logits = linear(images)
        return torch.where((images.flatten(1).sum(1) > 20)[:, None], torch.nan, logits)

    result = evaluate(Answers(answer), halves)
    bright = halves.test.images[:100].flatten(1).sum(1) > 20
    assert 0 < bright.sum() < 100
    assert [letter == "u" for letter in outcomes(result)] == bright.tolist()
    assert outcomes(result).count("x") > 0


# Attacks from elsewhere, by the door that plugins use


def plug(monkeypatch: pytest.MonkeyPatch, **definitions: AttackDefinition) -> None:
    for name, definition in definitions.items():
        monkeypatch.setitem(globals(), f"PLUGGED_{name}", definition)

    def points(*, group: str) -> list[EntryPoint]:
        names = definitions if group == "odebench.attacks" else {}
        return [EntryPoint(name, f"{__name__}:PLUGGED_{name}", group) for name in names]

    monkeypatch.setattr("odebench.registry.entry_points", points)


def plugged(function: str, **changes: Any) -> AttackDefinition:
    return replace(AttackDefinition("plugged", f"{__name__}:{function}", ("linf", "l2"), {}), **changes)


def run_plugged(
    monkeypatch: pytest.MonkeyPatch, attack: Callable[..., Any], model: nn.Module, data: Dataset, **options: Any
) -> Result:
    monkeypatch.setitem(globals(), "plugged_attack", attack)
    plug(monkeypatch, plugged=plugged("plugged_attack"))
    return evaluate(model, data, attacks=["plugged"], **options)


def dark_and_bright() -> Dataset:
    """Twenty images of class 1 for Fuse, far from its fuse."""
    return fuse_data(torch.full((20,), 0.5), spread=0.5)


FOOLING, FAILING = 0.4, 0.6
REACH = ThreatModel(norm="linf", epsilons=(0.5,))


def fooling(images: Tensor) -> Tensor:
    found = images.clone()
    found[:, 0, 0, 0] = FOOLING
    return found


def failing(images: Tensor) -> Tensor:
    found = images.clone()
    found[:, 0, -1, -1] = FAILING
    return found


def test_a_verified_fall_stays_whatever_the_attack_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []

    def attack(model: nn.Module, images: Tensor, labels: Tensor, *, fallen: Any, **_: Any) -> Tensor:
        rows = torch.arange(len(images))
        masks.append(fallen(rows[:5], fooling(images[:5])))
        masks.append(fallen(rows[5:9], failing(images[5:9])))
        masks.append(fallen(rows[9:12], images[9:12]))
        # f outranks x, in either order.
        fallen(rows[3:5], failing(images[3:5]))
        fallen(rows[7:9], fooling(images[7:9]))
        # An answered letter is not lost to a harmless candidate.
        fallen(rows[:1], images[:1])
        masks.append(fallen(rows[:0], images[:0]))
        # Nor is it judged again: the sixth stays a failure.
        return torch.cat([images[:5], fooling(images[5:6]), images[6:]])

    result = run_plugged(monkeypatch, attack, Fuse(), dark_and_bright(), threat_model=REACH, images=None)
    assert [mask.tolist() for mask in masks] == [[True] * 5, [True] * 4, [False] * 3, []]
    assert outcomes(result) == "f" * 5 + "x" * 2 + "f" * 2 + "r" * 11
    assert result.epsilons[0].felled_by.letters == "aa" * 9 + "--" * 11
    assert result.epsilons[0].felled_by.legend == {"aa": "plugged"}


def test_fallen_judges_by_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []

    def attack(model: nn.Module, images: Tensor, labels: Tensor, *, fallen: Any, **_: Any) -> Tensor:
        masks.append(fallen(torch.arange(len(images)), fooling(images)))
        return fooling(images)

    with pytest.warns(UserWarning, match="20 candidates of 20 attacked images are invalid"):
        result = run_plugged(monkeypatch, attack, Fuse(), dark_and_bright(), images=None)
    assert masks[0].tolist() == [False] * 20
    assert outcomes(result) == "r" * 20
    assert result.epsilons[0].figures.invalid == 20


def test_points_of_failure_of_the_attack_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def attack(model: nn.Module, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
        assert (model(failing(images[:3])) == 0).all()
        return images

    result = run_plugged(monkeypatch, attack, Fuse(), dark_and_bright(), images=None)
    assert outcomes(result)[:3] == "xxx"


def test_points_of_failure_are_those_of_their_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def attack(model: nn.Module, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
        calls.append(len(images))
        if len(calls) == 1:
            model(failing(images))
        return images

    data = fuse_data(torch.full((20,), 0.5), spread=0.001)
    threat = ThreatModel(norm="linf", epsilons=(0.2,))
    result = run_plugged(monkeypatch, attack, Fuse(), data, threat_model=threat, images=Slice(n=20, chunk=10))
    assert calls == [10, 10]
    assert outcomes(result) == "x" * 10 + "r" * 10


def test_an_attack_that_changes_the_images_in_place_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def attack(model: nn.Module, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
        images[:, 0, 0, 0] = FOOLING
        labels[:] = 0
        return images

    data = dark_and_bright()
    before = data.test.images.clone()
    with pytest.warns(UserWarning, match="20 candidates of 20 attacked images are invalid"):
        result = run_plugged(monkeypatch, attack, Fuse(), data, images=None)
    assert torch.equal(data.test.images, before)
    assert outcomes(result) == "r" * 20, "0.9 - 0.1 is not below one half"
    assert result.epsilons[0].figures.invalid == 20


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_candidates_that_are_not_finite_are_no_robustness(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    def attack(model: nn.Module, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
        return torch.full_like(images, value)

    with pytest.warns(UserWarning, match="20 candidates of 20 attacked images are invalid"):
        result = run_plugged(monkeypatch, attack, Fuse(), dark_and_bright(), images=None)
    assert outcomes(result) == "r" * 20
    assert result.epsilons[0].figures.invalid == 20


def raising(*_: Any, **__: Any) -> Tensor:
    raise ZeroDivisionError("divided by the gradient\nand more")


def one_image_less(model: nn.Module, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
    return images[1:]


def no_tensor(model: nn.Module, images: Tensor, labels: Tensor, **_: Any) -> Any:
    return images.numpy()


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (raising, r"the attack plugged raised ZeroDivisionError: divided by the gradient$"),
        (
            one_image_less,
            r"the attack plugged returned \(19, 1, 8, 8\) for images of shape \(20, 1, 8, 8\)",
        ),
        (no_tensor, r"the attack plugged returned ndarray for images of shape \(20, 1, 8, 8\)"),
    ],
)
def test_a_failed_attack_is_an_error(monkeypatch: pytest.MonkeyPatch, attack: Any, message: str) -> None:
    with pytest.raises(AttackError, match=message):
        run_plugged(monkeypatch, attack, Fuse(), dark_and_bright(), images=None)


def test_an_attack_that_cannot_be_loaded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, plugged=plugged("not_there"))
    with pytest.raises(AttackError, match=r"the attack plugged raised AttributeError: .*not_there"):
        evaluate(Fuse(), dark_and_bright(), attacks=["plugged"], images=None)


def test_an_error_of_the_model_under_attack_is_one_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def attack(model: nn.Module, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
        model(images[:, :, :4])
        return images

    def answer(images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 7, 7], images[:, 0, 0, 0]], dim=1)

    with pytest.raises(ModelError, match="Answers raised IndexError"):
        run_plugged(monkeypatch, attack, Answers(answer), dark_and_bright(), images=None)


def test_an_attack_is_seeded_by_its_chunk_in_the_whole_order(
    monkeypatch: pytest.MonkeyPatch, linear: Linear, halves: Dataset
) -> None:
    calls: list[tuple[int, float]] = []

    def attack(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, seed: int, **_: Any) -> Tensor:
        calls.append((seed, epsilon))
        return images

    threat = ThreatModel(norm="linf", epsilons=(0.05, 0.1))
    run_plugged(monkeypatch, attack, linear, halves, images=Slice(n=300), threat_model=threat)
    whole = list(calls)
    assert len(set(whole)) == len({seed for seed, _ in whole}) == 6
    calls.clear()
    run_plugged(monkeypatch, attack, linear, halves, images=Slice(n=100, offset=200), threat_model=threat)
    assert calls == [whole[2], whole[5]]


def test_failures_at_any_epsilon_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def attack(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, **_: Any) -> Tensor:
        return failing(images) if epsilon < 0.3 else fooling(images)

    threat = ThreatModel(norm="linf", epsilons=(0.2, 0.5))
    result = run_plugged(monkeypatch, attack, Fuse(), dark_and_bright(), images=None, threat_model=threat)
    assert [outcomes(result, 0), outcomes(result, 1)] == ["x" * 20, "f" * 20]
    assert check(result, 18).k == 20


# The ledger


def a_verdict(letters: str) -> Verdict:
    n = len(letters)
    zeros = torch.zeros(n, 1, 8, 8)
    return Verdict(np.array(list(letters)), torch.full((n,), 4), zeros, torch.ones(n), torch.zeros(n, dtype=torch.bool))


def test_a_ledger_keeps_the_worst_letter() -> None:
    ledger = Outcomes.of(np.array(list("rrmurr")))
    assert ledger.robust == 4
    ledger.record(np.array([0, 1]), a_verdict("xf"), "aa")
    ledger.record(np.array([0, 1, 4]), a_verdict("fxr"), "ab")
    ledger.record(np.array([0, 5]), a_verdict("rx"), "ac")
    assert "".join(ledger.letters) == "ffmurx"
    assert list(ledger.felled_by) == ["ab", "aa", "--", "--", "--", "ac"]
    assert ledger.robust == 1
    assert ledger.distances == [1.0, 1.0]
    assert ledger.nfe == [4] * 7


def test_a_failure_at_one_epsilon_is_remembered() -> None:
    ledgers = [Outcomes.of(np.array(list("rrmu"))) for _ in range(2)]
    ledgers[0].record(np.array([0]), a_verdict("x"), "aa")
    ledgers[1].record(np.array([0, 1]), a_verdict("ff"), "aa")
    assert ever_failed(ledgers) == "xfmu"


# What cannot be asked for


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacks": ["pgd", "pdg"]}, r"unknown attack 'pdg'; did you mean 'pgd'\?"),
        ({"attacks": ["pgd", "cw"]}, r"cw attacks in l2, not in linf"),
        (
            {"threat_model": ThreatModel(norm="linf", epsilons=(8.0,))},
            r"epsilon 8 is above 1, but images are in \[0, 1\]; did you mean 8/255 = 0.03137\?",
        ),
        (
            {"threat_model": ThreatModel(norm="l2", epsilons=(0.5, 9.0))},
            r"epsilon 9 is above 8, the largest l2 distance between two images of halves",
        ),
        ({"threat_model": None}, r"halves has no default epsilons for linf; give them"),
        ({"images": Slice(n=101)}, r"101 images from 0 on are not whole chunks of 100;.* -n 100 or 200"),
        ({"images": Slice(n=100, offset=30)}, r"no chunk begins at offset 30: choose a multiple of 100"),
        ({"images": Slice(n=0)}, r"-n between 1 and 500"),
        ({"images": Slice(n=600)}, r"-n between 1 and 500"),
        ({"images": Slice(n=100, offset=500)}, r"halves has 500 test images"),
        ({"images": Slice(chunk=0)}, r"a chunk has at least one image, not 0"),
        ({"device": "cuda:77"}, r"no device 'cuda:77' on this machine; there is cpu"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_any_work(
    linear: Linear, halves: Dataset, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("odebench.evaluation.evaluate.measure", untouchable)
    with pytest.raises(UsageError, match=message):
        evaluate(linear, halves, **options)


def untouchable(*_: Any, **__: Any) -> Any:
    raise AssertionError("work was begun")


def test_an_unknown_data_set_has_a_nearest_match(linear: Linear) -> None:
    with pytest.raises(UsageError, match=r"unknown data set 'digit'; did you mean 'digits'\?"):
        odebench.evaluate(linear, "digit")


def test_a_split_that_is_not_there_is_refused(linear: Linear, halves: Dataset) -> None:
    with pytest.raises(DatasetError, match="halves has no validation images; choose --split test"):
        evaluate(linear, halves, images=Slice(split="validation", n=100))


def test_the_validation_split_is_another_one(linear: Linear, digits: Dataset) -> None:
    assert digits.validation is not None
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    result = evaluate(net, digits, images=Slice(split="validation", n=100))
    assert result.found.dataset_sha256 == digits.validation.sha256


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1.0), (0.0, 255.0)])
def test_images_out_of_range_are_refused(low: float, high: float) -> None:
    images = torch.linspace(low, high, 640).reshape(10, 1, 8, 8)
    with pytest.raises(DatasetError, match=r"expected \[0, 1\]"):
        Dataset.from_tensors("mine", images, torch.arange(10))


def test_one_class_is_no_classification(linear: Linear) -> None:
    data = Dataset.from_tensors("one", torch.rand(10, 1, 8, 8), torch.zeros(10, dtype=torch.long))
    with pytest.raises(DatasetError, match="one has 1 class; a classifier can only err among two or more"):
        evaluate(linear, data, images=None)


# Plans


def a_plan(*, weights: Path | None = None, **options: Any) -> Plan:
    model = RegisteredModel(load_definition("resnet"), weights)
    request = EvaluationRequest(model, "fgsm", images=Slice(n=100), changes={"epochs": 1}, **options)
    return plan(request, DIGITS, total=500)


@pytest.fixture
def trained(trained_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that several tests share, so that the model is trained once."""
    monkeypatch.setenv("ODEBENCH_CACHE", str(trained_folder / "evaluation"))
    return trained_folder / "evaluation"


def test_a_plan_is_run_once(trained: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = a_plan()
    result, path, new = run(planned, digits, results=tmp_path)
    assert new
    assert path == result_path(tmp_path, planned.evaluation)
    assert read_result(path) == result
    assert result.evaluation == planned.evaluation
    assert result.epsilons[0].figures.clean_accuracy.value > 0.2
    written = path.read_bytes()
    monkeypatch.setattr("odebench.evaluation.loading.find_or_train", untouchable)
    monkeypatch.setattr("odebench.evaluation.evaluate.measure", untouchable)
    again, same, new = run(planned, digits, results=tmp_path)
    assert (again, same, new) == (result, path, False)
    assert path.read_bytes() == written
    monkeypatch.undo()
    monkeypatch.setenv("ODEBENCH_CACHE", str(trained))
    forced, same, new = run(planned, digits, results=tmp_path, force=True)
    assert (same, new) == (path, True)
    assert forced.outcomes_sha256 == result.outcomes_sha256


def test_a_result_is_skipped_without_its_weights(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    planned = a_plan()
    result, _, _ = run(planned, digits, results=tmp_path)
    weights = weights_path(planned.recipe)
    moved = weights.rename(weights.with_suffix(".away"))
    try:
        assert run(planned, digits, results=tmp_path)[2] is False
    finally:
        moved.rename(weights)
    assert result.found.weights_sha256


def test_a_result_of_other_weights_is_an_error(
    trained: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = a_plan()
    result, path, _ = run(planned, digits, results=tmp_path / "results")
    tensors, metadata = read_tensors(weights_path(planned.recipe))
    monkeypatch.setenv("ODEBENCH_CACHE", str(tmp_path / "cache"))
    other = weights_path(planned.recipe)
    write_tensors(other, {name: tensor + 1e-3 for name, tensor in tensors.items()}, metadata)
    with pytest.raises(ResultError, match="give --force") as raised:
        run(planned, digits, results=tmp_path / "results")
    stored, message = result.found.weights_sha256[:12], str(raised.value)
    assert f"{path} was found with weights {stored}, but those at hand are " in message
    assert stored not in message.split("those at hand are")[1]
    forced, _, new = run(planned, digits, results=tmp_path / "results", force=True)
    assert new
    assert forced.found.weights_sha256 != result.found.weights_sha256


def test_a_result_of_other_images_is_an_error(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    planned = a_plan()
    result, _, _ = run(planned, digits, results=tmp_path)
    pixels = digits.test.pixels.clone()
    pixels[499, 0, 0, 0] += 0.25
    other = replace(digits, test=Split(pixels, digits.test.labels))
    assert other.test.sha256 != result.found.dataset_sha256
    with pytest.raises(ResultError) as raised:
        run(planned, other, results=tmp_path)
    assert f"images {result.found.dataset_sha256[:12]}, but those at hand are {other.test.sha256[:12]}" in str(
        raised.value
    )


def test_a_damaged_result_is_an_error_not_a_skip(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    planned = a_plan()
    _, path, _ = run(planned, digits, results=tmp_path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ResultError, match="is not whole JSON"):
        run(planned, digits, results=tmp_path)
    other = json.loads(whole)
    other["evaluation"]["attack"]["seed"] = 1
    path.write_text(json.dumps(other))
    with pytest.raises(ResultError, match="run_key is not the digest of the evaluation"):
        run(planned, digits, results=tmp_path)


def test_a_result_of_another_evaluation_is_an_error(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    _, path, _ = run(a_plan(attack_seed=1), digits, results=tmp_path)
    here = result_path(tmp_path, a_plan().evaluation)
    here.write_bytes(path.read_bytes())
    with pytest.raises(ResultError, match="holds another evaluation than its name says; delete it, or give --force"):
        run(a_plan(), digits, results=tmp_path)


@pytest.mark.parametrize("blocked", ["results", "results/resnet"])
def test_a_folder_that_cannot_be_written_is_found_before_training(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocked: str
) -> None:
    monkeypatch.setattr("odebench.evaluation.loading.find_or_train", untouchable)
    in_the_way = tmp_path / blocked
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("a file")
    with pytest.raises(FileError, match="cannot write in"):
        run(a_plan(), digits, results=tmp_path / "results")


def test_weights_may_be_given(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    own, _, _ = run(a_plan(), digits, results=tmp_path)
    weights = weights_path(a_plan().recipe)
    planned = a_plan(weights=weights)
    assert planned.evaluation.run_key != own.run_key
    result, path, new = run(planned, digits, results=tmp_path)
    assert new
    assert path != result_path(tmp_path, own.evaluation)
    assert result.found.weights_sha256 == own.found.weights_sha256 == planned.evaluation.model.weights
    assert result.epsilons == own.epsilons
    assert run(planned, digits, results=tmp_path)[2] is False
