"""The study's answers in sentences."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from claim_factory import Shares, asked, registered, stored, study
from result_factory import make_result

from odebench.analysis.claims import Claim, claims_of
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.table import Table
from odebench.render.verdict import verdict


def claim(name: str, robust: Shares, **changes: object) -> Claim:
    about = registered(name, **changes)
    found = study(about, robust)
    return claims_of([asked(about, found)], stored(*found.values()))[0]


def gain(points: float) -> Shares:
    return lambda model, _: 0.5 + points / 100 * (model == "kd-ode")


def table(**robust: int) -> Table:
    """Models with this many of 100 images robust, by name with - for _; resnet has no horizon."""
    results = [
        make_result(
            {0.1: "r" * count + "f" * (100 - count)},
            model=name.replace("_", "-"),
            horizon=None if name == "resnet" else 1.0,
            train_seed=seed,
            attack="worst-case",
        )
        for name, count in robust.items()
        for seed in (0, 1, 2)
    ]
    (found,) = build_tables(stored(*results))[0]
    return found


@pytest.mark.parametrize(
    ("clean", "robust", "lead"),
    [(10, 10, "Yes"), (0, 10, "In part"), (0, 0, "No"), (-10, 0, "No")],
)
def test_the_answer_begins_with_a_word(clean: float, robust: float, lead: str) -> None:
    claims = [claim("digits-clean-gain", gain(clean), margin=2.0), claim("digits-robust-gain", gain(robust))]
    question, answer = verdict(claims, [])[0]
    assert question == "Does distillation help?"
    assert answer.startswith(f"{lead} on digits: it changes accuracy by "), answer
    assert answer.endswith("(supported)." if robust else "(a gain of 2 points is ruled out).")


def test_what_is_not_decided_is_not_shown() -> None:
    about = registered()
    found = study(about, gain(1), scatter=0.2)
    claims = claims_of([asked(about, found)], stored(*found.values()))
    assert verdict(claims, [])[0][1].startswith("Not shown on digits: it changes robust accuracy by "), claims[0].word


def test_slopes_are_points_per_doubling() -> None:
    slope = claim("digits-slope-plain", lambda _, horizon: 0.4 + 0.1 * horizon, kind="slope")
    answer = dict(verdict([slope], []))["Does a longer horizon T help?"]
    assert answer.startswith("Yes on digits: each doubling of T changes the robust accuracy of the plain model by +")
    assert answer.endswith("points (supported).")


def test_what_helps_is_what_is_significantly_better_than_kd_ode() -> None:
    ranked = table(kd_ode=30, hardened=80, other=60, alike=31, resnet=90)
    asked_of = [claim("digits-robust-gain", gain(0))]
    answers = dict(verdict(asked_of, [ranked], adversarial=lambda model: model == "hardened"))
    helps = answers["What does help?"]
    assert helps.startswith("On digits (linf 0.1) robust accuracy rises from 30.0 ±")
    assert re.search(r"adversarial training to 80.0 ± \d\.\d% at T=1 \(hardened\)", helps)
    assert re.search(r"other methods to 60.0 ± \d\.\d% at T=1 \(other\)", helps)
    assert "alike" not in helps
    assert "resnet" not in helps, "no Neural ODE"
    assert answers["Do Neural ODEs withstand attacks?"].startswith(
        "Not shown: on digits (linf 0.1) accuracy falls for resnet (not an ODE) from 100.0% to 90.0 ±"
    )
    best = answers["Which model is most robust?"]
    assert best.startswith("On digits (linf 0.1) resnet (90.0 ±")
    assert ", significantly more than hardened (80.0 ±" in best
    nothing = dict(verdict(asked_of, [table(kd_ode=30, alike=31)]))
    assert nothing["What does help?"].startswith("Nothing yet")
    assert ", not significantly more than kd-ode" in nothing["Which model is most robust?"]


def test_accuracy_that_falls_under_attack_is_a_no() -> None:
    question, asked_of = "Do Neural ODEs withstand attacks?", [claim("digits-robust-gain", gain(0))]
    fallen, kept = table(ode=30, kd_ode=90), replace(table(ode=99, kd_ode=30), dataset="svhn")
    for tables, lead in (([fallen], "No: on"), ([kept], "Not shown: on"), ([], "")):
        assert dict(verdict(asked_of, tables)).get(question, "").startswith(lead)
    both = dict(verdict(asked_of, [kept, fallen]))[question]
    assert both.startswith(
        "No on digits; not shown on svhn: on digits (linf 0.1) accuracy falls for ode from 100.0% to 30"
    )


def test_seeds_so_far_and_what_was_not_run_are_said() -> None:
    about, other = registered(train_seeds=list(range(10))), registered("svhn-robust-gain", dataset="svhn")
    cells = [asked(each, study(each, gain(10))) for each in (about, other)]
    claims = claims_of(cells, stored(*study(about, gain(10), seeds=range(8)).values()))
    said = dict(verdict(claims, []))
    assert said["Does distillation help?"].startswith("Yes on digits, so far: ")
    sure = said["How sure is this?"]
    assert sure.startswith("Interim: 8 of 10 training seeds on digits; distillation and T are tested on digits only; ")


def test_without_results_there_is_no_verdict() -> None:
    assert verdict([], []) == []


def test_what_helps_instead_of_distillation_is_said_too() -> None:
    claims = [claim("digits-robust-gain", gain(0)), claim("digits-label-smoothing-robust-gain", gain(10))]
    answer = dict(verdict(claims, [table(ode=30, kd_ode=31)]))["What does help?"]
    assert answer.startswith("On digits label smoothing instead of a teacher gives the plain model robust accuracy +1")
