"""The verdict: letters that depend on the image and the candidate alone."""

from __future__ import annotations

import hashlib
import random
from functools import cache
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from odebench.dataset import load_dataset
from odebench.evaluation.verdict import NEAR_TIE, RANDOMISED_PASSES, VERDICT_BATCH, Judge
from odebench.model.classifier import Classifier
from odebench.model.ode import OdeNet
from odebench.numerics.projection import ROUNDING, distance
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import Solver, adaptive, fixed_step

N = 250
RK4 = fixed_step(step=0.125)
TORCHODE = adaptive("dopri5", rtol=1e-2)
TORCHDIFFEQ = adaptive("dopri5", rtol=1e-2, backend="torchdiffeq")


class StiffNet(nn.Module):
    """An ODE classifier with a stiff, contracting field that the image drives; it forgets rounding errors."""

    def __init__(self, solver: Solver, *, dimension: int = 6, n_classes: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.dimension = dimension
        self.register_buffer("lift", torch.randn(64, dimension, generator=generator) / 2)
        coupling = torch.randn(dimension, dimension, generator=generator)
        self.register_buffer("coupling", 0.7 * coupling / torch.linalg.matrix_norm(coupling, 2))
        self.register_buffer("readout", torch.randn(dimension, n_classes, generator=generator))
        self.horizon, self.solver = 1.0, solver

    def stem(self, images: Tensor) -> Tensor:
        drive = (images.flatten(1) - 0.3) @ self.lift
        return torch.cat([torch.zeros_like(drive), drive], dim=1)

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        moving, drive = state.split(self.dimension, dim=1)
        return torch.cat([20 * (torch.sin(moving @ self.coupling + drive + 5 * t) - moving), 0 * drive], dim=1)

    def head(self, state: Tensor) -> Tensor:
        return state[:, : self.dimension] @ self.readout


def judge(solver: Solver, *, alone: bool = False) -> Judge:
    return Judge(Classifier(StiffNet(solver).eval(), n_classes=10), alone=alone)


@cache
def digits() -> Tensor:
    return load_dataset("digits").test.images[:N]


@cache
def case() -> tuple[Tensor, Tensor, Tensor]:
    """Images, the labels that a fine solve gives them, and fixed candidates close to a decision, on either side."""
    images, fine = digits(), judge(fixed_step(step=0.02))
    labels = fine.answer(images).logits.argmax(1)
    near, far = images.clone(), images.roll(1, 0)
    for _ in range(7):  # towards an image of another label, halving
        middle = (near + far) / 2
        same = (fine.answer(middle).logits.argmax(1) == labels)[:, None, None, None]
        near, far = torch.where(same, middle, near), torch.where(same, far, middle)
    return images, labels, torch.where((torch.arange(N) % 2 == 0)[:, None, None, None], near, far)


def letters(judge: Judge, rows: Tensor, *, size: int = N) -> str:
    """The letters of the candidates of `rows`, handed over `size` at a time."""
    images, labels, candidates = case()
    found = [
        judge.candidates(images[part], labels[part], candidates[part], norm="linf", epsilon=1.0).letters
        for part in torch.split(rows, size)
    ]
    return "".join(np.concatenate(found))


@cache
def together(solver: Solver, *, alone: bool = False, n: int = N) -> str:
    """The letters of the candidates of the first n images, handed over at once."""
    return letters(judge(solver, alone=alone), torch.arange(n))


def moved(solver: Solver, sizes: tuple[int, ...], *, alone: bool = False, n: int = N) -> int:
    """How many letters of the first n images move between the sizes and with the order of the images."""
    asked = judge(solver, alone=alone)
    rows = torch.arange(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(5))
    reference = np.array(list(together(solver, alone=alone, n=n)))
    found = np.zeros(n, dtype=bool)
    for size in sizes:
        found |= np.array(list(letters(asked, rows, size=size))) != reference
    permuted = np.array(list(letters(asked, order)))
    found[order.numpy()] |= permuted != reference[order.numpy()]
    return int(found.sum())


def test_batches_move_letters_where_one_step_size_is_shared() -> None:
    """The trap is there: without alone=True the next test would fail for torchdiffeq's dopri5."""
    assert moved(TORCHDIFFEQ, (7, 100)) >= 3


@pytest.mark.parametrize(
    ("solver", "alone", "sizes", "n"),
    [
        (RK4, False, (1, 7, 100), N),
        (TORCHODE, False, (7, 100), N),
        (TORCHDIFFEQ, True, (7,), 40),
    ],
    ids=["rk4", "torchode", "torchdiffeq-alone"],
)
def test_letters_do_not_depend_on_batch_order_and_neighbours(
    solver: Solver, alone: bool, sizes: tuple[int, ...], n: int
) -> None:
    assert set(together(solver, alone=alone, n=n)) == {"f", "r"}
    assert moved(solver, sizes, alone=alone, n=n) == 0


@pytest.mark.parametrize("solver", [RK4, TORCHODE], ids=["rk4", "torchode"])
def test_letters_of_single_images_are_those_of_the_batch(solver: Solver) -> None:
    rows = torch.arange(0, N, 10)
    assert letters(judge(solver), rows, size=1) == "".join(together(solver)[row] for row in rows)


def test_an_answer_of_a_fixed_step_is_bit_equal_beside_any_neighbours() -> None:
    with seeded(0):
        net = OdeNet(image_shape=(1, 8, 8), n_classes=10, channels=8, stem="conv", horizon=1.0, solver=RK4)
    asked, images = Judge(Classifier(net.eval(), n_classes=10)), digits()
    whole = asked.answer(images[:100])
    order = torch.randperm(100, generator=torch.Generator().manual_seed(2))
    assert torch.equal(asked.answer(images[:100][order]).logits, whole.logits[order])
    assert torch.equal(asked.answer(images[:7]).logits, whole.logits[:7])
    assert torch.equal(asked.answer(torch.cat([images[:3], images[200:250]])).logits[:3], whole.logits[:3])


def test_nfe_of_an_image_is_its_own() -> None:
    asked, images = judge(TORCHODE), digits()
    whole = asked.answer(images).nfe
    assert whole is not None
    assert len(set(whole.tolist())) > 1
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    permuted = asked.answer(images[order]).nfe
    assert permuted is not None
    assert torch.equal(permuted, whole[order])
    assert judge(RK4).answer(images[:3]).nfe.tolist() == [8 * 4] * 3


class Table(nn.Module):
    """Logits that are the first pixels of an image, times 10, minus 5; batches are recorded."""

    def __init__(self, n_classes: int = 3) -> None:
        super().__init__()
        self.n_classes, self.batches = n_classes, []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return 10 * images.flatten(1)[:, : self.n_classes] - 5


def table_images(rows: list[list[float]]) -> Tensor:
    """Images for which Table answers these logits, as near as fp32 allows."""
    images = torch.zeros(len(rows), 1, 8, 8)
    images.view(len(rows), -1)[:, : len(rows[0])] = (torch.tensor(rows) + 5) / 10
    return images


class Fickle(Table):
    """Table, but alone in its batch an image gets the first two logits exchanged."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits[:, [1, 0, 2]] if len(images) == 1 else logits


def test_near_ties_are_judged_alone_and_that_stands() -> None:
    gap = NEAR_TIE * 3
    images = table_images([[3.0, 3.0 - 0.5 * gap, 0.0], [3.0, 3.0 - 2 * gap, 0.0], [0.0, 3.0, 3.0 - 0.5 * gap]])
    model = Fickle()
    found = Judge(Classifier(model, n_classes=3)).clean(images, torch.tensor([0, 0, 1]))
    # The first and the third are near ties: alone their first two logits are exchanged.
    assert "".join(found) == "mrm"
    assert model.batches == [100, 1, 1]
    alone = Judge(Classifier(Fickle(), n_classes=3), alone=True).clean(images, torch.tensor([0, 0, 1]))
    assert "".join(alone) == "mmm"


def test_the_largest_logit_sets_the_scale_of_a_tie() -> None:
    # The gap of the top two is 0.004: near for logits as large as 4.5 in absolute value, not for 2.
    images = table_images([[2.0, 1.996, -4.5], [2.0, 1.996, -1.0]])
    model = Fickle()
    Judge(Classifier(model, n_classes=3)).clean(images, torch.tensor([0, 0]))
    assert model.batches == [100, 1]


def test_ties_are_wrong() -> None:
    images = table_images([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [2.0, 0.0, 2.0], [2.0, 0.0, 0.0]])
    asked = Judge(Classifier(Table(), n_classes=3))
    assert "".join(asked.clean(images, torch.tensor([0, 1, 2, 0]))) == "mmmr"
    verdict = asked.candidates(images, torch.tensor([0, 1, 2, 0]), images, norm="linf", epsilon=0.1)
    assert "".join(verdict.letters) == "fffr"


def test_constant_logits_are_wrong_for_every_label() -> None:
    images = torch.full((4, 1, 8, 8), 0.5)
    assert "".join(Judge(Classifier(Table(4), n_classes=4)).clean(images, torch.arange(4))) == "mmmm"


class Broken(Table):
    """Table with one logit replaced where the last pixel is above one half."""

    def __init__(self, value: float, n_classes: int = 3) -> None:
        super().__init__(n_classes)
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        broken = images[:, 0, -1, -1] > 0.5
        return torch.where(broken[:, None] & (torch.arange(self.n_classes) == 0), self.value, logits)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("alone", [False, True])
def test_logits_that_are_not_finite_are_failures(value: float, alone: bool) -> None:
    images = table_images([[3.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    labels = torch.tensor([0, 0, 0])
    broken = images.clone()
    broken[1:, 0, -1, -1] = 0.9
    asked = Judge(Classifier(Broken(value), n_classes=3), alone=alone)
    assert "".join(asked.clean(broken, labels)) == "ruu"
    assert "".join(asked.candidates(images, labels, broken, norm="linf", epsilon=0.95).letters) == "rxx"
    # Within a smaller budget the failing pixel is out of reach.
    assert "".join(asked.candidates(images[:2], labels[:2], broken[:2], norm="linf", epsilon=0.4).letters) == "rr"


class Exploding(nn.Module):
    """An ODE classifier whose state blows up in finite time where the last pixel is bright."""

    def __init__(self, solver: Solver) -> None:
        super().__init__()
        self.horizon, self.solver = 1.0, solver

    def stem(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, [0, 1, 2, -1]]

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(state[:, :3]), 4 * state[:, 3:] ** 2], dim=1)

    def head(self, state: Tensor) -> Tensor:
        return 10 * state[:, :3] - 5


@pytest.mark.parametrize(
    ("solver", "alone"),
    [
        (adaptive("dopri5", rtol=1e-3, max_steps=60), False),
        (adaptive("dopri5", rtol=1e-3, max_steps=60, backend="torchdiffeq"), True),
        (fixed_step("rk4", step=0.01), False),
    ],
    ids=["torchode", "torchdiffeq", "rk4"],
)
def test_a_failing_solver_is_a_letter_of_its_own_image(solver: Solver, alone: bool) -> None:
    """state' = 4 state^2 reaches infinity at t = 1 / (4 state): before the horizon for a state above 1/4."""
    images = table_images([[3.0, 0.0, 0.0]] * 6)
    candidates = images.clone()
    candidates[[1, 4], 0, -1, -1] = 0.6
    candidates[[2], 0, -1, -1] = 0.1
    labels = torch.zeros(6, dtype=torch.long)
    asked = Judge(Classifier(Exploding(solver), n_classes=3), alone=alone)
    assert "".join(asked.clean(candidates, labels)) == "rurrur"
    assert "".join(asked.candidates(images, labels, candidates, norm="linf", epsilon=1.0).letters) == "rxrrxr"
    wrong = torch.ones(6, dtype=torch.long)
    assert "".join(asked.clean(candidates, wrong)) == "mummum"


# The projection


def test_candidates_out_of_budget_are_moved_and_counted() -> None:
    images = table_images([[3.0, 0.0, 0.0]] * 3)
    candidates = images.clone()
    candidates[0, 0, 0, 0] -= 0.4  # would be fooled, if it were not moved back
    candidates[1, 0, 0, 0] -= 0.05
    labels = torch.zeros(3, dtype=torch.long)
    asked = Judge(Classifier(Table(), n_classes=3))
    assert "".join(asked.clean(candidates, labels)) == "mrr"
    verdict = asked.candidates(images, labels, candidates, norm="linf", epsilon=0.1)
    assert "".join(verdict.letters) == "rrr"
    assert verdict.invalid.tolist() == [True, False, False]
    torch.testing.assert_close(verdict.distances, torch.tensor([0.1, 0.05, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(verdict.judged[0, 0, 0, 0], images[0, 0, 0, 0] - 0.1)


def test_minimal_norm_candidates_may_lie_beyond_the_budget() -> None:
    images = table_images([[3.0, 0.0, 0.0]] * 2)
    candidates = images.clone()
    candidates[0, 0, 0, :2] += torch.tensor([-0.4, 0.4])
    verdict = Judge(Classifier(Table(), n_classes=3)).candidates(
        images, torch.zeros(2, dtype=torch.long), candidates, norm="l2", epsilon=0.3, fixed_budget=False
    )
    assert verdict.invalid.tolist() == [False, False]
    # On the edge of the ball the two logits differ by 3 - 10 x 0.3 x sqrt(2) < 0: fooled all the same.
    assert "".join(verdict.letters) == "fr"
    assert float(verdict.distances[0]) == pytest.approx(0.3, abs=1e-5)


def test_moves_by_rounding_are_not_counted() -> None:
    images = table_images([[3.0, 0.0, 0.0]])
    candidates = images + 0.1 + 5e-7
    verdict = Judge(Classifier(Table(), n_classes=3)).candidates(
        images, torch.zeros(1, dtype=torch.long), candidates, norm="linf", epsilon=0.1
    )
    assert verdict.invalid.tolist() == [False]


@pytest.mark.parametrize("fixed_budget", [False, True])
def test_candidates_that_are_not_finite_are_judged_as_their_clean_image(fixed_budget: bool) -> None:
    images = table_images([[3.0, 0.0, 0.0]] * 4)
    candidates = images.clone()
    for row, value in enumerate((torch.nan, torch.inf, -torch.inf)):
        candidates[row, 0, 3, 3] = value
        candidates[row, 0, 0, 1] = 1.0  # the rest of it would fool
    asked = Judge(Classifier(Table(), n_classes=3))
    verdict = asked.candidates(
        images, torch.zeros(4, dtype=torch.long), candidates, norm="linf", epsilon=1.0, fixed_budget=fixed_budget
    )
    assert "".join(verdict.letters) == "rrrr"
    assert verdict.invalid.tolist() == [True, True, True, False]
    assert torch.equal(verdict.judged, images)
    assert verdict.distances.tolist() == [0.0] * 4


def test_candidates_out_of_range_are_clipped_and_counted() -> None:
    images = table_images([[3.0, 0.0, 0.0]] * 2)
    candidates = images.clone()
    candidates[0, 0, 0, 0] = -0.3
    candidates[1, 0, 5, 5] = -0.1
    verdict = Judge(Classifier(Table(), n_classes=3)).candidates(
        images, torch.zeros(2, dtype=torch.long), candidates, norm="linf", epsilon=2.0
    )
    assert verdict.invalid.tolist() == [True, True]
    assert "".join(verdict.letters) == "fr"
    assert float(verdict.judged.min()) == 0.0


@given(
    st.sampled_from(["linf", "l2"]),
    st.floats(1e-3, 1.0),
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=64, max_size=64),
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_handed_over_is_judged_within_the_budget(norm: str, epsilon: float, pixels: list[float]) -> None:
    images = torch.full((1, 1, 8, 8), 0.4)
    candidates = torch.tensor(pixels).reshape(images.shape)
    verdict = Judge(Classifier(Table(), n_classes=3)).candidates(
        images, torch.zeros(1, dtype=torch.long), candidates, norm=norm, epsilon=epsilon
    )
    assert verdict.judged.isfinite().all()
    assert ((verdict.judged >= 0) & (verdict.judged <= 1)).all()
    assert (distance(images, verdict.judged, norm=norm) <= epsilon + ROUNDING).all()
    inside = (candidates - images).abs().amax() <= epsilon and candidates.min() >= 0 and candidates.max() <= 1
    if norm == "linf" and not inside and not torch.allclose(candidates, verdict.judged, atol=2 * ROUNDING):
        assert verdict.invalid.tolist() == [True]


# What the model sees


@pytest.mark.parametrize("n", [1, 7, 99, 100, 101, 250])
def test_a_model_sees_batches_of_one_hundred_only(n: int) -> None:
    model = Table()
    asked = Judge(Classifier(model, n_classes=3))
    images = table_images([[3.0, 0.0, 0.0]] * n)
    assert len(asked.clean(images, torch.zeros(n, dtype=torch.long))) == n
    assert model.batches == [VERDICT_BATCH] * -(-n // 100)
    assert asked.forward_images == 100 * -(-n // 100)


def test_alone_a_model_sees_single_images_only() -> None:
    model = Table()
    asked = Judge(Classifier(model, n_classes=3), alone=True)
    assert "".join(asked.clean(table_images([[3.0, 0.0, 0.0]] * 7), torch.zeros(7, dtype=torch.long))) == "r" * 7
    assert model.batches == [1] * 7
    assert asked.forward_images == 7


def test_batches_are_filled_with_the_last_row() -> None:
    seen = []

    class Watch(Table):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images.clone())
            return super().forward(images)

    images = table_images([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    Judge(Classifier(Watch(), n_classes=3)).answer(images)
    assert torch.equal(seen[0][:2], images)
    assert torch.equal(seen[0][2:], images[1:].expand(98, -1, -1, -1))


class Overwriting(Table):
    """A model that overwrites its input."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        images.fill_(0.5)
        return logits


@pytest.mark.parametrize("n", [3, 100])
@pytest.mark.parametrize("alone", [False, True])
def test_a_model_that_changes_its_input_changes_no_image(n: int, alone: bool) -> None:
    images = table_images([[3.0, 0.0, 0.0]] * n)
    before, labels = images.clone(), torch.zeros(n, dtype=torch.long)
    asked = Judge(Classifier(Overwriting(), n_classes=3), alone=alone)
    assert "".join(asked.clean(images, labels)) == "r" * n
    verdict = asked.candidates(images, labels, images, norm="linf", epsilon=0.1)
    assert "".join(verdict.letters) == "r" * n
    assert torch.equal(images, before)
    assert torch.equal(verdict.judged, before)


class Typed(Table):
    """A model that notes the type of its input and answers in double precision."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32
        assert not torch.is_grad_enabled()
        return super().forward(images).double()


def test_the_verdict_is_in_single_precision_without_gradients() -> None:
    images = table_images([[3.0, 0.0, 0.0]]).double().requires_grad_()
    answer = Judge(Classifier(Typed(), n_classes=3)).answer(images)
    assert answer.logits.dtype == torch.float32
    assert not answer.logits.requires_grad


def test_int32_labels_are_labels() -> None:
    images = table_images([[3.0, 0.0, 0.0]] * 2)
    found = Judge(Classifier(Table(), n_classes=3)).clean(images, torch.tensor([0, 1], dtype=torch.int32))
    assert "".join(found) == "rm"


def test_part_of_a_verdict_is_that_of_its_images() -> None:
    images = table_images([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    verdict = Judge(Classifier(Table(), n_classes=3)).candidates(
        images, torch.zeros(2, dtype=torch.long), images + 0.5, norm="linf", epsilon=0.1
    )
    part = verdict.only(torch.tensor([False, True]))
    assert "".join(part.letters) == "f"
    assert torch.equal(part.judged, verdict.judged[1:])
    assert torch.equal(part.distances, verdict.distances[1:])
    assert part.invalid.tolist() == [True]
    assert part.nfe is None


# Randomised models


class Votes(nn.Module):
    """A model whose answers follow a script: r the first class, f the second, t a tie, x not finite; and again."""

    ANSWERS: ClassVar = {"r": [1.0, 0.0], "f": [0.0, 1.0], "t": [1.0, 1.0], "x": [torch.nan, 0.0]}

    def __init__(self, script: str) -> None:
        super().__init__()
        self.script, self.calls = script, 0

    def forward(self, images: Tensor) -> Tensor:
        assert len(images) == 1, "a randomised model is asked about one image at a time"
        answer = self.ANSWERS[self.script[self.calls % len(self.script)]]
        self.calls += 1
        return torch.tensor([answer])


GREY = torch.full((1, 1, 8, 8), 0.5)
ZERO = torch.zeros(1, dtype=torch.long)


def vote(script: str) -> tuple[str, str, int]:
    """The letters of a clean image and of a candidate, and how many passes the first took."""
    model = Votes(script)
    clean = "".join(Judge(Classifier(model, n_classes=2), passes=len(script)).clean(GREY, ZERO))
    asked = Judge(Classifier(Votes(script), n_classes=2), passes=len(script))
    attacked = "".join(asked.candidates(GREY, ZERO, GREY, norm="linf", epsilon=0.1).letters)
    assert asked.forward_images == model.calls
    return clean, attacked, model.calls


@pytest.mark.parametrize(
    ("script", "clean", "attacked"),
    [
        ("r" * 20, "r", "r"),
        ("r" * 11 + "f" * 9, "r", "r"),
        ("f" * 9 + "r" * 11, "r", "r"),
        ("x" * 9 + "r" * 11, "r", "r"),
        ("r" * 10 + "f" * 10, "m", "f"),  # half is no majority
        ("f" * 10 + "r" * 10, "m", "f"),
        ("r" * 10 + "t" * 10, "m", "f"),  # a tie is not correct
        ("rf" * 10, "m", "f"),
        ("f" * 20, "m", "f"),
        ("x" * 20, "u", "x"),
        ("r" * 10 + "x" * 10, "u", "x"),
        ("r" * 5 + "f" * 7 + "x" * 8, "u", "x"),
        ("x" * 8 + "f" * 7 + "r" * 5, "u", "x"),
        ("r" * 4 + "x" * 8 + "f" * 8, "m", "f"),  # failures must outnumber mistakes
        ("f" * 8 + "x" * 8 + "r" * 4, "m", "f"),
    ],
)
def test_the_majority_of_twenty_passes_decides(script: str, clean: str, attacked: str) -> None:
    assert len(script) == RANDOMISED_PASSES
    assert vote(script)[:2] == (clean, attacked)


@given(st.text("rftx", min_size=20, max_size=20))
@settings(max_examples=30, deadline=None)
def test_stopping_early_gives_the_letter_of_all_passes(script: str) -> None:
    counts = {kind: script.count(kind) for kind in "rftx"}
    mistakes = counts["f"] + counts["t"]
    expected = ("r", "r") if counts["r"] > 10 else ("u", "x") if counts["x"] > mistakes else ("m", "f")
    clean, attacked, calls = vote(script)
    assert (clean, attacked) == expected
    assert calls <= 20


def test_passes_stop_where_the_rest_can_change_nothing() -> None:
    assert vote("r" * 20)[2] == 11
    # Eleven correct can no longer be had after ten mistakes, and no failures outnumber them.
    assert vote("f" * 20)[2] == vote("x" * 20)[2] == 11
    assert vote("r" * 10 + "f" * 10)[2] == 20
    assert vote("f" * 5 + "x" * 5 + "r" * 10)[2] == 20, "one more failure would make it u"


class Drawing(nn.Module):
    """Logits are normal random numbers, of torch, numpy and Python, and are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        self.drawn.append(float(torch.randn(())))
        return torch.tensor([[self.drawn[-1], np.random.randn(), random.gauss(0, 1)]]).float()


def test_a_pass_is_seeded_by_seed_image_and_number() -> None:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Drawing()
    state = torch.get_rng_state()
    Judge(Classifier(model, n_classes=3), passes=20, seed=5).clean(images, torch.zeros(2, dtype=torch.long))
    assert torch.equal(torch.get_rng_state(), state)
    expected = []
    for image in images:
        identity = hashlib.sha256(image.numpy().tobytes()).hexdigest()
        for index in range(20):
            text = f"5/{identity}/{index}"
            with seeded(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")):
                expected.append(float(torch.randn(())))
    first = model.drawn.index(expected[20])
    assert model.drawn[:first] == expected[:first]
    assert model.drawn[first:] == expected[20 : 20 + len(model.drawn) - first]
    assert len(set(expected)) == 40


class Shaken(Table):
    """Table with noise on its logits."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 2 * torch.randn(len(images), self.n_classes)


def shaken(seed: int = 0, passes: int = 20) -> Judge:
    return Judge(Classifier(Shaken(), n_classes=3), passes=passes, seed=seed)


def test_letters_of_a_random_model_do_not_depend_on_order_neighbours_or_slice() -> None:
    rows = [[3.0, 3.0 - 0.05 * index, 0.0] for index in range(16)]
    images, labels = table_images(rows), torch.zeros(16, dtype=torch.long)
    candidates = (images - 0.02).clamp(0, 1)

    def of(rows: Tensor, judge: Judge) -> str:
        found = judge.candidates(images[rows], labels[rows], candidates[rows], norm="linf", epsilon=0.1).letters
        return "".join(judge.clean(images[rows], labels[rows])) + "".join(found)

    whole = of(torch.arange(16), shaken())
    assert {"m", "r", "f"} <= set(whole)
    clean, attacked = whole[:16], whole[16:]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(77)
    permuted = of(order, shaken())
    assert permuted[:16] == "".join(clean[row] for row in order)
    assert permuted[16:] == "".join(attacked[row] for row in order)
    assert of(torch.arange(12, 16), shaken()) == clean[12:] + attacked[12:]
    assert of(torch.tensor([14]), shaken()) == clean[14] + attacked[14]
    assert of(torch.arange(16), shaken(seed=1)) != whole


def test_a_point_is_seeded_by_the_clean_image_it_belongs_to() -> None:
    """So that a candidate faces the random numbers of its image, not such as it has chosen for itself."""
    images = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    models = Drawing(), Drawing()
    for model, point in zip(models, (images, images * 0.99), strict=True):
        Judge(Classifier(model, n_classes=3), passes=20).opinion(point, ZERO, of=images)
    shared = min(len(model.drawn) for model in models)
    assert models[0].drawn[:shared] == models[1].drawn[:shared]


def test_the_answer_of_a_random_model_is_that_of_its_first_pass() -> None:
    found = Judge(Classifier(Votes("r" + "f" * 19), n_classes=2), passes=20).opinion(GREY, ZERO, of=GREY)
    assert found.answer.logits.tolist() == [[1.0, 0.0]]
    assert found.correct.tolist() == [False]
    assert found.answer.nfe is None
    asked = Judge(Classifier(Exploding(fixed_step("rk4", step=0.5)), n_classes=3), passes=4)
    images = table_images([[3.0, 0.0, 0.0]] * 3)
    assert asked.opinion(images, torch.zeros(3, dtype=torch.long), of=images).answer.nfe.tolist() == [8] * 3
