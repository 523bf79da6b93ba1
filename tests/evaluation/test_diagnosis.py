"""A diagnosis: independent probes, their union, the checks that compare them, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_model import SmallOde, Told, grey_images, judged, linear, outcomes, predicted, small_ode
from torch import Tensor, nn

import odebench
import odebench.evaluation.stage_run as stage_run
from odebench.attack.builtin import DIAGNOSIS, QUICK_DIAGNOSIS
from odebench.attack.definition import AttackDefinition
from odebench.attack.probes import full_stages, probes, quick_stages
from odebench.dataset import Dataset, load_dataset
from odebench.numerics.seeding import call_seed
from odebench.protocol.spec import ThreatModel
from odebench.result.file import read_result, write_result
from odebench.result.schema import Check, Result

QUICK = [1, 2, 3, 5, 8, 11, 14, 15, 16, 17, 18, 19, 20, 21]
FULL = [number for number in range(1, 22) if number != 13]
"""All but 13, which is the readers' rule and not stored (docs/protocol.md, "Checks")."""


def check(result: Result, number: int) -> Check:
    return next(check for check in result.checks if check.id == number)


def felled_by(result: Result, index: int = 0) -> list[str]:
    found = result.epsilons[index].felled_by
    return [found.legend.get(code, "-") for code in found.codes(result.evaluation.dataset.n)]


def case(n: int = 20) -> tuple[nn.Module, Tensor, Tensor]:
    model, images = linear(10), grey_images(n)
    return model, images, predicted(model, images)


# The probes


def test_the_probes_are_the_documented_ones() -> None:
    found = probes({"steps": 7, "random_start": False, "relative_step": 0.5}, norm="linf", n_classes=10)
    assert (found.iterated.name, found.iterated.parameters) == (
        "pgd",
        {"steps": 7, "random_start": False, "relative_step": 0.5},
    )
    assert (found.longer.parameters["steps"], found.longer.parameters["relative_step"]) == (14, 0.5)
    assert found.restarted.parameters == found.iterated.parameters
    names = [stage.name for stage in full_stages({}, norm="linf", n_classes=10)]
    assert len(names) == len(set(names))
    worst = ["fgsm", "pgd 20", "apgd-ce 50", "apgd-t 3x50", "transfer 50", "square 500"]
    mine = ["pgd", "fgsm", "noise", "pgd with twice the steps", "pgd from another start"]
    assert names == [*mine, *worst[1:]]
    assert [stage.name for stage in quick_stages({}, norm="linf", n_classes=10)] == mine[:3]
    assert [stage.name for stage in found.worst_case] == worst


def test_the_default_steps_are_those_of_pgd() -> None:
    for definition in (QUICK_DIAGNOSIS, DIAGNOSIS):
        assert definition.complete({}) == {"steps": 20, "random_start": True, "relative_step": 0.125}
        assert definition.complete({"steps": 5})["relative_step"] == 0.5
        assert not definition.carries_over


# What is in a result


@pytest.fixture(scope="module")
def ode() -> tuple[nn.Module, Tensor, Tensor]:
    digits = load_dataset("digits")
    return small_ode(digits), digits.test.images[:100], digits.test.labels[:100]


@pytest.fixture(scope="module")
def quick(ode: tuple[nn.Module, Tensor, Tensor]) -> Result:
    return judged(*ode, attack="quick-diagnosis", epsilons=(0.05,))


@pytest.fixture(scope="module")
def full(ode: tuple[nn.Module, Tensor, Tensor]) -> Result:
    model, images, labels = ode
    source = linear(10)
    return judged(
        model,
        images[:30],
        labels[:30],
        attack="diagnosis",
        epsilons=(0.02, 0.05, 0.1),
        chunk=15,
        sources={"line": source},
        steps=5,
    )


def test_the_quick_set_makes_the_documented_checks(quick: Result) -> None:
    assert [check.id for check in quick.checks] == QUICK
    assert {check.status for check in quick.checks if check.id != 19} == {"pass"}
    assert quick.flags == ()
    assert quick.epsilons[0].felled_by.legend == {"aa": "pgd", "ab": "fgsm", "ac": "noise"}
    correct = 100 - outcomes(quick).count("m")
    assert {check(quick, number).n for number in (1, 5, 8, 11, 16)} == {correct}
    curve = check(quick, 8).evidence["median_loss"]
    assert isinstance(curve, list)
    assert len(curve) == 20
    assert curve[-1] > 5 * curve[0], "the attack climbs"
    assert check(quick, 17).evidence["horizons"] == [0.125, 0.25, 0.5, 1.0]


def test_the_full_set_makes_all_checks_that_are_stored(full: Result) -> None:
    assert [check.id for check in full.checks] == FULL
    assert [check.id for check in full.checks if check.status == "skipped"] == [19], "no fresh model can be made here"
    assert check(full, 10).evidence["epsilons"] == [0.02, 0.05, 0.1]
    assert check(full, 12).evidence == {"sources": ["line"]}
    accuracy = check(full, 10).evidence["robust_accuracy"]
    assert isinstance(accuracy, list)
    assert len(accuracy) == 3
    assert accuracy[0] > accuracy[2]
    # The middle radius alone is asked about by all probes; the others by PGD.
    assert set(felled_by(full, 0)) | set(felled_by(full, 2)) <= {"-", "pgd"}
    assert outcomes(full, 1).count("r") <= round(30 * accuracy[1])


def test_a_diagnosis_is_written_and_read_again(quick: Result, full: Result, tmp_path: Path) -> None:
    for result in (quick, full):
        assert read_result(write_result(result, tmp_path)) == result


def test_two_diagnoses_are_equal_but_for_the_time(ode: tuple[nn.Module, Tensor, Tensor], quick: Result) -> None:
    torch.manual_seed(123)
    again = judged(*ode, attack="quick-diagnosis", epsilons=(0.05,))

    def timeless(result: Result) -> Any:
        return replace_time(result.model_dump())

    def replace_time(dump: dict[str, Any]) -> dict[str, Any]:
        stages = [{**stage, "seconds": 0} for stage in dump["cost"]["stages"]]
        return {**dump, "created": "", "cost": {**dump["cost"], "seconds": 0, "stages": stages}}

    assert timeless(again) == timeless(quick)


def test_quick_costs_less_than_the_worst_case(ode: tuple[nn.Module, Tensor, Tensor], quick: Result) -> None:
    worst = judged(*ode, epsilons=(0.05,), effort="fast")
    spent, more = (result.cost.forward + result.cost.backward for result in (quick, worst))
    assert 20 < spent < more / 2


# Independence and union


class FirstPixel(nn.Module):
    """Class 1 where the first pixel is above 0.55."""

    def forward(self, images: Tensor) -> Tensor:
        margin = images.flatten(1)[:, 0] - 0.55
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def replayed(monkeypatch: pytest.MonkeyPatch, fells: dict[str, list[int]], *, attack: str = "diagnosis") -> Any:
    """A result in which each probe returns candidates that fell the images named for it; who was asked about what."""
    seen: dict[str, list[list[int]]] = {}
    current: list[str] = []
    init = stage_run.StageRun.__init__

    def remember(
        self: Any, inputs: Any, stage: Any, code: str, wrapped: Any, number: int, rows: Any, *rest: Any
    ) -> None:
        current[:] = [stage.name]
        seen.setdefault(stage.name, []).append(rows.tolist())
        init(self, inputs, stage, code, wrapped, number, rows, *rest)

    def play(model: Any, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
        model(images)
        found = images.clone()
        for index, position in enumerate(seen[current[0]][-1]):
            if position in fells.get(current[0], []):
                found[index, 0, 0, 0] = 0.58
        return found

    monkeypatch.setattr(stage_run.StageRun, "__init__", remember)
    monkeypatch.setattr(AttackDefinition, "load", lambda _: play)
    images = torch.full((8, 1, 2, 2), 0.5)
    images[:, 0, 1, 1] = torch.arange(8) / 8
    images[7, 0, 0, 0] = 0.9  # wrong on the clean image
    labels = torch.zeros(8, dtype=torch.long)
    options: dict[str, Any] = {"sources": {"other": FirstPixel()}} if attack == "diagnosis" else {}
    result = judged(FirstPixel(), images, labels, n_classes=2, attack=attack, chunk=4, **options)
    return result, seen


def test_every_probe_attacks_all_images_whatever_others_have_felled(monkeypatch: pytest.MonkeyPatch) -> None:
    fells = {"pgd": [0, 1, 4], "fgsm": [1, 2], "noise": [3]}
    result, seen = replayed(monkeypatch, fells, attack="quick-diagnosis")
    # The examination asks about the first chunk again, at the candidates of one step.
    assert seen.pop("fgsm") == [[0, 1, 2, 3], [4, 5, 6], [0, 1, 2, 3]]
    assert seen == {name: [[0, 1, 2, 3], [4, 5, 6]] for name in ("pgd", "noise")}
    assert outcomes(result) == "fffffrrm", "the letters are those of all probes together"
    # The first that felled an image is named.
    assert felled_by(result) == ["pgd", "pgd", "fgsm", "noise", "pgd", "-", "-", "-"]
    assert (check(result, 5).k, check(result, 5).n) == (1, 7)
    assert (check(result, 11).k, check(result, 11).n) == (1, 7)
    assert check(result, 8).k == 0


def test_the_full_checks_compare_what_the_probes_felled(monkeypatch: pytest.MonkeyPatch) -> None:
    fells = {
        "pgd": [0],
        "pgd with twice the steps": [1],
        "pgd from another start": [0, 2, 3],
        "pgd 20": [0],
        "apgd-ce 50": [1],
        "transfer 50": [0, 2],
        "square 500": [1, 3, 4],
    }
    result, seen = replayed(monkeypatch, fells)
    assert check(result, 6).evidence == {"twice_the_steps": 1, "another_start": 2}
    # The stages of the worst case go on with what stands: 0 and 1 had fallen to gradients, 2 to the transfer.
    assert seen["transfer 50"] == [[2, 3], [4, 5, 6]]
    assert seen["square 500"] == [[3], [4, 5, 6]]
    assert (check(result, 12).k, check(result, 12).n) == (1, 7)
    assert (check(result, 4).k, check(result, 4).n) == (2, 7)
    assert outcomes(result) == "fffffrrm"
    # Plain grey lies within 0.5 of all images and fools nobody; PGD at that radius was asked once more.
    assert (check(result, 9).k, check(result, 9).evidence) == (0, {"grey": 0, "attack": 1})
    assert seen["pgd"] == [[0, 1, 2, 3], [4, 5, 6]] * 2


class Masked(nn.Module):
    """A linear model whose gradient is that of another one, or none: gradient attacks go astray."""

    def __init__(self, inner: nn.Module, gradient: str) -> None:
        super().__init__()
        self.inner, self.gradient = inner, gradient

    def forward(self, images: Tensor) -> Tensor:
        turned = 2 * images.detach() - images if self.gradient == "reversed" else images.detach() + 0 * images
        logits: Tensor = self.inner(turned)
        return logits


def two_classes(n: int = 40) -> tuple[nn.Module, Tensor, Tensor]:
    model, images = linear(2), grey_images(n)
    return model, images, predicted(model, images)


def test_square_fells_what_masked_gradients_hide() -> None:
    model, images, labels = two_classes()
    result = judged(
        Masked(model, "reversed"), images, labels, n_classes=2, attack="diagnosis", epsilons=(0.05,), chunk=40, steps=3
    )
    assert check(result, 4).status == "flag"
    by_queries = sum(name == "square 500 doubled" for name in felled_by(result))
    assert 0 < by_queries <= int(str(check(result, 4).k)), "noise may have felled some of them before"
    assert check(result, 12).status == "skipped"
    assert check(result, 17).status == "flag"
    assert {"black box", "gradient fidelity", "opaque-gradient", "no-transfer"} <= set(result.flags)
    # Its honest twin falls to gradients.
    honest = judged(model, images, labels, n_classes=2, attack="diagnosis", epsilons=(0.05,), chunk=40, steps=3)
    assert check(honest, 4).k == 0
    assert check(honest, 17).status == "pass"


def test_candidates_of_the_honest_twin_fell_what_masked_gradients_hide() -> None:
    model, images, labels = two_classes()
    masked = Masked(model, "reversed")
    options: dict[str, Any] = {"n_classes": 2, "attack": "diagnosis", "epsilons": (0.05,), "chunk": 40, "steps": 3}
    result = judged(masked, images, labels, sources={"twin": model}, **options)
    assert check(result, 12).status == "flag"
    assert check(result, 12).evidence == {"sources": ["twin"]}
    assert "transfer 50 doubled" in felled_by(result)
    assert "no-transfer" not in result.flags


# Radii


def test_the_quick_set_attacks_the_middle_of_the_grid_and_every_radius_that_is_given() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    images = odebench.Slice(n=100)
    (result,) = odebench.evaluate(net, "digits", attacks=["quick-diagnosis"], images=images)
    assert result.evaluation.threat_model.epsilons == (0.1,)


def test_no_radius_stands_unattacked() -> None:
    """A letter r says that an attack has failed: it is never that of a radius at which none was tried."""
    model, images, labels = case()
    result = judged(model, images, labels, attack="quick-diagnosis", epsilons=(0.02, 0.05, 0.3), chunk=20)
    alone = judged(model, images, labels, attack="pgd", epsilons=(0.02, 0.05, 0.3), chunk=20)
    for index in range(3):
        assert outcomes(result, index).count("r") <= outcomes(alone, index).count("r")
    assert outcomes(result, 2).count("r") == 0
    assert 0 < outcomes(result, 0).count("f") < 20
    assert {"fgsm", "noise"} & set(felled_by(result, 0)) == set()


# What is left out


def test_a_model_that_is_never_right_is_diagnosed() -> None:
    model, images, labels = case()
    wrong = (labels + 1) % 10
    result = judged(model, images, wrong, attack="diagnosis", sources={"other": linear(10, seed=2)}, chunk=20)
    assert outcomes(result) == "m" * 20
    assert [check.id for check in result.checks] == FULL
    skipped = {check.id for check in result.checks if check.status == "skipped"}
    assert {7, 10, 16, 17} <= skipped
    assert {check.k for check in result.checks if check.id in (4, 5, 6, 8, 9, 11, 12)} == {0}


def test_a_random_model_is_diagnosed_over_passes() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear(10)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(images + 0.01 * torch.randn_like(images))
            return logits

    _, images, labels = case(6)
    told = Told()
    result = judged(Noisy(), images, labels, attack="quick-diagnosis", chunk=6, steps=2, progress=told)
    assert [check.id for check in result.checks] == QUICK
    assert "randomised" in result.flags
    assert check(result, 17).status == "skipped"
    assert "differs at every pass" in check(result, 17).why
    assert check(result, 16).status == "skipped"
    assert any("is randomised" in line for line in told.lines)


def test_a_model_without_a_field_has_no_gap_and_no_adjoint() -> None:
    model, images, labels = case()
    result = judged(model, images, labels, attack="quick-diagnosis", chunk=20)
    assert check(result, 16).status == "skipped"
    assert set(check(result, 17).evidence) == {
        "images",
        "compared",
        "below",
        "wrong",
        "replayed",
        "replayed_wrong",
        "wrong_at",
        "other_logits",
        "along_sign",
        "small_pixels",
    }


def test_chunks_are_counted_in_the_whole_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []

    def note(attack_seed: int, *, chunk: int, stage: str, epsilon: float) -> int:
        asked.append((chunk, stage))
        return call_seed(attack_seed, chunk=chunk, stage=stage, epsilon=epsilon)

    monkeypatch.setattr("odebench.evaluation.stage_run.call_seed", note)
    net = SmallOde()
    digits = load_dataset("digits")
    data = Dataset.from_tensors("mine", digits.test.images[:40], digits.test.labels[:40])
    threat = ThreatModel(norm="linf", epsilons=(0.05,))
    found = [
        odebench.evaluate(
            net,
            data,
            attacks=["quick-diagnosis"],
            parameters={"quick-diagnosis": {"steps": 3}},
            threat_model=threat,
            images=odebench.Slice(n=n, offset=offset, chunk=20),
        )[0]
        for n, offset in ((40, 0), (20, 20))
    ]
    assert outcomes(found[1]) == outcomes(found[0])[20:]
    names = ("pgd", "fgsm", "noise")
    first = [(chunk, name) for name in names for chunk in (0, 1)]
    # Each evaluation examines the model on its own first chunk.
    assert asked == [*first, (0, "fgsm"), *((1, name) for name in names), (1, "fgsm")]
    assert np.isin(list(outcomes(found[0])), list("mfr")).all()
    assert found[0].evaluation.attack.parameters["relative_step"] == pytest.approx(2.5 / 3)
