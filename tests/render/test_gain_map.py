"""Where distillation helps: the table and the sentence of the registered map."""

from __future__ import annotations

from pathlib import Path

import pytest
from claim_factory import asked, registered, stored, study

from odebench.analysis.claims import Claim, claims_of
from odebench.protocol.registration import read_registration
from odebench.render.gain_map import condition_text, conditions, map_table, where_it_helps

ROOT = Path(__file__).parents[2]
NOISE = "digits-map-noise-40-clean-teacher-robust-gain"


def claim(name: str, points: float) -> Claim:
    """A claim of the map whose gain is about so many points."""
    about = registered(name, family="digits map")
    found = study(about, lambda model, _: 0.5 + points / 100 * (model == "kd-ode"))
    return claims_of([asked(about, found)], stored(*found.values()))[0]


def test_a_condition_is_said_in_words_with_its_gains_and_their_words() -> None:
    (row,) = map_table([claim(NOISE, 10)])[2:]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["digits", "40% wrong labels and a teacher trained on the right ones", ""]
    assert cells[3].startswith("+10.")
    assert cells[3].endswith("], supported")


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("noise-20-noisy-teacher", "20% wrong labels and a teacher trained on them too"),
        ("images-500", "500 train images, as many steps"),
        ("length-double", "twice the epochs"),
        ("width-64", "64 channels in the student"),
        ("depth-3", "depth 3"),
    ],
)
def test_the_conditions_of_the_protocols_have_words(section: str, text: str) -> None:
    (condition,) = conditions([claim(f"digits-map-{section}-robust-gain", 0)])
    assert condition.text == text


def test_every_registered_condition_has_words() -> None:
    registration, _ = read_registration(ROOT / "leaderboard" / "claims.yaml")
    sections = [each.name.split("-map-")[1].rsplit("-", 2)[0] for each in registration.claims if "-map-" in each.name]
    texts = {condition_text(section) for section in sections}
    assert len(texts) == len({*sections}) > 10
    assert not {section.replace("-", " ") for section in sections} & texts


def test_the_sentence_names_what_helped_first_and_the_rest_after_it() -> None:
    found = [claim(NOISE, 10), claim("digits-map-width-8-robust-gain", 0)]
    text = where_it_helps(found)
    start, _, rest = text.partition("; ")
    assert start.startswith(
        "On digits with 40% wrong labels and a teacher trained on the right ones: robust accuracy +1"
    )
    assert rest == "no gain is shown on digits with 8 channels in the student."
    assert where_it_helps(found[1:]) == "No gain is shown on digits with 8 channels in the student."


def test_without_a_map_nothing_is_said() -> None:
    other = [claim("digits-robust-gain", 10)]
    assert (map_table(other), where_it_helps(other), where_it_helps([])) == ([], "", "")
