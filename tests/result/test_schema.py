"""Results survive the disk, and a file that was cut, edited or made up is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from result_factory import hexadecimal, make_result

from odebench.errors import ResultError
from odebench.numerics.statistics import wilson
from odebench.result.file import MAX_BYTES, read_result, result_files, result_json, result_path, write_result
from odebench.result.schema import SINCE_2, Result, letter_figures, outcomes_digest
from odebench.result.summary import felled_codes

VERSIONS = Path(__file__).parent / "versions"
LETTERS = {0.1: "mufxr" * 4, 0.2: "muffx" * 4}
Edit = Callable[[dict[str, Any]], object]


@st.composite
def letters_by_epsilon(draw: st.DrawFn) -> dict[float, str]:
    clean = draw(st.lists(st.sampled_from("mu."), min_size=1, max_size=30))
    epsilons = draw(st.lists(st.floats(1e-3, 1), min_size=1, max_size=3, unique=True))
    return {
        epsilon: "".join(letter if letter != "." else draw(st.sampled_from("fxr")) for letter in clean)
        for epsilon in sorted(epsilons)
    }


@given(letters_by_epsilon())
def test_results_survive_json(letters: dict[float, str]) -> None:
    result = make_result(letters, arguments={"width": 16, "name": "é"})
    assert Result.model_validate_json(result_json(result)) == result


@given(st.text("mufxr", min_size=1, max_size=200))
def test_figures_are_the_counts_of_the_letters(outcomes: str) -> None:
    figures = letter_figures(outcomes)
    n, robust = len(outcomes), outcomes.count("r")
    correct = sum(outcomes.count(letter) for letter in "fxr")
    assert figures["clean_accuracy"].value == correct / n
    assert figures["robust_accuracy"].value == robust / n
    assert figures["conditional_robustness"].value == (robust / correct if correct else 0)
    assert (figures["robust_accuracy"].low, figures["robust_accuracy"].high) == wilson(robust, n)
    assert letter_figures("".join(sorted(outcomes))) == figures


def test_figures_of_a_model_that_is_never_right() -> None:
    conditional = letter_figures("mmu")["conditional_robustness"]
    assert (conditional.value, conditional.low, conditional.high) == (0.0, 0.0, 1.0)


def test_stages_get_codes_in_their_order() -> None:
    assert felled_codes(["fgsm", "pgd"]) == {"aa": "fgsm", "ab": "pgd"}
    many = [f"stage {number}" for number in range(52 * 52)]
    codes = felled_codes(many)
    assert len(codes) == len(many)
    assert list(codes)[51:54] == ["aZ", "ba", "bb"]
    with pytest.raises(ResultError, match="2705 stages and epsilons are more than the 2704 that felled_by can name"):
        felled_codes([*many, "one more"])


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_each_version_is_read_and_written_byte_for_byte(version: int) -> None:
    path = VERSIONS / f"{version}.json"
    result = read_result(path)
    assert result.schema_version == version
    assert result_json(result) == path.read_text(encoding="utf-8")
    first = result.epsilons[0]
    codes = first.felled_by.codes(result.evaluation.dataset.n)
    assert {len(code) for code in codes} == {version}
    felled = [set(code) != {"-"} for code in codes]
    assert felled == [letter in "fx" for letter in first.outcomes]
    assert "r" in first.outcomes
    assert any(felled)


@pytest.mark.parametrize("name", sorted(SINCE_2))
def test_what_version_2_added_belongs_to_it_alone(name: str, tmp_path: Path) -> None:
    *where, key = name.split(".")
    new, old = (json.loads((VERSIONS / f"{version}.json").read_text()) for version in (2, 1))
    part, old_part = (raw[where[0]] if where else raw for raw in (new, old))
    old_part[key] = part.pop(key)
    for raw, message in ((new, f"{name} is missing"), (old, f"{name} does not belong to schema version 1")):
        path = tmp_path / "edited.json"
        path.write_text(json.dumps(raw))
        assert_refused(path, message)


def test_digest_covers_letters_and_what_felled() -> None:
    first = make_result({0.1: "rf"}).epsilons
    assert outcomes_digest(first) == make_result({0.1: "rf"}, attack="fgsm").outcomes_sha256
    assert outcomes_digest(first) != make_result({0.1: "rx"}).outcomes_sha256
    assert outcomes_digest(first) != make_result({0.2: "rf"}).outcomes_sha256


def test_results_are_written_whole_and_found_again(tmp_path: Path) -> None:
    result = make_result(LETTERS)
    path = write_result(result, tmp_path)
    assert path == result_path(tmp_path, result.evaluation)
    assert path.parent.name == "kd-ode"
    assert path.name == f"digits-pgd-linf-{result.run_key[:16]}.json"
    (tmp_path / ".half.json").write_text("{")
    assert list(result_files(tmp_path)) == [path]
    assert read_result(path) == result


def edit_figure(raw: dict[str, Any]) -> None:
    raw["epsilons"][0]["figures"]["robust_accuracy"]["value"] = 0.9


def edit_interval(raw: dict[str, Any]) -> None:
    raw["epsilons"][0]["figures"]["robust_accuracy"]["high"] = 0.9


def make_robust(raw: dict[str, Any]) -> None:
    """Turns an f into an r everywhere but in the digest of the letters."""
    item = raw["epsilons"][0]
    item["outcomes"] = item["outcomes"].replace("f", "r", 1)
    item["felled_by"]["letters"] = item["felled_by"]["letters"].replace("aa", "--", 1)
    for name, figure in letter_figures(item["outcomes"]).items():
        item["figures"][name] = figure.model_dump()


def forget_what_felled(raw: dict[str, Any]) -> None:
    raw["epsilons"][0]["felled_by"]["letters"] = "-" * 40


def change_clean_letter(raw: dict[str, Any]) -> None:
    item = raw["epsilons"][1]
    item["outcomes"] = item["outcomes"].replace("m", "u", 1)


def _half_coded(raw: dict[str, Any]) -> str:
    return str(raw["epsilons"][0]["felled_by"]["letters"]).replace("aa", "a-", 1)


def nest(raw: dict[str, Any]) -> None:
    """Deep enough for a parser that gives up at 200, not for one that gives up at 1000."""
    inner: Any = 0
    for _ in range(400):
        inner = [inner]
    raw["evaluation"]["model"]["arguments"]["deep"] = inner


def _evaluation(*path: str, value: Any) -> Edit:
    """Puts a value into the evaluation, and makes the run key anew."""

    def edit(raw: dict[str, Any]) -> None:
        part = raw["evaluation"]
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value

    return edit


BOUNDS: list[tuple[Edit, str]] = [
    (_evaluation("dataset", "offset", value=10**7), r"dataset\.offset cannot be 10000000: it must be at most 1000000"),
    (_evaluation("dataset", "n", value=10**12), r"dataset\.n cannot be 10{12}: it must be at most 1000000"),
    (_evaluation("dataset", "name", value="../digits"), r"dataset\.name cannot be '\.\./digits': it must be a name"),
    (_evaluation("dataset", "name", value="d" * 101), r"dataset\.name cannot be 'd{76}\.\.\.: it must be a name"),
    (_evaluation("model", "name", value="a/b"), r"model\.name cannot be 'a/b': it must be a name"),
    (_evaluation("model", "name", value="a\x1b[31m"), "has characters that cannot be seen"),
    (_evaluation("model", "arguments", value={"x": "y" * 20_000}), "arguments: .*more than 20000 characters of JSON"),
    (_evaluation("attack", "seed", value=10**30), r"attack\.seed cannot be "),
    (_evaluation("attack", "sources", value=["resnet"] * 51), r"attack\.sources: .* at most 50 items"),
    (_evaluation("threat_model", "epsilons", value=[n / 100 for n in range(1, 60)]), "epsilons: .* at most 50 items"),
    (_evaluation("threat_model", "epsilons", value=[1e300]), r"epsilons\.0 cannot be "),
    (_evaluation("chunk", value=10**9), r"evaluation\.chunk cannot be "),
    (_evaluation("horizon", value=1e300), r"evaluation\.horizon cannot be "),
    (_evaluation("solver", "step", value=1e300), r"evaluation\.solver\.step cannot be "),
    (lambda raw: raw["found"].update(threads=10**9), r"found\.threads cannot be "),
    (lambda raw: raw["found"].update(parameters=10**40), r"found\.parameters cannot be "),
    (lambda raw: raw["found"].update(device="x" * 1001), r"found\.device cannot be .* at most 1000 characters"),
    (
        lambda raw: raw["found"].update(candidates={"sha256": "0" * 64, "address": "file:///x"}),
        r"candidates\.address cannot be ",
    ),
    (lambda raw: raw["cost"].update(seconds=1e300), r"cost\.seconds cannot be "),
    (lambda raw: raw["nfe"]["clean"].update(max=10**40), r"nfe\.clean\.max cannot be "),
    (lambda raw: raw.update(flags=["x"] * 1001), "flags: .* at most 1000 items"),
    (lambda raw: raw.update(doubt=["x" * 1001]), r"doubt\.0 cannot be .* at most 1000 characters"),
]


@pytest.mark.parametrize(("edit", "message"), BOUNDS)
def test_every_number_and_name_is_bounded(edit: Edit, message: str, tmp_path: Path) -> None:
    raw = json.loads(result_json(make_result(LETTERS)))
    edit(raw)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(raw))
    assert_refused(path, message)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert_refused(path, "is not a result: larger than 200 MB")


EDITS: list[tuple[Edit, str]] = [
    (lambda raw: raw.update(schema_version=3), "has schema version 3, this odebench reads 1 and 2; run the eval"),
    (lambda raw: raw.update(schema_version=1), "does not belong to schema version 1"),
    (lambda raw: raw.update(schema_version="1"), "has schema version '1'"),
    (lambda raw: raw.pop("schema_version"), "has schema version None"),
    (lambda raw: raw.update(schema_version=True), "has schema version True"),
    (lambda raw: raw.update(comment="mine"), "is not a result: comment: it is unknown; remove it"),
    (lambda raw: raw.update({"a\nb": 1}), "is not a result: .* has characters that cannot be seen"),
    (lambda raw: raw["found"].update(gpu="none"), r"found\.gpu: it is unknown"),
    (lambda raw: raw.pop("flags"), "flags: it is missing"),
    (lambda raw: raw.clear(), "has schema version None"),
    (lambda raw: raw["cost"].update(seconds="1.5"), r"cost\.seconds cannot be '1\.5': it must be a number"),
    (lambda raw: raw["found"].update(threads="1"), r"found\.threads cannot be '1': it must be a whole number"),
    (lambda raw: raw["found"].update(threads=1.5), r"found\.threads cannot be 1\.5: it must be a whole number"),
    (lambda raw: raw["cost"].update(seconds=float("nan")), r"cost\.seconds cannot be nan: it must be a finite number"),
    (lambda raw: raw["cost"].update(seconds=float("inf")), r"cost\.seconds cannot be inf: it must be a finite number"),
    (
        lambda raw: raw["found"].update(dataset_sha256="abc"),
        r"dataset_sha256 cannot be 'abc': it must be 64 of the letters",
    ),
    (lambda raw: raw.update(run_key=hexadecimal("")), "run_key is not the digest of the evaluation"),
    (lambda raw: raw["evaluation"].update(horizon=2.0), "run_key is not the digest of the evaluation"),
    (lambda raw: raw.update(outcomes_sha256=hexadecimal("")), "outcomes_sha256 is not the digest of the out"),
    (lambda raw: raw.update(epsilons={}), "epsilons: it must be a list"),
    (lambda raw: raw["epsilons"].pop(), "the epsilons of the outcomes are not those of the evaluation"),
    (lambda raw: raw["epsilons"][0].update(outcomes="mufxr"), "epsilon 0.1: 20 images need 20 letters"),
    (lambda raw: raw["epsilons"][0].update(outcomes="mufxR" * 4), r"\['R'\] are no outcomes; known: m, u, f"),
    (lambda raw: raw["epsilons"][0]["felled_by"].update(legend={}), "felled_by 'aa' has no legend"),
    (lambda raw: raw["epsilons"][0]["felled_by"].update(letters="-" * 20), "20 images need 40 letters of felled_by"),
    (
        lambda raw: raw["epsilons"][0]["felled_by"].update(letters=_half_coded(raw)),
        "exactly where the letter is f or x",
    ),
    (forget_what_felled, "felled_by must name something exactly where the letter is f or x"),
    (edit_figure, r"epsilon 0\.1: robust_accuracy is 0\.9, but the letters say 0\.2"),
    (edit_interval, r"epsilon 0\.1: robust_accuracy\.high is 0\.9, but the letters say 0\.41"),
    (change_clean_letter, r"letters of the clean images \(m, u\) differ between epsilons"),
    (make_robust, "outcomes_sha256 is not the digest of the outcomes"),
    (nest, "is not a result: .*recursion limit"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS)
def test_edited_files_are_refused(edit: Edit, message: str, tmp_path: Path) -> None:
    raw = json.loads(result_json(make_result(LETTERS)))
    edit(raw)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(raw))
    assert_refused(path, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not whole JSON"),
        (b"[" * 100_000, "is not a result: nested too deeply"),
        (b'{"a":' * 100_000, "is not a result: nested too deeply"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "is not whole JSON"),
        ("é".encode("latin-1"), "is not whole JSON"),
        (b'"\\ud800"', "is not a result"),
        (b"[]", "is not a result: the file: it must be keys and values"),
        (b"null", "is not a result: the file: it must be keys and values"),
        (b"1" * 10_000, "is not whole JSON"),
        (b'{"schema_version": 1}', r"is not a result: run_key: it is missing \(and 9 more\)"),
        (b'{"schema_version": 2}', r"is not a result: run_key: it is missing \(and 9 more\)"),
    ],
)
def test_what_never_was_a_result_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    assert_refused(path, message)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(part: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    text = result_json(make_result(LETTERS)).rstrip()
    path.write_text(text[: int(part * len(text))])
    assert_refused(path, "is not whole JSON .*; delete it and run the evaluation again")


def test_a_folder_or_nothing_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    assert_refused(tmp_path / "folder.json", "cannot read .*: Is a directory")
    assert_refused(tmp_path / "missing.json", "cannot read .*: No such file or directory")


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(ResultError, match=message) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_result_is_not_replaced_by_other_letters_of_its_run_key(tmp_path: Path) -> None:
    first, second = make_result({0.1: "rrrf"}), make_result({0.1: "rrff"})
    assert first.run_key == second.run_key
    path = write_result(first, tmp_path)
    assert write_result(first, tmp_path) == path
    with pytest.raises(ResultError, match="same run key and other letters"):
        write_result(second, tmp_path)
    assert read_result(path) == first
    write_result(second, tmp_path, replace=True)
    assert read_result(path) == second


def test_a_file_of_another_kind_is_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# it", encoding="utf-8")
    with pytest.raises(ResultError, match=r"README\.md is not a result, whose name ends in \.json$"):
        read_result(tmp_path / "README.md")
