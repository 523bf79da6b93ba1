"""Doubt about a model's gradients: what raises it, and that attacks which need no true gradient then run in full."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from masked_models import Reversed
from small_model import Told, first_digits, fitted_small_ode, judged, outcomes, predicted
from torch import Tensor, nn

from odebench.attack import worst_case_stages
from odebench.attack.builtin import PGD, SMOOTHED, SQUARE
from odebench.attack.definition import Stage
from odebench.attack.wrapped_model import WrappedModel
from odebench.dataset import Split
from odebench.evaluation import execution
from odebench.evaluation.examination import Examination
from odebench.evaluation.execution import measure
from odebench.evaluation.loading import LoadedModels
from odebench.evaluation.measurements import concatenate
from odebench.model.classifier import Classifier
from odebench.model.ode import OdeNet
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import Evaluation, fixed_step
from odebench.result.schema import Result

N, CHUNK = 60, 20
EPSILONS = (0.05, 0.1)
STAGES = (
    Stage("pgd", PGD, PGD.complete({"steps": 5})),
    Stage("square on 5", SQUARE, SQUARE.complete({"queries": 30}), most_images=5),
    Stage("square", SQUARE, SQUARE.complete({"queries": 200}), only_in_doubt=True),
    Stage("smoothed", SMOOTHED, SMOOTHED.complete({"steps": 8, "targets": 2, "draws": 2}), only_in_doubt=True),
)


@pytest.fixture(autouse=True)
def _few_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worst_case_stages, "stages", lambda *_, **__: STAGES)


def attacked(module: nn.Module, **options: Any) -> Result:
    images, labels = first_digits(N)
    return judged(module, images, labels, epsilons=EPSILONS, chunk=CHUNK, **options)


@cache
def reversed_gradient() -> Result:
    return attacked(Reversed(fitted_small_ode()))


def felled_by(result: Result, index: int = 1) -> list[str]:
    found = result.epsilons[index].felled_by
    return [found.legend.get(code, "-").rpartition(" at ")[0] for code in found.codes(N)]


def test_an_honest_model_is_not_asked_by_the_stages_for_doubt() -> None:
    result = attacked(fitted_small_ode(), handed_over=False)
    assert result.doubt == ()
    assert [stage.name for stage in result.cost.stages] == ["pgd", "square on 5"]
    assert set(felled_by(result)) <= {"pgd", "square on 5", ""}
    names = [f"{stage.name} at {epsilon}" for epsilon in EPSILONS for stage in STAGES]
    assert list(result.epsilons[0].felled_by.legend.values()) == names


def test_a_tripwire_attacks_few_images_of_a_chunk() -> None:
    stage = attacked(fitted_small_ode(), handed_over=False).cost.stages[1]
    # At most 31 queries for 5 images of each of 3 chunks at 2 radii, and batches of 100 of the verdict, two each.
    assert 0 < stage.forward * N <= 31 * 5 * 3 * 2 + 100 * 3 * 2 * 2


def test_a_mask_is_brought_down_by_the_stages_for_doubt() -> None:
    plain, masked = attacked(fitted_small_ode(), handed_over=False), reversed_gradient()
    assert "check 17, gradient fidelity, flags" in masked.doubt
    stages = ["pgd", "square on 5", "square", "smoothed"]
    assert [stage.name for stage in masked.cost.stages] == [f"{name} doubled" for name in stages]
    assert "square doubled" in felled_by(masked)
    by_chunk = [felled_by(masked)[start : start + CHUNK].count("square doubled") for start in range(0, N, CHUNK)]
    assert all(by_chunk)
    left = [outcomes(one, 1).count("r") for one in (plain, masked)]
    assert left[1] - left[0] <= 0.05 * N
    usual = [outcomes(masked, 1)[row] == "f" for row in range(N) if felled_by(masked)[row].startswith("pgd")]
    assert len(usual) < 0.2 * N


def test_what_fell_in_doubt_at_a_smaller_radius_has_fallen_at_a_larger_one() -> None:
    smaller, larger = (felled_by(reversed_gradient(), index) for index in (0, 1))
    in_doubt = [row for row in range(N) if smaller[row] == "square doubled"]
    assert in_doubt
    assert {outcomes(reversed_gradient(), 1)[row] for row in in_doubt} == {"f"}
    assert any(larger[row] == "square doubled" for row in in_doubt)
    assert larger.count("") < smaller.count("")


class FirstPixelDark(nn.Module):
    """The honest net but for a step: where the first pixel is bright, another class. No gradient tells of it."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = fitted_small_ode()(images)
        bright = (images[:, 0, 0, 0].detach() > 0.04)[:, None]
        return torch.where(bright, logits.roll(1, dims=1), logits)


def test_a_tripwire_that_succeeds_raises_doubt() -> None:
    told = Told()
    result = attacked(FirstPixelDark(), handed_over=False, progress=told)
    (reason,) = [one for one in result.doubt if one.startswith("square on 5 succeeds on ")]
    assert reason.endswith(" images after every gradient attack had failed")
    assert any(line.startswith("doubt: ") for line in told.lines)
    assert "square" in [stage.name for stage in result.cost.stages]
    assert outcomes(result, 1).count("r") <= 0.2 * N


def test_a_tripwire_that_may_fell_honest_images_raises_doubt_from_several_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubted(least: int) -> bool:
        changed = tuple(replace(one, doubtful=least) if one.tripwire else one for one in STAGES)
        monkeypatch.setattr(worst_case_stages, "stages", lambda *_, **__: changed)
        return any("succeeds on" in one for one in attacked(FirstPixelDark(), handed_over=False).doubt)

    said = next(one for one in attacked(FirstPixelDark(), handed_over=False).doubt if "succeeds on" in one)
    fell = int(said.split("succeeds on ")[1].split()[0])
    assert fell > 1
    assert doubted(fell)
    assert not doubted(fell + 1)


def test_slices_have_the_doubt_of_the_whole() -> None:
    images, labels = first_digits(N)
    whole = reversed_gradient()
    evaluation: Evaluation = whole.evaluation
    module = Reversed(fitted_small_ode())
    models = LoadedModels(Classifier(module, n_classes=10), "0" * 64)
    split = Split(images, labels)
    slices = [measure(evaluation, models, split, rows=slice(start, start + CHUNK)) for start in range(0, N, CHUNK)]
    joined = concatenate(slices).result(evaluation)
    assert joined.doubt == whole.doubt
    assert joined.checks == whole.checks
    assert [one.outcomes for one in joined.epsilons] == [one.outcomes for one in whole.epsilons]
    assert [one.felled_by for one in joined.epsilons] == [one.felled_by for one in whole.epsilons]
    passes = [[(one.name, one.forward, one.backward) for one in each.cost.stages] for each in (joined, whole)]
    assert passes[0] == passes[1]


def test_slices_that_share_an_examination_attack_the_first_chunk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = first_digits(N)
    whole = reversed_gradient()
    made: list[int] = []

    def counted(*given: Any, **options: Any) -> Any:
        made.append(1)
        return execution_examine(*given, **options)

    execution_examine = execution.examine
    monkeypatch.setattr(execution, "examine", counted)
    models = LoadedModels(Classifier(Reversed(fitted_small_ode()), n_classes=10), "0" * 64)
    shared: dict[str, Examination] = {}
    for start in (CHUNK, 2 * CHUNK):
        found = measure(
            whole.evaluation, models, Split(images, labels), rows=slice(start, start + CHUNK), examinations=shared
        )
        letters = ["".join(one.letters) for one in found.outcomes]
        assert letters == [one.outcomes[start : start + CHUNK] for one in whole.epsilons]
    assert made == [1]


@pytest.mark.parametrize(("quick", "handed_over"), [(True, False), (True, True), (False, False)])
def test_candidates_are_sought_quickly_on_models_of_our_own_alone(
    quick: bool, handed_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, int]] = []
    answer = WrappedModel._answer

    def watched(self: WrappedModel, images: Tensor) -> Any:
        asked.append((self.classifier.quick, len(images)))
        return answer(self, images)

    monkeypatch.setattr(WrappedModel, "_answer", watched)
    monkeypatch.setattr(worst_case_stages, "stages", lambda *_, **__: (replace(STAGES[0], quick=quick),))
    with seeded(0):
        solver = fixed_step(step=0.5)
        net = OdeNet(image_shape=(1, 8, 8), n_classes=10, channels=4, stem="conv", horizon=1.0, solver=solver).eval()
    images = first_digits(N)[0][:8]
    result = judged(net, images, predicted(net, images), handed_over=handed_over, chunk=8)
    assert result.cost.stages[0].backward > 0
    # Checks and estimates look at the model as it is: only candidates are sought quickly.
    assert {one for one, _ in asked} == ({True, False} if quick and not handed_over else {False})
