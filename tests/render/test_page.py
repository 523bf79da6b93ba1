"""The page of the leaderboard: what results hold is text, nothing is loaded, every figure of the tables is there."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from claim_factory import asked, registered, study
from page_factory import HOSTILE, check, html_of, results, stored_in, write_examples
from PIL import Image
from result_factory import counted_check, make_result

from odebench.cli import _exit_code
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.read import read_results
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import adaptive
from odebench.render.page import data_of, page_html
from odebench.render.page_figures import UNION
from odebench.render.publish import page_content, publish, stale
from odebench.render.records import FIELDS, records
from odebench.result.file import write_result
from odebench.submission.provenance import provenance

QUOTES = "'\"><img src=x onerror=alert(2)>"
Call = Callable[[str], tuple[int, str, str]]


class Reader(HTMLParser):
    """The elements of a page with their attributes, and its text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.elements.append((tag, values))
        if tag in ("script", "style"):
            self._inside = tag
            self.scripts += [(values, "")] if tag == "script" else []

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag in ("script", "style") else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif not self._inside:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "leaderboard")
    stored = stored_in(Path("leaderboard/results"), results())
    write_examples(next(item for item in stored if item.result.evaluation.attack.name == "worst-case"))
    return Path("leaderboard/results")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["odebench", *line.split()])
        capsys.readouterr()
        code = _exit_code()
        return code, *capsys.readouterr()

    return call


# What is in it


def figures(html: str) -> list[dict[str, Any]]:
    data = data_of(html)
    return [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]


def test_every_figure_of_the_tables_is_in_it(folder: Path) -> None:
    found = figures(html_of(folder))
    tables, _ = build_tables(read_results([folder])[0])
    union = [figure for figure in found if figure["attack"] == UNION]
    assert [{name: figure[name] for name in FIELDS} for figure in union] == records(tables)
    assert len(union) == 11
    assert all((folder / unquote(figure["file"])).is_file() for figure in found)
    assert {figure["data"] for figure in found} == {"digits"}
    assert [figure["flags"] for figure in union if figure["flags"]] == [["solver gap"], ["solver gap"]]
    assert {figure["rank"] for figure in union if figure["norm"] == "linf"} <= {1, 2, 3}


def test_a_single_attack_has_figures_of_its_own(folder: Path) -> None:
    found = figures(html_of(folder))
    assert Counter(figure["attack"] for figure in found) == {UNION: 11, "fgsm": 10, "worst-case": 10, "cw": 1}
    (resnet,) = [
        figure for figure in found if (figure["model"], figure["epsilon"], figure["attack"]) == ("resnet", 0.1, "fgsm")
    ]
    assert resnet["robust_accuracy"] == 0.855, "fgsm alone: the mean of 85 and 86"
    assert (resnet["ranked"], resnet["rank"]) == (False, None)


def test_tabs_begin_with_the_data_set_of_most_models_and_the_middle_epsilon(folder: Path) -> None:
    for epsilon in (8 / 255, 0.2):
        other = make_result({epsilon: "r" * 10}, model="ode", dataset="a-few", attack="worst-case")
        write_result(other, folder)
    views = data_of(html_of(folder))["views"]
    assert [(view["data"], view["models"]) for view in views] == [("digits", 3), ("a-few", 1)]
    assert [(norm["norm"], norm["middle"]) for norm in views[0]["norms"]] == [("linf", 0.1), ("l2", 0.5)]
    assert [each["text"] for each in views[1]["norms"][0]["epsilons"]] == ["8/255", "0.2"]


def test_lines_are_of_the_usual_rows_and_named_as_shortly_as_they_can_be(folder: Path) -> None:
    write_result(make_result({0.1: "r" * 10}, model="ode", arguments={"width": 8}, attack="worst-case"), folder)
    write_result(make_result({0.1: "r" * 10}, model="kd-ode", attack="worst-case", solver=adaptive()), folder)
    html = html_of(folder)
    assert {(line["line"], line["name"]) for line in data_of(html)["lines"]} == {
        *(("kd-ode", "kd-ode"), ("ode", "ode"), ("ode width=8", "ode width=8"), ("resnet", "resnet")),
    }
    assert {
        figure["solver"] is None or "dopri5" in figure["solver"] for figure in figures(html) if not figure["line"]
    } == {True}


def test_of_several_weights_single_attacks_show_the_ones_that_the_tables_show(tmp_path: Path) -> None:
    letters = {0.1: "r" * 50 + "f" * 50}
    stored_in(
        tmp_path,
        [
            make_result({0.1: "r" * 99 + "f"}, attack="fgsm", weights="old", created="2024-01-01T00:00:00Z"),
            make_result(letters, attack="worst-case", weights="new", created="2025-01-01T00:00:00Z"),
        ],
    )
    content, problems = page_content([tmp_path], [])
    assert "different weights" in str(problems[0])
    assert "fgsm" not in {figure["attack"] for figure in figures(page_html(content, link=str))}


def test_a_model_has_a_panel_with_recipe_checks_files_and_images(folder: Path) -> None:
    html = html_of(folder)
    panels = re.findall(r"<article.*?\n</article>", html, re.S)
    assert [re.search(r'data-model="([^"]*)"', panel)[1] for panel in panels] == ["resnet", "kd-ode", "ode"]  # type: ignore[index]
    assert 'href="#model=kd-ode"' in html
    (panel,) = (panel for panel in panels if 'data-model="kd-ode"' in panel)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", panel))
    assert "60.5% [50.7, 69.5] robust at linf 0.1, T=0.5" in text
    for part in ("rk4 step 0.25 (torchdiffeq)", "T=0.5, T=2", "1,000", "fgsm, worst-case", "the model&#39;s defaults"):
        assert part in text, part
    command = "odebench run --model kd-ode --attack fgsm,worst-case --seed 0,1 --dataset digits -n 100 --horizon 0.5"
    assert f"This makes the 4 results whose union this figure is: {command} " in text
    assert "loss distillation, temperature 4, weight 0.9" in text
    assert "teacher resnet training epochs 15, batch size 32" in text
    assert "flag in 2, pass in 6 of 8 results; 20 of 100 images" in text
    assert "half the step moves letters: take a finer one" in text
    files = set(re.findall(r'<td><a href="([^"]+)"', panel))
    assert len(files) == 8
    assert all((folder / unquote(name)).is_file() for name in files)
    shown = [one for one in panels if "data:image/png" in one]
    assert len(shown) == 1
    assert shown[0].count("data:image/png;base64,") == 6
    assert "true 1, predicted 7" in shown[0]
    pictures = [base64.b64decode(code) for code in re.findall(r"base64,([^\"]+)", shown[0])]
    assert [Image.open(io.BytesIO(png)).getpixel((0, 0)) for png in pictures[:3]] == [10, 30, 255]
    assert "rounded to 8 bits a channel" in shown[0]
    # what to do is said where a check flags, and not where it passes
    (passing,) = (panel for panel in panels if 'data-model="resnet"' in panel)
    assert "half the step moves letters." in passing
    assert "take a finer one" not in passing


def test_flags_are_explained(folder: Path) -> None:
    text = re.sub(r"\s+", " ", Reader(html_of(folder)).text)
    assert "What the flags mean solver gap half the step moves letters: take a finer one" in text


def test_claims_are_answered_from_results_that_no_table_shows(tmp_path: Path) -> None:
    claim = registered(question="Does <i>it</i> help?")
    unrun = registered("svhn-gain", dataset="svhn")
    shares = {"kd-ode": 0.5, "ode": 0.4}
    found = study(claim, lambda model, horizon: shares[model])
    for result in found.values():
        write_result(result, tmp_path / "study")
    stored_in(tmp_path / "results", [make_result({0.1: "r" * 100}, model="resnet", horizon=None, attack="worst-case")])
    every = [asked(claim, found), asked(unrun, study(unrun, lambda model, horizon: 0.5))]
    content, problems = page_content([tmp_path / "results"], every, [tmp_path / "study", tmp_path / "none"])
    assert problems == []
    html = page_html(content, link=lambda path: path.name)
    text = re.sub(r"\s+", " ", Reader(html).text)
    assert "supported Does <i>it</i> help?, +" in text
    assert "8 of 8 train seeds, 200 images" in text
    assert "not run gain: no results of protocol digits-study yet" in text
    assert re.search(r"The answers.* ?claim ?digits ?Distillation makes the model more robust ?supported ?\+", text)
    assert "kd-ode" not in {row.model for table in content.tables for row in table.rows}
    fewer, _ = page_content([tmp_path / "results"], every)
    assert "8 of 8 train seeds" not in page_html(fewer, link=str)


def test_a_flag_of_one_attack_alone_is_explained_too(tmp_path: Path) -> None:
    letters = {0.1: "r" * 50 + "f" * 50}
    credit = {"file_sha256": "a" * 64, "credit": "A. Reviewer"}
    made = make_result(letters, attack="candidates", parameters=credit, flags=["few-candidates"])
    items = stored_in(tmp_path, [make_result(letters, attack="worst-case"), made])
    rows = [row for table in build_tables(items)[0] for row in table.rows]
    shown = {flag for row in rows for cell in row.cells.values() for flag in cell.flags}
    assert "few-candidates" not in shown
    assert "the file has no candidate for some images" in re.sub(r"\s+", " ", Reader(html_of(tmp_path)).text)


def test_two_solvers_of_a_model_are_told_apart_in_every_norm(tmp_path: Path) -> None:
    letters = {0.1: "r" * 50 + "f" * 50}
    stored_in(
        tmp_path,
        [
            make_result(letters, model="ode", attack="worst-case"),
            make_result(letters, model="ode", attack="fgsm", solver=adaptive()),
            make_result(letters, model="ode", attack="worst-case", norm="l2"),
        ],
    )
    names = {figure["label"] for figure in figures(html_of(tmp_path))}
    assert names == {"ode (rk4 step 0.25)", "ode (dopri5 rtol 0.001)"}


def test_a_page_without_results_says_how_to_begin(tmp_path: Path) -> None:
    html = html_of(tmp_path)
    assert "No results yet" in Reader(html).text
    assert data_of(html)["rows"] == []


# What is not in it


AS_NAME = HOSTILE.replace("/", "|")
"""A name holds no slash."""


def test_whatever_a_result_holds_is_text(tmp_path: Path) -> None:
    result = make_result(
        {0.1: "r" * 50 + "f" * 50},
        model=f"m {AS_NAME}",
        arguments={"note": HOSTILE, QUOTES: "]]>"},
        attack="worst-case",
        dataset=f"d {AS_NAME}",
        flags=[HOSTILE, QUOTES, "{{ 7 * 7 }}"],
        checks=[
            counted_check(HOSTILE, id=10, k=20, n=100, why=f"{HOSTILE} {QUOTES} </script><!--"),
            check(QUOTES, id=11),
            check("{{ 7 * 7 }}"),
        ],
    )
    path = tmp_path / "results" / "a.json"
    path.parent.mkdir()
    path.write_text(result.model_dump_json())
    item = StoredResult(path, result)
    content, problems = page_content([tmp_path / "results"], [])
    assert problems == []
    html = page_html(content, link=lambda path: path.name)
    plain = Reader(html_of_plain(tmp_path))
    read = Reader(html)
    assert len(read.named("script")) == len(plain.named("script")) == 2
    assert {tag for tag, _ in read.elements} <= {tag for tag, _ in plain.elements}
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    assert HOSTILE in read.text
    assert QUOTES in read.text
    assert "{{ 7 * 7 }}" in read.text
    assert {figure["model"] for figure in figures(html)} == {item.result.evaluation.model.name}
    assert "alert(1)" not in "".join(text for attributes, text in read.scripts if not attributes)


def html_of_plain(tmp_path: Path) -> str:
    """A page of the same shape whose names are harmless, and that shows images too."""
    folder = tmp_path / "plain"
    result = make_result({0.1: "r" * 50 + "f" * 50}, attack="worst-case", flags=["a"], checks=[check("a")])
    (item,) = stored_in(folder, [result])
    write_examples(item)
    return html_of(folder)


def test_labels_of_images_are_text_too(tmp_path: Path) -> None:
    (item,) = stored_in(tmp_path, [make_result({0.1: "r" * 50 + "f" * 50}, attack="worst-case")])
    write_examples(item, label=HOSTILE, predicted=QUOTES)
    html = html_of(tmp_path)
    assert HOSTILE not in html
    assert f"true {HOSTILE}, predicted {QUOTES}" in Reader(html).text


def test_the_page_loads_nothing_and_runs_its_own_scripts_alone(folder: Path) -> None:
    read = Reader(html_of(folder))
    addresses = [
        value
        for _, attributes in read.elements
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "srcset", "poster", "xlink:href", "formaction")
    ]
    assert len(addresses) > 20
    for address in addresses:
        assert not re.match(r"[a-z]+:|//", address) or address.startswith("data:"), address
    assert not [tag for tag, _ in read.elements if tag in ("iframe", "object", "embed", "base", "audio", "video")]
    assert [one["href"] for one in read.named("link")] == ["data:,"]
    style = html_of(folder).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = (one["content"] for one in read.named("meta") if one.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    hashes = {
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for attributes, text in read.scripts
        if attributes.get("type") != "application/json"
    }
    assert set(rules["script-src"].split()) == hashes
    assert len(hashes) == 1, "the page's own"


# How it is made


def test_the_page_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'foolbox', 'sklearn', 'torchdiffeq')));"
        "from odebench.cli import main; sys.argv = ['odebench', 'leaderboard', '--publish']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "leaderboard/index.html"
    assert stale(folder.parent, [], provenance(folder.parent / "entries")) == ([], ())


def test_a_page_is_stale_when_results_or_images_change(folder: Path) -> None:
    publish(folder.parent, [])
    said = f"{folder.parent / 'index.html'} is stale: line "
    picture = next(folder.rglob("*-adversarial.png"))
    before = picture.read_bytes()
    Image.new("L", (8, 8), 99).save(picture, "PNG")
    assert [line.startswith(said) for line in stale(folder.parent, [])[0]] == [True]
    picture.write_bytes(before)
    assert stale(folder.parent, [])[0] == []
    path = next(path for path in folder.rglob("*.json") if "half the step" in path.read_text())
    path.write_text(path.read_text().replace("half the step", "a tenth of the step"))
    assert said in stale(folder.parent, [])[0][-1]


def test_a_page_of_any_folder_leads_to_its_files(folder: Path, call: Call) -> None:
    code, out, err = call("leaderboard -f html --output site/board/index.html")
    assert (code, out, err) == (0, "", "results: leaderboard/results\nwritten: site/board/index.html\n")
    read = Reader(Path("site/board/index.html").read_text(encoding="utf-8"))
    files = [one["href"] for one in read.named("a") if one["href"].endswith(".json")]
    assert len(set(files)) == len(results())
    assert all((Path("site/board") / unquote(name)).is_file() for name in files)
    code, out, _ = call("leaderboard leaderboard/results --format html")
    assert code == 0
    assert out.startswith("<!doctype html>")


def test_foreign_and_contradictory_files_are_named_and_the_rest_is_shown(folder: Path, call: Call) -> None:
    (folder / "package.json").write_text('{"name": "page"}')
    path = next(folder.rglob("kd-ode/*.json"))
    path.write_text(path.read_text()[:-100])
    next(folder.rglob("*-clean.png")).write_bytes(b"")
    code, _, err = call("leaderboard -f html -o page.html")
    assert code == 1
    assert all(name in err for name in ("package.json", path.name, "its images cannot be shown", "3 problems"))
    assert "resnet" in Reader(Path("page.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--serve -f csv", "--serve shows the page and writes nothing"),
        ("--serve -o page.html", "--serve shows the page and writes nothing"),
        ("--port 8000", "--port goes with --serve"),
        ("--serve --port 70000", "Invalid value for '--port'"),
    ],
)
def test_serving_takes_nothing_else(line: str, message: str, folder: Path, call: Call) -> None:
    code, out, err = call(f"leaderboard {line}")
    assert (code, out) == (2, "")
    assert message in err


def test_the_page_is_served_on_loopback_alone_until_interrupted(folder: Path, call: Call) -> None:
    (folder / "package.json").write_text("{}")
    line = "leaderboard leaderboard/results --serve --no-browser --port"
    with subprocess.Popen(
        [sys.executable, "-m", "odebench", *line.split(), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    ) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            found = re.fullmatch(r"(http://127\.0\.0\.1:(\d+)/) \(Ctrl-C ends\)\n", said)
            assert found is not None, said
            html = urllib.request.urlopen(found[1], timeout=10).read().decode()
            (path,) = {one["href"] for one in Reader(html).named("a") if "cw" in one["href"]}
            answer = urllib.request.urlopen(found[1] + path[1:], timeout=10)
            assert json.loads(answer.read())["evaluation"]["attack"]["name"] == "cw"
            for request, code in (
                (found[1] + "results/0/package.json", 404),
                (found[1] + "../odebench", 404),
                (urllib.request.Request(found[1], headers={"Host": "page.example"}), 403),
            ):
                with pytest.raises(urllib.error.HTTPError, match=str(code)) as refused:
                    urllib.request.urlopen(request, timeout=10)
                refused.value.close()
            answer.close()
            code, out, err = call(f"{line} {found[2]}")
            assert (code, out) == (2, "")
            last = err.splitlines()[-1]
            assert last.startswith(f"odebench: cannot serve on port {found[2]}: Address already in use; choose another")
            server.send_signal(signal.SIGINT)
            _, err = server.communicate(timeout=20)
            assert server.returncode == 1, "exit 1 for the file that is no result"
            assert err.splitlines()[-1] == "ended"
            assert "Traceback" not in err
        finally:
            server.kill()


def test_an_interrupted_server_without_problems_exits_0_and_opens_a_browser(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BROWSER", "firefox")
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("odebench.cli.serve._Server.serve_forever", interrupted)
    code, out, err = call("leaderboard --serve")
    assert (code, err) == (0, "results: leaderboard/results\nended\n")
    assert out == f"{opened[0]} (Ctrl-C ends)\n"
    assert call("leaderboard --serve --no-browser")[0] == 0
    monkeypatch.delenv("BROWSER")
    monkeypatch.setattr("sys.platform", "linux")
    assert call("leaderboard --serve")[0] == 0
    assert len(opened) == 1, "without a screen none is opened"
