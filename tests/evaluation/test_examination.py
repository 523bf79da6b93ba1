"""What PGD and the worst case look at on their first chunk: masks are seen through, and honest models left alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from honest_modules import honest_modules
from masked_models import clips, masks
from small_model import clamp_is_flat_at_its_edge, first_digits, fitted_small_ode, judged, outcomes
from strangers_masks import strangers_masks
from torch import Tensor, nn

from odebench.dataset import load_dataset
from odebench.result.outcome import EXAMINATION
from odebench.result.schema import Check, Result

N = 40


def examined(module: nn.Module, attack: str = "pgd", **options: Any) -> Result:
    images, labels = first_digits(N)
    return judged(module, images, labels, attack=attack, chunk=N, **options)


def check(result: Result, number: int) -> Check:
    return {one.id: one for one in result.checks}[number]


MASKS = {control.name: control.meant for control in masks(nn.Identity())}  # type: ignore[arg-type]
SEEN_HERE = [name for name, meant in MASKS.items() if meant and meant != (19,)]


@pytest.mark.parametrize("name", SEEN_HERE)
def test_the_check_that_is_meant_for_a_mask_flags_it_and_raises_doubt(name: str) -> None:
    (control,) = [one for one in masks(fitted_small_ode()) if one.name == name]  # type: ignore[arg-type]
    result = examined(control.module)
    number = control.meant[0]
    assert check(result, number).status == "flag"
    assert f"check {number}, {check(result, number).name}, flags" in result.doubt
    assert len(set(result.doubt)) == len(result.doubt)


def test_a_gradient_that_is_false_for_one_class_alone_is_seen_where_the_attack_went() -> None:
    (control,) = [one for one in strangers_masks(fitted_small_ode()) if one.name == "one class"]  # type: ignore[arg-type]
    told = check(examined(control.module), 17)
    assert told.status == "flag"
    assert 3 <= told.evidence["replayed_wrong"] < told.evidence["replayed"] / 2  # type: ignore[operator]


@pytest.mark.parametrize("name", ["near the boundary", "autograd graph"])
def test_the_worst_case_compares_pgd_alone_with_a_single_step_and_with_noise(name: str) -> None:
    (control,) = [one for one in strangers_masks(fitted_small_ode()) if one.name == name]  # type: ignore[arg-type]
    result = examined(control.module, "worst-case")
    assert "flag" in {check(result, number).status for number in control.meant if number != 17}
    alone = examined(control.module)
    for number in (5, 11):
        assert check(result, number).k == check(alone, number).k


@pytest.mark.parametrize("attack", ["pgd", "worst-case", "quick-diagnosis"])
def test_an_honest_model_is_examined_and_not_flagged(attack: str) -> None:
    result = examined(fitted_small_ode(), attack, handed_over=False)
    assert {one.id for one in result.checks} >= set(EXAMINATION)
    assert not [one for one in result.checks if one.status == "flag" and one.speaks_of == "model"]
    assert result.doubt == ()
    told = check(result, 19)
    assert (told.status, told.speaks_of) == ("skipped", "settings")


def test_other_attacks_examine_nothing() -> None:
    result = examined(fitted_small_ode(), "fgsm", handed_over=False)
    assert not {one.id for one in result.checks} & set(EXAMINATION)


@pytest.mark.parametrize("name", clips(nn.Identity()))
def test_a_model_that_clips_its_input_falls_like_its_twin(name: str) -> None:
    twin, clipped = examined(fitted_small_ode()), examined(clips(fitted_small_ode())[name])
    robust = [outcomes(one).count("r") for one in (twin, clipped)]
    assert robust[0] < N / 2
    assert abs(robust[1] - robust[0]) <= 1
    assert not [one for one in clipped.checks if one.status == "flag"]
    told, expected = check(clipped, 21), check(twin, 21)
    assert expected.figure == 0
    assert told.status == "pass"
    assert told.figure is not None
    assert told.figure > 0.9 or not clamp_is_flat_at_its_edge()


@cache
def modules() -> dict[str, nn.Module]:
    return honest_modules(fitted_small_ode(), fitted_small_ode(), load_dataset("digits"), epochs=4)


@pytest.mark.parametrize("name", honest_modules(nn.Identity(), nn.Identity(), load_dataset("digits"), epochs=0))
def test_an_honest_module_is_not_flagged(name: str) -> None:
    result = examined(modules()[name])
    assert not [one for one in result.checks if one.status == "flag" and one.speaks_of == "model"]
    assert result.doubt == ()


def test_the_examination_costs_nothing_of_what_a_result_counts() -> None:
    pgd = examined(fitted_small_ode(), handed_over=False)
    passes = sum(stage.forward for stage in pgd.cost.stages)
    assert [stage.name for stage in pgd.cost.stages] == ["pgd"]
    assert pgd.cost.forward == pytest.approx(passes + 100 / N)  # the clean images fill one batch of the verdict
    assert 0 < sum(stage.seconds for stage in pgd.cost.stages) <= pgd.cost.seconds


@pytest.mark.usefixtures("few_passes")
def test_random_numbers_leave_nothing_to_examine() -> None:
    class Noisy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = fitted_small_ode()(images + 0.1 * torch.randn_like(images))
            return logits

    result = examined(Noisy())
    skipped = [check(result, number) for number in EXAMINATION]
    assert result.doubt == (), "random numbers alone are no reason"
    assert {(one.status, one.why) for one in skipped} == {
        ("skipped", "the model draws random numbers: it differs at every pass")
    }


def test_a_randomised_mask_raises_doubt_as_well() -> None:
    class Rounded(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = fitted_small_ode()(torch.round(images * 7) / 7)
            return logits + 3e-3 * torch.randn_like(logits)

    images, labels = first_digits(N)
    result = judged(Rounded(), images[:10], labels[:10], attack="pgd", chunk=10, steps=2)
    assert "randomised" in result.flags
    assert result.doubt == ("check 1, gradient availability, flags",)
