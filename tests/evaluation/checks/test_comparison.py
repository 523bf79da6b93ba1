"""Checks that compare what attacks felled: k, n and the flag by letters written down by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from odebench.attack.trace import Trace
from odebench.evaluation.checks.comparison import (
    black_box,
    convergence,
    incomplete_optimisation,
    monotone_budget,
    random_noise,
    silent_success,
    single_step,
    transferred,
    unbounded,
)
from odebench.numerics.statistics import wilson_lower
from odebench.result.schema import Check


def letters(text: str) -> np.ndarray:
    return np.array(list(text))


STANDS = letters("r" * 200)

# Each check with k of 200 images that the probe fells and the reference does not.
COUNTS: dict[str, tuple[int, str, Callable[[int], Check]]] = {
    "black box": (4, "model", lambda k: black_box(k, 200)),
    "iterative beats single step": (5, "model", lambda k: single_step(STANDS, felling(k))),
    "convergence": (6, "settings", lambda k: convergence(STANDS, felling(k), STANDS)),
    "silent success": (8, "settings", lambda k: silent_success(Trace(silent_successes=k), 200)),
    "unbounded attack": (9, "model", lambda k: unbounded(STANDS, felling(k))),
    "monotone budget": (10, "settings", lambda k: monotone_budget({0.1: felling(k), 0.2: STANDS})),
    "random noise": (11, "model", lambda k: random_noise(STANDS, felling(k))),
    "transfer": (12, "model", lambda k: transferred(k, 200, ["resnet"])),
}


def felling(k: int) -> np.ndarray:
    return letters("f" * k + "r" * (200 - k))


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(("k", "status"), [(0, "pass"), (4, "pass"), (5, "flag"), (200, "flag")])
def test_a_count_flags_from_five_of_two_hundred(name: str, k: int, status: str) -> None:
    number, speaks_of, build = COUNTS[name]
    check = build(k)
    assert (check.id, check.name, check.speaks_of) == (number, name, speaks_of)
    assert (check.k, check.n, check.status) == (k, 200, status)
    assert check.figure == pytest.approx(wilson_lower(k, 200))
    assert check.threshold == 0.01
    assert check.why


PAIRS = {
    "iterative beats single step": single_step,
    "random noise": random_noise,
    "unbounded attack": unbounded,
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_counts_is_felled_by_the_probe_and_robust_against_the_reference(name: str) -> None:
    """Failures count as falls; m and u are not attacked; what the reference fells is no evidence."""
    reference, probe = letters("mufxrrrrr"), letters("murrfxrfx")
    check = PAIRS[name](reference, probe)
    assert (check.k, check.n) == (4, 7)


def test_grey_and_attack_are_counted_beside_each_other() -> None:
    check = unbounded(letters("fffrm"), letters("xrrfm"))
    assert (check.k, check.n) == (1, 4)
    assert check.evidence == {"grey": 2, "attack": 3}


def test_convergence_is_the_larger_of_two_counts() -> None:
    reference = letters("rrrrrfm")
    longer, restarted = letters("frrrrfm"), letters("rxfrrrm")
    check = convergence(reference, longer, restarted)
    assert (check.k, check.n) == (2, 6)
    assert check.evidence == {"twice_the_steps": 1, "another_start": 2}
    assert convergence(reference, restarted, longer).k == 2


# 10 monotone budget


def test_an_image_lost_between_any_two_neighbouring_radii_counts_once() -> None:
    runs = {0.3: letters("rrfrrm"), 0.1: letters("frrfrm"), 0.2: letters("rffxrm")}
    # From 0.1 to 0.2 the first image stands again, from 0.2 to 0.3 the second and the fourth.
    check = monotone_budget(runs)
    assert (check.k, check.n) == (3, 5)
    assert check.evidence["epsilons"] == [0.1, 0.2, 0.3]
    assert check.evidence["robust_accuracy"] == pytest.approx([3 / 6, 2 / 6, 4 / 6])
    assert check.evidence["clean_accuracy"] == pytest.approx(5 / 6)


def test_an_image_lost_twice_counts_once() -> None:
    check = monotone_budget({0.1: letters("fr"), 0.2: letters("rr"), 0.3: letters("fr"), 0.4: letters("rr")})
    assert (check.k, check.n) == (1, 2)


def test_falls_that_stay_are_no_loss() -> None:
    assert monotone_budget({0.1: letters("rrf"), 0.2: letters("rff"), 0.3: letters("fxf")}).k == 0


def test_one_radius_is_compared_with_nothing() -> None:
    check = monotone_budget({0.1: letters("rf")})
    assert (check.id, check.status, check.speaks_of, check.k, check.n) == (10, "skipped", "settings", None, None)
    assert "one radius alone" in check.why
    assert "--epsilon" in check.why


# 12 transfer


def test_transfer_without_sources_is_not_made() -> None:
    check = transferred(0, 200, [])
    assert (check.id, check.status, check.speaks_of, check.k) == (12, "skipped", "model", None)
    assert "name one as a source" in check.why


def test_transfer_names_its_sources() -> None:
    assert transferred(3, 50, ("resnet", "ode:seed=1")).evidence == {"sources": ["resnet", "ode:seed=1"]}


# 7 incomplete optimisation


def traced(*curves: list[float]) -> Trace:
    return Trace(losses=dict(enumerate(curves)))


RISING = [float(step) for step in range(21)]
SETTLED = [*RISING[:11], *[10.0] * 10]


@pytest.mark.parametrize(
    ("curve", "share"),
    [
        (RISING, 2 / 20),  # the last two of twenty steps bring two of the twenty that it rises
        (SETTLED, 0.0),
        ([0.0, 10.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.5], 0.0),  # the largest so far stands at 10
        ([0.0] * 19 + [1.0], 1.0),
        ([5.0, 4.0, 3.0], 0.0),  # it never rises
        ([2.0], 0.0),
        ([0.0, 1.0], 1.0),  # a tenth of few steps is one step
        ([0.0] + [9.0] * 9 + [10.0], 0.1),
    ],
)
def test_the_share_of_the_rise_in_the_last_tenth(curve: list[float], share: float) -> None:
    check = incomplete_optimisation(traced(curve))
    assert (check.id, check.speaks_of) == (7, "settings")
    assert check.figure == pytest.approx(share)
    assert check.status == ("flag" if share > 0.05 else "pass")
    assert (check.threshold, check.k, check.n) == (0.05, None, None)


def test_the_median_image_decides() -> None:
    assert incomplete_optimisation(traced(RISING, SETTLED, SETTLED)).status == "pass"
    assert incomplete_optimisation(traced(RISING, RISING, SETTLED)).status == "flag"
    late = [0.0] * 20 + [1.0]  # the whole of its rise comes at the end
    assert incomplete_optimisation(traced(SETTLED, late, SETTLED)).figure == 0.0
    edge = [0.0, *[0.95] * 18, 1.0, 1.0]  # exactly a twentieth is not above it
    assert incomplete_optimisation(traced(edge)).figure == pytest.approx(0.05)


def test_without_losses_nothing_is_said_of_optimisation() -> None:
    check = incomplete_optimisation(Trace())
    assert (check.id, check.status, check.speaks_of) == (7, "skipped", "settings")
    assert "no image is classified correctly" in check.why


# 8 silent success


def test_the_curve_of_median_losses_is_the_evidence_of_silent_success() -> None:
    trace = traced([0.0, 1.0, 5.0], [1.0, 1.5, 0.0], [2.0, 4.0, 1.0])
    check = silent_success(trace, 3)
    assert check.evidence == {"median_loss": [1.0, 1.5, 1.0]}
    assert silent_success(Trace(), 0).evidence == {}
    assert (silent_success(Trace(), 0).status, silent_success(Trace(), 0).n) == ("pass", 0)


def test_the_points_of_a_trace_are_not_part_of_the_evidence() -> None:
    trace = Trace(suspects={0: torch.zeros(1, 2, 2)}, ends={0: torch.zeros(1, 2, 2)}, silent_successes=1)
    assert silent_success(trace, 10).evidence == {}


def test_where_the_steps_do_not_reach_a_weak_attack_speaks_of_its_settings() -> None:
    strong, weak = np.array(list("f" * 30 + "r" * 70)), np.array(list("r" * 100))
    for check in (single_step, random_noise):
        assert check(weak, strong).speaks_of == "model"
        assert check(weak, strong, reaches=False).speaks_of == "settings"
        assert check(weak, strong, reaches=False).status == "flag"
