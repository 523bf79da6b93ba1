"""Warnings where a person errs, before and after a run; and what a terminal without UTF-8 is shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from result_factory import make_result

from odebench.cli.console import PlainConsole, print_result, print_table
from odebench.cli.warnings import before_run, few_images
from odebench.dataset.builtin import DIGITS
from odebench.evaluation.plan import EvaluationRequest, Slice, plan
from odebench.io.text import ShownStream, ascii_only, spelled_for
from odebench.protocol.spec import fixed_step
from odebench.render.diagnosis import Curve, curve_text
from odebench.result.flags import broken_attack
from odebench.result.outcome import Flag


def told(*, n: int | None = None, **more: Any) -> list[str]:
    request = EvaluationRequest("ode", "pgd", images=Slice(n=n), **more)
    return list(before_run(plan(request, DIGITS, total=500)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"parameters": {"steps": 3}}, "warning: pgd with 3 steps is weak, its default is 20"),
        ({"parameters": {"steps": 1}}, "warning: pgd with 1 step is weak"),
        ({"solver": fixed_step(step=2)}, "warning: a step of 2 is longer than the horizon 1: rk4 takes a single step"),
    ],
)
def test_what_is_probably_meant_otherwise_is_warned_of(given: dict[str, Any], said: str) -> None:
    (line,) = told(**given)
    assert line.startswith(said)


def test_few_images_are_noted() -> None:
    assert list(few_images(100, total=500)) == [
        "note: 100 of 500 images: intervals of up to ±10 points; -n 500 narrows them"
    ]
    assert list(few_images(300, total=300)) == []


def test_usual_runs_are_not_warned_of() -> None:
    assert told() == []
    assert told(parameters={"steps": 10}, solver=fixed_step(step=1)) == []


def test_an_attack_without_a_valid_candidate_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    result = make_result({0.1: "r" * 8 + "mm"})
    (item,) = result.epsilons
    figures = item.figures.model_copy(update={"invalid": 8})
    broken = result.model_copy(update={"epsilons": (item.model_copy(update={"figures": figures}),)})
    assert list(broken_attack(result)) == []
    said = "at epsilon 0.1 8 candidates of 8 attacked images are invalid, not finite or outside the ball"
    assert [line.partition(", and fool")[0] for line in broken_attack(broken)] == [said]
    print_result(broken)
    assert f"warning: {said}" in " ".join(capsys.readouterr().out.split())


def test_flags_that_are_no_checks_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(make_result({0.1: "r" * 10}, flags=(Flag.NO_TRANSFER,)))
    assert "skipped; name another model by sources=... or --source" in " ".join(capsys.readouterr().out.split())


def test_a_stream_without_utf8_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    assert ascii_only(stream)
    assert not ascii_only(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    ShownStream(stream).write("a ± b ▇ ü\n")
    monkeypatch.setattr("sys.stdout", stream)
    print_table(["name"], [["79.5 ± 5.7"]])
    PlainConsole().print("─ é")
    assert raw.getvalue().decode("ascii").splitlines()[0] == "a +- b # \\xfc"
    assert "79.5 +- 5.7" in raw.getvalue().decode("ascii")
    assert raw.getvalue().decode("ascii").splitlines()[-1] == "- \\xe9"


def test_curves_are_drawn_in_ascii_too(tmp_path: Path) -> None:
    curve = Curve("loss against steps", "step", "loss", tuple((float(x), float(x * x)) for x in range(20)))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    text = spelled_for(stream, curve_text(curve, plain=True))
    assert text.isascii()
    assert "\\u" not in text
    assert "\\x" not in text
    assert text.count(".") > 10
    assert "⠁" not in text
    assert not curve_text(curve).isascii()
