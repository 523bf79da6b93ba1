"""Ranks: who is significantly better, on the same images and train seeds, under the same attack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from result_factory import make_result

from odebench.leaderboard.build import build_tables
from odebench.leaderboard.rank import decided, ranks
from odebench.leaderboard.union import StoredResult
from odebench.numerics.statistics import sign_test
from odebench.result.schema import Result

N = 200


def results(model: str, share: float, *, seeds: int = 4, attack: str = "worst-case", **more: Any) -> list[Result]:
    found = []
    for seed in range(seeds):
        generator = np.random.default_rng([seed, ord(model)])
        keep = np.argsort(np.linspace(0, 1, N) + generator.normal(0, 0.05, N))[round(N * (1 - share)) :]
        letters = np.full(N, "f")
        letters[keep] = "r"
        found.append(make_result({0.1: "".join(letters)}, model=model, train_seed=seed, attack=attack, **more))
    return found


def ranked(*found: Result) -> dict[str, int]:
    (table,) = build_tables([StoredResult(Path(f"{n}.json"), each) for n, each in enumerate(found)])[0]
    return {table.usual[number].model: rank for number, rank in ranks(table).items()}


def test_a_row_that_is_not_significantly_worse_shares_the_rank() -> None:
    found = [*results("a", 0.6), *results("b", 0.595), *results("c", 0.3)]
    assert ranked(*found) == {"a": 1, "b": 1, "c": 3}


def test_how_many_differences_are_significant_is_said() -> None:
    def said(*found: Result) -> str:
        (table,) = build_tables([StoredResult(Path(f"{n}.json"), each) for n, each in enumerate(found)])[0]
        return decided(table)

    alike = [*results("a", 0.6), *results("b", 0.595, seeds=3)]
    assert said(*alike) == "Of 1 difference between models none is significant, with 3 to 4 train seeds."
    three = [*results("a", 0.6), *results("b", 0.595), *results("c", 0.3)]
    assert said(*three) == "Of 3 differences between models 2 are significant, with 4 train seeds."
    one = [*results("a", 0.6, seeds=1), *results("b", 0.3, seeds=1), *results("c", 0.9, attack="pgd")]
    assert said(*one) == "Of 1 difference between models 1 is significant, with 1 train seed."
    assert said(*results("a", 0.6)) == ""


def test_one_seed_is_compared_by_images() -> None:
    found = [*results("a", 0.6, seeds=1), *results("b", 0.3, seeds=1), *results("c", 0.29, seeds=1)]
    assert ranked(*found) == {"a": 1, "b": 2, "c": 2}


def test_rows_of_other_efforts_are_compared_under_all_attacks_and_unranked_rows_have_no_rank() -> None:
    other = {"parameters": {"effort": "other"}}
    unranked = results("c", 0.9, attack="pgd")
    assert ranked(*results("a", 0.6), *results("b", 0.3, **other), *unranked) == {"a": 1, "b": 2}
    assert ranked(*results("a", 0.6), *results("b", 0.595, **other), *unranked) == {"a": 1, "b": 1}
    # pgd lowers b, where its own worst case does not
    lowered = [*results("b", 0.6, **other), *results("b", 0.3, attack="pgd")]
    assert ranked(*results("a", 0.6), *lowered) == {"a": 1, "b": 2}


def test_images_that_no_worst_case_attacked_do_not_count() -> None:
    other = {"parameters": {"effort": "other"}}
    few = results("a", 0.3, seeds=1)
    weak = [make_result({0.1: "r" * N}, model="a", train_seed=0, attack="pgd", offset=N)]
    many = [
        make_result(
            {0.1: "".join(["r" if n % 3 else "f" for n in range(2 * N)])},
            model="b",
            train_seed=0,
            attack="worst-case",
            **other,
        )
    ]
    assert ranked(*few, *weak, *many)["b"] == 1, "200 easy images under a weak attack lift nobody"


def test_without_a_train_seed_in_common_intervals_decide() -> None:
    def from_seed_four_on(share: float, **more: Any) -> list[Result]:
        return [each for each in results("b", share, seeds=8, **more) if each.evaluation.model.train_seed > 3]

    assert ranked(*results("a", 0.6), *from_seed_four_on(0.3)) == {"a": 1, "b": 2}
    assert ranked(*results("a", 0.6), *from_seed_four_on(0.3, parameters={"effort": "other"})) == {"a": 1, "b": 2}
    # seeds that scatter by ten points: their means differ by two, all images together
    scattered = [0.50, 0.60, 0.70, 0.60], [0.48, 0.58, 0.68, 0.58]
    one, other = (
        [
            results(model, share, seeds=seed + 1)[seed]
            for seed, share in zip(range(first, first + 4), shares, strict=True)
        ]
        for model, first, shares in (("a", 0, scattered[0]), ("b", 4, scattered[1]))
    )
    assert ranked(*one, *other) == {"a": 1, "b": 1}


def test_one_seed_whose_signs_and_mean_disagree_is_not_apart() -> None:
    def row(model: str, letters: list[str]) -> list[Result]:
        at = zip((0.5, 1.0, 2.0, 4.0), letters, strict=True)
        return [make_result({0.1: each}, model=model, train_seed=0, horizon=t, attack="worst-case") for t, each in at]

    # a gains a quarter on 60 images, b a whole on 20
    a = row("a", ["r" * 60 + "f" * 20, *["f" * 80] * 3])
    b = row("b", ["f" * 60 + "r" * 20] * 4)
    assert ranked(*a, *b) == {"a": 1, "b": 1}


def test_rows_without_an_image_in_common_are_compared_by_intervals() -> None:
    assert ranked(*results("a", 0.6), *results("b", 0.59, offset=N)) == {"a": 1, "b": 1}
    assert ranked(*results("a", 0.6), *results("b", 0.3, offset=N)) == {"a": 1, "b": 2}


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (1, 9, 22 / 1024)])
def test_the_sign_test_is_exact(gained: int, lost: int, p: float) -> None:
    assert sign_test(gained, lost) == pytest.approx(p)
    assert sign_test(lost, gained) == pytest.approx(p)
