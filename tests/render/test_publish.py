"""The leaderboard in the repository: what it shows, where its links lead, and when it is stale."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from claim_factory import asked, registered, study
from result_factory import counted_check, make_result

from odebench.cli import _exit_code
from odebench.cli.leaderboard import published_claims
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.table import Table
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import adaptive
from odebench.render.chart_data import COLOURS, Chart, horizon_chart, security_chart, style
from odebench.render.chart_svg import chart_svg
from odebench.render.leaderboard_markdown import charts_of
from odebench.render.publish import leaderboard_files, publish, stale
from odebench.render.summary_table import at_one_horizon, middle_tables, summary
from odebench.result.file import write_result
from odebench.result.schema import Result
from odebench.submission.provenance import provenance

ROOT = Path(__file__).parents[2]
ENTRIES = Path("leaderboard/entries")
Call = Callable[[str], tuple[int, str, str]]
DATA_AND_CHARTS = (
    "leaderboard.json",
    "leaderboard.csv",
    "leaderboard.schema.json",
    "charts/digits-accuracy.svg",
    "charts/digits-security.svg",
)


def results() -> list[Result]:
    """Two models at two horizons, one without, two seeds, three epsilons; a flag on one."""
    found = []
    for model, horizons, robust in (("kd-ode", (0.5, 2.0), 60), ("ode", (0.5, 2.0), 50), ("resnet", (None,), 70)):
        for horizon in horizons:
            for seed in (0, 1):
                letters = {
                    epsilon: "r" * (robust - fall + seed) + "f" * (35 + fall - seed - (robust - 60)) + "m" * 5
                    for epsilon, fall in ((0.05, 0), (8 / 255, -10), (0.1, 30))
                }
                found.append(
                    make_result(
                        dict(sorted(letters.items())),
                        model=model,
                        horizon=horizon,
                        train_seed=seed,
                        attack="worst-case",
                        flags=["solver gap"] if (model, horizon) == ("kd-ode", 2.0) else [],
                        checks=[counted_check(k=20, n=90)] if (model, horizon) == ("kd-ode", 2.0) else [],
                    )
                )
    return found


def tables_of(*found: Result) -> list[Table]:
    return build_tables([StoredResult(Path(f"{index}.json"), result) for index, result in enumerate(found)])[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for result in results():
        write_result(result, tmp_path / "leaderboard" / "results")
    return Path("leaderboard")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["odebench", *line.split()])
        capsys.readouterr()
        code = _exit_code()
        return code, *capsys.readouterr()

    return call


# What is drawn


def test_accuracy_against_horizon_at_the_middle_epsilon() -> None:
    picture = horizon_chart(tables_of(*results()))
    assert picture is not None
    assert (picture.name, picture.names) == ("digits-accuracy", ("resnet", "kd-ode", "ode"))
    assert picture.title == "digits: accuracy against time horizon T (100 test images; linf epsilon 0.05)"
    assert "2 train seeds; bars: 95% intervals" in picture.subtitle
    clean, worst = picture.rows[0]
    assert (clean.title, worst.title) == ("clean images", "worst case, linf, epsilon 0.05")
    assert {line.name: [point.x for point in line.points] for line in worst.lines} == {
        "resnet": [None],
        "kd-ode": [0.5, 2.0],
        "ode": [0.5, 2.0],
    }
    resnet = worst.lines[0].points[0].share
    assert (resnet.value, clean.lines[0].points[0].share.value) == (0.705, 0.95)
    assert resnet.low < resnet.value < resnet.high


def test_security_curves_begin_at_the_clean_accuracy() -> None:
    picture = security_chart(tables_of(*results()))
    assert picture is not None
    assert [[panel.title for panel in row] for row in picture.rows] == [["linf, T=0.5", "linf, T=2"]]
    for panel in picture.rows[0]:
        for line in panel.lines:
            assert [point.x for point in line.points] == [0.0, 8 / 255, 0.05, 0.1]
            assert line.points[0].share.value == 0.95
            values = [point.share.value for point in line.points]
            assert values == sorted(values, reverse=True)


def test_only_what_is_ranked_where_it_was_trained_at_its_usual_solver_is_drawn() -> None:
    letters = {0.1: "r" * 50 + "f" * 50}
    more = [
        make_result(letters, model="ode", horizon=2.0, train_horizon=0.5, attack="worst-case"),
        make_result(letters, model="ode", horizon=2.0, attack="worst-case", solver=adaptive()),
        make_result(letters, model="pgd-only"),
        make_result(letters, model="ode", horizon=2.0, arguments={"width": 8}, attack="worst-case"),
    ]
    picture = horizon_chart(tables_of(*results(), *more))
    assert picture is not None
    assert set(picture.names) <= {"resnet", "kd-ode", "ode", "ode width=8"}
    curves = security_chart(tables_of(*results(), *more))
    assert curves is not None
    assert picture.known == curves.known == tuple(sorted(curves.names))
    assert len([name for name in picture.names if name == "ode"]) == 1
    assert horizon_chart(tables_of(more[2])) is None
    assert security_chart(tables_of(more[2])) is None


def test_a_model_looks_the_same_on_all_data_sets() -> None:
    few = make_result({0.1: "r" * 50 + "f" * 50}, model="ode", attack="worst-case", dataset="svhn")
    pictures = [picture for _, picture in charts_of(tables_of(*results(), few))]
    drawn = [picture for picture in pictures if "ode" in picture.names]
    assert len({picture.title.partition(":")[0] for picture in drawn}) == 2
    assert len({style(picture, "ode") for picture in drawn}) == 1


def test_a_line_has_one_colour_and_shape_in_all_pictures_of_a_data_set() -> None:
    # worse than kd-ode at one epsilon, better at the next: the legends list the models in different orders
    turned = {8 / 255: "r" * 65 + "f" * 35, 0.05: "r" * 65 + "f" * 35, 0.1: "f" * 100}
    tables = tables_of(*results(), make_result(turned, model="a", attack="worst-case"))
    pictures = [picture for _, picture in charts_of(tables)]
    assert len({picture.names for picture in pictures}) == 2
    for name in pictures[0].names:
        assert len({style(picture, name) for picture in pictures}) == 1
    assert len({style(pictures[0], name) for name in pictures[0].names}) == 4


def test_a_line_is_named_by_its_model_alone_where_no_other_line_is_of_that_model() -> None:
    letters = {0.1: "r" * 50 + "f" * 50}
    settings = ({"model": "trades", "arguments": {"adversary": "trades"}}, {"model": "ode", "arguments": {"width": 8}})
    more = [make_result(letters, attack="worst-case", **one) for one in settings]
    for _, picture in charts_of(tables_of(*results(), *more)):
        assert picture.known == ("kd-ode", "ode", "ode width=8", "resnet", "trades")
        assert {line.name for row in picture.rows for panel in row for line in panel.lines} == set(picture.names)


def test_lines_of_any_data_set_and_of_any_name_stay_apart() -> None:
    letters = {0.1: "r" * 50 + "f" * 50}
    wide = make_result(letters, model="ode", arguments={"width": 8}, attack="worst-case", dataset="svhn")
    pictures = [picture for _, picture in charts_of(tables_of(*results(), wide))]
    assert {picture.known for picture in pictures} == {("kd-ode", "ode", "ode width=8", "resnet")}
    alike = make_result(letters, model="ode width=8", arguments={"depth": 1}, attack="worst-case")
    for _, picture in charts_of(tables_of(*results(), wide, alike)):
        assert picture.known == ("kd-ode", "ode", "ode width=8", "ode width=8 depth=1", "resnet")


# What is written


def test_every_link_of_the_board_leads_to_a_file(folder: Path) -> None:
    found = leaderboard_files(folder, [])
    assert found.problems == ()
    text = found.texts["tables/digits.md"]
    targets = dict(re.findall(r"^\[(\d+)\]: \.\./(.*)$", text, re.M))
    used = set(re.findall(r"\]\[(\d+)\]", text))
    assert used == set(targets)
    files = {path.relative_to(folder).as_posix() for path in (folder / "results").rglob("*.json")}
    assert {unquote(target) for target in targets.values()} == files
    figures = re.findall(r"^\| .*? \| (?:clean %|robust %|95%) .*$", text, re.M)
    assert figures
    assert all(re.search(r"\[\d+\.\d\]\[\d+\]", line) for line in figures if "95%" not in line)
    assert "[0][" in text
    assert re.search(r"^- \[a\] solver gap: ", text, re.M)


def test_the_board_goes_from_answers_to_pictures_to_tables_and_leads_to_all_figures(folder: Path) -> None:
    claim = registered()
    found = study(claim, lambda model, horizon: 0.5)
    for result in found.values():
        write_result(result, folder / "study")
    texts = leaderboard_files(folder, [asked(claim, found)]).texts
    assert list(texts) == ["LEADERBOARD.md", "tables/digits.md", "CLAIMS.md", *DATA_AND_CHARTS, "charts/gains.svg"]
    text = texts["LEADERBOARD.md"]
    parts = [
        "## The answers",
        "| Distillation makes the model more robust",
        "![digits: accuracy",
        "### digits: linf, epsilon 0.05, 100 images",
        "[digits.md](tables/digits.md)",
        "## How to read the tables",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "(charts/digits-accuracy.svg)" in text
    assert len(text.splitlines()) < 60
    page = texts["tables/digits.md"]
    places = [page.index(part) for part in ("## digits (test): linf", "## Security curves", "## NFE")]
    assert places == sorted(places)
    assert "(../charts/digits-security.svg)" in page
    assert "robust-gain: Does it help?" in " ".join(texts["CLAIMS.md"].split())
    assert not any(str(folder.resolve()) in each for each in texts.values())
    assert "## The answers" not in leaderboard_files(folder, []).texts["LEADERBOARD.md"]


def test_a_row_at_a_glance(folder: Path) -> None:
    tables = build_tables([StoredResult(folder / f"{n}.json", each) for n, each in enumerate(results())])[0]
    (linf,) = [table for table in middle_tables(tables) if table.norm == "linf"]
    lines = summary(linf)
    assert lines[0].startswith("| rank | model ")
    assert all(re.search(r"\d\d?\.\d ± \d\d?\.\d / \d", line) for line in lines[2:-2])
    assert lines[-2:] == ["", "Of 3 differences between models 3 are significant, with 2 train seeds."]
    once = at_one_horizon(linf, 0.5)
    figures = [float(found[1]) for line in once[2:] if (found := re.search(r"\| +(\d+\.\d) ±", line))]
    assert figures == sorted(figures, reverse=True)
    assert len(figures) == len(once) - 2 > 1


def test_a_board_without_results_says_how_to_begin(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    found = leaderboard_files(tmp_path, [])
    assert "No results yet" in found.texts["LEADERBOARD.md"]
    assert not [name for name in found.texts if name.startswith("charts/")]
    assert json.loads(found.texts["leaderboard.json"])["figures"] == []


def test_a_name_cannot_break_the_board(tmp_path: Path) -> None:
    result = make_result({0.1: "r" * 10}, model="a b|c", attack="worst-case")
    write_result(result, tmp_path / "results")
    texts = leaderboard_files(tmp_path, []).texts
    text = texts["LEADERBOARD.md"]
    assert "results/a%20b%7Cc/" in texts["tables/digits.md"]
    assert r"a b\|c" in text


def test_a_published_board_is_fresh_until_results_change(folder: Path, call: Call) -> None:
    assert call("leaderboard --check")[0] == 1
    code, out, err = call("leaderboard --publish")
    assert (code, err) == (0, "")
    names = [
        "LEADERBOARD.md",
        "tables/digits.md",
        *DATA_AND_CHARTS,
        "index.html",
    ]
    assert out.splitlines() == [f"leaderboard/{name}" for name in names]
    before = {name: (folder / name).read_bytes() for name in names}
    assert call("leaderboard --check") == (0, "leaderboard is up to date\n", "")
    publish(folder, [], provenance(ENTRIES))
    assert {name: (folder / name).read_bytes() for name in names} == before

    write_result(make_result({0.05: "r" * 100}, model="ode", horizon=4.0, attack="worst-case"), folder / "results")
    (folder / "charts" / "old.svg").write_text("<svg></svg>")
    code, out, err = call("leaderboard --check")
    assert (code, out) == (1, "")
    names.remove("leaderboard.schema.json")
    said = [line.split("; run odebench leaderboard --publish")[0] for line in err.splitlines()]
    wanted = [
        rf"odebench: leaderboard/{re.escape(name)} is stale: line \d+ is not what the results make" for name in names
    ]
    wanted.append("odebench: leaderboard/charts/old.svg is stale: it is no longer needed")
    assert len(said) == len(wanted)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(wanted, said, strict=True)), said
    publish(folder, [], provenance(ENTRIES))
    assert stale(folder, [], provenance(ENTRIES)) == ([], ())
    assert not (folder / "charts" / "old.svg").exists()
    shutil.rmtree(folder / "charts")
    assert stale(folder, [])[0][0] == "leaderboard/charts/digits-accuracy.svg is missing"
    shutil.rmtree(folder / "tables")
    assert stale(folder, [])[0][0] == "leaderboard/tables/digits.md is missing"
    (folder / "index.html").unlink()
    assert stale(folder, [])[0][-1] == "leaderboard/index.html is missing"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("index.html", "0.605", "0.705"),
        ("index.html", "script-src", "script-src-elem"),
        ("index.html", '"use strict"', '"use strict" '),
        ("index.html", "</main>", '</main><script src="https://example.org/x.js"></script>'),
        ("index.html", "a stronger attack may lower it", "no stronger attack can lower it"),
        ("charts/digits-accuracy.svg", "</title>", "!</title>"),
        ("leaderboard.csv", "true", "false"),
        ("leaderboard.json", '"seeds": 2', '"seeds": 3'),
        ("LEADERBOARD.md", "\n", "\r\n"),
    ],
)
def test_no_byte_of_a_published_file_can_be_altered_unseen(folder: Path, name: str, old: str, new: str) -> None:
    publish(folder, [])
    text = (folder / name).read_bytes().decode()
    assert old in text
    (folder / name).write_bytes(text.replace(old, new, 1).encode())
    assert [line.partition(" is stale")[0] for line in stale(folder, [])[0]] == [f"leaderboard/{name}"]


def test_files_beside_the_published_ones_are_named_and_never_removed(folder: Path, call: Call) -> None:
    publish(folder, [], provenance(ENTRIES))
    added = ["charts/a.svg.html", "charts/deep/b.svg", "tables/.gitattributes", "tables/c.md/d"]
    for name in added:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "charts" / "link").symlink_to(folder.absolute())
    code, out, err = call("leaderboard --check")
    assert (code, out) == (1, "")
    said = "is not a published file: take it away"
    names = sorted([*added, "charts/link"])
    assert err.splitlines() == [f"odebench: leaderboard/{name} {said}" for name in names]
    assert call("leaderboard --publish")[0] == 0
    assert all((folder / name).exists() for name in names)


def test_git_shows_what_changes_in_published_files() -> None:
    """Reviewers see each line: no attribute hides a file from a diff, marks it as generated, or alters its bytes."""
    found = [ROOT / ".gitattributes", *(ROOT / "leaderboard").rglob(".gitattributes")]
    said = " ".join(path.read_text() for path in found if path.is_file())
    assert not re.search(r"-diff|binary|linguist-|-text|filter=|merge=", said)


@pytest.mark.parametrize("drawn", ["page_html", "data_file"])
def test_what_cannot_be_drawn_leaves_the_old_board_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, drawn: str
) -> None:
    publish(folder, [])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_result(make_result({0.1: "r" * 100}, model="ode-ablated", attack="worst-case"), folder / "results")

    def fail(*_: object, **__: object) -> str:
        raise RuntimeError("no ink")

    monkeypatch.setattr(f"odebench.render.publish.{drawn}", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        publish(folder, [])
    assert {path: path.read_bytes() for path in before} == before


def test_problems_of_results_are_named_and_the_rest_is_published(folder: Path, call: Call) -> None:
    (folder / "results" / "package.json").write_text('{"name": "page"}')
    code, out, err = call("leaderboard --publish")
    assert code == 1
    assert "LEADERBOARD.md" in out
    assert "package.json" in err
    assert "kd-ode" in (folder / "LEADERBOARD.md").read_text()
    code, _, err = call("leaderboard --check")
    assert (code, "package.json" in err, "stale" in err) == (1, True, False)


@pytest.mark.parametrize(
    "line", ["--publish results", "--publish --check", "--check -f csv", "--publish -o board.md", "--publish --serve"]
)
def test_publishing_takes_nothing_else(line: str, folder: Path, call: Call) -> None:
    code, out, err = call(f"leaderboard {line}")
    assert (code, out) == (2, "")
    assert "--publish and --check take no other options: they read leaderboard/results alone" in err


def test_publishing_needs_a_folder_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call("leaderboard --check")
    assert code == 1
    assert "leaderboard/results is not a folder of results" in err


def shown_in(svg: str) -> set[str]:
    return set(re.findall(r">([^<>]+)</text>", svg))


def test_a_picture_says_what_it_shows() -> None:
    picture = horizon_chart(tables_of(*results()))
    assert isinstance(picture, Chart)
    svg = chart_svg(picture)
    assert {picture.title, "clean images", "kd-ode", "resnet", "0.5", "2", "no horizon", "time horizon T"} <= shown_in(
        svg
    )
    titles = re.findall("<title>(.*?)</title>", svg)
    assert len(titles) == 2 * (2 + 2 + 1), "a mark a figure, clean and in the worst case"
    assert "kd-ode, T=0.5: 60.5% [50.7, 69.5]" in titles
    ElementTree.fromstring(svg)


def test_a_mark_stands_at_the_height_of_its_figure() -> None:
    picture = horizon_chart(tables_of(make_result({0.1: "r" * 70 + "f" * 30}, attack="worst-case")))
    assert isinstance(picture, Chart)
    svg = chart_svg(picture)
    labels = dict((label, float(y) - 4) for y, label in re.findall(r' y="(\S+)"[^>]* text-anchor="end">(\d+)<', svg))
    assert sorted(labels, key=int) == ["0", "20", "40", "60", "80", "100"], "all panels have one axis"
    (clean, robust) = (float(y) for y in re.findall(r"</title>.*?translate\(\S+ (\S+)\)", svg))
    assert clean == pytest.approx(labels["100"], abs=0.1)
    assert robust == pytest.approx(labels["0"] + 0.7 * (labels["100"] - labels["0"]), abs=0.1)


def test_a_picture_can_be_read_on_light_and_on_dark() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(one: str, other: str) -> float:
        low, high = sorted((light(one), light(other)))
        return (high + 0.05) / (low + 0.05)

    picture = horizon_chart(tables_of(*results()))
    assert isinstance(picture, Chart)
    svg = chart_svg(picture)
    (dark_paper,) = re.findall(r"\.paper\{fill:(#\w+)\}", svg)
    (paper,) = re.findall(r'<rect class="paper"[^>]*fill="(#\w+)"', svg)
    for lit, dark in COLOURS:
        assert contrast(lit, paper) >= 3, lit
        assert contrast(dark, dark_paper) >= 3, dark
    for kind in ("ink", "soft"):
        assert contrast(re.findall(rf'class="{kind}"[^>]*fill="(#\w+)"', svg)[0], paper) >= 4.5
        assert contrast(re.findall(rf"\.{kind}\{{fill:(#\w+)\}}", svg)[0], dark_paper) >= 4.5


def test_the_board_of_this_repository_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    start = time.process_time()
    assert stale(Path("leaderboard"), published_claims(), provenance(ENTRIES)) == ([], ())
    assert time.process_time() - start < 10, "seconds, and as many to publish"
    assert (ROOT / "leaderboard" / "index.html").stat().st_size < 4_000_000


@pytest.mark.parametrize(
    ("epsilons", "labels"),
    [
        ((0.25 / 255, 1 / 255, 3 / 255), ["0", "1/255", "3/255"]),
        ((0.005, 0.015, 0.04), ["0", "0.005", "0.015", "0.04"]),
        ((0.1,), ["0", "0.1"]),
    ],
)
def test_labels_of_an_axis_do_not_touch(epsilons: tuple[float, ...], labels: list[str]) -> None:
    picture = security_chart(tables_of(make_result(dict.fromkeys(epsilons, "r" * 100), attack="worst-case")))
    assert isinstance(picture, Chart)
    shown = re.findall(r'class="soft"[^>]* text-anchor="middle">([^<]*)<', chart_svg(picture))
    assert shown == labels
