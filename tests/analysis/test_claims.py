"""Claims on letters whose truth is known: no effect, a real one, one that only weak attacks show, floors, gaps."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_factory import make_result

from odebench.analysis.claims import Claim, ClaimVerdict, claims_of, word_of
from odebench.analysis.comparable_cells import Arm, comparable_cells
from odebench.analysis.contrasts import estimate, weights_of
from odebench.leaderboard.union import StoredResult
from odebench.numerics.statistics import holm, student, student_p
from odebench.protocol.spec import adaptive, fixed_step, middle
from odebench.render.claims import claims_json, claims_markdown, sentence
from odebench.result.schema import Check, Result

HORIZONS = (0.5, 1.0, 2.0)
SEEDS = (0, 1, 2)
N = 200
Share = Mapping[tuple[str, float], float]


def letters_of_shares(clean: float, robust: float, *, shift: int, n: int = N) -> str:
    """Letters with these shares; `shift` turns the images, so that seeds differ on which they are."""
    right, stands = round(clean * n), round(robust * n)
    text = "r" * stands + "f" * (right - stands) + "m" * (n - right)
    return text[shift % n :] + text[: shift % n]


def study(
    robust: Share,
    *,
    attack: str = "worst-case",
    clean: Share | None = None,
    seeds: Sequence[int] = SEEDS,
    wobble: float = 0.005,
    n: int = N,
    **more: Any,
) -> list[Result]:
    """A result a model, horizon and seed; shares wobble with the seed, so that seeds scatter a little."""
    return [
        make_result(
            {
                0.1: letters_of_shares(
                    (clean or {}).get(key, 0.97),
                    share + wobble * ((seed + index // 3) % 3 - 1 + ((seed + index) % 3 - 1) / 2),
                    shift=7 * seed,
                    n=n,
                )
            },
            model=key[0],
            horizon=key[1],
            train_seed=seed,
            attack=attack,
            **{"nfe": (16 * key[1], 16 * key[1]), **more},
        )
        for index, (key, share) in enumerate(robust.items())
        for seed in seeds
    ]


def level(student_share: float, baseline_share: float, slope: float = 0.0) -> dict[tuple[str, float], float]:
    """Shares of both models over the horizons, that rise by `slope` a doubling."""
    return {
        (model, horizon): share + slope * math.log2(horizon)
        for model, share in (("kd-ode", student_share), ("ode", baseline_share))
        for horizon in HORIZONS
    }


def answers(*results: Result) -> dict[str, Claim]:
    stored = [StoredResult(Path(f"results/{index}.json"), result) for index, result in enumerate(results)]
    return {
        f"{claim.kind} {claim.models[0]}" + (f" {claim.norm}" if claim.norm else ""): claim
        for claim in claims_of(stored)
        if claim.word is not ClaimVerdict.not_run
    }


# Words


def test_a_real_gain_of_ten_points_is_found() -> None:
    found = answers(*study(level(0.5, 0.4)))
    claim = found["robust kd-ode linf"]
    assert claim.word is ClaimVerdict.supported
    assert claim.estimate is not None
    assert claim.estimate.points == pytest.approx(10, abs=0.5)
    assert claim.estimate.low > 0
    assert claim.relative == pytest.approx(0.25, abs=0.02)
    assert (claim.seeds, claim.horizons, claim.estimate.images) == (SEEDS, HORIZONS, N)
    assert len(claim.files) == 18
    assert found["clean kd-ode"].word is ClaimVerdict.not_supported
    assert found["slope ode linf"].word is ClaimVerdict.not_supported


def test_a_real_slope_is_found_for_the_model_that_has_it() -> None:
    rising = {
        key: share + (0.05 * math.log2(key[1]) if key[0] == "ode" else 0) for key, share in level(0.4, 0.4).items()
    }
    found = answers(*study(rising))
    assert found["slope ode linf"].word is ClaimVerdict.supported
    assert found["slope ode linf"].estimate is not None
    assert found["slope ode linf"].estimate.points == pytest.approx(5, abs=0.5)
    assert found["slope ode linf"].relative is None
    assert found["slope kd-ode linf"].word is not ClaimVerdict.supported


def test_an_effect_the_other_way_is_said() -> None:
    found = answers(*study(level(0.3, 0.4)))["robust kd-ode linf"]
    assert found.word is ClaimVerdict.not_supported
    assert re.fullmatch(r"the upper bound, -\d\.\d\d, is under 1 point, and under 0 \(not tested\)", found.why)
    found = answers(*study(level(0.4, 0.4)))["clean kd-ode"]
    assert found.why == f"the upper bound, {found.estimate.high:+.3g}, is under 1 point"


def test_a_gain_that_only_weak_attacks_show_is_masked() -> None:
    weak, worst = level(0.6, 0.4), level(0.4, 0.4)
    for attack in ("fgsm", "pgd"):
        claim = answers(*study(worst), *study(weak, attack=attack))["robust kd-ode linf"]
        assert claim.word is ClaimVerdict.masked
        assert claim.why == f"supported under {attack}, not in the worst case"


def test_a_weak_attack_counts_on_the_same_images_cells_and_settings_only() -> None:
    weak, worst = level(0.6, 0.4), study(level(0.4, 0.4))
    for others in (
        study(weak, attack="pgd", n=100),
        study(weak, attack="pgd", seeds=(0, 1)),
        study(weak, attack="pgd", norm="l2"),
        study(weak, attack="pgd", solver=fixed_step(step=0.5)),
        study(weak, attack="cw"),
    ):
        assert answers(*worst, *others)["robust kd-ode linf"].word is not ClaimVerdict.masked


def flag(name: str, speaks_of: str) -> Check:
    return Check(
        id=16,
        name=name,
        status="flag",
        speaks_of=speaks_of,
        figure=0.1,
        threshold=0.01,
        k=9,
        n=200,
        why="",
        evidence={},
    )  # type: ignore[arg-type]


def test_a_supported_claim_with_a_flag_that_speaks_of_the_model_is_masked() -> None:
    results = study(level(0.5, 0.4))
    same = {"horizon": 1.0, "train_seed": 0, "attack": "quick-diagnosis"}
    gap = make_result({0.1: "r" * 100}, flags=["solver gap"], checks=[flag("solver gap", "model")], **same)
    claim = answers(*results, gap)["robust kd-ode linf"]
    assert (claim.word, claim.why) == (ClaimVerdict.masked, "flagged: solver gap (kd-ode)")
    settings = make_result({0.1: "r" * 100}, flags=["convergence"], checks=[flag("convergence", "settings")], **same)
    assert answers(*results, settings)["robust kd-ode linf"].word is ClaimVerdict.supported
    elsewhere = make_result({0.1: "r" * 100}, flags=["solver gap"], **{**same, "horizon": 8.0})
    assert answers(*results, elsewhere)["robust kd-ode linf"].word is ClaimVerdict.supported


def test_a_middling_effect_is_undecided() -> None:
    claim = answers(*study(level(0.42, 0.4), wobble=0.05))["robust kd-ode linf"]
    assert claim.word is ClaimVerdict.undecided
    assert claim.why == "adjusted p not below 0.05, upper bound not under 1 point"


@pytest.mark.parametrize(
    ("shares", "clean", "name", "why"),
    [
        ((0.015, 0.0), 0.97, "robust kd-ode linf", "floor: under 2% in every model compared at T=0.5, T=1, T=2"),
        ((0.4, 0.3), 0.995, "clean kd-ode", "ceiling: over 98% in every model compared at T=0.5, T=1, T=2"),
    ],
)
def test_floors_and_ceilings_decide_nothing(shares: tuple[float, float], clean: float, name: str, why: str) -> None:
    robust = level(*shares)
    found = answers(*study(robust, clean=dict.fromkeys(robust, clean), wobble=0.0))
    assert (found[name].word, found[name].why) == (ClaimVerdict.undecided, why)


def test_a_floor_in_one_model_alone_is_none() -> None:
    claim = answers(*study(level(0.3, 0.01), wobble=0.005))["robust kd-ode linf"]
    assert claim.word is ClaimVerdict.supported


def test_the_words_follow_the_protocol() -> None:
    def said(p: float, high: float = 5.0, **more: Any) -> str:
        return word_of(adjusted_p=p, high=high, **{"weak": [], "flags": [], "missing": "", "limit": "", **more}).value

    assert said(0.049) == "supported"
    assert said(0.05) == "undecided"
    assert said(0.01, flags=["randomised"]) == "masked"
    assert said(0.05, weak=["pgd"]) == "masked"
    assert said(0.5, 0.99) == "not supported"
    assert said(0.5, 1.0) == "undecided"
    assert said(0.5, 0.5, weak=["fgsm"]) == "masked"
    assert said(0.01, limit="floor") == said(0.01, missing="one seed") == said(1.0, 0.0, missing="x") == "undecided"


# What is missing


@pytest.mark.parametrize(
    ("results", "name", "why"),
    [
        (study(level(0.9, 0.1), seeds=(0,)), "robust kd-ode linf", "1 train seed with every cell, at least 2 needed"),
        (study(level(0.9, 0.1), n=90), "robust kd-ode linf", "90 images in common, at least 100 needed"),
        (
            study({key: share for key, share in level(0.9, 0.1).items() if key[1] == 1.0}),
            "slope ode linf",
            "results at T=1 alone, a slope needs two horizons",
        ),
        (
            study({key: share for key, share in level(0.9, 0.1).items() if key[0] == "kd-ode"}),
            "robust kd-ode linf",
            "no worst-case results of ode",
        ),
        (
            study({("kd-ode", 1.0): 0.9, ("ode", 2.0): 0.1}),
            "robust kd-ode linf",
            "no horizon that both models have",
        ),
        (
            study(level(0.9, 0.1))[:-1] + study({("ode", 2.0): 0.1}, seeds=(7,)),
            "robust kd-ode linf",
            None,
        ),
        (
            study(level(0.9, 0.1), seeds=(0,)) + study({("ode", 2.0): 0.1}, seeds=(7,)),
            "robust kd-ode linf",
            "1 train seed with every cell (1 other without all cells), at least 2 needed",
        ),
        (study(level(0.9, 0.1), attack="pgd"), "robust kd-ode", "no worst-case results of kd-ode and ode trained"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_and_never_a_word(results: list[Result], name: str, why: str | None) -> None:
    claim = answers(*results)[name]
    if why is None:
        assert (claim.word, claim.seeds) == (ClaimVerdict.supported, (0, 1))
    else:
        assert (claim.word, claim.adjusted_p) == (ClaimVerdict.undecided, None)
        assert claim.why.startswith(why)


def test_seeds_that_faced_other_sources_are_no_pair() -> None:
    results = study(level(0.9, 0.1))
    moved = [
        result if result.evaluation.model.name == "ode" else _with_sources(result, ("resnet:seed=9",))
        for result in results
    ]
    assert answers(*moved)["robust kd-ode linf"].why.startswith("no train seed with every cell (3 others without")


def _with_sources(result: Result, sources: tuple[str, ...]) -> Result:
    attack = result.evaluation.attack.model_copy(update={"sources": sources})
    evaluation = result.evaluation.model_copy(update={"attack": attack})
    return result.model_copy(update={"evaluation": evaluation, "run_key": evaluation.run_key})


def test_the_paper_is_answered_by_data_of_its_names_alone() -> None:
    stored = [StoredResult(Path(f"{i}.json"), r) for i, r in enumerate(study(level(0.5, 0.4), dataset="cifar10-jpeg"))]
    words = {(claim.dataset, claim.kind): claim.word for claim in claims_of(stored)}
    assert words["cifar10-jpeg", "robust"] is ClaimVerdict.supported
    assert {words[dataset, kind] for dataset in ("cifar10", "svhn") for kind in ("clean", "robust", "slope")} == {
        ClaimVerdict.not_run
    }
    stored = [StoredResult(Path(f"{i}.json"), r) for i, r in enumerate(study(level(0.5, 0.4), dataset="cifar10"))]
    words = {(claim.dataset, claim.kind): claim.word for claim in claims_of(stored)}
    assert words["cifar10", "robust"] is ClaimVerdict.supported
    assert words["svhn", "robust"] is ClaimVerdict.not_run


def test_only_test_images_count_and_contradictions_count_for_nothing() -> None:
    assert answers(*study(level(0.9, 0.1), split="validation")) == {}
    results = study(level(0.9, 0.1))
    twice = make_result(
        {0.1: "f" * N}, model="ode", horizon=1.0, train_seed=0, attack="worst-case", created="2025-03-01"
    )
    assert answers(*results, twice)["robust kd-ode linf"].seeds == (1, 2)


# Families and confounders


def test_the_family_holds_every_claim_of_a_data_set() -> None:
    stemless = {(f"{model}-stemless", horizon): share for (model, horizon), share in level(0.5, 0.4).items()}
    results = [
        *study(level(0.5, 0.4)),
        *study(level(0.5, 0.4), norm="l2"),
        *study(stemless),
    ]
    found = answers(*results)
    assert set(found) == {
        *("clean kd-ode", "robust kd-ode l2", "robust kd-ode linf", "clean kd-ode-stemless"),
        *("robust kd-ode-stemless linf", "robust kd-ode-stemless l2"),
        *("slope ode l2", "slope kd-ode l2", "slope ode linf", "slope kd-ode linf"),
    }
    assert found["robust kd-ode-stemless l2"].why == "no worst-case results of kd-ode-stemless and ode-stemless"
    ps = sorted(claim.estimate.p for claim in found.values() if claim.estimate and claim.estimate.p is not None)
    smallest = min(claim.adjusted_p for claim in found.values() if claim.adjusted_p is not None)
    assert smallest == pytest.approx(len(found) * ps[0])


def test_each_pair_is_read_where_it_has_the_most_cells() -> None:
    stemless = {(f"{model}-stemless", horizon): share for (model, horizon), share in level(0.5, 0.3).items()}
    found = answers(
        *study(level(0.5, 0.4)),
        *study(level(0.1, 0.4), steps=50, seeds=(0,)),
        *study(stemless, steps=50),
    )
    assert found["robust kd-ode linf"].word is ClaimVerdict.supported
    assert found["robust kd-ode-stemless linf"].word is ClaimVerdict.supported
    assert found["robust kd-ode linf"].seeds == found["robust kd-ode-stemless linf"].seeds == SEEDS


def test_a_clean_gain_is_read_from_the_attack_with_the_most_images() -> None:
    worst = study(level(0.5, 0.4))
    clean = {key: 0.97 if key[0] == "kd-ode" else 0.92 for key in level(0, 0)}
    more = study(level(0.6, 0.5), attack="pgd", clean=clean, n=1000)
    found = answers(*worst, *more)
    claim = found["clean kd-ode"]
    assert (claim.attack, claim.word) == ("pgd", ClaimVerdict.supported)
    assert claim.estimate is not None
    assert (claim.estimate.points, claim.estimate.images) == (pytest.approx(5, abs=0.1), 1000)
    assert found["robust kd-ode linf"].attack == "worst-case"
    for fewer in (
        study(level(0.6, 0.5), attack="pgd", clean=clean, n=1000, seeds=(0, 1)),
        study(level(0, 0), attack="pgd"),
    ):
        assert answers(*worst, *fewer)["clean kd-ode"].attack == "worst-case"


def test_confounders_stand_beside() -> None:
    robust = level(0.5, 0.4)
    nfe = {horizon: (32.0, 32.0) for horizon in HORIZONS}
    results = [
        *study(robust, clean={key: 0.97 if key[0] == "kd-ode" else 0.9 for key in robust}),
        *(r for key, share in robust.items() for r in study(
            {key: share}, solver=fixed_step(step=key[1] / 8), nfe=nfe[key[1]]
        )),
        *study(level(0.45, 0.4), solver=adaptive(), nfe=(20.0, 21.0)),
    ]  # fmt: skip
    claim = answers(*results)["robust kd-ode linf"]
    assert {beside.name for beside in claim.beside} == {"correct in every cell", "equal NFE", "adaptive solver"}
    found = {beside.name: beside.estimate for beside in claim.beside}
    assert all(found.values())
    assert found["adaptive solver"].points == pytest.approx(5, abs=0.5)  # type: ignore[union-attr]
    assert found["equal NFE"].points == pytest.approx(10, abs=0.7)  # type: ignore[union-attr]
    assert 0 < found["correct in every cell"].images < N  # type: ignore[union-attr]
    assert claim.estimate is not None
    assert claim.estimate.points == pytest.approx(10, abs=0.7)
    more = study(robust, attack="pgd", norm="l2", solver=adaptive(), nfe=(20.0, 21.0), n=500)
    clean = answers(*results, *study(robust, attack="pgd", norm="l2", n=500), *more)["clean kd-ode"]
    assert [beside.estimate.images for beside in clean.beside if beside.estimate is not None] == [N, 500]
    without = answers(*study(robust))["robust kd-ode linf"]
    assert [beside.missing for beside in without.beside] == ["", "no results", "no results"]


def test_sections_hold_matched_horizons_of_one_setting() -> None:
    results = [
        *study(level(0.5, 0.4)),
        *study({("ode", 4.0): 0.3}, train_horizon=1.0),
        *study({("ode", 1.0): 0.3}, steps=7, n=100),
        make_result({0.1: "r" * N}, model="resnet", horizon=None, attack="worst-case"),
        make_result({0.1: "r" * N}, model="mine", train_seed=None, attack="worst-case"),
    ]
    stored = [StoredResult(Path(f"{index}.json"), result) for index, result in enumerate(results)]
    comparable, weaker = sorted(comparable_cells(stored), key=lambda comparable: -len(comparable.cells))
    assert {key.model for key in weaker.cells} == {"ode"}
    assert (comparable.attack, comparable.arm, comparable.epsilon) == ("worst-case", Arm.fixed_step, 0.1)
    assert {key.model for key in comparable.cells} == {"ode", "kd-ode"}
    assert len(comparable.cells) == 18
    assert middle((0.05, 0.1, 0.15)) == 0.1


# Statistics


def test_slopes_are_least_squares_over_log2_t() -> None:
    weights = weights_of("slope", ("ode",), (0.5, 1.0, 2.0, 4.0))
    assert [weights["ode", horizon] for horizon in (0.5, 1.0, 2.0, 4.0)] == pytest.approx([-0.3, -0.1, 0.1, 0.3])
    assert sum(weights["ode", horizon] * (3 + 2 * math.log2(horizon)) for horizon in (0.5, 1.0, 2.0, 4.0)) == (
        pytest.approx(2)
    )


@given(st.lists(st.lists(st.sampled_from([-100.0, 0.0, 100.0]), min_size=5, max_size=5), min_size=2, max_size=4))
def test_the_interval_is_the_wider_and_p_the_larger(rows: list[list[float]]) -> None:
    measured = np.array(rows)
    found = estimate(measured)
    by_seed = measured.mean(axis=1).tolist()
    low, high = student(by_seed)
    assert found.p is not None
    assert found.p >= student_p(by_seed)
    assert found.high - found.low >= high - low - 1e-9
    assert found.points == pytest.approx(float(measured.mean()), abs=1e-9)
    alone = estimate(measured[:1])
    assert alone.p is None
    shuffled = estimate(measured[:, ::-1])
    assert (shuffled.low, shuffled.high, shuffled.p) == (found.low, found.high, found.p)


def simulated(generator: np.random.Generator, *, gain: float, seeds: int, seed_scatter: float = 0.1) -> np.ndarray:
    """Student minus baseline in points, a row a seed: images of one difficulty for all, seeds that scatter."""
    difficulty = generator.normal(size=N)
    rows = []
    for _ in range(seeds):
        shares = [
            difficulty + shift + generator.normal(0, seed_scatter) + generator.normal(0, 0.5, size=N) > 0
            for shift in (gain, 0.0)
        ]
        rows.append(100.0 * (shares[0].astype(float) - shares[1]))
    return np.array(rows)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_no_effect_is_supported_in_at_most_one_family_of_twenty(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    supported = 0
    for _ in range(60):
        family = [estimate(simulated(generator, gain=0.0, seeds=seeds), draws=2000) for _ in range(4)]
        ps = holm([found.p for found in family if found.p is not None])
        words = [
            word_of(adjusted_p=p, high=found.high, weak=[], flags=[], missing="", limit="")
            for p, found in zip(ps, family, strict=True)
        ]
        supported += ClaimVerdict.supported in words
    assert supported <= 3


def test_a_real_effect_is_mostly_found() -> None:
    generator = np.random.default_rng(0)
    # Shares of normal difficulties: Phi(0.4 / sqrt(1 + 0.01 + 0.25)) - 1/2 is a gain of 13.9 points.
    family = [estimate(simulated(generator, gain=0.4, seeds=5), draws=2000) for _ in range(60)]
    assert sum(found.p < 0.05 for found in family if found.p is not None) >= 50
    assert sum(found.low <= 13.9 <= found.high for found in family) >= 54


# Rendering


def test_the_table_fits_80_columns_and_says_what_it_rests_on() -> None:
    stemless = {(f"{model}-stemless", horizon): share for (model, horizon), share in level(0.9, 0.1).items()}
    results = [*study(level(0.5, 0.4)), *study(stemless), *study(level(0.3, 0.4), norm="l2")]
    stored = [StoredResult(Path(f"results/{index}.json"), result) for index, result in enumerate(results)]
    text = claims_markdown(claims_of(stored))
    assert max(map(len, text.splitlines())) <= 80
    assert "| robust linf, kd-ode " in text
    flat = " ".join(text.split())
    assert "rests on worst-case at epsilon 0.1, T=0.5 1 2, seeds 0 1 2, 200 images" in flat
    assert "- cifar10: not run; no results on data called cifar10; no other data answers for it" in flat
    records = json.loads(claims_json(claims_of(stored)))
    assert [record["word"] for record in records].count("not run") == 8
    assert {record["estimate"]["images"] for record in records if record["estimate"]} == {N}


def test_what_stands_beside_names_its_seeds_and_whose_its_interval_is_where_the_claim_has_others() -> None:
    adaptively = {"solver": adaptive(), "nfe": (20.0, 21.0)}
    for seeds, said in (((0,), "seed 0, 200 images, interval of the images alone"), (SEEDS, "200 images")):
        results = [*study(level(0.5, 0.4), wobble=0.03), *study(level(0.5, 0.4), seeds=seeds, **adaptively)]
        claim = answers(*results)["robust kd-ode linf"]
        assert claim.estimate is not None
        text = sentence(claim)
        assert f"seeds 0 1 2, 200 images, interval of the {claim.estimate.interval_of}; correct in every cell" in text
        beside = rf"; equal NFE: no results; adaptive solver: \S+ \[\S+ \S+\], {said}(, interval of .*)?$"
        assert re.search(beside, text)
        (record,) = (r for r in json.loads(claims_json([claim])))
        assert record["beside"][-1]["seeds"] == list(seeds)
        assert record["estimate"]["interval_of"] == claim.estimate.interval_of
    without = answers(*study(level(0.5, 0.4)))["clean kd-ode"]
    assert sentence(without).endswith("; equal NFE, adaptive solver: no results")


def test_the_interval_is_of_the_seeds_where_they_scatter_more_than_images() -> None:
    generator = np.random.default_rng(0)
    alike = np.tile(generator.choice([-100.0, 0.0, 100.0], size=(1, 200)), (3, 1))
    assert estimate(alike, draws=500).interval_of == "images"
    apart = alike + np.array([[-30.0], [0.0], [30.0]])
    found = estimate(apart, draws=500)
    assert found.interval_of == "seeds"
    assert found.high - found.low == pytest.approx(2 * 4.3027 * 30 / math.sqrt(3), rel=1e-3)


def test_claims_need_no_torch() -> None:
    code = (
        "import sys, odebench.analysis.claims, odebench.render.claims; "
        "print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
