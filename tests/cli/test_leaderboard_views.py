"""`odebench leaderboard` of some results: by attack, of some data sets, norms and models, as a chart."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from result_factory import EXAMINED, make_result

from odebench.cli import _exit_code
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.read import read_results
from odebench.leaderboard.table import Table
from odebench.render.results_chart import chart_specification
from odebench.result.file import write_result

Call = Callable[[str], tuple[int, str, str]]
PUBLISHED = Path(__file__).parents[2] / "leaderboard" / "results"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)
    for model, share in (("ode", 8), ("kd-ode", 12)):
        for horizon in (0.5, 1.0):
            letters = "r" * share + "f" * (20 - share)
            both = {0.1: letters.replace("f" * 4, "r" * 4, 1), 0.2: letters}
            write_result(
                make_result(both, model=model, horizon=horizon, attack="pgd", checks=EXAMINED), tmp_path / "results"
            )
            write_result(
                make_result({0.1: "r" * 17 + "fff"}, model=model, horizon=horizon, attack="fgsm"), tmp_path / "results"
            )
    worst = make_result({0.1: "r" * 5 + "f" * 15}, attack="worst-case", steps=1, checks=EXAMINED)
    write_result(worst, tmp_path / "results")
    write_result(make_result({1.0: "r" * 20}, norm="l2", dataset="mnist", model="ode"), tmp_path / "results")

    def call(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["odebench", "leaderboard", *line.split()])
        code = _exit_code()
        return (code, *capsys.readouterr())

    return call


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_a_file_that_cannot_be_read_is_named_where_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r" / "ode").mkdir(parents=True)
    (tmp_path / "r" / "ode" / "digits-pgd-linf-0.json").write_text("{", encoding="utf-8")
    for words in (
        ["leaderboard", str(tmp_path / "r"), "--epsilon", "0.1"],
        ["compare", "a", "ode", "--results", str(tmp_path / "r")],
    ):
        monkeypatch.setattr(sys, "argv", ["odebench", *words])
        assert _exit_code() == 2
        first, last = capsys.readouterr().err.splitlines()
        assert "is not whole JSON" in first
        assert last.startswith("odebench: ")


def test_by_attack_has_a_row_for_each_attack_and_one_for_all(call: Call) -> None:
    code, out, err = call("--by attack -d digits -m kd-ode,ode")
    assert (code, err) == (0, "")
    found = rows(out)
    assert found[0] == ["model, - attack", "n", "0.1", "0.2"]
    at = found.index(["kd-ode, T=1", "", "", ""])
    assert [row[0] for row in found[at + 1 : at + 5]] == ["- fgsm", "- pgd", "- worst-case", "- all"]
    assert [row[2].split()[0] for row in found[at + 1 : at + 5]] == ["85.0", "80.0", "25.0", "25.0"]
    assert found[at + 1][3] == ""
    assert max(map(len, out.splitlines())) <= 80


def test_by_attack_is_also_csv(call: Call) -> None:
    _, out, _ = call("--by attack -d digits -m ode --format csv")
    found = list(csv.DictReader(io.StringIO(out)))
    assert {row["attacks"] for row in found} == {"fgsm", "pgd"}
    assert {row["model"] for row in found} == {"ode"}
    _, out, _ = call("--by attack -d digits -m ode --format csv --epsilon 0.2")
    found = list(csv.DictReader(io.StringIO(out)))
    assert ({row["attacks"] for row in found}, {row["epsilon"] for row in found}) == ({"pgd"}, {"0.2"}), "no fgsm there"


def test_by_seed_has_a_row_for_each_train_seed_and_one_for_their_mean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["leaderboard", str(PUBLISHED), "-d", "digits", "--norm", "linf", "-m", "resnet", "--by", "seed"]
    monkeypatch.setattr(sys, "argv", ["odebench", *words])
    assert _exit_code() == 0
    out = capsys.readouterr().out
    assert [row[0] for row in rows(out)[2:]] == ["resnet", "- seed 0", "- seed 1", "- seed 2", "- all"]
    shares = [float(row[3].split()[0]) for row in rows(out)[3:]]
    assert sum(shares[:3]) / 3 == pytest.approx(shares[3], abs=0.1)
    assert len(set(shares)) > 2
    assert max(map(len, out.splitlines())) <= 80
    monkeypatch.setattr(sys, "argv", ["odebench", *words, "--format", "csv", "--epsilon", "0.1"])
    assert _exit_code() == 0
    found = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [row["arguments"] for row in found] == [f'{{"train_seed":{seed}}}' for seed in range(3)]


def test_by_seed_shows_seeds_that_have_no_image_in_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (2, 10):
        result = make_result({0.1: "r" * 10 + "f" * 10}, attack="pgd", train_seed=seed, offset=20 * seed)
        write_result(result, tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["odebench", "leaderboard", str(tmp_path / "results"), "--by", "seed"])
    assert _exit_code() == 1
    out, err = capsys.readouterr()
    assert [row[0] for row in rows(out)[3:]] == ["- seed 2", "- seed 10"]
    assert "without an image in common" in err


def test_tables_are_those_of_the_data_sets_norms_and_models(call: Call) -> None:
    assert "## mnist" in call("")[1]
    _, out, _ = call("-d digits -m ode")
    assert "mnist" not in out
    assert "kd-ode" not in out
    assert call("--norm l2")[1].count("\n## ") == 1
    assert [line for line in call("--epsilon 1/10,0.2")[1].splitlines() if line.startswith("## ")] == [
        "## digits (test): linf, epsilon 0.1, 20 images",
        "## digits (test): linf, epsilon 0.2, 20 images",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-m kdode", "unknown model among these results: 'kdode'; did you mean 'kd-ode'? known: kd-ode, ode"),
        ("-d digit", "unknown data set among these results: 'digit'; did you mean 'digits'?"),
        ("--norm l1", "unknown norm among these results: 'l1'"),
        ("--epsilon 0.3", "no result among these is at epsilon 0.3; there are 0.1, 0.2, 1"),
        ("--norm l2 --epsilon 0.1", "no result among these is at epsilon 0.1; there are 1"),
        ("--publish --epsilon 0.1", "--publish and --check take no other options"),
        ("--norm linf,linf", "norm linf is given twice"),
        ("--chart a.pdf", "--chart draws SVG and PNG: name a file such as a.svg, not a.pdf"),
        ("--format html --by attack", "--chart and --by go with md, csv and json"),
        ("--serve --chart a.svg", "--chart and --by go with md, csv and json"),
        ("--publish -m ode", "--publish and --check take no other options"),
    ],
)
def test_what_cannot_be_shown_is_one_line(line: str, said: str, call: Call) -> None:
    code, out, err = call(line)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert said in err


def test_what_was_written_is_said(call: Call) -> None:
    code, out, err = call("-o all.md")
    assert (code, out, err) == (0, "", "written: all.md\n")
    assert Path("all.md").read_text().startswith("# Leaderboard")


def test_the_page_shows_what_was_chosen(call: Call) -> None:
    code, _, err = call("--format html -d digits -m ode -o a.html")
    assert (code, err) == (0, "written: a.html\n")
    page = Path("a.html").read_text()
    assert "mnist" not in page.partition("<script")[0]
    assert "kd-ode" not in page.partition("<script")[0]


def at_one_horizon(table: Table) -> Table:
    rows = tuple(replace(row, cells={1.0: row.cells[1.0]}) for row in table.rows if 1.0 in row.cells)
    return replace(table, rows=rows)


def test_a_chart_is_drawn_with_hollow_points_for_what_is_unranked(call: Call) -> None:
    code, _, err = call("-d digits --chart a.svg")
    assert (code, err) == (0, "chart: a.svg\n")
    svg = Path("a.svg").read_text()
    assert svg.startswith("<svg")
    assert "ode (unranked)" in svg
    assert call("-d digits --chart a.png")[0] == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    tables = [table for table in build_tables(read_results([Path("results")])[0])[0] if table.dataset == "digits"]
    panels = [panel for row in chart_specification(tables)["vconcat"] for panel in row["hconcat"]]
    assert [panel["title"] for panel in panels] == [
        "digits, linf: clean",
        "digits, linf, epsilon 0.2: robust",
        "digits, linf: T=0.5",
        "digits, linf: T=1",
    ]
    one_radius, one_horizon = (
        [panel["title"] for row in chart_specification(some)["vconcat"] for panel in row["hconcat"]]
        for some in (tables[:1], [at_one_horizon(table) for table in tables])
    )
    assert one_radius == ["digits, linf: clean", "digits, linf, epsilon 0.1: robust"]
    assert one_horizon == ["digits, linf: T=1"]
    axes = [panel["layer"][0]["encoding"]["x"] for panel in panels]
    assert [axis["type"] for axis in axes] == ["ordinal", "ordinal", "quantitative", "quantitative"]
    assert (axes[3]["field"], axes[3]["axis"]["values"]) == ("order", [0, 0.1, 0.2])
    assert "abs(datum.value - 0.2) < 1e-9 ? '0.2'" in axes[3]["axis"]["labelExpr"]
    security = {(one["model"], one["x"]): one for one in panels[3]["data"]["values"]}
    assert security["kd-ode", "0.1"]["y"] == 25
    assert security["kd-ode", "0.1"]["ranked"]
    assert not security["ode (unranked)", "0.1"]["ranked"]
    assert security["ode (unranked)", "0"]["y"] == 100
