"""The curves of a diagnosis: which there are, and how they are drawn as text and as SVG."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from result_factory import make_result

from odebench.errors import UsageError
from odebench.evaluation.checks.rule import count_check, threshold_check
from odebench.io.files import FileError
from odebench.render.diagnosis import (
    Bars,
    Curve,
    bars_text,
    check_charts,
    curve_text,
    curves,
    diagnosis_svg,
    nfe_bars,
)
from odebench.result.outcome import CheckId
from odebench.result.schema import Check, Result

LOSS, ACCURACY, ADJOINT = "loss against steps", "accuracy against epsilon", "adjoint's gradient against horizon"


def silent(losses: list[Any]) -> Check:
    evidence: Any = {"median_loss": losses}
    return count_check(CheckId.SILENT_SUCCESS, speaks_of="settings", k=0, n=10, why="w", evidence=evidence)


def fidelity(horizons: list[Any], cosines: list[Any]) -> Check:
    evidence: Any = {"horizons": horizons, "adjoint_cosine": cosines}
    return threshold_check(
        CheckId.GRADIENT_FIDELITY,
        speaks_of="model",
        flagged=False,
        figure=1.0,
        threshold=0.95,
        why="w",
        evidence=evidence,
    )


def result(*checks: Check, **options: Any) -> Result:
    return make_result({0.05: "rrrrmfffff"[:10], 0.1: "rrffmfffff"}, checks=checks, **options)


# As values


def test_accuracy_begins_at_the_clean_one() -> None:
    (curve,) = curves(result())
    assert curve.title == ACCURACY
    assert curve.points == ((0.0, 0.9), (0.05, 0.4), (0.1, 0.2))
    assert (curve.x_name, curve.y_name) == ("epsilon (linf)", "robust accuracy")
    assert curve.y_range == (0.0, 1.0)


def test_losses_and_cosines_are_drawn_where_they_are_evidence() -> None:
    found = curves(result(silent([0.5, 1.0, 2.5]), fidelity([0.25, 0.5, 1.0, 2.0], [1.0, 0.75, -0.5, None])))
    assert [curve.title for curve in found] == [LOSS, ACCURACY, ADJOINT]
    assert found[0].points == ((0, 0.5), (1, 1.0), (2, 2.5))
    assert found[0].y_range == (0.5, 2.5)
    assert found[2].points == ((0.25, 1.0), (0.5, 0.75), (1.0, -0.5)), "null is a gap"
    assert found[2].y_range == (-0.5, 1.0)


@pytest.mark.parametrize("checks", [(), (silent([1.0]),), (fidelity([1.0, 2.0], [1.0, None]),), (silent([]),)])
def test_one_point_is_no_curve(checks: tuple[Check, ...]) -> None:
    assert [curve.title for curve in curves(result(*checks))] == [ACCURACY]


def test_a_flat_curve_has_a_range_to_be_drawn_in() -> None:
    assert Curve("t", "x", "y", ((0.0, 2.0), (1.0, 2.0))).y_range == (1.5, 2.5)


def test_nfe_has_bars_where_there_is_a_field() -> None:
    bars = nfe_bars(result(nfe=(16.0, 24.0)))
    assert bars is not None
    assert bars.values == (
        ("clean, mean", 16.0),
        ("clean, 95th percentile", 16.0),
        ("clean, largest", 17.0),
        ("attacked, mean", 24.0),
        ("attacked, 95th percentile", 24.0),
        ("attacked, largest", 25.0),
    )
    assert nfe_bars(result(horizon=None)) is None


# As text


CURVES = [
    Curve("falling", "epsilon", "accuracy", ((0.0, 1.0), (0.05, 0.5), (0.1, 0.0)), share=True),
    Curve("flat", "step", "loss", ((0.0, 2.0), (1.0, 2.0))),
    Curve("long", "step", "loss", tuple((float(x), x**0.5) for x in range(200))),
    Curve("wide", "step", "loss", ((0.0, 1e-30), (1.0, 1e30))),
]


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.title)
@pytest.mark.parametrize("width", [78, 40])
def test_a_curve_is_text_of_so_many_columns_without_colour(curve: Curve, width: int) -> None:
    text = curve_text(curve, width=width)
    heading, *lines = text.splitlines()
    assert heading == f"{curve.title}: {curve.y_name}, over {curve.x_name}"
    assert max(len(line) for line in lines) <= width
    assert len(lines) > 6
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in lines)
    assert curve_text(curve, width=width) == text, "nothing of the last picture stays"


def test_few_points_have_ticks_of_their_own() -> None:
    last = curve_text(CURVES[0]).splitlines()[-1].split()
    assert last == ["0", "0.05", "0.1"]
    assert curve_text(CURVES[0]).count("o") >= 3
    assert curve_text(CURVES[0]) != curve_text(CURVES[1])


def test_bars_are_as_long_as_their_values() -> None:
    text = bars_text(Bars("NFE", "evaluations", (("mean", 10.0), ("largest", 40.0), ("none", 0.0), ("tiny", 0.01))))
    heading, *lines = text.splitlines()
    assert heading == "NFE: evaluations"
    assert [line.split()[0] for line in lines] == ["mean", "largest", "none", "tiny"]
    lengths = [line.count("▇") for line in lines]
    assert lengths[0] == pytest.approx(lengths[1] / 4, abs=1)
    assert lengths[2:] == [0, 1]
    assert [line.split()[-1] for line in lines] == ["10", "40", "0", "0.01"]
    assert max(len(line) for line in lines) <= 78
    assert bars_text(Bars("NFE", "evaluations", (("mean", 0.0),))).endswith("0")


# As a picture


def test_a_chart_is_svg_with_its_titles() -> None:
    svg = diagnosis_svg(
        "ode on digits", CURVES, Bars("NFE per image", "evaluations", (("mean", 16.0), ("largest", 20.0)))
    )
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    said = " ".join(part.text or "" for part in root.iter())
    for text in ("ode on digits", "falling", "flat", "long", "wide", "NFE per image", "accuracy", "epsilon", "largest"):
        assert text in said
    assert "NaN" not in svg


def test_a_chart_without_bars_is_drawn_too() -> None:
    assert "falling" in diagnosis_svg("t", CURVES[:1], None)


def test_names_are_escaped_in_a_chart() -> None:
    root = ElementTree.fromstring(diagnosis_svg("a <b> & c", CURVES[:1], None))
    assert "a <b> & c" in " ".join(part.text or "" for part in root.iter())


@pytest.mark.parametrize("name", ["curves.png", "curves", "curves.svg.pdf"])
def test_a_chart_is_named_svg(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name a file that ends in .svg, not .*curves"):
        check_charts(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_chart(tmp_path: Path) -> None:
    (tmp_path / "charts.svg").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*charts\.svg: it is a folder"):
        check_charts(tmp_path / "charts.svg")


def test_a_chart_that_could_not_be_written_is_found_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="cannot write in"):
        check_charts(tmp_path / "file" / "curves.svg")
    check_charts(tmp_path / "new" / "CURVES.SVG")


def test_the_text_of_curves_needs_no_altair() -> None:
    before = set(sys.modules)
    curve_text(CURVES[0])
    assert not {"altair", "vl_convert"} & (set(sys.modules) - before)
