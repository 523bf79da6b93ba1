"""Where distillation helps: the table and the sentence of the registered map."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from claim_factory import asked, registered, stored, study

from odebench.analysis.claims import Claim, ClaimVerdict, claims_of
from odebench.protocol.registration import read_registration
from odebench.render.gain_map import condition_text, conditions, map_table, what_replaces_it, where_it_helps
from odebench.render.gain_map_svg import gains_svg

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
    found = re.fullmatch(r"(\d+\.\d) → (\d+\.\d): \+(\d+\.\d) \[.*\], supported", cells[3])
    assert found
    plain, distilled, gain = map(float, found.groups())
    assert distilled - plain == pytest.approx(gain, abs=0.11)
    assert 9 < gain < 11


def test_distillation_itself_and_what_may_replace_it_stand_beside_the_map() -> None:
    names = ("robust-gain", "self-distillation-robust-gain", "earlier-robust-gain", "slope-plain")
    found = conditions([claim(f"digits-{name}", 0) for name in names])
    assert [(each.text, each.mapped) for each in found] == [
        ("distillation as usual", False),
        ("a teacher of the student's own kind", False),
    ]


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("noise-20-noisy-teacher", "20% wrong labels and a teacher trained on the same labels"),
        ("images-500", "500 train images (equal steps)"),
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


def test_the_sentences_name_what_helped_then_what_hurt_then_the_rest() -> None:
    hurt = replace(claim("digits-map-length-half-robust-gain", -10), word=ClaimVerdict.reversed)
    found = [claim("digits-map-width-8-robust-gain", 0), claim("digits-map-width-32-robust-gain", 0), hurt]
    text = where_it_helps([*found, claim(NOISE, 10)])
    helps, hurts, neither = re.fullmatch(r"(It helps .*\)\.) (It hurts .*\)\.) (Neither .*)", text).groups()  # type: ignore[union-attr]
    start = "It helps on digits with 40% wrong labels and a teacher trained on the right ones (robust accuracy +1"
    assert helps.startswith(start)
    assert hurts.startswith("It hurts on digits with half of the epochs (robust accuracy -")
    assert neither == "Neither is shown on digits with 8 channels in the student, with 32 channels in the student."
    assert where_it_helps(found[:1]) == "Neither is shown on digits with 8 channels in the student."
    more = [claim(f"digits-map-width-{width}-robust-gain", 0) for width in (2, 4)]
    assert where_it_helps([*found[:2], *more]) == "Neither is shown on digits under 4 more conditions."
    unfinished = replace(more[0], seeds=(0, 1))
    assert "with 2 channels in the student (ruled out (2 of 8 seeds so far))" in where_it_helps(
        [*found[:2], unfinished]
    )


def test_what_helps_without_a_teacher_is_said_where_it_is_supported() -> None:
    smoothed, others = (
        claim("digits-label-smoothing-robust-gain", 10),
        [claim(NOISE, 10), claim("digits-robust-gain", 10)],
    )
    text = what_replaces_it([smoothed, *others])
    assert text.startswith("on digits label smoothing instead of a teacher gives the plain model robust accuracy +1")
    assert what_replaces_it([claim("digits-label-smoothing-robust-gain", 0), *others]) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"word": ClaimVerdict.reversed}, "points)."),
        ({"word": ClaimVerdict.supported, "seeds": (0, 1)}, "points (2 of 8 seeds so far))."),
        ({"word": ClaimVerdict.too_few_seeds, "seeds": (0, 1)}, "(too few seeds (2 of 8 seeds so far))."),
        ({"word": ClaimVerdict.flagged}, "(flagged)."),
        ({"word": ClaimVerdict.masked}, "(masked)."),
        ({"word": ClaimVerdict.inconclusive}, "right ones."),
        ({"word": ClaimVerdict.inconclusive, "seeds": (0, 1)}, "(inconclusive (2 of 8 seeds so far))."),
    ],
)
def test_losses_and_other_words_are_said(changes: dict[str, Any], said: str) -> None:
    text = where_it_helps([replace(claim(NOISE, -10), **changes)])
    assert text.endswith(said)
    assert ("robust accuracy -" in text) == said.startswith("points")


def test_without_a_map_nothing_is_said() -> None:
    assert where_it_helps([claim("digits-robust-gain", 10)]) == where_it_helps([]) == ""
    assert map_table([]) == []


def test_the_picture_has_an_interval_for_each_gain_at_its_place() -> None:
    found = [claim(NOISE, 10), claim("digits-width-8-robust-gain", 0), claim("digits-map-width-8-robust-gain", 0)]
    svg = gains_svg(found)
    assert svg is not None
    marks = re.findall(r"<title>(.*?)</title>.*?M([\d.]+) ([\d.]+)H([\d.]+).*?cx=\"([\d.]+)\"", svg)
    assert [mark[0].partition(":")[0] for mark in marks] == [
        "40% wrong labels and a teacher trained on the right ones, robust accuracy",
        "8 channels in the student, robust accuracy",
    ]
    assert all(float(low) < float(value) < float(high) for _, low, _, high, value in marks)
    zero = float(re.findall(r"x=\"([\d.]+)\"[^>]*>0<", svg)[-1])
    unit = (float(marks[0][4]) - zero) / found[0].estimate.points  # type: ignore[union-attr]
    assert float(marks[1][4]) - zero == pytest.approx(unit * found[2].estimate.points, abs=0.2)  # type: ignore[union-attr]
    assert float(marks[0][2]) < float(marks[1][2])
    assert gains_svg([]) is None
