"""The worst case: its stages, what carries from stage to stage, and that the declared solver in fp32 decides."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
import torch
from small_model import (
    Linear,
    Told,
    fitted,
    grey_images,
    judged,
    linear,
    outcomes,
    predicted,
    small_ode,
    smallest_radius,
)
from torch import Tensor, nn

import odebench
from odebench import Slice, ThreatModel
from odebench.attack.builtin import CLAIMS, WORST_CASE
from odebench.attack.worst_case_stages import stages
from odebench.attack.wrapped_model import WrappedModel
from odebench.dataset import Dataset, load_dataset
from odebench.errors import ModelError
from odebench.evaluation.stage_run import StageRun
from odebench.evaluation.verdict import Judge
from odebench.model.classifier import Classifier
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import fixed_step
from odebench.result.summary import felled_codes

FAST = ["fgsm", "pgd 20", "apgd-ce 50", "apgd-t 3x50", "transfer 50", "square 500"]
STANDARD = [*FAST, "apgd-ce 100", "apgd-t 9x100", "fab-t 9x100", "square 5000"]
FIRST = ["fgsm", "pgd 20", "apgd-ce 50", "pgd-margin 40x9x1"]
TRIPWIRES = ["square 100 on 20", "transfer 50 on 20", "boundary 6x1x14 on 20"]
FAST_2 = [*FIRST, "apgd-t 3x20", *TRIPWIRES, "boundary 12x9x7"]
STANDARD_2 = [*FIRST, "pgd-margin 60x9x1", "apgd-t 9x50", *TRIPWIRES, "boundary 12x9x7"]
IN_DOUBT = [
    "noise 20",
    "smoothed 20x9x16x64",
    "boundary 12x9x14",
    "boundary 12x9x7 by differences",
    "substitute 30x3x20",
    "square 500",
    "transfer 50",
]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def ode(digits: Dataset) -> nn.Module:
    return small_ode(digits)


@pytest.fixture(scope="module")
def net(digits: Dataset) -> nn.Module:
    """A model without a field, which is quick to ask."""
    with seeded(0):
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    return fitted(module, digits)


def names(effort: str, *, norm: str = "linf", n_classes: int = 10, in_doubt: bool = False) -> list[str]:
    given = WORST_CASE.complete({"effort": effort})
    found = WORST_CASE.stages(given, norm=norm, n_classes=n_classes, in_doubt=in_doubt)
    return [stage.name for stage in found]


# Stages


def test_the_stages_are_the_documented_ones() -> None:
    assert names("fast") == FAST
    assert names("standard") == STANDARD
    assert names("fast", norm="l2") == FAST[1:]
    assert names("standard", norm="l2") == STANDARD[1:]
    assert WORST_CASE.complete() == {"effort": "fast-2"}
    assert names("fast-2") == FAST_2
    assert names("fast-2", norm="l2") == FAST_2[1:]
    assert names("standard-2") == STANDARD_2
    assert names("fast-2", in_doubt=True) == [*FAST_2, *IN_DOUBT]
    assert names("standard-2", in_doubt=True) == [*STANDARD_2, *IN_DOUBT[:5], "square 5000", "transfer 50"]
    for effort in ("fast", "standard"):
        assert names(effort, in_doubt=True) == names(effort)
    assert [stage.name for stage in CLAIMS.stages({}, norm="linf", n_classes=10)] == [*FIRST[:3], "pgd-margin 20x5x1"]


def test_fifty_radii_have_codes_for_all_stages_in_doubt() -> None:
    assert len(felled_codes(50 * names("standard-2", in_doubt=True))) == 50 * 17


def test_stages_of_the_first_version_stay_as_they_are_for_ever() -> None:
    # Published results rest on them: a change of any parameter is another effort.
    found = [
        (stage.name, stage.definition.function, sorted(stage.parameters.items()), stage.seeded_as, stage.starts)
        for norm in ("linf", "l2")
        for stage in stages({"effort": "standard"}, norm=norm, n_classes=10)
    ]
    assert sha256(repr(found).encode()).hexdigest()[:16] == "5961d1efe9671dc5"


@pytest.mark.parametrize("effort", ["fast-2", "standard-2"])
def test_a_tripwire_attacks_the_first_images_that_stand(effort: str, monkeypatch: Any) -> None:
    model, images = linear(2), grey_images(50)
    asked: dict[str, int] = {}
    run = StageRun.run

    def watched(self: Any, *arguments: Any, **named: Any) -> float:
        asked[self.stage.name] = len(self.rows)
        return run(self, *arguments, **named)

    monkeypatch.setattr(StageRun, "run", watched)
    monkeypatch.setattr("odebench.attack.worst_case_stages.TRIPWIRE_IMAGES", 7)
    labels = predicted(model, images)
    given: dict[str, Any] = {"n_classes": 2, "epsilons": (1e-4,), "sources": {"other": linear(2, seed=5)}}
    result = judged(model, images, labels, effort=effort, train_images=grey_images(20), **given)
    standing = outcomes(result).count("r")
    assert standing > 40
    assert asked["pgd 20"] == asked["pgd-margin 40x1x1"] == standing
    assert asked["square 100 on 7"] == asked["transfer 50 on 7"] == asked["boundary 6x1x14 on 7"] == 7


def test_claims_attack_one_radius_and_fell_a_linear_model() -> None:
    model, images = linear(3), grey_images(30)
    labels = predicted(model, images)
    result = judged(model, images, labels, n_classes=3, attack="claims", norm="l2", epsilons=(0.1,))
    radius = smallest_radius(model, images, labels, norm="l2")
    clear = (radius / 0.1 - 1).abs() > 0.01
    fell = torch.tensor([letter == "f" for letter in outcomes(result)])
    assert 3 < fell.sum() < 27
    assert torch.equal(fell[clear], (radius < 0.1)[clear])


@pytest.mark.parametrize("n_classes", [2, 3, 5, 100])
def test_targets_follow_the_number_of_classes(n_classes: int) -> None:
    found = names("standard", n_classes=n_classes)
    few, many = min(3, n_classes - 1), min(9, n_classes - 1)
    assert [name for name in found if "-t " in name] == [f"apgd-t {few}x50", f"apgd-t {many}x100", f"fab-t {many}x100"]
    assert len(set(found)) == len(found)


def test_a_stage_holds_all_parameters_of_its_attack() -> None:
    by_name = {stage.name: stage for stage in stages({"effort": "standard"}, norm="linf", n_classes=10)}
    assert by_name["pgd 20"].parameters == {"steps": 20, "random_start": True, "relative_step": 0.125}
    assert by_name["apgd-t 9x100"].parameters == {"steps": 100, "targets": 9}
    assert by_name["square 5000"].parameters == {"queries": 5000}
    assert {name: stage.passes for name, stage in by_name.items()} == dict(
        zip([*STANDARD, "spsa 3x50"], [1, 20, 50, 150, 50, 500, 100, 900, 900, 5000, 9600], strict=True)
    )
    assert [name for name, stage in by_name.items() if stage.only_unconfirmed] == ["spsa 3x50"]


# What it finds


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_worst_case_of_a_linear_model_is_the_closed_form(norm: str) -> None:
    model, images = linear(3), grey_images(40)
    labels = predicted(model, images)
    epsilons = {"linf": (0.01, 0.02), "l2": (0.08, 0.16)}[norm]
    result = judged(model, images, labels, n_classes=3, norm=norm, epsilons=epsilons)
    radius = smallest_radius(model, images, labels, norm=norm)
    for index, epsilon in enumerate(epsilons):
        clear = (radius / epsilon - 1).abs() > 0.02
        fell = torch.tensor([letter == "f" for letter in outcomes(result, index)])
        assert torch.equal(fell[clear], (radius < epsilon)[clear])
    assert 0 < outcomes(result, 0).count("f") < outcomes(result, 1).count("f") < 40


def test_standard_runs_every_stage_and_is_no_weaker_than_fast() -> None:
    model, images = linear(2), grey_images(8)
    labels = predicted(model, images)
    source = {"other": linear(2, seed=5)}
    fast, standard = (
        judged(model, images, labels, n_classes=2, epsilons=(0.02,), sources=source, effort=effort)
        for effort in ("fast", "standard")
    )
    assert list(standard.epsilons[0].felled_by.legend.values()) == [
        f"{name} at 0.02" for name in names("standard", n_classes=2)
    ]
    pairs = zip(outcomes(fast), outcomes(standard), strict=True)
    assert all(other == "f" for one, other in pairs if one == "f")
    assert "f" in outcomes(fast)
    assert standard.cost.forward > fast.cost.forward + 5000 * outcomes(standard).count("r") / 8


@pytest.fixture(scope="module")
def worst(net: nn.Module, digits: Dataset) -> Any:
    """Two epsilons on two chunks of fifty."""
    images, labels = digits.test.images[:100], digits.test.labels[:100]
    return judged(net, images, labels, epsilons=(0.06, 0.09), sources={"twin": net}, effort="fast")


@pytest.mark.slow
def test_no_single_stage_finds_more(worst: Any, net: nn.Module, digits: Dataset, monkeypatch: Any) -> None:
    images, labels = digits.test.images[:50], digits.test.labels[:50]  # the first chunk
    robust = outcomes(worst, 0)[:50].count("r")
    assert 5 < robust < 45
    every = stages({"effort": "fast"}, norm="linf", n_classes=10)
    for stage in every:
        # The same stage under the same name has the same seeds.
        monkeypatch.setattr("odebench.attack.worst_case_stages.stages", lambda *_, only=stage, **__: (only,))
        alone = judged(net, images, labels, epsilons=(0.06,), sources={"twin": net})
        assert list(alone.epsilons[0].felled_by.legend.values()) == [f"{stage.name} at 0.06"]
        assert outcomes(alone).count("r") >= robust
        if stage is every[0]:
            felled_first = worst.epsilons[0].felled_by.codes(100)[:50]
            assert [code == "aa" for code in felled_first] == [letter == "f" for letter in outcomes(alone)]


def test_falls_carry_to_larger_epsilons_and_keep_their_stage(worst: Any) -> None:
    smaller, larger = worst.epsilons
    assert list(smaller.felled_by.legend.values()) == [f"{name} at {e}" for e in ("0.06", "0.09") for name in FAST]
    assert larger.felled_by.legend == smaller.felled_by.legend
    carried = 0
    for before, after, letter, later in zip(
        smaller.outcomes, larger.outcomes, smaller.felled_by.codes(100), larger.felled_by.codes(100), strict=True
    ):
        if before in "fx":
            assert (after, later) == (before, letter)
            assert smaller.felled_by.legend[letter].endswith(" at 0.06")
            carried += 1
        elif after in "fx":
            assert larger.felled_by.legend[later].endswith(" at 0.09")
    assert 0 < carried < larger.outcomes.count("f")


def test_letters_do_not_depend_on_how_many_images_were_asked_for(worst: Any, net: nn.Module, digits: Dataset) -> None:
    images, labels = digits.test.images[:50], digits.test.labels[:50]
    first = judged(net, images, labels, epsilons=(0.06, 0.09), sources={"twin": net}, effort="fast")
    for whole, part in zip(worst.epsilons, first.epsilons, strict=True):
        assert part.outcomes == whole.outcomes[:50]
        assert part.felled_by.codes(50) == whole.felled_by.codes(100)[:50]


def test_the_transfer_stage_is_left_out_without_a_source_and_said_so() -> None:
    model, images = linear(2), grey_images(20)
    told = Told()
    result = judged(
        model, images, predicted(model, images), n_classes=2, epsilons=(0.02,), progress=told, effort="fast"
    )
    assert "no source to craft candidates on: the transfer stage is left out" in told.lines
    assert "no-transfer" in result.flags
    stages_run = result.epsilons[0].felled_by.legend.values()
    assert len(stages_run) == 5
    assert not any("transfer" in name for name in stages_run)
    assert (result.evaluation.attack.sources, result.found.sources_sha256) == ((), {})


def test_a_module_handed_over_names_its_sources(ode: nn.Module, digits: Dataset) -> None:
    source = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    options: dict[str, Any] = {
        "threat_model": ThreatModel(norm="linf", epsilons=(0.1,)),
        "images": Slice(n=20, chunk=20),
        "sources": {"linear": source},
    }
    transferred, plain = odebench.evaluate(ode, digits, attacks=["transfer", "fgsm"], **options)
    assert transferred.evaluation.attack.sources == ("linear",)
    assert set(transferred.found.sources_sha256) == {"linear"}
    assert plain.evaluation.attack.sources == ()
    assert source.training, "a source is handed back as it was"
    assert all(parameter.requires_grad for parameter in source.parameters())
    with pytest.raises(ModelError, match=r"expected a torch.nn.Module, not function"):
        odebench.evaluate(ode, digits, **{**options, "sources": {"mine": lambda images: images}})


# Who proposes and who decides


class Decaying(nn.Module):
    """dz/dt = -3 z on linear logits: one Euler step over [0, 1] gives -2 z, which mislabels all."""

    def __init__(self, inner: Linear) -> None:
        super().__init__()
        self.inner = inner
        self.horizon, self.solver = 1.0, fixed_step(step=0.25)

    def stem(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        return -3 * state

    def head(self, state: Tensor) -> Tensor:
        return 20 * state


def test_a_surrogate_that_errs_everywhere_fells_nobody_by_itself() -> None:
    model, images = linear(2), grey_images(40)
    labels = predicted(model, images)
    net = Decaying(model)
    cheap = Classifier(net, n_classes=2, solver=fixed_step("euler", step=1.0))
    assert (cheap.answer(images).logits.argmax(1) != labels).all()
    radius = smallest_radius(model, images, labels, norm="linf")
    for attack in ("pgd", "worst-case"):
        result = judged(
            net,
            images,
            labels,
            n_classes=2,
            attack=attack,
            epsilons=(0.02,),
            surrogate=fixed_step("euler", step=1.0),
        )
        assert set(outcomes(result)) == {"f", "r"}
        assert [letter == "f" for letter in outcomes(result)] == (radius < 0.02).tolist()
        assert result.evaluation.attack.surrogate is not None
        assert result.evaluation.solver == fixed_step(step=0.25)


def test_after_a_faithful_surrogate_a_quarter_of_the_steps_is_left(ode: nn.Module, digits: Dataset) -> None:
    images, labels = digits.test.images[:50], digits.test.labels[:50]
    for attack in ("pgd", "apgd-ce"):
        plain = judged(ode, images, labels, attack=attack, steps=20)
        itself = judged(ode, images, labels, attack=attack, steps=20, surrogate=ode.solver)
        stood = outcomes(plain).count("r")
        assert outcomes(itself).count("r") <= stood
        # The same solver goes first: what stands after it is attacked once more, and not from the beginning.
        extra = (itself.cost.backward - plain.cost.backward) * len(images)
        assert 0 < extra <= 6 * stood + 20, attack


def test_after_a_surrogate_that_leads_astray_all_steps_are_left() -> None:
    model, images = linear(2), grey_images(40)
    labels = predicted(model, images)
    counts = {}
    for name, surrogate in {"none": None, "astray": fixed_step("euler", step=1.0)}.items():
        result = judged(
            Decaying(model), images, labels, n_classes=2, attack="pgd", epsilons=(0.02,), surrogate=surrogate
        )
        counts[name] = result.cost.backward * len(images)
    assert counts["astray"] >= counts["none"]


def wrong_under(judge: Judge, kept: dict[int, Tensor], labels: Tensor) -> dict[int, bool]:
    rows = sorted(kept)
    answer = judge.answer(torch.stack([kept[row] for row in rows]))
    return dict(zip(rows, (answer.logits.argmax(1) != labels[rows]).tolist(), strict=True))


@pytest.mark.parametrize(
    "options", [{"surrogate": fixed_step("euler", step=1.0)}, {"precision": "bf16"}], ids=["surrogate", "bf16"]
)
@pytest.mark.parametrize("attack", ["pgd", "apgd-ce"])
def test_a_fall_is_one_of_the_declared_solver_in_fp32(
    options: dict[str, Any], attack: str, ode: nn.Module, digits: Dataset
) -> None:
    images, labels = digits.test.images[:50], digits.test.labels[:50]
    kept: dict[float, dict[int, Tensor]] = {}
    result = judged(ode, images, labels, attack=attack, epsilons=(0.07,), keep=kept, **options)
    wrong = wrong_under(Judge(Classifier(ode, n_classes=10)), kept[0.07], labels)
    letters = outcomes(result)
    assert {row: letters[row] == "f" for row in wrong} == wrong
    assert 5 < letters.count("f") < 45
    plain = judged(ode, images, labels, attack=attack, epsilons=(0.07,))
    assert [letter == "m" for letter in letters] == [letter == "m" for letter in outcomes(plain)]
    assert abs(letters.count("f") - outcomes(plain).count("f")) <= 2
    assert result.run_key != plain.run_key


def test_bf16_is_what_the_attack_sees_and_not_the_verdict(ode: nn.Module, digits: Dataset) -> None:
    images, seen = digits.test.images[:20], set()

    def note(_: nn.Module, __: Any, output: Tensor) -> None:
        seen.add((output.dtype, torch.is_grad_enabled()))

    hook = ode.stem[1].register_forward_hook(note)
    try:
        judged(ode, images, digits.test.labels[:20], attack="fgsm", precision="bf16")
    finally:
        hook.remove()
    assert (torch.bfloat16, True) in seen
    # Besides the verdict, check 17 asks for differences in fp64.
    assert {dtype for dtype, attacking in seen if not attacking} == {torch.float32, torch.float64}
    classifier = Classifier(ode, n_classes=10)
    exact, coarse = (WrappedModel(classifier, precision=precision)(images) for precision in ("fp32", "bf16"))
    assert coarse.dtype == torch.float32
    assert 0 < (exact - coarse).abs().max() < 0.1 * exact.abs().max()


def test_a_surrogate_takes_over_most_of_the_work(ode: nn.Module, digits: Dataset) -> None:
    asked = {"euler": 0, "rk4": 0}

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ode
            self.stem, self.head, self.horizon, self.solver = ode.stem, ode.head, 1.0, fixed_step(step=0.5)

        def field(self, t: Tensor, state: Tensor) -> Tensor:
            # rk4 with step 0.5 asks within the interval, one Euler step at its beginning alone.
            if state.requires_grad:
                asked["rk4" if float(t) > 0 else "euler"] += len(state)
            rate: Tensor = self.inner.field(t, state)
            return rate

    images, labels = digits.test.images[:50], digits.test.labels[:50]
    counts = []
    for surrogate in (None, fixed_step("euler", step=1.0)):
        asked.update(euler=0, rk4=0)
        judged(Counting(), images, labels, attack="pgd", epsilons=(0.15,), surrogate=surrogate)
        counts.append(asked["rk4"])
    assert counts[1] < counts[0]


def test_what_goes_by_the_surfaces_word_runs_in_fp32(
    ode: nn.Module, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()
    forward = WrappedModel.forward

    def watched(self: WrappedModel, images: Tensor) -> Tensor:
        asked.add(self.precision)
        return forward(self, images)

    monkeypatch.setattr(WrappedModel, "forward", watched)
    images, labels = digits.test.images[:20], digits.test.labels[:20]
    judged(ode, images, labels, attack="fab-t", precision="bf16", steps=2, targets=1, handed_over=False)
    assert asked == {"fp32"}
    asked.clear()
    judged(ode, images, labels, attack="noise", precision="bf16", handed_over=False)
    assert asked == {"bf16"}


def test_bf16_loses_no_fall_of_square(ode: nn.Module, digits: Dataset) -> None:
    images, labels = digits.test.images[:50], digits.test.labels[:50]
    kept: dict[float, dict[int, Tensor]] = {}
    options: dict[str, Any] = {"attack": "square", "epsilons": (0.1,), "queries": 150}
    plain = judged(ode, images, labels, **options)
    quick = judged(ode, images, labels, precision="bf16", keep=kept, **options)
    wrong = wrong_under(Judge(Classifier(ode, n_classes=10)), kept[0.1], labels)
    assert {row: outcomes(quick)[row] == "f" for row in wrong} == wrong
    assert 5 < outcomes(plain).count("f") < 45
    assert abs(outcomes(quick).count("f") - outcomes(plain).count("f")) <= 2


def test_the_head_answers_in_fp32_under_bf16(ode: nn.Module, digits: Dataset) -> None:
    seen = set()
    hook = ode.head.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    try:
        WrappedModel(Classifier(ode, n_classes=10), precision="bf16")(digits.test.images[:20])
    finally:
        hook.remove()
    assert seen == {torch.float32}
