"""Who made candidates elsewhere, and what fell to them: from letters, by real commands, whatever a name holds."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from result_factory import hexadecimal, make_result

from odebench.attack.candidate_file import read_candidates, write_candidates
from odebench.cli import _exit_code
from odebench.errors import UsageError
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.credit import MAX_NAME_LETTERS, NOBODY, Credit, checked_name, shown_name
from odebench.leaderboard.table import Cell, Table
from odebench.leaderboard.union import StoredResult
from odebench.render.markdown_tables import escape, markdown
from odebench.render.records import csv_text, json_text, records
from odebench.result.file import read_result, write_result
from odebench.result.schema import Result

VISIBLE = "<b>[x](http://evil.example)</b> | # ![i](http://evil.example/i.png) `rm` *b*"
HOSTILE = "<b>[x](http://evil.example)</b> |\n# ![i](http://evil.example/i.png) `rm` *b* \x1b[31m\u202e"
EPSILONS = (0.05, 0.1)


def candidates_of(name: object, letters: dict[float, str], *, file: str = "", **more: Any) -> Result:
    parameters = {"file_sha256": hexadecimal(file or str(name)), "credit": name}
    return make_result(letters, attack="candidates", parameters=parameters, **more)


def tables_of(results: Sequence[Result]) -> list[Table]:
    stored = [StoredResult(Path(f"results/{index}.json"), result) for index, result in enumerate(results)]
    tables, problems = build_tables(stored)
    assert problems == []
    return tables


def cell_of(*results: Result, epsilon: float = 0.1) -> Cell:
    (table,) = (table for table in tables_of(results) if table.epsilon == epsilon)
    (row,) = table.rows
    (cell,) = row.cells.values()
    return cell


# What fell to whom


def test_an_image_is_credited_to_whom_alone_it_fell() -> None:
    worst = make_result({0.1: "mfffrrrrrr"}, attack="worst-case")
    mine = candidates_of("A. Reviewer", {0.1: "mrrffffrrr"})
    yours = candidates_of("B. Strong", {0.1: "mrrrrrfxrr"})
    cell = cell_of(worst, mine, yours)
    assert cell.robust_accuracy.value == 0.2
    assert cell.credits == (Credit("A. Reviewer", 4, 2, 1), Credit("B. Strong", 2, 1, 1))
    assert cell.ranked, "candidates lower the figure of a ranked model, and do not unrank it"
    assert cell_of(worst).credits == ()


def test_only_the_images_of_the_cell_count() -> None:
    worst = make_result({0.1: "rrrr"}, attack="worst-case")
    more = candidates_of("A", {0.1: "frrrffff"})
    assert cell_of(worst, more).credits == (Credit("A", 1, 1, 1),)
    elsewhere = candidates_of("A", {0.1: "ffff"}, offset=4)
    assert cell_of(worst, elsewhere).credits == ()


def test_a_fall_at_a_smaller_epsilon_is_credited_at_larger_ones_and_not_below() -> None:
    worst = make_result({0.05: "rrrr", 0.1: "rrrf"}, attack="worst-case")
    small, large = candidates_of("small", {0.05: "ffrr"}), candidates_of("large", {0.1: "rfff"})
    assert cell_of(worst, small, large).credits == (Credit("large", 3, 1, 1), Credit("small", 2, 1, 1))
    assert cell_of(worst, small, large, epsilon=0.05).credits == (Credit("small", 2, 2, 1),)


def test_what_another_result_holds_wrong_is_nobodys_fall() -> None:
    worst = make_result({0.1: "m" + "r" * 199}, attack="worst-case")
    assert cell_of(worst, candidates_of("A", {0.1: "ff" + "r" * 198})).credits == (Credit("A", 1, 1, 1),)


def test_two_files_of_one_author_are_one_credit_and_one_file_of_two_names_too() -> None:
    worst = make_result({0.1: "rrrrrr"}, attack="worst-case")
    first, second = candidates_of("A", {0.1: "ffrrrr"}, file="1"), candidates_of("A", {0.1: "rffrrr"}, file="2")
    assert cell_of(worst, first, second).credits == (Credit("A", 3, 3, 1),)
    copied = candidates_of("B", {0.1: "ffrrrr"}, file="1")
    assert cell_of(worst, first, copied).credits == (Credit("A and B", 2, 2, 1),)


def test_seeds_are_counted_that_the_candidates_were_judged_on() -> None:
    worst = [make_result({0.1: "rrrr"}, attack="worst-case", train_seed=seed) for seed in range(3)]
    found = [candidates_of("A", {0.1: letters}, train_seed=seed) for seed, letters in ((0, "ffrr"), (2, "rrrf"))]
    cell = cell_of(*worst, *found)
    assert cell.credits == (Credit("A", 3, 3, 2),)
    text = " ".join(markdown(tables_of([*worst, *found])).split())
    assert "- kd-ode at T=1: 3 of 8 images (2 of 3 seeds) fell to candidates of A alone" in text


@st.composite
def an_attacked_model(draw: st.DrawFn) -> list[Result]:
    """A worst case and candidates of some authors on some images and radii, that agree on the clean images."""
    clean = draw(st.text("mu....", min_size=8, max_size=8))

    def letters(epsilons: Sequence[float], start: int, n: int) -> dict[float, str]:
        return {
            epsilon: "".join(c if c != "." else draw(st.sampled_from("fxrrr")) for c in clean[start : start + n])
            for epsilon in epsilons
        }

    found = [make_result(letters(EPSILONS, 0, 8), attack="worst-case")]
    for index in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, 7))
        n = draw(st.integers(1, 8 - start))
        epsilons = draw(st.sampled_from([EPSILONS, EPSILONS[:1], EPSILONS[1:]]))
        name = draw(st.sampled_from("AB"))
        found.append(candidates_of(name, letters(epsilons, start, n), file=str(index), offset=start))
    return found


def plain_fallen(results: Sequence[Result], epsilon: float) -> set[int]:
    """Image by image: fallen at this radius or a smaller one to one of `results`."""
    return {
        index
        for result in results
        for item in result.epsilons
        for index, letter in enumerate(item.outcomes, result.evaluation.dataset.offset)
        if item.epsilon <= epsilon and letter in "fx"
    }


@given(an_attacked_model(), st.sampled_from(EPSILONS), st.randoms())
def test_credits_are_the_counts_of_a_plain_reading_in_any_order(
    results: list[Result], epsilon: float, shuffle: random.Random
) -> None:
    credits = cell_of(*results, epsilon=epsilon).credits
    by_name = {
        name: [r for r in results if r.evaluation.attack.parameters.get("credit") == name] for name in ("A", "B")
    }
    for name, own in by_name.items():
        felled = plain_fallen(own, epsilon)
        alone = felled - plain_fallen([result for result in results if result not in own], epsilon)
        found = next((credit for credit in credits if credit.name == name), Credit(name, 0, 0, 0))
        assert (found.felled, found.alone) == (len(felled), len(alone))
    again = list(results)
    shuffle.shuffle(again)
    assert cell_of(*again, epsilon=epsilon).credits == credits


# Whatever a name holds


def test_a_name_that_cannot_be_shown_is_refused_and_the_rest_is_kept() -> None:
    assert checked_name("  A.\n Reviewer, Ödön ") == "A. Reviewer, Ödön"
    for wrong in ("", " ", "x" * (MAX_NAME_LETTERS + 1), "a\x1b[31m", "a\u202eb", "\ud800"):
        with pytest.raises(UsageError, match="cannot be credited: a name has 1 to 80 printable letters"):
            checked_name(wrong)


def test_what_a_stranger_wrote_for_a_name_is_one_line() -> None:
    assert shown_name("a\x1b[31m\u202e") == "a?[31m?"
    assert shown_name("x" * 1000) == "x" * 77 + "..."
    for nothing in ("", "\n", None, 3, ["A"], {"A": 1}):
        assert shown_name(nothing) == NOBODY


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A. Reviewer (kd-ode, T=0.5), v1.2", "A. Reviewer (kd-ode, T=0.5), v1.2"),
        ("[a](javascript:1)", "[a\\](javascript:1)"),
        ("![i](http://e.example)", "\\![i\\](http\\://e.example)"),
        ("<img src=x>", "\\<img src=x>"),
        ("a|b `c` *d* ~e~ $f$", "a\\|b \\`c\\` \\*d\\* \\~e\\~ \\$f\\$"),
        ("train_seed _emphasis_", "train_seed \\_emphasis\\_"),
        ("# title - item 1. one 2) two === >", "\\# title \\- item 1\\. one 2\\) two \\=\\=\\= \\>"),
        ("[1] [^1] &lt; www.e.example me@e.example", "\\[1] \\[^1] \\&lt; www\\.e.example me\\@e.example"),
        ("a\\|b", "a\\\\\\|b"),
        ("+3.4 [0.2, 6.7], [12, -1]", "+3.4 [0.2, 6.7], [12, -1]"),
        ("two\nlines\x1b[2J\u202e", "two lines?\\[2J?"),
    ],
)
def test_text_of_strangers_marks_nothing_up(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_a_hostile_name_is_text_in_every_table(tmp_path: Path) -> None:
    worst = make_result({0.1: "rrrr"}, attack="worst-case")
    tables = tables_of([worst, candidates_of(HOSTILE, {0.1: "frrr"})])
    text = markdown(tables)
    tokens = [
        inner
        for token in MarkdownIt("commonmark").enable("table").parse(text)
        for inner in [token, *(token.children or [])]
    ]
    kinds = {token.type for token in tokens}
    assert {"table_open", "list_item_open", "text"} <= kinds
    assert not {kind for kind in kinds if re.match("link|image|html|code|em_|strong|block|hr|fence", kind)}
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", "h2"]
    assert "\x1b" not in text
    assert "\u202e" not in text
    said = "".join(" " if token.type == "softbreak" else token.content for token in tokens if not token.children)
    assert shown_name(HOSTILE) in said
    assert "1 of 4 images fell to candidates of" in " ".join(text.split())
    (record,) = json.loads(json_text(tables))
    assert record["credits"] == [{"name": shown_name(HOSTILE), "felled": 1, "alone": 1, "seeds": 1}]
    (line,) = csv.DictReader(io.StringIO(csv_text(tables)))
    assert json.loads(line["credits"]) == record["credits"][0]
    assert line["credits"].startswith("{"), "no formula for a spreadsheet"
    assert records(tables)[0]["attacks"] == ["candidates", "worst-case"]


def test_the_page_names_who_made_the_candidates(tmp_path: Path) -> None:
    from odebench.render.page import page_html
    from odebench.render.publish import page_content

    for result in (
        make_result({0.1: "r" * 100}, attack="worst-case"),
        candidates_of("A. Reviewer", {0.1: "fff" + "r" * 97}),
        candidates_of(VISIBLE, {0.1: "rfff" + "r" * 96}),
    ):
        write_result(result, tmp_path)
    content, problems = page_content([tmp_path], [])
    assert problems == []
    html = page_html(content, link=lambda path: path.name)
    assert "3 of 100 images fell to candidates of A. Reviewer, 1 of them to nothing else" in html
    assert ">candidates of A. Reviewer</a>" in html
    assert "&lt;b&gt;[x](http://evil.example)" in html
    assert "<b>[x]" not in html
    assert "\u202e" not in html


# By real commands

MODEL = ("-m", "resnet", "--set", "epochs=1", "-n", "100")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    tmp_path: Path, trained_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Runs a command within this process, in an empty folder, with weights that the tests share."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("ODEBENCH_CACHE", str(trained_folder / "candidate"))

    def call(*words: str | Path, code: int = 0) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["odebench", *map(str, words)])
        capsys.readouterr()
        found = _exit_code()
        said = capsys.readouterr()
        assert found == code, said.err
        return found, said.out, said.err

    return call


def one_result(folder: str, attack: str) -> Result:
    (path,) = Path(folder).glob(f"*/*-{attack}-*.json")
    return read_result(path)


def outcome(result: Result) -> str:
    (item,) = result.epsilons
    return item.outcomes


def fallen(result: Result) -> set[int]:
    return plain_fallen([result], 1.0)


def test_an_attack_by_file_lowers_the_worst_case_of_somebody_elses_model(call: Call) -> None:
    published = ("--results", "leaderboard/results")
    at = ("--epsilon", "0.05")
    call("run", *MODEL, *at, "-a", "noise", "--parameter", "draws=1", *published)
    # crafted on another model, and on the model itself with more steps than whoever published it took
    other = ("-m", "resnet", "--set", "epochs=2", "-n", "100")
    call("run", *other, *at, "-a", "pgd", "--save-candidates", "other.safetensors", "--results", "own")
    call("run", *MODEL, *at, "-a", "apgd-ce", "--save-candidates", "strong.safetensors", "--results", "own")
    first, address = "A. Reviewer", ("--address", "https://example.org/candidates.safetensors")
    _, said, _ = call("judge", *MODEL, "other.safetensors", "--author", first, *published, *address)
    assert said.startswith("resnet on digits (test), 100 images, candidates in linf\n")
    (judged,) = [path for path in Path("leaderboard/results/resnet").glob("*-candidates-*")]
    transferred = read_result(judged)
    (item,) = transferred.epsilons
    assert item.felled_by.legend == {"aa": "candidates of A. Reviewer"}
    assert set(item.felled_by.letters) == {"a", "-"}
    assert transferred.evaluation.attack.parameters["credit"] == first

    call("judge", *MODEL, "strong.safetensors", *published, *address)
    (path,) = set(Path("leaderboard/results/resnet").glob("*-candidates-*")) - {judged}
    strong, weak = read_result(path), one_result("leaderboard/results", "noise")
    name = read_candidates(Path("strong.safetensors")).source
    assert strong.evaluation.attack.parameters["credit"] == name
    assert name.startswith("apgd-ce on resnet, run ")

    alone = len(fallen(transferred) - fallen(strong) - fallen(weak))
    strong_alone = len(fallen(strong) - fallen(transferred) - fallen(weak))
    assert strong_alone > 0
    (record,) = json.loads(call("leaderboard", "leaderboard/results", "--format", "json")[1])
    assert record["credits"] == [
        {"name": name, "felled": len(fallen(strong)), "alone": strong_alone, "seeds": 1},
        {"name": first, "felled": len(fallen(transferred)), "alone": alone, "seeds": 1},
    ]
    left = set(range(100)) - fallen(strong) - fallen(transferred) - fallen(weak)
    right = {index for index, letter in enumerate(outcome(weak)) if letter in "fxr"}
    assert record["robust_accuracy"] == len(left & right) / 100
    assert record["robust_accuracy"] < outcome(weak).count("r") / 100
    text = " ".join(call("leaderboard", "leaderboard/results")[1].split())
    assert f"{len(fallen(transferred))} of 100 images fell to candidates of A. Reviewer" in text

    # the order in which results come, and the names of their files, change nothing
    files = sorted(Path("leaderboard/results/resnet").glob("*.json"))
    for number, order in enumerate((files, files[::-1])):
        for index, file in enumerate(order):
            target = Path(f"order-{number}") / f"{index}.json"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(file, target)
    tables = [call("leaderboard", f"order-{number}", "--format", "json")[1] for number in (0, 1)]
    assert json.loads(tables[0]) == json.loads(tables[1]) == [record]


def test_the_author_stands_in_the_file_or_is_given(call: Call) -> None:
    call("run", *MODEL, "--epsilon", "0.05", "-a", "fgsm", "--save-candidates", "mine.safetensors")
    from dataclasses import replace

    made = replace(read_candidates(Path("mine.safetensors")), author="C. Author")
    write_candidates(Path("named.safetensors"), made)
    assert read_candidates(Path("named.safetensors")).author == "C. Author"
    said = json.loads(call("judge", *MODEL, "named.safetensors", "--json")[1])
    assert said["evaluation"]["attack"]["parameters"]["credit"] == "C. Author"
    assert said["epsilons"][0]["felled_by"]["legend"] == {"aa": "candidates of C. Author"}
    said = json.loads(call("judge", *MODEL, "named.safetensors", "--author", "D. Other", "--json")[1])
    assert said["evaluation"]["attack"]["parameters"]["credit"] == "D. Other"
    given = said["evaluation"]["attack"]["parameters"]["file_sha256"]
    assert said["found"]["candidates"] == {"sha256": given, "address": None}
    address = "https://example.org/named.safetensors"
    words = ("named.safetensors", "--author", "E. Third", "--address", address, "--json")
    said = json.loads(call("judge", *MODEL, *words)[1])
    assert said["found"]["candidates"] == {"sha256": given, "address": address}
    for wrong in ("ftp://example.org/x", "https://example.org/a b", "https://" + "x" * 2000):
        _, out, err = call("judge", *MODEL, "named.safetensors", "--address", wrong, code=2)
        assert (out, err.count("\n"), "https address" in err) == ("", 1, True), err
    for wrong, words in (("x" * 81, "'xxx"), ("a\x1b[31m", "'a\\x1b[31m'")):
        _, out, err = call("judge", *MODEL, "named.safetensors", "--author", wrong, code=2)
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"odebench: {words}")
        assert "cannot be credited: a name has 1 to 80 printable letters" in err
    write_candidates(Path("long.safetensors"), replace(made, author="y" * 100))
    call("judge", *MODEL, "long.safetensors", code=2)
    call("judge", *MODEL, "long.safetensors", "--author", "E. Short")


def test_candidates_that_nobody_can_judge_anew_lower_nothing_and_are_named() -> None:
    worst = make_result({0.1: "mrrrrfrrrr"}, attack="worst-case")
    invented = candidates_of("A. Rival", {0.1: "mfffffffff"}, address=None)
    cell = cell_of(worst, invented)
    assert (cell.robust_accuracy.value, cell.credits, cell.not_counted) == (0.8, (), ("A. Rival",))
    assert list(cell.attacks) == ["worst-case"]
    text = " ".join(markdown(tables_of([worst, invented])).split())
    assert "candidates of A. Rival are not counted: their file has no address, so nobody can judge them again" in text
    assert tables_of([invented]) == []
    assert cell_of(worst, candidates_of("A. Rival", {0.1: "mfffffffff"})).robust_accuracy.value == 0
