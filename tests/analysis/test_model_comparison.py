"""Two models side by side: rows, words, intervals, and the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from result_factory import make_result

from odebench.analysis.model_comparison import ModelComparison, ModelDifference, compare_models
from odebench.cli import _exit_code
from odebench.errors import UsageError
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.union import StoredResult
from odebench.numerics.crossed import crossed_mean
from odebench.numerics.statistics import paired_interval
from odebench.render.model_comparison import model_comparison_json, model_comparison_text
from odebench.result.file import write_result
from odebench.result.schema import Result

N = 40


def letters(robust: int, *, wrong: int = 2) -> str:
    robust = min(robust, N - wrong)
    return "m" * wrong + "r" * robust + "f" * (N - wrong - robust)


def results(model: str, robust: int, *, seeds: int = 8, **more: object) -> list[Result]:
    return [
        make_result(
            {0.1: letters(robust + seed + 5), 0.2: letters(robust + seed)},
            model=model,
            train_seed=seed,
            **{"attack": "worst-case", **more},  # type: ignore[arg-type]
        )
        for seed in range(seeds)
    ]


def compared(*found: Result, first: str = "kd-ode", second: str = "ode") -> list[ModelComparison]:
    stored = [StoredResult(Path(f"{number}.json"), result) for number, result in enumerate(found)]
    return compare_models(build_tables(stored)[0], first, second)


def rows(*found: Result, first: str = "kd-ode", second: str = "ode") -> list[ModelDifference]:
    (one,) = compared(*found, first=first, second=second)
    assert one.table.epsilon == 0.2
    return list(one.rows)


def test_a_row_is_the_paired_difference_over_images_and_seeds() -> None:
    clean, attacked = rows(*results("kd-ode", 25), *results("ode", 10))
    assert [(row.attack, row.word) for row in (clean, attacked)] == [
        ("clean", "no difference shown"),
        ("worst-case", "better"),
    ]
    assert (attacked.images, attacked.seeds, attacked.horizon, attacked.joined) == (N, 8, 1.0, False)
    table = [
        [int(a == "r") - int(b == "r") for a, b in zip(letters(25 + seed), letters(10 + seed), strict=True)]
        for seed in range(8)
    ]
    expected = crossed_mean(np.array(table))
    assert attacked.difference == pytest.approx(expected.mean)
    assert (attacked.low, attacked.high) == pytest.approx(expected.interval())
    other = rows(*results("kd-ode", 25), *results("ode", 10), first="ode", second="kd-ode")[1]
    assert (other.word, other.difference) == ("worse", pytest.approx(-expected.mean))


def test_one_seed_is_compared_by_images() -> None:
    row = rows(*results("kd-ode", 25, seeds=1), *results("ode", 10, seeds=1))[1]
    assert (row.low, row.high) == paired_interval(15, 0, N)
    assert (row.seeds, row.word) == (1, "on these weights: better")
    assert rows(*results("kd-ode", 25, seeds=1), *results("ode", 25, seeds=1))[1].word == "no difference shown"


@pytest.mark.parametrize(("seeds", "word"), [(7, "on these weights: better"), (8, "better")])
def test_below_eight_train_seeds_a_word_is_about_these_weights(seeds: int, word: str) -> None:
    row = rows(*results("kd-ode", 25, seeds=seeds), *results("ode", 10, seeds=seeds))[1]
    assert (row.word, row.low > 0) == (word, True)


@pytest.mark.parametrize(
    ("flag", "word"), [("randomised", "flagged"), ("batch-coupled", "flagged"), ("no-transfer", "better")]
)
def test_a_flagged_model_is_neither_better_nor_worse(flag: str, word: str) -> None:
    (found,) = compared(*results("kd-ode", 25, flags=[flag]), *results("ode", 10))
    assert found.rows[1].word == word
    assert found.flags == (f"kd-ode at T=1: {flag}",)
    assert f"\nFlags: kd-ode at T=1: {flag}.\n" in model_comparison_text([found], "kd-ode", "ode")
    (table,) = json.loads(model_comparison_json([found], "kd-ode", "ode", [Path("results")]))["tables"]
    assert table["flags"] == [f"kd-ode at T=1: {flag}"]


def test_models_are_compared_at_an_epsilon_that_both_have() -> None:
    wide = [make_result({0.1: letters(9)}, model="ode", attack="worst-case", train_seed=seed) for seed in range(8)]
    (found,) = compared(*results("kd-ode", 25), *wide)
    assert found.table.epsilon == 0.1
    with pytest.raises(UsageError, match="epsilon"):
        compared(*(make_result({0.3: letters(9)}, model="kd-ode", attack="worst-case"), *wide))


@pytest.mark.parametrize("seeds", [1, 8])
def test_intervals_of_equal_differences_are_those_of_images(seeds: int) -> None:
    def all_of(model: str, letter: str) -> list[Result]:
        outcomes = {0.1: letter * N, 0.2: letter * N}
        return [make_result(outcomes, model=model, attack="worst-case", train_seed=seed) for seed in range(seeds)]

    clean, attacked = rows(*all_of("kd-ode", "r"), *all_of("ode", "f"))
    assert (attacked.difference, attacked.low, attacked.high) == (1.0, *paired_interval(N, 0, N))
    assert (clean.difference, clean.low, clean.high) == (0.0, *paired_interval(0, 0, N))


def test_no_interval_is_wider_than_a_difference_can_be() -> None:
    outcomes = [("r" * N, "f" * N), ("f" * N, "f" * N)]
    found = [
        make_result({0.1: text, 0.2: text}, model=model, attack="worst-case", train_seed=seed)
        for seed, texts in enumerate(outcomes)
        for model, text in zip(("kd-ode", "ode"), texts, strict=True)
    ]
    assert (rows(*found)[1].low, rows(*found)[1].high) == (-1.0, 1.0)


def test_horizons_are_rows_and_their_mean_one_more() -> None:
    both = [*results("kd-ode", 25), *results("kd-ode", 15, horizon=2.0), *results("kd-ode", 15, horizon=4.0)]
    found = rows(*both, *results("ode", 10), *results("ode", 15, horizon=2.0))
    attacked = [row for row in found if row.attack == "worst-case"]
    assert [(row.horizon, row.joined) for row in attacked] == [(1.0, False), (2.0, False), (None, True)]
    assert attacked[2].difference == pytest.approx((attacked[0].difference + attacked[1].difference) / 2)


def test_a_model_without_a_field_is_compared_in_the_mean_over_the_others_horizons() -> None:
    odes = [*results("ode", 10), *results("ode", 15, horizon=2.0)]
    found = rows(*odes, *results("resnet", 25, horizon=None, solver=None), first="resnet")
    assert [(row.attack, row.horizon, row.joined) for row in found] == [
        ("clean", None, True),
        ("worst-case", None, True),
    ]
    assert found[1].second == pytest.approx(np.mean([*range(10, 18), *range(15, 23)]) / N)


def test_attacks_are_rows_and_diagnoses_are_not() -> None:
    more = [*results("kd-ode", 30, attack="pgd"), *results("ode", 30, attack="pgd")]
    more += [*results("kd-ode", 30, attack="diagnosis"), *results("ode", 30, attack="diagnosis")]
    more += results("ode", 30, attack="fgsm")
    found = rows(*results("kd-ode", 25), *results("ode", 10), *more)
    assert [row.attack for row in found] == ["clean", "worst-case", "pgd"]


def test_what_has_nothing_in_common_is_said() -> None:
    found = [*results("kd-ode", 25), *results("ode", 10, attack="pgd")]
    stored = [StoredResult(Path(f"{number}.json"), result) for number, result in enumerate(found)]
    tables = build_tables(stored)[0]
    with pytest.raises(UsageError, match="of kd-ode and ode has data set, norm, epsilon, attack and train seed"):
        compare_models(tables, "kd-ode", "ode")
    with pytest.raises(UsageError, match="unknown model among these results: 'od'; did you mean 'ode'"):
        compare_models(tables, "kd-ode", "od")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "leaderboard")
    for result in [*results("kd-ode", 25), *results("ode", 10), *results("own-net", 10)]:
        write_result(result, tmp_path / "leaderboard" / "results")
    return tmp_path


def run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["odebench", *line.split()])
    capsys.readouterr()
    return _exit_code(), *capsys.readouterr()


def test_the_command_takes_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run("compare kd-ode ode -d digits", monkeypatch, capsys)
    assert (code, err) == (0, "results: leaderboard/results\n")
    assert out.startswith("A: kd-ode\nB: ode\n\ndigits (test), linf, epsilon 0.2\nAnswer: kd-ode +")
    assert "worst-case, 40 images, 8 train seeds" in out
    assert out.count("better") == 3  # the answer, one row, and the line that explains the words
    assert max(map(len, out.splitlines())) <= 80
    assert "\ndigits (test), linf, epsilon 0.1\n" in run("compare kd-ode ode --epsilon 1/10", monkeypatch, capsys)[1]
    code, _, err = run("compare kd-ode ode --epsilon 0.3", monkeypatch, capsys)
    assert (code, "no result among these is at epsilon 0.3; there are 0.1, 0.2" in err) == (2, True)
    code, out, _ = run("compare own-net kd-ode --results leaderboard/results --json", monkeypatch, capsys)
    assert [row["word"] for row in json.loads(out)["tables"][0]["rows"]] == ["no difference shown", "worse"]
    code, _, err = run("compare kd-ode oed", monkeypatch, capsys)
    assert (code, "did you mean 'ode'?" in err) == (2, True)
    code, _, err = run("compare kd-ode ode --dataset digit", monkeypatch, capsys)
    assert (code, "unknown data set among these results: 'digit'" in err) == (2, True)


def test_files_and_folders_come_before_models(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder / "leaderboard" / "results")
    assert "1 evaluation" not in run("compare ode ode", monkeypatch, capsys)[1]
    assert "8 evaluations with the same letters in both" in run("compare ode ode", monkeypatch, capsys)[1]
    code, _, err = run("compare ode kd-ode --norm linf", monkeypatch, capsys)
    assert (code, "--dataset, --norm, --epsilon and --results go with two models" in err) == (2, True)
