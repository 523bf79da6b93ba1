"""Comparing results: which are pairs, how letters changed, files, folders and commits; and results as a table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_factory import counted_check, make_result

import odebench
from odebench.analysis.comparison import difference
from odebench.analysis.dataframe import COLUMNS, RANKING_COLUMNS, load_results
from odebench.cli import _exit_code
from odebench.errors import ResultError, UsageError
from odebench.leaderboard.read import results_of
from odebench.leaderboard.union import StoredResult
from odebench.numerics.statistics import paired_interval
from odebench.render.comparison import difference_json, difference_text
from odebench.result.file import result_json, write_result
from odebench.result.schema import Result

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
LETTERS = st.text("mufxr", min_size=1, max_size=40)


def store(*results: Result) -> list[StoredResult]:
    return [StoredResult(Path(f"{index}.json"), result) for index, result in enumerate(results)]


def test_letters_are_counted_by_kind_of_change() -> None:
    found = difference(store(make_result({0.1: "rrrrffmu"})), store(make_result({0.1: "rffxfrrm"})))
    (pair,) = found.pairs
    (item,) = pair.epsilons
    assert item.letters == {"f>r": 1, "m>r": 1, "r>f": 2, "r>x": 1, "u>m": 1}
    assert (pair.same_evaluation, pair.same_weights, pair.changed, item.images) == (True, True, 6, 8)
    assert (item.robust_accuracy.first.value, item.robust_accuracy.second.value) == (0.5, 0.375)
    assert item.robust_accuracy.difference == -0.125
    assert (item.robust_accuracy.low, item.robust_accuracy.high) == paired_interval(2, 3, 8)
    assert (item.clean_accuracy.low, item.clean_accuracy.high) == paired_interval(1, 0, 8)


@given(LETTERS, st.randoms())
def test_the_other_way_round_is_the_opposite(before: str, random: Any) -> None:
    after = "".join(random.choice("mufxr") for _ in before)
    there, back = (
        difference(store(make_result({0.1: a})), store(make_result({0.1: b}))).pairs[0].epsilons[0]
        for a, b in ((before, after), (after, before))
    )
    assert there.letters == {f"{kind[2]}>{kind[0]}": n for kind, n in back.letters.items()}
    for name in ("clean_accuracy", "robust_accuracy"):
        one, other = getattr(there, name), getattr(back, name)
        assert one.difference == -other.difference
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert difference(store(make_result({0.1: before})), store(make_result({0.1: before}))).pairs[0].changed == 0


def test_pairs_are_equal_evaluations_then_those_of_other_weights_images_and_epsilons() -> None:
    old = make_result({0.1: "rrff"})
    longer = make_result({0.1: "rrrrff", 0.2: "rfffff"}, weights="new")
    found = difference(store(old), store(longer, make_result({0.1: "rf"}, horizon=2.0)))
    (pair,) = found.pairs
    assert (pair.same_evaluation, pair.same_weights) == (False, False)
    assert [(item.epsilon, item.images, item.letters) for item in pair.epsilons] == [(0.1, 4, {"f>r": 2})]
    assert [item.result.evaluation.horizon for item in found.only_second] == [2.0]
    assert found.only_first == ()
    both = difference(store(old, longer), store(longer, old))
    assert [(pair.same_evaluation, pair.changed) for pair in both.pairs] == [(True, 0), (True, 0)]


def test_of_many_files_that_one_side_lacks_ten_are_listed() -> None:
    many = store(make_result({0.1: "rf"}), *(make_result({0.1: "rf"}, horizon=float(each)) for each in range(2, 15)))
    found = difference(many[:1], many)
    text = difference_text(found, "a", "b")
    assert "13 evaluations in B alone:" in text
    assert text.count("\n- ") == 11
    assert "- and 3 more; --json lists all\n" in text
    assert len(json.loads(difference_json(found))["only_second"]) == 13
    assert "more;" not in difference_text(difference(many[:1], many[:11]), "a", "b")


def test_two_models_are_compared_when_each_side_is_one_result() -> None:
    ode, student = make_result({0.1: "rf"}, model="ode"), make_result({0.1: "rr"})
    assert difference(store(ode), store(student)).pairs[0].epsilons[0].letters == {"f>r": 1}
    apart = difference(store(ode), store(make_result({0.1: "rr"}, attack="fgsm", model="ode"), student))
    assert (len(apart.pairs), len(apart.only_first), len(apart.only_second)) == (0, 1, 2)


def test_two_models_are_compared_question_by_question() -> None:
    seeds = [make_result({0.1: letters}, model="ode", train_seed=seed) for seed, letters in enumerate(("rf", "ff"))]
    students = [make_result({0.1: letters}, train_seed=seed) for seed, letters in enumerate(("rr", "fr"))]
    other = make_result({0.1: "rr"}, horizon=2.0)
    found = difference(store(*seeds), store(other, *reversed(students)))
    assert [pair.epsilons[0].letters for pair in found.pairs] == [{"f>r": 1}, {"f>r": 1}]
    assert [pair.first.result.evaluation.model.name for pair in found.pairs] == ["ode", "ode"]
    assert (found.only_first, len(found.only_second)) == ((), 1)
    mixed = difference(store(seeds[0], make_result({0.1: "rr"}, model="resnet")), store(*students))
    assert mixed.pairs == ()


def test_what_differs_between_two_evaluations_of_the_same_weights_is_said() -> None:
    one = make_result({0.1: "rrff"}, weights="same")
    for other, words in (
        (make_result({0.1: "rrff"}, attack="fgsm", weights="same"), "(another attack)"),
        (make_result({0.1: "rrf"}, weights="same"), "(another set of images)"),
        (make_result({0.1: "rrff", 0.2: "ffff"}, weights="same"), "(another set of epsilons)"),
        (make_result({0.1: "rrff"}, horizon=2.0, train_horizon=1.0, weights="same"), "(another horizon)"),
    ):
        assert words in difference_text(difference(store(one), store(other)), "a", "b")


@pytest.mark.parametrize("other", [{"data": "b"}, {"offset": 2}, {"norm": "l2"}])
def test_results_without_common_ground_are_no_pair(other: dict[str, Any]) -> None:
    found = difference(store(make_result({0.1: "rf"})), store(make_result({0.1: "rf"}, **other)))
    assert (found.pairs, len(found.only_first), len(found.only_second)) == ((), 1, 1)


def test_the_text_says_what_changed_in_80_columns() -> None:
    first = store(make_result({0.1: "r" * 100}), make_result({0.1: "r"}, model="resnet", horizon=None))
    second = store(make_result({0.1: "r" * 90 + "f" * 10}), make_result({0.1: "r"}, horizon=4.0))
    text = difference_text(difference(first, second), "main~5", "main")
    assert text.startswith(
        "A: main~5\nB: main\n\n0 evaluations with the same letters in both\n1 evaluation that differs"
    )
    assert "kd-ode on digits (test), pgd in linf, T=1, rk4 step 0.25, train_seed=0" in text
    low, high = (f"{100 * end:.1f}" for end in paired_interval(0, 10, 100))
    assert f"|     0.1 |    100 | 100.0 > 100.0 | 100.0 > 90.0 | -10.0 [{low}, {high}] |" in text
    assert "letters at 0.1: r>f 10" in text
    assert "1 evaluation in A alone:\n- 1.json\n" in text
    assert "1 evaluation in B alone:\n- 1.json\n" in text
    assert max(map(len, text.splitlines())) <= 80
    record = json.loads(difference_json(difference(first, second)))
    assert record["pairs"][0]["epsilons"][0]["letters"] == {"r>f": 10}
    assert record["only_first"] == record["only_second"] == ["1.json"]
    nothing = difference_text(difference(first, first), "a", "b")
    assert nothing == "A: a\nB: b\n\n2 evaluations with the same letters in both\n"


# Commands


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of three commits: without results, with one, with another letter and a file that is no result."""
    monkeypatch.chdir(tmp_path)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b.c")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = tmp_path / "leaderboard" / "results"
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "nothing")
    write_result(make_result({0.1: "rrff"}), folder)
    commit("one")
    write_result(make_result({0.1: "rfff"}), folder, replace=True)
    (folder / "broken.json").write_text("{")
    commit("two")
    return tmp_path


def git(*words: str) -> None:
    subprocess.run(["git", *words], check=True, capture_output=True)


def commit(message: str) -> None:
    git("add", "leaderboard")
    git("commit", "-q", "-m", message)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str, str]]:
    def call(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["odebench", *line.split()])
        capsys.readouterr()
        code = _exit_code()
        return code, *capsys.readouterr()

    return call


@needs_git
def test_commits_are_compared(repository: Path, call: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = call("compare main~1 main")
    assert "letters at 0.1: r>f 1" in out
    assert code == 1
    assert "main:leaderboard/results/broken.json is not whole JSON" in err
    assert call("compare main~1 main~1") == (
        0,
        "A: main~1\nB: main~1\n\n1 evaluation with the same letters in both\n",
        "",
    )
    (repository / "leaderboard" / "results" / "broken.json").unlink()
    code, out, err = call("compare main~1 leaderboard/results --json")
    assert (code, err, json.loads(out)["pairs"][0]["changed"]) == (0, "", 1)


@needs_git
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "compare absent main~1",
            "absent is neither a result file, a folder of results nor a commit of this repository",
        ),
        ("compare main~2 main~1", "the commit main~2 has no results in leaderboard/results; name another commit"),
        ("compare --json main~1 leaderboard/results/broken.json", "broken.json is not whole JSON"),
    ],
)
def test_a_bad_path_is_one_line(
    line: str, message: str, repository: Path, call: Callable[[str], tuple[int, str, str]]
) -> None:
    code, out, err = call(line)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert message in err


def test_a_name_outside_a_repository_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ResultError, match="HEAD is neither a result file, a folder of results nor a commit"):
        results_of("HEAD", folder=Path("leaderboard/results"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ResultError, match="main is neither a result file"):
        results_of("main", folder=Path("leaderboard/results"))


# A table of pandas


def test_results_are_rows_by_evaluation_and_epsilon(tmp_path: Path) -> None:
    flags = {"flags": ["solver gap", "no-transfer"], "checks": [counted_check(k=3, n=3)]}
    write_result(make_result({0.1: "rrfm", 0.2: "rffm"}, **flags), tmp_path)
    path = write_result(make_result({0.1: "rr"}, model="resnet", horizon=None, arguments={"width": 8}), tmp_path)
    table = odebench.load_results(tmp_path)
    assert tuple(table.columns) == COLUMNS
    assert table["epsilon"].tolist() == [0.1, 0.2, 0.1]
    assert table["robust_accuracy"].tolist() == [0.5, 0.25, 1.0]
    assert table["flags"].tolist() == ["solver gap, no-transfer"] * 2 + [""]
    assert table["horizon"].isna().tolist() == [False, False, True]
    assert table["arguments"].tolist() == ["{}", "{}", '{"width":8}']
    assert load_results(str(path))["file"].tolist() == [path.as_posix()]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert tuple(load_results(empty).columns) == COLUMNS


def test_the_ranked_rows_are_marked_and_make_a_table(tmp_path: Path) -> None:
    worst: dict[str, Any] = {"attack": "worst-case", "steps": 1}
    for seed in (0, 1):
        write_result(make_result({0.1: "r" * 40, 0.2: "r" * 30 + "f" * 10}, train_seed=seed, **worst), tmp_path)
        write_result(make_result({0.1: "r" * 10 + "f" * 30}, model="ode", train_seed=seed, **worst), tmp_path)
        write_result(make_result({0.1: "r" * 100}, model="ode", train_seed=seed), tmp_path)
    table = odebench.load_results(tmp_path)
    assert set(table[table.ranked].attack) == {"worst-case"}
    assert set(table[~table.ranked].attack) == {"pgd"}
    assert table.ranked.sum() == 6
    ranking = odebench.ranking(str(tmp_path), epsilon=0.1)
    assert tuple(ranking.columns) == RANKING_COLUMNS
    assert ranking[["model", "rank", "robust_accuracy", "n", "seeds"]].values.tolist() == [
        ["kd-ode", 1, 1.0, 40, 2],
        ["ode", 2, 0.25, 40, 2],
    ]
    assert odebench.ranking(tmp_path).model.tolist() == ["kd-ode"], "the middle one of 0.1 and 0.2"
    with pytest.raises(UsageError, match=r"no result is at epsilon 0.3; there are 0.1, 0.2"):
        odebench.ranking(tmp_path, epsilon=0.3)
    with pytest.raises(UsageError, match=r"there are no published results here; name a folder"):
        odebench.ranking()


def test_a_file_that_is_no_result_is_never_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(result_json(make_result({0.1: "r"}))[:50])
    with pytest.raises(ResultError, match=r"a\.json is not whole JSON"):
        load_results(tmp_path)
    with pytest.raises(ResultError, match="nowhere is not a folder of results"):
        load_results(tmp_path / "nowhere")
