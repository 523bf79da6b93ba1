"""The schema explains itself: each property says what it holds, and the page of it is what the schema makes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from result_factory import make_result

from odebench.render.schema_markdown import schema_markdown
from odebench.result.described import DESCRIPTIONS, SCHEMA_ID, result_schema
from odebench.result.file import result_json
from odebench.result.outcome import MEANINGS, OUTCOMES

jsonschema = pytest.importorskip("jsonschema")
PAGE = Path(__file__).parents[2] / "docs" / "result.md"
SCHEMA = result_schema()
PROPERTIES: dict[str, Any] = {
    f"{definition}.{name}": value
    for definition, content in [("Result", SCHEMA), *SCHEMA["$defs"].items()]
    for name, value in content.get("properties", {}).items()
}


def test_every_property_is_described_once_and_nothing_else() -> None:
    assert len(PROPERTIES) > 90
    assert set(DESCRIPTIONS) == set(PROPERTIES)
    for name, value in PROPERTIES.items():
        assert value["description"] == DESCRIPTIONS[name]
        assert re.fullmatch(r"[A-Zpr].{5,400}\.", value["description"]), name
    texts = [text for name, text in DESCRIPTIONS.items() if name.partition(".")[0] not in ("StageCost", "Cost")]
    assert len(set(texts)) == len(texts), "each says something of its own"


@pytest.mark.parametrize(
    ("names", "unit"),
    [
        ("ThreatModel.epsilons EpsilonResult.epsilon Quantiles.q50", r"units of the image range \[0, 1\]"),
        ("Figure.value Figures.clean_accuracy Figures.robust_accuracy Figures.conditional_robustness", "from 0 to 1"),
        ("Cost.seconds StageCost.seconds", "in seconds"),
        ("Cost.forward Cost.backward StageCost.forward StageCost.backward", "per image"),
        (
            "NfeSummary.mean NfeSummary.p95 NfeSummary.max Nfe.clean Nfe.adversarial",
            "(?i)evaluations of the vector field",
        ),
        ("Solver.step", "in the unit of the horizon"),
        ("Result.created", "UTC"),
    ],
)
def test_quantities_have_units(names: str, unit: str) -> None:
    for name in names.split():
        assert re.search(unit, DESCRIPTIONS[name]), name


def test_the_letters_are_explained_where_they_stand() -> None:
    assert set(MEANINGS) == set(OUTCOMES)
    for letter, meaning in MEANINGS.items():
        assert f"{letter}: {meaning}" in DESCRIPTIONS["EpsilonResult.outcomes"]


def test_it_is_a_schema_with_a_name_that_results_fulfil() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == SCHEMA_ID == "urn:odebench:result:2"
    validator = jsonschema.Draft202012Validator(SCHEMA)
    stored = json.loads(result_json(make_result({0.1: "rfxmu"})))
    assert list(validator.iter_errors(stored)) == []
    assert list(validator.iter_errors(stored | {"extra": 1}))


def test_the_page_is_what_the_schema_makes() -> None:
    page = schema_markdown()
    assert PAGE.read_text(encoding="utf-8") == page, "odebench schema --format md > docs/result.md"
    assert all(page.count(f"| {text} |") for text in DESCRIPTIONS.values())
    headings = re.findall(r"^## (\w+)$", page, re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert {link for link in re.findall(r"\]\(#(\w+)\)", page)} <= {name.lower() for name in headings}
