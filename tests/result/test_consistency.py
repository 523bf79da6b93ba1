"""What a result says twice is compared when it is read: every part of published results is edited by hand."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from result_factory import hexadecimal, make_result

from odebench.errors import ResultError
from odebench.numerics.statistics import wilson_lower
from odebench.result.file import parse_result, result_files, result_json

PUBLISHED = Path(__file__).parents[2] / "leaderboard" / "results"
PAGE = Path(__file__).parents[2] / "docs" / "integrity.md"
Edit = Callable[[dict[str, Any]], object]
Place = tuple[str | int, ...]


def published(attack: str) -> dict[str, Any]:
    path = next(path for path in result_files(PUBLISHED / "kd-ode") if f"-{attack}-" in path.name)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read(raw: dict[str, Any]) -> None:
    parse_result(json.dumps(raw), Path("edited.json"))


def count(number: int, name: str, k: int, n: int, **changes: Any) -> dict[str, Any]:
    bound = wilson_lower(k, n)
    made = {"id": number, "name": name, "status": "flag" if bound > 0.01 else "pass", "speaks_of": "model"}
    return {**made, "figure": bound, "threshold": 0.01, "k": k, "n": n, "why": "", "evidence": {}, **changes}


def measure(number: int, name: str, status: str, figure: float, threshold: float) -> dict[str, Any]:
    made = {"id": number, "name": name, "status": status, "speaks_of": "model", "figure": figure}
    return {**made, "threshold": threshold, "k": None, "n": None, "why": "", "evidence": {}}


def made(*checks: dict[str, Any], flags: list[str] | None = None, **options: Any) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(result_json(make_result({0.1: "mufxrrrrrr" * 20}, **options)))
    return {**raw, "checks": list(checks), "flags": flags or []}


def is_refused(raw: dict[str, Any]) -> bool:
    try:
        read(raw)
    except ResultError:
        return True
    return False


def test_published_results_agree_with_themselves() -> None:
    for attack in ("fgsm", "pgd", "worst-case"):
        read(published(attack))


# Every leaf of a published result, one after the other

FREE = {
    "found.dataset_sha256",
    "found.weights_sha256",
    "found.sources_sha256.*",
    "found.parameters",
    "found.versions.*",
    "found.device",
    "found.threads",
    "nfe.*",
    "cost.*",
    "checks.id",
    "checks.name",
    "checks.why",
    "checks.speaks_of",
    "checks.evidence.*",
    "checks.figure",
    "checks.threshold",
    "checks.n",
    "figures.norm_quantiles",
    "figures.invalid",
    "created",
}
"""What stands once only, so that no other part contradicts it as long as it is possible; docs/integrity.md names it."""


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*place, key))
    else:
        yield place, value


def altered(value: Any) -> Any:
    """Another value of the same kind that could stand there."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.999 + 1e-5
    if value is None:
        return 1
    if isinstance(value, list | dict):
        return ["another"] if isinstance(value, list) else {"another": "1"}
    if re.fullmatch("[0-9a-f]{64}", value):
        return hexadecimal(value)
    if value.startswith("20") and "T" in value:
        return value.replace("20", "21", 1)
    return {"pass": "flag", "flag": "pass", "skipped": "pass", "model": "settings"}.get(value, value + "x")


def kind(place: Place) -> str:
    """A place without numbers, as FREE and the page write it."""
    words = [str(part) for part in place if not isinstance(part, int)]
    text = ".".join(words).removeprefix("epsilons.")
    for wide in ("found.versions", "found.sources_sha256", "checks.evidence", "cost", "nfe", "evaluation"):
        if text == wide or text.startswith(f"{wide}."):
            return f"{wide}.*"
    return re.sub(r"^(figures\.\w+)\..*", r"\1", text)


@pytest.mark.parametrize("attack", ["pgd", "worst-case"])
def test_each_part_that_is_edited_by_hand_is_found_or_stands_once_only(attack: str) -> None:
    raw = published(attack)
    kinds: dict[str, set[bool]] = {}
    for place, value in leaves(raw):
        edited = copy.deepcopy(raw)
        inside = edited
        for part in place[:-1]:
            inside = inside[part]  # type: ignore[index]
        inside[place[-1]] = altered(value)  # type: ignore[index]
        kinds.setdefault(kind(place), set()).add(is_refused(edited))
    missed = {name for name, found in kinds.items() if False in found}
    assert missed <= FREE
    caught = {name for name, found in kinds.items() if found == {True}}
    assert {
        *("run_key", "outcomes_sha256", "evaluation.*", "epsilon", "outcomes", "felled_by.letters", "flags"),
        *("figures.clean_accuracy", "figures.robust_accuracy", "figures.conditional_robustness"),
        *("checks.status", "checks.k", "schema_version"),
    } <= caught


def test_the_page_names_what_no_reader_can_check() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in FREE:
        assert f"`{name.removesuffix('.*')}`" in text, name


# What each comparison says

FAILED = count(18, "solver failure", 40, 200)
GAP = count(16, "solver gap", 20, 100)
RANDOM = {**measure(2, "determinism", "flag", 0.1, 1e-4), "evidence": {"seeded": True}}


def edit(path: str, value: Any) -> Edit:
    """Sets the value at a path such as epsilons.0.figures.invalid."""

    def change(raw: dict[str, Any]) -> None:
        inside: Any = raw
        *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
        for part in way:
            inside = inside[part]
        inside[last] = value

    return change


QUANTILES = {"q05": 0.01, "q25": 0.05, "q50": 0.08, "q75": 0.1, "q95": 0.1}
CASES: list[tuple[dict[str, Any], Edit, str]] = [
    (made(), edit("created", "yesterday"), "created: 'yesterday' is no time in UTC, such as 2026"),
    (made(), edit("created", "2025-01-01T00:00:00"), "is no time in UTC"),
    (made(), edit("created", "2025-01-01T00:00:00+09:00"), "is no time in UTC"),
    (made(), edit("cost.seconds", -1.0), "cost.seconds is -1, below 0"),
    (made(), edit("nfe.clean.mean", 99.0), "nfe.clean: mean 99 and p95 16 are not within 0 and 17"),
    (made(), edit("nfe.adversarial.p95", -1.0), "nfe.adversarial: mean 16 and p95 -1 are not within"),
    (made(horizon=None), edit("nfe.clean", {"mean": 1.0, "p95": 1.0, "max": 1}), "given, but nothing is integrated"),
    (made(), edit("found.sources_sha256", {"ode": "0" * 64}), r"names \['ode'\], the evaluation's sources are \[\]"),
    (made(), edit("epsilons.0.figures.norm_quantiles", {**QUANTILES, "q05": 0.06}), "norm_quantiles do not rise"),
    (made(), edit("epsilons.0.figures.norm_quantiles", {**QUANTILES, "q95": 0.2}), "outside the ball of radius 0.1"),
    (made(), edit("checks", [GAP, GAP]), r"the numbers \[16, 16\] do not rise, each once"),
    (made(GAP, flags=["solver gap"]), edit("checks", [FAILED, GAP]), r"the numbers \[18, 16\] do not rise"),
    (made(GAP, flags=["solver gap"]), edit("checks.0.k", 19), "but 19 of 100 say 0.13"),
    (made(GAP, flags=["solver gap"]), edit("checks.0.n", 201), "20 of 201 of 200 images cannot be"),
    (made(GAP, flags=["solver gap"]), edit("checks.0.k", 101), "101 of 100 of 200 images cannot be"),
    (made(GAP, flags=["solver gap"]), edit("checks.0.n", None), "k and n are given together or not at all"),
    (made(GAP, flags=["solver gap"]), edit("checks.0.threshold", 0.5), "threshold are 0.142.* and 0.5, but 20 of 100"),
    (made(GAP, flags=["solver gap"]), edit("checks.0.figure", None), "it was made, but has no figure or no threshold"),
    (made(GAP, flags=["solver gap"]), edit("checks.0.status", "pass"), "the status is pass, but 20 of 100 say flag"),
    (made(GAP, flags=["solver gap"]), edit("checks.0.status", "skipped"), "skipped, but has figure, threshold, k, n"),
    (made(FAILED, flags=["solver failure"]), edit("checks.0", count(18, "solver failure", 0, 200)), "letters say 40"),
    (made(), edit("checks", [count(1, "gradient availability", 0, 200)]), "n is 200, but the letters say 160"),
    (made(), edit("checks", [measure(17, "gradient fidelity", "pass", 0.9, 0.95)]), "0.9 is on the wrong side of 0.95"),
    (made(), edit("checks", [measure(20, "useful gradient", "pass", 0.6, 0.7)]), "0.6 is on the wrong side of 0.7"),
    (made(), edit("checks", [measure(14, "reach", "pass", 1.0, 2.0)]), "1 is on the wrong side of 2, but the status"),
    (made(), edit("checks", [measure(2, "determinism", "pass", 0.1, 1e-4)]), "0.1 is on the wrong side of 0.0001"),
    (made(), edit("checks", [measure(7, "incomplete", "pass", 0.1, 0.05)]), "0.1 is on the wrong side of 0.05"),
    (made(GAP, flags=["solver gap"]), edit("flags", []), "the flags are none, but the checks that flag solver gap"),
    (made(GAP, flags=["solver gap"]), edit("checks", []), "the flags are solver gap, but the checks that flag none"),
    (made(), edit("flags", ["unheard of"]), "the flags are unheard of, but the checks that flag none"),
    (
        made(RANDOM, flags=["randomised"]),
        edit("flags", []),
        "the flag randomised is missing, but checks and evaluation",
    ),
    (made(), edit("flags", ["randomised"]), "the flag randomised is there, but checks and evaluation say otherwise"),
    (made(RANDOM, flags=["randomised"]), edit("checks.0.evidence.seeded", False), "the flag unseeded is missing"),
    (made(), edit("flags", ["batch-coupled"]), "the flag batch-coupled is there"),
    (made(), edit("flags", ["opaque-gradient"]), "the flag opaque-gradient is there"),
    (made(), edit("flags", ["few-candidates"]), "the flag few-candidates is there"),
    (made(RANDOM, flags=["randomised"]), edit("flags", ["randomised", "randomised"]), "repeat one"),
]


@pytest.mark.parametrize(("raw", "change", "message"), CASES)
def test_a_contradiction_is_one_line_that_names_it(raw: dict[str, Any], change: Edit, message: str) -> None:
    edited = copy.deepcopy(raw)
    change(edited)
    with pytest.raises(ResultError, match=f"^edited.json is not a result: .*{message}") as caught:
        read(edited)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [raw for raw, _, _ in CASES], ids=str)
def test_what_was_edited_could_be_read_before(raw: dict[str, Any]) -> None:
    read(raw)


def test_radii_are_named_as_in_papers() -> None:
    raw = json.loads(result_json(make_result({1 / 255: "rrff", 2 / 255: "rfff"})))
    raw["epsilons"][1]["felled_by"]["legend"] = {"aa": "another"}
    raw["outcomes_sha256"] = digest_of(raw)
    with pytest.raises(ResultError, match=r"epsilon 2/255: felled_by has another legend than at 1/255"):
        read(raw)


def test_a_legend_is_one_for_all_epsilons() -> None:
    raw: dict[str, Any] = json.loads(result_json(make_result({0.1: "rf", 0.2: "ff"})))
    read(raw)
    raw["epsilons"][1]["felled_by"]["legend"] = {"aa": "another"}
    raw["outcomes_sha256"] = digest_of(raw)
    with pytest.raises(ResultError, match=r"epsilon 0\.2: felled_by has another legend than at 0\.1"):
        read(raw)
    for item in raw["epsilons"]:
        item["felled_by"]["legend"] = {"aa": "first", "abc": "second"}
    raw["outcomes_sha256"] = digest_of(raw)
    with pytest.raises(ResultError, match="'abc' in the legend of felled_by is not 2 letters"):
        read(raw)


def test_the_file_of_candidates_is_that_of_the_evaluation() -> None:
    parameters = {"file_sha256": "1" * 64, "credit": "A. Author"}
    raw: dict[str, Any] = json.loads(result_json(make_result({0.1: "rf"}, attack="candidates", parameters=parameters)))
    read(raw)
    for wrong in ({"sha256": "2" * 64, "address": None}, None):
        raw["found"]["candidates"] = wrong
        with pytest.raises(ResultError, match=r"found\.candidates has sha256 (2{64}|None), the evaluation 1{64}"):
            read(raw)
    raw = json.loads(result_json(make_result({0.1: "rf"})))
    raw["found"]["candidates"] = {"sha256": "2" * 64, "address": None}
    with pytest.raises(ResultError, match=r"found\.candidates has sha256 2{64}, the evaluation None"):
        read(raw)


def test_what_a_stage_cost_is_above_zero_and_said_once() -> None:
    stage = {"name": "pgd", "forward": 1.0, "backward": 1.0, "seconds": 0.5}
    raw: dict[str, Any] = json.loads(result_json(make_result({0.1: "rf"})))
    raw["cost"]["stages"] = [stage]
    read(raw)
    raw["cost"]["stages"] = [stage, stage]
    with pytest.raises(ResultError, match=r"cost\.stages names 'pgd' twice"):
        read(raw)
    raw["cost"]["stages"] = [stage | {"backward": -1.0}]
    with pytest.raises(ResultError, match=r"cost\.stages, pgd\.backward is -1, below 0"):
        read(raw)


def test_the_letters_credit_whom_the_evaluation_credits() -> None:
    parameters = {"file_sha256": "0" * 64, "credit": "A. Reviewer"}
    raw: dict[str, Any] = json.loads(result_json(make_result({0.1: "rf"}, attack="candidates", parameters=parameters)))
    read(raw)
    raw["epsilons"][0]["felled_by"]["legend"] = {"aa": "candidates of B. Thief"}
    raw["outcomes_sha256"] = digest_of(raw)
    with pytest.raises(ResultError, match=r"felled_by names \['candidates of B. Thief'\], the evaluation 'cand"):
        read(raw)


def test_a_quantile_of_nobody_is_refused() -> None:
    raw: dict[str, Any] = json.loads(result_json(make_result({0.1: "rx"})))
    raw["epsilons"][0]["figures"]["norm_quantiles"] = QUANTILES
    with pytest.raises(ResultError, match="norm_quantiles are given, but no image is fooled"):
        read(raw)


def test_a_key_that_stands_twice_is_refused() -> None:
    text = result_json(make_result({0.1: "rf"}))
    twice = text.replace('"threads": 1', '"threads": 8,\n  "threads": 1')
    assert twice != text
    with pytest.raises(ResultError, match="is not a result: the key 'threads' appears twice in one object"):
        parse_result(twice, Path("edited.json"))


def digest_of(raw: dict[str, Any]) -> str:
    """The digest that anybody can compute anew: it proves nothing about who wrote the letters."""
    from odebench.result.schema import EpsilonResult, outcomes_digest

    return outcomes_digest(tuple(EpsilonResult.model_validate(item) for item in raw["epsilons"]))
