"""The second half of check 17: gradients that an attack received, and the sample that is kept of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from honest_modules import KeepsActivation
from small_model import first_digits, fitted_small_ode, judged, linear, outcomes
from torch import Tensor, nn

from odebench.attack.received import MOST, MOST_ALONE, Received
from odebench.dataset import Split
from odebench.evaluation import execution
from odebench.evaluation.checks.gradient import NOTHING
from odebench.evaluation.checks.replay import cosines, with_replay
from odebench.evaluation.checks.rule import threshold_check
from odebench.evaluation.execution import measure
from odebench.evaluation.loading import LoadedModels
from odebench.evaluation.measurements import concatenate
from odebench.model.classifier import Classifier
from odebench.model.process_classifier import DrawnGradient
from odebench.result.outcome import CheckId
from odebench.result.schema import Check, Result

N, CHUNK = 60, 20


def attacked(module: nn.Module, attack: str = "pgd", **options: Any) -> Result:
    images, labels = first_digits(N)
    return judged(module, images, labels, attack=attack, **{"chunk": CHUNK, **options})


def fidelity(result: Result) -> Check:
    return {one.id: one for one in result.checks}[17]


class Twist(torch.autograd.Function):
    """The identity, whose gradient in some images is moved to other pixels."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, wrong: Tensor) -> Tensor:
        ctx.wrong = wrong
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        moved = torch.roll(gradients[0], (3, 2), (2, 3))
        return torch.where(ctx.wrong[:, None, None, None], moved, gradients[0]), None


class UnderAttack(nn.Module):
    """Its gradient is false where the graph above its input shows that images were chosen from a batch, as attacks do
    that leave fallen ones alone; with `answers` only where it answers one of these."""

    def __init__(self, net: nn.Module, answers: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.net, self.answers = net, torch.tensor(answers)

    def forward(self, images: Tensor) -> Tensor:
        wrong = torch.zeros(len(images), dtype=torch.bool)
        above = images.grad_fn.next_functions if images.grad_fn is not None else ()
        if any(node is not None and "Index" in node.name() for node, _ in above):
            with torch.no_grad():
                wrong = torch.isin(self.net(images).argmax(1), self.answers) if len(self.answers) else ~wrong
        logits: Tensor = self.net(Twist.apply(images, wrong))
        return logits


@pytest.mark.parametrize("attack", ["pgd", "quick-diagnosis"])
@pytest.mark.parametrize("handed_over", [False, True])
def test_the_gradients_of_an_honest_model_are_all_true(attack: str, handed_over: bool) -> None:
    check = fidelity(attacked(fitted_small_ode(), attack, handed_over=handed_over))
    assert (check.status, check.evidence["replayed"], check.evidence["replayed_wrong"]) == ("pass", MOST, 0)


@pytest.mark.parametrize("answers", [(), (4,)])
def test_a_gradient_that_is_false_under_attack_alone_flags_and_raises_doubt(answers: tuple[int, ...]) -> None:
    result = attacked(UnderAttack(fitted_small_ode(), answers), chunk=N)
    check = fidelity(result)
    assert (check.status, check.evidence["wrong"]) == ("flag", 0)
    wrong = check.evidence["replayed_wrong"]
    assert isinstance(wrong, int)
    assert wrong > (50 if not answers else 2)
    assert check.why.startswith(f"{wrong} of {check.evidence['replayed']} gradients that the attack received")
    assert "check 17, gradient fidelity, flags" in result.doubt
    assert check.figure == fidelity(attacked(fitted_small_ode(), chunk=N)).figure, "points of its own say the same"


def test_a_module_that_keeps_its_last_graph_is_compared_all_the_same() -> None:
    check = fidelity(attacked(KeepsActivation(fitted_small_ode())))
    assert (check.status, check.evidence["replayed_wrong"]) == ("pass", 0)


def test_nothing_is_replayed_where_no_gradient_was_asked_for() -> None:
    assert not [one for one in attacked(fitted_small_ode(), "square", queries=5).checks if "replayed" in one.evidence]


def test_taking_note_changes_no_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = attacked(fitted_small_ode())
    monkeypatch.setattr(Received, "offer", lambda *_: None)
    bare = attacked(fitted_small_ode())
    assert outcomes(bare) == outcomes(noted)
    assert bare.epsilons[0].felled_by == noted.epsilons[0].felled_by
    assert "replayed" not in fidelity(bare).evidence
    assert fidelity(bare).figure == fidelity(noted).figure


def test_slices_replay_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[DrawnGradient]] = []
    examine = execution.examine

    def noted(attack: Any, *given: Any) -> Any:
        found = examine(attack, *given)
        kept.append(list(attack.received.kept))
        return found

    monkeypatch.setattr(execution, "examine", noted)
    images, labels = first_digits(N)
    whole = attacked(fitted_small_ode(), epsilons=(0.05, 0.1))
    models = LoadedModels(Classifier(fitted_small_ode(), n_classes=10), "0" * 64)
    slices = [
        measure(whole.evaluation, models, Split(images, labels), rows=slice(start, start + CHUNK))
        for start in range(0, N, CHUNK)
    ]
    assert fidelity(concatenate(slices).result(whole.evaluation)) == fidelity(whole)
    first, *others = kept
    for other in others:
        for one, same in zip(first, other, strict=True):
            assert torch.equal(one.image, same.image)
            assert torch.equal(one.cotangent, same.cotangent)
            assert torch.equal(one.gradient, same.gradient)


# The sample


def offers(count: int, *, of: int = 30) -> Received:
    """Batches whose gradient says where in the order it was offered."""
    kept = Received()
    for batch in range(count):
        order = torch.arange(batch * of, (batch + 1) * of).float()
        kept.offer(torch.zeros(of, 1, 2, 2), torch.ones(of, 3), order[:, None, None, None].expand(of, 1, 2, 2))
    return kept


def places(kept: Received) -> list[int]:
    return [int(one.gradient[0, 0, 0]) for one in kept.kept]


def test_the_sample_is_of_all_that_was_offered_and_the_same_again() -> None:
    state = torch.get_rng_state()
    kept = places(offers(100))
    assert len(set(kept)) == len(kept) == MOST
    assert 1200 < sum(kept) / MOST < 1800
    assert kept == places(offers(100))
    assert places(offers(2)) == list(range(60))
    assert torch.equal(torch.get_rng_state(), state)


def test_fewer_are_replayed_of_a_model_that_is_asked_image_by_image() -> None:
    kept = offers(100)
    alone = [int(one.gradient[0, 0, 0]) for one in kept.sample(alone=True)]
    assert len(set(alone)) == MOST_ALONE
    assert set(alone) <= set(places(kept))


def test_what_is_kept_is_a_copy_and_nothing_is_added_once_it_is_closed() -> None:
    kept, images = Received(), torch.zeros(2, 1, 2, 2)
    kept.offer(images, torch.tensor([[1.0, -1.0], [0.0, 0.0]]), images + 1)
    images += 5
    assert [one.image.max() for one in kept.kept] == [0]
    kept.close()
    kept.offer(images, torch.ones(2, 2), images)
    assert len(kept.kept) == 1


@pytest.mark.parametrize("value", [0.0, 1e-30, float("nan"), float("inf")])
def test_a_cotangent_that_says_nothing_is_left_out(value: float) -> None:
    kept = Received()
    kept.offer(torch.zeros(1, 1, 2, 2), torch.full((1, 3), value), torch.ones(1, 1, 2, 2))
    assert not kept.kept


# The comparison


def compared(gradient: Tensor, image: Tensor) -> float:
    asked = Classifier(linear(10), n_classes=10)
    with asked.frozen():
        found = cosines(asked, [DrawnGradient(image, CLASS, gradient)], alone=False)
    return float(found[0])


CLASS = torch.eye(10)[3] * 1e-8


@pytest.mark.parametrize("shade", [0.0, 0.5, 1.0])
def test_the_cosine_is_that_with_the_true_gradient_at_the_ends_of_the_range_too(shade: float) -> None:
    true, image = 1e-8 * linear(10).weight[3].detach().view(1, 8, 8), torch.full((1, 8, 8), shade)
    assert compared(true, image) == pytest.approx(1, abs=1e-6)
    assert compared(-true, image) == pytest.approx(-1, abs=1e-6)


def test_a_pixel_without_gradient_counts_but_at_the_end_of_a_clip() -> None:
    true = 1e-8 * linear(10).weight[3].detach().view(1, 8, 8)
    half = true.clone()
    half[:, :4] = 0
    black = torch.full((1, 8, 8), 0.5)
    black[:, :4] = 0
    assert compared(half, black) == pytest.approx(1, abs=1e-6)
    assert compared(half, torch.full((1, 8, 8), 0.5)) < 0.95


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_no_gradient_at_all_is_false_but_at_the_end_of_a_clip(value: float) -> None:
    assert compared(torch.full((1, 8, 8), value), torch.full((1, 8, 8), 0.5)) == 0
    assert compared(torch.full((1, 8, 8), value), torch.zeros(1, 8, 8)) == NOTHING


@pytest.mark.parametrize(("status", "expected"), [("flag", "flag"), ("pass", "skipped")])
def test_a_flag_stays_where_the_model_cannot_be_asked_in_fp64(status: str, expected: str) -> None:
    class Single(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if images.dtype == torch.float64:
                raise RuntimeError("fp32 only")
            return linear(10)(images)  # type: ignore[no-any-return]

    image = torch.full((1, 8, 8), 0.5)
    own = threshold_check(
        CheckId.GRADIENT_FIDELITY, speaks_of="model", flagged=status == "flag", figure=0.1, threshold=0.95, why="x"
    )
    asked = Classifier(Single(), n_classes=10)
    assert with_replay(own, asked, [DrawnGradient(image, CLASS, image)], alone=False).status == expected
