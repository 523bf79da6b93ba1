"""Registered claims on letters whose truth is known: their words, what they rest on, what is left out."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from claim_factory import N, Shares, asked, registered, stored, study
from result_factory import make_result

from odebench.analysis.claims import Claim, ClaimVerdict, claims_of
from odebench.analysis.contrasts import weights_of
from odebench.protocol.registration import RegisteredClaim
from odebench.render.claims import claims_json, claims_markdown, sentence
from odebench.result.schema import Check, Result


def level(first: float, second: float, slope: float = 0.0) -> Shares:
    """Shares of kd-ode and ode, that rise by `slope` a doubling of T."""
    return lambda model, horizon: (first if model == "kd-ode" else second) + slope * math.log2(horizon)


def answer(claim: RegisteredClaim, robust: Shares, *others: Result, weak: Shares | None = None, **more: Any) -> Claim:
    found = study(claim, robust, **more)
    under_weak = {} if weak is None else study(claim, weak, attack="pgd", **more)
    (said,) = claims_of([asked(claim, found, under_weak)], stored(*found.values(), *under_weak.values(), *others))
    return said


# Words


def test_a_real_gain_is_supported() -> None:
    claim = answer(registered(), level(0.5, 0.4))
    assert claim.word is ClaimVerdict.supported
    assert claim.estimate is not None
    assert claim.estimate.points == pytest.approx(10, abs=1.5)
    assert (claim.estimate.seeds, claim.estimate.images) == (8, N)
    assert claim.relative == pytest.approx(0.25, abs=0.05)
    assert claim.shares == pytest.approx((0.5, 0.4), abs=0.02)
    assert (claim.seeds, claim.left_out, claim.absent) == (tuple(range(8)), (), ())
    assert len(claim.files) == 48


def test_a_loss_is_reversed() -> None:
    assert answer(registered(), level(0.4, 0.5)).word is ClaimVerdict.reversed


def test_a_gain_below_the_margin_is_supported_and_says_so() -> None:
    claim = answer(registered(margin=20), level(0.5, 0.4))
    assert (claim.word, claim.why) == (ClaimVerdict.supported, "adjusted p below 0.05, below the margin of 20")


def test_no_gain_is_ruled_out_where_the_interval_is_narrow_and_inconclusive_where_it_is_wide() -> None:
    narrow = answer(registered(), level(0.4, 0.4), scatter=0.002)
    assert narrow.word is ClaimVerdict.ruled_out
    wide = answer(registered(), level(0.4, 0.4), scatter=0.1)
    assert wide.word is ClaimVerdict.inconclusive
    assert wide.why.startswith("between -")


def test_the_upper_end_that_rules_out_is_wider_in_a_larger_family() -> None:
    claims = [registered(f"digits-{number}") for number in range(30)]
    parts = [study(claim, level(0.4, 0.4), scatter=0.02) for claim in claims[:1]]
    everything = stored(*parts[0].values())
    (alone,) = claims_of([asked(claims[0], parts[0])], everything)
    assert alone.estimate is not None
    margin = alone.estimate.high + 0.1
    alone_word = claims_of([asked(registered(margin=margin), parts[0])], everything)[0].word
    in_thirty = claims_of([asked(registered(each.name, margin=margin), parts[0]) for each in claims], everything)
    assert (alone_word, in_thirty[0].word) == (ClaimVerdict.ruled_out, ClaimVerdict.inconclusive)


def test_a_gain_that_a_weak_attack_alone_shows_is_masked() -> None:
    claim = answer(registered(weak={"name": "pgd"}), level(0.4, 0.4), weak=level(0.6, 0.4))
    assert claim.word is ClaimVerdict.masked
    both = answer(registered(weak={"name": "pgd"}), level(0.6, 0.4), weak=level(0.6, 0.4))
    assert both.word is ClaimVerdict.supported
    neither = answer(registered(weak={"name": "pgd"}), level(0.4, 0.4), weak=level(0.405, 0.4), scatter=0.02)
    assert neither.word is not ClaimVerdict.masked


def flagged(name: str, speaks_of: str, **more: Any) -> Result:
    check = Check.model_validate(
        {
            **{"id": 16, "name": name, "status": "flag", "speaks_of": speaks_of, "figure": 0.1, "threshold": 0.01},
            **{"k": 9, "n": 200, "why": "", "evidence": {}},
        }
    )
    same = {"horizon": 1.0, "train_seed": 0, "attack": "quick-diagnosis", "arguments": {"section": "a"}, **more}
    return make_result({0.1: "r" * 100}, flags=[name], checks=[check], **same)


def test_a_flag_that_speaks_of_a_model_flags_the_claim() -> None:
    claim = answer(registered(), level(0.5, 0.4), flagged("solver gap", "model"))
    assert (claim.word, claim.why) == (ClaimVerdict.flagged, "flagged: solver gap (kd-ode)")
    assert answer(registered(), level(0.5, 0.4), flagged("convergence", "settings")).word is ClaimVerdict.supported
    elsewhere = flagged("solver gap", "model", horizon=8.0)
    assert answer(registered(), level(0.5, 0.4), elsewhere).word is ClaimVerdict.supported


def test_floors_and_ceilings_decide_nothing_about_robustness() -> None:
    claim = answer(registered(), level(0.015, 0.0), scatter=0.0)
    assert (claim.word, claim.why.partition(";")[0]) == (ClaimVerdict.inconclusive, "floor: under 2% at T=0.5")
    assert answer(registered(), level(0.3, 0.01)).word is ClaimVerdict.supported


def test_fewer_than_eight_seeds_get_no_word() -> None:
    claim = answer(registered(train_seeds=list(range(7))), level(0.5, 0.4))
    assert (claim.word, claim.why) == (ClaimVerdict.too_few_seeds, "7 train seeds, a word needs 8")
    assert claim.adjusted_p is None
    assert claim.estimate is not None


# What it rests on


def test_a_seed_that_lacks_a_cell_is_left_out_and_named() -> None:
    claim = registered(train_seeds=list(range(12)))
    found = study(claim, level(0.5, 0.4))
    kept = [
        result for cell, result in found.items() if cell.seed != 3 and (cell.seed, cell.arm, cell.horizon) != (5, 1, 2)
    ]
    (said,) = claims_of([asked(claim, found)], stored(*kept))
    assert (said.left_out, said.absent, len(said.seeds)) == ((5,), (3,), 10)
    assert "10 of 12 train seeds (left out for a missing cell: 5)" in sentence(said)


def test_without_results_a_claim_is_not_run() -> None:
    claim = registered()
    found = study(claim, level(0.5, 0.4))
    (said,) = claims_of([asked(claim, found)], [])
    assert (said.word, said.why) == (ClaimVerdict.not_run, "no results of protocol digits-study yet")
    (said,) = claims_of([asked(claim, found)], stored(next(iter(found.values()))))
    assert said.why == "0 of 8 train seeds with every cell; odebench sweep digits-study makes the others"


def test_results_on_other_images_are_refused() -> None:
    claim = registered()
    found = study(claim, level(0.5, 0.4))
    others = {cell: result for cell, result in study(claim, level(0.5, 0.4), data="other").items() if cell.seed < 2}
    (said,) = claims_of([asked(claim, found)], stored(*(found | others).values()))
    assert said.word is ClaimVerdict.not_run
    assert said.why.startswith("results on different images: results/")
    assert said.estimate is None


def test_results_older_than_the_registration_are_refused() -> None:
    claim = registered()
    found = study(claim, level(0.5, 0.4), created="2026-01-02T00:00:00+00:00")
    for day, word in ((1, ClaimVerdict.supported), (3, ClaimVerdict.not_run)):
        since = replace(asked(claim, found), registered=datetime(2026, 1, day, tzinfo=timezone.utc))
        (said,) = claims_of([since], stored(*found.values()))
        assert said.word is word
    assert said.why.startswith("registered 2026-01-03 00:00 UTC, after 48 of its results (the first results/")
    earlier = registered(train_seeds=[0, 1, 2], earlier=True)
    found = study(earlier, level(0.5, 0.4), created="2026-01-02T00:00:00+00:00")
    since = replace(asked(earlier, found), registered=datetime(2026, 1, 3, tzinfo=timezone.utc))
    assert claims_of([since], stored(*found.values()))[0].word is ClaimVerdict.too_few_seeds


def test_contradictory_results_count_for_nothing() -> None:
    claim = registered(train_seeds=list(range(9)))
    found = study(claim, level(0.5, 0.4))
    cell, first = next(iter(found.items()))
    twice = study(claim, level(0.1, 0.1), seeds=[cell.seed])[cell]
    (said,) = claims_of([asked(claim, found)], stored(*found.values(), twice))
    assert (twice.run_key, said.left_out) == (first.run_key, (cell.seed,))


# Figures


def test_p_is_adjusted_within_the_family_alone() -> None:
    robust, clean = registered(), registered("digits-clean-gain", kind="clean", margin=1)
    other = registered("digits-other", family="secondary")
    found = study(robust, level(0.42, 0.4), scatter=0.03)
    everything = stored(*found.values())
    one, two, three = claims_of([asked(each, found) for each in (robust, clean, other)], everything)
    assert one.estimate is not None
    assert one.adjusted_p == pytest.approx(min(1.0, 2 * one.estimate.p))
    assert three.adjusted_p == pytest.approx(one.estimate.p)
    assert two.estimate is not None
    assert two.estimate.points == pytest.approx(0)


def test_a_claim_without_results_still_counts_in_its_family() -> None:
    claims = [registered(), registered("digits-unrun", train_seeds=list(range(50, 60)))]
    found = study(claims[0], level(0.5, 0.4))
    unrun = study(claims[1], level(0.5, 0.4))
    first, second = claims_of([asked(claims[0], found), asked(claims[1], unrun)], stored(*found.values()))
    assert first.estimate is not None
    assert first.adjusted_p == pytest.approx(2 * first.estimate.p)
    assert second.word is ClaimVerdict.not_run


def test_a_slope_is_least_squares_over_log2_t() -> None:
    slope = registered("digits-slope", kind="slope", horizons=(0.5, 1.0, 2.0, 4.0), margin=1)
    weights = weights_of(slope)
    assert [weights[0, 0, at] for at in range(4)] == pytest.approx([-0.3, -0.1, 0.1, 0.3])
    claim = answer(slope, level(0.4, 0.4, slope=0.05))
    assert claim.word is ClaimVerdict.supported
    assert claim.estimate is not None
    assert claim.estimate.points == pytest.approx(5, abs=0.7)
    assert claim.relative is None


def test_two_recipes_give_the_mean_gain_and_the_interaction() -> None:
    arms = [{"model": model, "sections": ["a", "b"]} for model in ("kd-ode", "ode")]
    claim = registered(arms=arms)
    found = study(claim, level(0.4, 0.4), scatter=0.003)
    better = study(claim, level(0.5, 0.4), scatter=0.003)
    found |= {cell: result for cell, result in better.items() if cell.section == 1}
    (said,) = claims_of([asked(claim, found)], stored(*found.values()))
    assert said.estimate is not None
    assert said.estimate.points == pytest.approx(5, abs=0.6)
    (apart,) = [each.estimate for each in said.beside if each.name == "a minus b"]
    assert apart.points == pytest.approx(-10, abs=1.2)


def test_arms_at_horizons_of_their_own_are_said() -> None:
    arms = [{"model": "ode", "sections": "d", "horizons": [4.0]}, {"model": "ode", "sections": "c"}]
    said = sentence(answer(registered(arms=arms, horizons=[1.0]), lambda model, horizon: 0.4 + 0.05 * (horizon > 1)))
    assert "ode (d) 4" in said
    assert "T=1 4, 8 of 8 train seeds" in said


def test_the_gain_on_images_that_every_cell_gets_right_stands_beside() -> None:
    claim = answer(registered(), level(0.5, 0.4), clean=lambda model, horizon: 0.9)
    (always,) = [each.estimate for each in claim.beside]
    assert 2 < always.images < N
    assert claim.estimate is not None
    assert always.points == pytest.approx(claim.estimate.points * N / always.images, rel=1e-6)


# Rendering


def test_the_table_fits_80_columns_and_says_what_it_rests_on() -> None:
    svhn = registered("svhn-gain", dataset="svhn")
    unrun = asked(svhn, study(svhn, level(0.5, 0.4)))
    claims = [answer(registered(), level(0.5, 0.4)), *claims_of([unrun], [])]
    text = claims_markdown(claims)
    assert max(map(len, text.splitlines())) <= 80
    assert "| robust-gain " in text
    flat = " ".join(text.split())
    assert "claims at linf 0.1, T=0.5 1 2, 8 of 8 train seeds, 200 images" in flat
    assert "robust accuracy: kd-ode 50." in flat
    assert "- svhn, not run: gain: no results of protocol digits-study yet" in flat
    record = json.loads(claims_json(claims))[0]
    assert (record["word"], record["estimate"]["images"], record["margin"]) == ("supported", N, 2.0)
    assert record["estimate"]["half_width"] == pytest.approx(
        (record["estimate"]["high"] - record["estimate"]["low"]) / 2
    )


def test_claims_need_no_torch() -> None:
    code = (
        "import sys, odebench.analysis.claims, odebench.render.claims; "
        "print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
