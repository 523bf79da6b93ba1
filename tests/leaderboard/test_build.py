"""Unions against a plain reading of the protocol, tables against figures known by hand, renderers."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_factory import EXAMINED, make_result

from odebench.errors import ResultError
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.read import read_results
from odebench.leaderboard.table import Cell, Reach, Table
from odebench.leaderboard.union import OutcomeSets, StoredResult, image_set, merge, outcome_sets, union
from odebench.numerics.statistics import student, wilson
from odebench.protocol.spec import adaptive, fixed_step, radius
from odebench.render.data_schema import schema_text
from odebench.render.markdown_tables import attack_names, markdown
from odebench.render.records import FIELDS, csv_text, data_file, json_text
from odebench.result.file import result_json, write_result
from odebench.result.schema import Check, Result, outcomes_digest

EPSILONS = (0.05, 0.1, 0.2)
N = 12


def store(*results: Result) -> list[StoredResult]:
    return [StoredResult(Path(f"results/{index}.json"), result) for index, result in enumerate(results)]


def tables_of(*results: Result) -> list[Table]:
    tables, problems = build_tables(store(*results))
    assert problems == []
    return tables


def only_cell(*results: Result) -> Cell:
    (table,) = tables_of(*results)
    (row,) = table.rows
    (cell,) = row.cells.values()
    return cell


def problem_of(*results: Result) -> tuple[list[Table], str]:
    tables, problems = build_tables(store(*results))
    (problem,) = problems
    assert isinstance(problem, ResultError)
    return tables, str(problem)


# Unions


@st.composite
def results_of_one_model(draw: st.DrawFn, count: int = 3) -> list[Result]:
    """Results of several attacks, on various images and radii, that agree on the clean images."""
    clean = draw(st.text("mu....", min_size=N, max_size=N))
    results = []
    for index in range(draw(st.integers(1, count))):
        offset = draw(st.integers(0, N - 1))
        n = draw(st.integers(1, N - offset))
        epsilons = sorted(draw(st.sets(st.sampled_from(EPSILONS), min_size=1)))
        letters = {
            epsilon: "".join(letter if letter != "." else draw(st.sampled_from("fxr")) for letter in clean[offset:][:n])
            for epsilon in epsilons
        }
        results.append(make_result(letters, offset=offset, steps=index))
    return results


def plain_union(results: Sequence[Result], epsilon: float) -> dict[int, str]:
    """The protocol's sentence, image by image: m > u > f > x > r, a fall carries to larger radii."""
    seen: dict[int, str] = {}
    for result in results:
        for item in result.epsilons:
            for index, letter in enumerate(item.outcomes, result.evaluation.dataset.offset):
                clean = letter in "mu"
                if clean or (letter in "fx" and item.epsilon <= epsilon) or item.epsilon == epsilon:
                    seen[index] = min(seen.get(index, "r"), letter, key="mufxr".index)
    return seen


def by_image(letters: OutcomeSets, epsilon: float) -> dict[int, str]:
    return {
        image: letter
        for letter, images in letters.at(epsilon).items()
        for image in range(images.bit_length())
        if images >> image & 1
    }


@given(results_of_one_model(), st.sampled_from(EPSILONS))
def test_union_is_what_the_protocol_says(results: list[Result], epsilon: float) -> None:
    assert by_image(union(store(*results)), epsilon) == plain_union(results, epsilon)


@given(results_of_one_model(count=4), st.randoms())
def test_union_does_not_know_the_order_of_results(results: list[Result], random: Any) -> None:
    expected = union(store(*results))
    random.shuffle(results)
    assert union(store(*results)) == expected


@given(results_of_one_model(), results_of_one_model(), results_of_one_model())
def test_merging_is_commutative_associative_and_idempotent(
    first: list[Result], second: list[Result], third: list[Result]
) -> None:
    a, b, c = (outcome_sets(results[0]) for results in (first, second, third))
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, a) == a


@given(results_of_one_model(count=4))
def test_another_result_never_raises_robust_accuracy(results: list[Result]) -> None:
    base = results[0]
    epsilon = base.epsilons[-1].epsilon
    robust = [
        union(store(*results[:count])).shares(epsilon, image_set(base))[1] for count in range(1, len(results) + 1)
    ]
    assert robust == sorted(robust, reverse=True)
    assert robust[0] <= base.epsilons[-1].figures.robust_accuracy.value


@given(st.text("mufxr", min_size=1, max_size=300), st.integers(0, 300))
def test_one_result_alone_keeps_its_figures(outcomes: str, offset: int) -> None:
    result = make_result({0.1: outcomes}, offset=offset)
    figures = result.epsilons[0].figures
    expected = (figures.clean_accuracy.value, figures.robust_accuracy.value)
    assert outcome_sets(result).shares(0.1, image_set(result)) == expected


def test_a_fall_carries_to_larger_radii_and_robustness_to_none() -> None:
    letters = union(store(make_result({0.1: "fxrm"}), make_result({0.2: "rrrm"}, attack="fgsm")))
    assert by_image(letters, 0.05) == {3: "m"}
    assert by_image(letters, 0.1) == {0: "f", 1: "x", 2: "r", 3: "m"}
    assert by_image(letters, 0.2) == {0: "f", 1: "x", 2: "r", 3: "m"}
    assert by_image(letters, 0.3) == {0: "f", 1: "x", 3: "m"}


def test_clean_letters_may_differ_on_one_percent_of_the_shared_images() -> None:
    first = make_result({0.1: "m" + "r" * 199})
    second = make_result({0.1: "r" * 198 + "ur"}, attack="fgsm")
    letters = union(store(first, second)).at(0.1)
    assert [letters[letter].bit_count() for letter in "mufxr"] == [1, 1, 0, 0, 198]
    assert union(store(make_result({0.1: "u" + "r" * 99}), make_result({0.1: "m" + "r" * 99}))).at(0.1)["m"] == 1


def test_more_than_that_is_a_contradiction_of_two_files() -> None:
    good = make_result({0.1: "r" * 100}, model="ode")
    tables, problem = problem_of(
        make_result({0.1: "mm" + "r" * 98}), make_result({0.1: "r" * 100}, attack="fgsm"), good
    )
    assert "results/0.json" in problem
    assert "results/1.json" in problem
    assert "contradict each other: they judge 2 of 100 clean images differently (m or u), more than 1%" in problem
    assert [row.model for row in tables[0].rows] == ["ode"]


# Reading


def test_results_are_read_from_all_folders_once(tmp_path: Path) -> None:
    first, second = make_result({0.1: "rf"}), make_result({0.1: "rf"}, model="ode")
    write_result(first, tmp_path / "a")
    write_result(second, tmp_path / "a")
    write_result(first, tmp_path / "b")
    stored, problems = read_results([tmp_path / "a", tmp_path / "b", tmp_path])
    assert problems == []
    assert [item.result for item in stored] == [first, second]


def test_files_that_are_no_results_are_named_and_left_out(tmp_path: Path) -> None:
    good = make_result({0.1: "rf"})
    write_result(good, tmp_path)
    (tmp_path / "cut.json").write_text(result_json(good)[:100])
    (tmp_path / "package.json").write_text('{"name": "page"}')
    (tmp_path / "notes.txt").write_text("no result is meant here")
    stored, problems = read_results([tmp_path])
    assert [item.result for item in stored] == [good]
    assert [type(problem) for problem in problems] == [ResultError, ResultError]
    assert ["cut.json" in str(problems[0]), "package.json" in str(problems[1])] == [True, True]


def test_one_evaluation_with_equal_letters_is_no_problem_whatever_its_stages_are_called(tmp_path: Path) -> None:
    result = make_result({0.1: "rf"})
    (item,) = result.epsilons
    codes = {code: f"{name}, named otherwise" for code, name in item.felled_by.legend.items()}
    other = (item.model_copy(update={"felled_by": item.felled_by.model_copy(update={"legend": codes})}),)
    renamed = result.model_copy(update={"epsilons": other, "outcomes_sha256": outcomes_digest(other)})
    assert renamed.outcomes_sha256 != result.outcomes_sha256
    for name, one in (("a", result), ("b", renamed)):
        write_result(one, tmp_path / name)
    stored, problems = read_results([tmp_path])
    assert (len(stored), problems) == (1, [])
    write_result(renamed, tmp_path / "a")


def test_one_evaluation_with_two_outcomes_is_a_problem_of_both_files(tmp_path: Path) -> None:
    paths = [
        write_result(make_result({0.1: letters}), tmp_path / name) for name, letters in (("a", "rrf"), ("b", "rff"))
    ]
    stored, problems = read_results([tmp_path])
    (problem,) = problems
    assert all(str(path) in str(problem) for path in paths)
    assert "hold the same evaluation with different letters" in str(problem)
    assert only_cell(*(item.result for item in stored)).robust_accuracy.value == pytest.approx(1 / 3)


def test_a_missing_folder_says_where_results_come_from(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"nowhere is not a folder of results; `odebench run` writes"):
        read_results([tmp_path / "nowhere"])


# Figures


def test_an_unranked_figure_is_the_union_over_the_largest_result() -> None:
    cell = only_cell(
        make_result({0.1: "rrrrrfffmm"}), make_result({0.1: "fxfr"}, attack="fgsm", offset=2, nfe=(9.0, 9.0))
    )
    assert (cell.ranked, cell.n, cell.seeds) == (False, 10, 1)
    assert cell.attacks == {"fgsm": Reach(seeds=1, images=4), "pgd": Reach(seeds=1, images=10)}
    assert attack_names(cell) == ["fgsm (4 of 10 images)", "pgd"]
    assert cell.clean_accuracy.value == 0.8
    assert cell.robust_accuracy.value == 0.2  # images 0 and 1; fgsm felled 2 to 4
    assert (cell.robust_accuracy.low, cell.robust_accuracy.high) == wilson(2, 10)
    assert (cell.nfe_clean, cell.nfe_adversarial) == (16.0, 16.0)


def test_the_headline_stands_on_the_images_of_the_largest_worst_case() -> None:
    cell = only_cell(
        make_result({0.1: "rrrrrrrrrr"}, attack="pgd"),
        make_result({0.1: "rf"}, attack="worst-case", offset=0),
        make_result({0.1: "rrrf"}, attack="worst-case", offset=4),
        make_result({0.1: "f"}, attack="fgsm", offset=5),
        make_result({0.1: "f"}, attack="cw", offset=9),
    )
    assert (cell.ranked, cell.n) == (True, 4)
    assert cell.robust_accuracy.value == 0.5  # images 4 to 7: the worst case felled 7, fgsm 5
    assert cell.attacks == {"fgsm": Reach(1, images=1), "pgd": Reach(1, images=4), "worst-case": Reach(1, images=4)}


def test_a_worst_case_at_another_epsilon_ranks_nothing_here() -> None:
    tables = tables_of(make_result({0.1: "rr", 0.2: "rf"}), make_result({0.1: "fr"}, attack="worst-case"))
    cells = [next(iter(table.rows[0].cells.values())) for table in tables]
    assert [(table.epsilon, cell.ranked) for table, cell in zip(tables, cells, strict=True)] == [
        (0.1, True),
        (0.2, False),
    ]
    assert [cell.robust_accuracy.value for cell in cells] == [0.5, 0.0]
    assert [list(cell.attacks) for cell in cells] == [["pgd", "worst-case"]] * 2


def test_an_attack_at_larger_radii_or_on_other_images_is_not_in_the_union() -> None:
    tables = tables_of(
        make_result({0.1: "rr"}),
        make_result({0.2: "ff"}, attack="fgsm"),
        make_result({0.1: "f"}, attack="cw", offset=2),
    )
    cells = [next(iter(table.rows[0].cells.values())) for table in tables]
    whole = Reach(seeds=1, images=2)
    assert [dict(cell.attacks) for cell in cells] == [{"pgd": whole}, {"fgsm": whole, "pgd": whole}]


def test_a_randomised_model_is_shown_and_not_ranked() -> None:
    cell = only_cell(make_result({0.1: "rf"}, attack="worst-case", flags=["randomised"]))
    assert not cell.ranked
    assert "not ranked" in cell.flags["randomised"]


def test_seeds_are_averaged_on_the_images_common_to_all() -> None:
    cell = only_cell(
        make_result({0.1: "rrrrrrrr"}, train_seed=0),
        make_result({0.1: "rrff"}, train_seed=1, offset=2, nfe=(20.0, 24.0)),
        make_result({0.1: "rrrm"}, train_seed=2, offset=2, nfe=(24.0, 29.0)),
    )
    assert (cell.n, cell.seeds) == (4, 3)
    assert cell.robust_accuracy.value == pytest.approx((1 + 0.5 + 0.75) / 3)
    assert cell.clean_accuracy.value == pytest.approx((1 + 1 + 0.75) / 3)
    low, high = student([1.0, 0.5, 0.75])
    assert (cell.robust_accuracy.low, cell.robust_accuracy.high) == pytest.approx((max(0, low), min(1, high)))
    assert (cell.nfe_clean, cell.nfe_adversarial) == (20.0, 23.0)


EXAMINES = {"attack": "quick-diagnosis", "examined": True}


def test_a_model_that_nothing_examines_is_shown_and_not_ranked() -> None:
    worst = make_result({0.1: "rf"}, attack="worst-case", examined=False)
    cell = only_cell(worst)
    assert (cell.ranked, cell.examined, cell.robust_accuracy.value) == (False, False, 0.5)
    assert "- kd-ode: 1 seed; worst-case alone; unranked; not examined" in markdown(tables_of(worst))
    examined = only_cell(worst, make_result({0.1: "rf"}, **EXAMINES))
    assert (examined.ranked, examined.examined) == (True, True)


def test_an_examination_is_of_the_model_whatever_the_norm_and_radius() -> None:
    worst = make_result({0.5: "rf"}, norm="l2", attack="worst-case", examined=False)
    tables = tables_of(worst, make_result({0.1: "rr"}, **EXAMINES))
    ((cell,),) = [list(row.cells.values()) for table in tables if table.norm == "l2" for row in table.rows]
    assert cell.ranked


@pytest.mark.parametrize(
    "other",
    [
        {"train_seed": 1},
        {"horizon": 2.0},
        {"train_horizon": 2.0},
        {"solver": adaptive()},
        {"model": "ode"},
        {"arguments": {"epochs": 3}},
        {"dataset": "fashion-mnist"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_model_examined_examines_none(other: dict[str, Any]) -> None:
    worst = make_result({0.1: "rf"}, attack="worst-case", examined=False)
    tables = tables_of(worst, make_result({0.1: "rf"}, **EXAMINES, **other))
    cells = [cell for table in tables for row in table.rows for cell in row.cells.values() if worst in of(cell)]
    assert [(cell.ranked, cell.examined) for cell in cells] == [(False, False)]


def of(cell: Cell) -> list[Result]:
    return [item.result for item in cell.results]


@pytest.mark.parametrize("missing", EXAMINED, ids=lambda check: check.name)
def test_every_check_must_be_made(missing: Check) -> None:
    others = [check for check in EXAMINED if check is not missing]
    skipped = missing.model_copy(update={"status": "skipped", "figure": None, "threshold": None})
    settings = skipped.model_copy(update={"speaks_of": "settings"})

    def ranked(*checks: Check) -> bool:
        return only_cell(make_result({0.1: "rf"}, attack="worst-case", examined=False, checks=checks)).ranked

    assert not ranked(*others)
    assert not ranked(*others, settings), "it could not be made"
    assert ranked(*others, skipped), "there was nothing for it to look at"


def test_a_row_is_ranked_when_all_its_seeds_have_a_worst_case() -> None:
    results = [
        make_result({0.1: "rr"}, train_seed=0),
        make_result({0.1: "ff"}, train_seed=0, attack="worst-case"),
        make_result({0.1: "rr"}, train_seed=1),
    ]
    cell = only_cell(*results)
    assert (cell.ranked, cell.attacks) == (False, {"pgd": Reach(2, images=2), "worst-case": Reach(1, images=2)})
    assert cell.robust_accuracy.value == 0.5
    assert only_cell(*results, make_result({0.1: "rf"}, train_seed=1, attack="worst-case")).ranked


def test_seeds_without_a_common_image_are_a_problem_of_both_files() -> None:
    tables, problem = problem_of(
        make_result({0.1: "rr"}, train_seed=0), make_result({0.1: "rr"}, train_seed=1, offset=2)
    )
    assert tables == []
    assert "results/0.json" in problem
    assert "results/1.json" in problem
    assert "train seeds of one model without an image in common" in problem


def test_two_weights_of_one_seed_are_never_joined() -> None:
    old = make_result({0.1: "ffff"}, weights="a", attack="fgsm", created="2025-01-01")
    new = make_result({0.1: "rrrf"}, weights="b", created="2025-02-01")
    tables, problem = problem_of(old, new)
    assert "results/0.json and results/1.json are results of one model from different weights" in problem
    assert next(iter(tables[0].rows[0].cells.values())).robust_accuracy.value == 0.75


def test_two_data_sets_of_one_name_get_tables_of_their_own() -> None:
    tables, problem = problem_of(make_result({0.1: "rf"}, data="a"), make_result({0.1: "ff"}, data="b", attack="fgsm"))
    assert "results/0.json" in problem
    assert "results/1.json" in problem
    assert "two data sets called digits (test)" in problem
    assert [table.name_is_shared for table in tables] == [True, True]
    headings = [line for line in markdown(tables).splitlines() if line.startswith("## ")]
    assert all(f"(test, sha256 {table.dataset_sha256[:12]})" in "".join(headings) for table in tables)


def test_the_order_of_results_changes_nothing() -> None:
    results = [
        make_result({0.1: "rrrf"}, train_seed=seed, model=model, attack=attack)
        for seed in (0, 1)
        for model in ("ode", "kd-ode")
        for attack in ("fgsm", "pgd")
    ]
    assert build_tables(store(*results))[0] == build_tables(store(*reversed(results)))[0]


# Tables


def test_a_table_for_each_data_set_norm_and_epsilon() -> None:
    tables = tables_of(
        make_result({0.1: "r", 0.2: "f"}),
        make_result({0.1: "r"}, norm="l2", attack="cw"),
        make_result({0.1: "r"}, dataset="mnist"),
        make_result({0.1: "r"}, split="validation"),
    )
    assert [(table.dataset, table.split, table.norm, table.epsilon) for table in tables] == [
        ("digits", "test", "l2", 0.1),
        ("digits", "test", "linf", 0.1),
        ("digits", "test", "linf", 0.2),
        ("digits", "validation", "linf", 0.1),
        ("mnist", "test", "linf", 0.1),
    ]


def test_columns_are_horizons_and_no_horizon_comes_last() -> None:
    (table,) = tables_of(
        make_result({0.1: "r"}, model="resnet", horizon=None),
        *(make_result({0.1: "r"}, horizon=horizon) for horizon in (10.0, 0.5, 2.0)),
    )
    assert table.horizons == (0.5, 2.0, 10.0, None)
    assert {row.model: list(row.cells) for row in table.rows} == {
        "kd-ode": [0.5, 2.0, 10.0],
        "resnet": [None],
    }
    assert tables_of(make_result({0.1: "r"}))[0].horizons == (1.0,)


def test_rows_are_told_apart_by_what_differs() -> None:
    (table,) = tables_of(
        make_result({0.1: "r"}),
        make_result({0.1: "r"}, solver=adaptive(rtol=1e-3, atol=1e-4)),
        make_result({0.1: "r"}, solver=adaptive(backend="torchdiffeq")),
        make_result({0.1: "r"}, model="ode", arguments={"width": 8}),
        make_result({0.1: "r"}, model="ode", horizon=2.0, train_horizon=1.0),
        make_result({0.1: "r"}, model="ode", train_seed=None),
    )
    assert [(row.model, row.details) for row in table.rows] == [
        ("kd-ode", ("dopri5 rtol 0.001 atol 0.0001",)),
        ("kd-ode", ("dopri5 rtol 0.001 joint",)),
        ("kd-ode", ("rk4 step 0.25",)),
        ("ode", ()),
        ("ode", ("trained at T=1",)),
        ("ode", ("width=8",)),
    ]


def test_ranked_rows_come_first_best_first_then_the_others_by_name() -> None:
    (table,) = tables_of(
        make_result({0.1: "rrrr"}, model="b"),
        make_result({0.1: "rrrr"}, model="a"),
        make_result({0.1: "rfff"}, model="c", attack="worst-case"),
        make_result({0.1: "rrff"}, model="d", attack="worst-case"),
    )
    assert [row.model for row in table.rows] == ["d", "c", "a", "b"]


# Rendering

CONVERGENCE = Check(
    id=6, name="convergence", status="flag", speaks_of="settings", figure=0.1, threshold=0.01, k=50, n=500,
    why="twice the steps fell 50 more of 500 images", evidence={},
)  # fmt: skip


def test_settings_of_another_attack_do_not_flag_a_ranked_model() -> None:
    worst = make_result({0.1: "rf"}, attack="worst-case")
    weak = make_result({0.1: "rr"}, flags=["convergence", "solver failure"], checks=[CONVERGENCE])
    assert list(only_cell(worst, weak).flags) == ["solver failure"]
    assert list(only_cell(weak).flags) == ["convergence", "solver failure"]
    itself = make_result({0.1: "rf"}, attack="worst-case", flags=["convergence"], checks=[CONVERGENCE])
    assert list(only_cell(itself).flags) == ["convergence"]


def small_board() -> list[Table]:
    letters = {8 / 255: "m" * 10 + "f" * 280 + "r" * 210}
    return tables_of(
        make_result(letters),
        make_result(letters, train_seed=1, attack="fgsm"),
        make_result(letters, horizon=0.5, nfe=(8.0, 8.25), flags=["convergence", "new|flag"], checks=[CONVERGENCE]),
        make_result({8 / 255: "r" * 500}, model="resnet", horizon=None, attack="worst-case"),
    )


def test_markdown_reads_as_plain_text() -> None:
    assert (
        markdown(small_board())
        == """\
# Leaderboard

## digits (test): linf, epsilon 8/255, 500 images

| model    | figure   |     T=0.5 |       T=1 | no horizon |
| :------- | :------- | --------: | --------: | ---------: |
| resnet   | clean %  |           |           |      100.0 |
|          | 95%      |           |           | 99.2-100.0 |
|          | robust % |           |           |      100.0 |
|          | 95%      |           |           | 99.2-100.0 |
| kd-ode   | clean %  |      98.0 |      98.0 |            |
| unranked | 95%      | 96.4-98.9 | 96.4-98.9 |            |
|          | robust % |      42.0 |      42.0 |            |
|          | 95%      | 37.8-46.4 | 37.8-46.4 |            |
|          | NFE      |   8 / 8.2 |   16 / 16 |            |
|          | flags    |       a b |           |            |

- resnet: 1 seed; worst-case alone
- kd-ode at T=0.5: 1 seed; pgd alone; unranked; not examined
- kd-ode at T=1: 2 seeds; union of fgsm (1 of 2 seeds), pgd (1 of 2 seeds);
  unranked; not examined
- [a] convergence: twice the steps fell 50 more of 500 images
- [b] new\\|flag: see the checks in the result file

95% intervals cover the sampling of images (and of train seeds); a stronger
attack may lower these figures. Robust: correct under every attack named. NFE:
mean evaluations of the vector field per image, clean / under attack. Unranked:
without a worst-case result, randomised, or not examined. Not examined: no
result holds the checks that look for masked gradients; odebench diagnose makes
them. Carry-over: an image that falls at one epsilon counts as fallen at every
larger one.
"""
    )


def test_intervals_stand_beside_their_figures_where_there_is_room() -> None:
    letters = {0.1: "m" * 9 + "f" * 276 + "r" * 215}
    text = markdown(tables_of(make_result(letters), make_result(letters, model="ode", horizon=2.0)))
    assert "| 98.2 [96.6, 99.1] |" in text
    assert "| 43.0 [38.7, 47.4] |" in text


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0, None]), min_size=1, max_size=4, unique=True))
def test_four_horizons_fit_80_columns(horizons: list[float | None]) -> None:
    letters = {0.05: "m" * 9 + "f" * 276 + "r" * 215}
    text = markdown(
        tables_of(
            *(make_result(letters, horizon=horizon, model="kd-ode-stemless") for horizon in horizons),
            *(make_result(letters, horizon=1.0, solver=solver) for solver in (adaptive(), fixed_step(step=0.5))),
        )
    )
    wide = len({*horizons, 1.0}) > 4
    lines = text.splitlines()
    assert wide or max(map(len, lines)) <= 80
    assert len({len(line) for line in lines if line.startswith("|")}) == 1


def test_markdown_tells_image_counts_and_names_apart() -> None:
    text = markdown(
        tables_of(
            make_result({0.25: "r" * 100}, model="a|b c"),
            make_result({0.25: "r" * 10}, model="ode", horizon=2.0),
        )
    )
    assert "## digits (test): linf, epsilon 0.25, 10 to 100 images" in text
    assert r"| a\|b c " in text
    assert "- a\\|b c: 1 seed; 100 images; pgd alone; unranked; not examined" in text
    assert "- ode: 1 seed; 10 images; pgd alone; unranked; not examined" in text


def test_markdown_of_nothing_says_how_to_begin() -> None:
    assert "No results yet. `odebench run --model kd-ode --attack pgd` makes one." in markdown([])


def test_csv_and_json_tell_the_same() -> None:
    tables = small_board()
    rows = list(csv.DictReader(io.StringIO(csv_text(tables))))
    objects = json.loads(json_text(tables))
    assert len(rows) == len(objects) == 3
    for row, record in zip(rows, objects, strict=True):
        assert tuple(row) == tuple(record) == FIELDS
        for name in ("clean_accuracy", "robust_accuracy_low", "epsilon"):
            assert isinstance(record[name], float)
            assert float(row[name]) == record[name]
        assert row["attacks"] == " ".join(record["attacks"])
    resnet, half, one = objects
    assert (resnet["model"], resnet["horizon"], resnet["ranked"], resnet["nfe_clean"]) == (
        "resnet",
        None,
        True,
        None,
    )
    assert (rows[0]["horizon"], rows[0]["ranked"], rows[0]["arguments"]) == ("", "true", "{}")
    assert (half["horizon"], half["train_horizon"], half["flags"]) == (0.5, 0.5, ["convergence", "new|flag"])
    assert (one["seeds"], one["robust_accuracy"], one["attacks"]) == (2, 0.42, ["fgsm", "pgd"])


def test_the_data_file_is_what_its_schema_says() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(schema_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    tables = small_board()
    data = json.loads(data_file(tables))
    assert list(validator.iter_errors(data)) == []
    assert data["figures"] == json.loads(json_text(tables))
    assert len(data["figures"]) == len(csv_text(tables).splitlines()) - 1 == 3
    described = schema["properties"]["figures"]["items"]["properties"]
    assert tuple(described) == FIELDS == tuple(csv_text(tables).splitlines()[0].split(","))
    assert all(each["description"].endswith(".") for each in described.values())
    assert {figure["rank"] for figure in data["figures"]} == {1, None}
    for name in FIELDS:
        assert list(validator.iter_errors({**data, "figures": [{**data["figures"][0], name: object()}]})), name


def test_the_published_data_file_is_what_its_schema_says() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    folder = Path(__file__).parents[2] / "leaderboard"
    schema = json.loads((folder / "leaderboard.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads((folder / "leaderboard.json").read_text(encoding="utf-8")), schema)


def test_the_leaderboard_needs_no_torch() -> None:
    code = (
        "import sys, odebench.leaderboard.build, odebench.render.markdown_tables, odebench.render.records; "
        "print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_other_solvers_and_horizons_stand_beside_the_usual_rows() -> None:
    usual = [make_result({0.1: "rrff"}, attack="worst-case", horizon=horizon) for horizon in (0.5, 1.0)]
    adaptive_one = make_result({0.1: "rfff"}, attack="worst-case", solver=adaptive("dopri5", rtol=1e-3))
    longer = make_result({0.1: "rrrf"}, attack="worst-case", horizon=4.0, train_horizon=1.0)
    resnet = make_result({0.1: "rrrr"}, attack="worst-case", model="resnet", horizon=None, solver=None)
    (table,) = tables_of(*usual, adaptive_one, longer, resnet)
    assert [(row.model, len(row.cells)) for row in table.usual] == [("resnet", 1), ("kd-ode", 2)]
    assert {row.details for row in table.others} == {("dopri5 rtol 0.001",), ("trained at T=1", "rk4 step 0.25")}
    assert {*map(id, table.usual), *map(id, table.others)} == {*map(id, table.rows)}
    text = markdown([table])
    first, beside = text.split("Other solvers, and horizons other than the one trained at.")
    assert "T=4" not in first
    assert "resnet" not in beside.partition("\n- ")[0]
    # Where nothing else stands for a model, its only row does.
    (alone,) = tables_of(longer)
    assert len(alone.usual) == 1
    assert "Beside these" not in markdown([alone])


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(0.1, "0.1"), (8 / 255, "8/255"), (0.25 / 255, "0.25/255"), (0.015, "0.015"), (0.3 / 255, "0.00117647")],
)
def test_a_radius_is_written_as_in_papers(epsilon: float, text: str) -> None:
    assert radius(epsilon) == text
