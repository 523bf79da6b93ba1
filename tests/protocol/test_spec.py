"""What specifications accept, what they say where they do not, and that their digests stay what they are."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from result_factory import make_result

from odebench.errors import UsageError, first_problem
from odebench.io.canonical_json import canonical_json, digest
from odebench.protocol.spec import (
    DatasetSlice,
    ModelSpec,
    Solver,
    ThreatModel,
    adaptive,
    check_epsilon,
    check_horizon,
    fixed_step,
    parse_epsilons,
    parse_number,
    without_float32,
)

KEYS = st.text("abcé", max_size=3)
FINITE = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | FINITE | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("0.1", 0.1), ("-1", -1.0), (" 1 / 4 ", 0.25), ("1e-3", 0.001), ("0/3", 0.0)],
)
def test_parse_number_reads_decimals_and_fractions(text: str, value: float) -> None:
    assert parse_number(text, name="epsilon") == value


@pytest.mark.parametrize(
    "text",
    [
        *("8/0", "nan", "inf", "-inf", "1e400", "", " ", "1/2/3", "/", "1/", "eight", "0x10", "0,1"),
        *("1/inf", "nan/1", "1e999999999/1", "1/1e999999999"),
    ],
)
def test_parse_number_refuses_what_is_no_finite_number(text: str) -> None:
    with pytest.raises(UsageError, match=r"epsilon '.*' is not a finite number; write it like 0\.1 or 8/255"):
        parse_number(text, name="epsilon")


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_parse_number_divides_exactly_once(top: int, bottom: int) -> None:
    assert parse_number(f"{top}/{bottom}", name="epsilon") == top / bottom


def test_parse_epsilons_sorts() -> None:
    assert parse_epsilons("0.2, 8/255,0.1", "linf") == (8 / 255, 0.1, 0.2)
    assert parse_epsilons("2.5", "l2") == (2.5,)


@pytest.mark.parametrize(
    ("text", "norm", "message"),
    [
        ("8", "linf", r"epsilon 8 is above 1.*did you mean 8/255 = 0\.03137\?"),
        ("0.1,0", "linf", "epsilon 0 must be a finite number above 0"),
        ("-1", "l2", "epsilon -1 must be a finite number above 0"),
        ("0.1,", "linf", "epsilon '' is not a finite number"),
        ("0.2, 8/255,0.1,0.20", "linf", "epsilon 0.2 is given twice"),
    ],
)
def test_parse_epsilons_refuses_what_is_out_of_range(text: str, norm: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_epsilons(text, norm)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_numbers_handed_over_are_checked_too(value: float) -> None:
    with pytest.raises(UsageError, match=r"epsilon .* must be a finite number above 0"):
        check_epsilon(value, "l2")
    with pytest.raises(UsageError, match=r"horizon .* must be a finite number above 0, such as 1 or 0\.5"):
        check_horizon(value)


def test_solvers_say_what_they_are() -> None:
    rk4 = fixed_step(step=0.25)
    assert (str(rk4), rk4.adaptive, rk4.couples_batch) == ("rk4 step 0.25", False, False)
    dopri5 = adaptive()
    assert str(dopri5) == "dopri5 rtol 0.001 atol 0.001 (torchode)"
    assert (dopri5.adaptive, dopri5.couples_batch) == (True, False)
    assert adaptive(backend="torchdiffeq").couples_batch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rk4"}, "the fixed-step method rk4 needs a step above 0"),
        ({"method": "rk4", "step": 0.0}, "needs a step above 0"),
        ({"method": "euler", "step": 0.1, "rtol": 0.1}, "takes a step, no tolerance or step limit"),
        ({"method": "dopri6"}, "unknown method 'dopri6' for torchdiffeq; adaptive there: .*fixed-step .*rk4"),
        ({"method": "dopri8", "backend": "torchode"}, "unknown method 'dopri8' for torchode"),
        ({"method": "rk4", "backend": "torchode", "step": 0.1}, "unknown method 'rk4' for torchode"),
        ({"method": "dopri5", "step": 0.1}, "takes tolerances, not a step"),
        ({"method": "dopri5", "rtol": 0.1, "max_steps": 9}, "needs rtol and atol above 0"),
        ({"method": "dopri5", "rtol": -0.1, "atol": 0.1, "max_steps": 9}, "needs rtol and atol above 0"),
        ({"method": "dopri5", "rtol": 0.1, "atol": 0.1}, "needs a finite max_steps of at least 1"),
        ({"method": "dopri5", "rtol": 0.1, "atol": 0.1, "max_steps": 0}, "needs a finite max_steps"),
        ({"method": "rk4", "step": "0.25"}, "valid number"),
        ({"method": "rk4", "step": math.nan}, "finite number"),
        ({"method": "rk4", "step": 0.25, "speed": 1}, "Extra inputs are not permitted"),
    ],
)
def test_solver_refuses_what_does_not_fit_together(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Solver(**{"backend": "torchdiffeq", **arguments})


@pytest.mark.parametrize(
    ("epsilons", "message"),
    [
        ((), "at least 1 item"),
        ((0.0, 0.1), "every epsilon must be above 0"),
        ((0.2, 0.1), "epsilons must rise, without repetition"),
        ((0.1, 0.1), "epsilons must rise, without repetition"),
        ((math.inf,), "finite number"),
        (("0.1",), "valid number"),
    ],
)
def test_threat_model_refuses_radii_that_do_not_rise(epsilons: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ThreatModel(norm="linf", epsilons=epsilons)


def test_threat_model_refuses_an_unknown_norm() -> None:
    with pytest.raises(ValidationError, match="'linf' or 'l2'"):
        ThreatModel(norm="l1", epsilons=(0.1,))  # type: ignore[arg-type]


def test_specifications_are_frozen() -> None:
    images = DatasetSlice(name="digits", split="test", n=100, offset=0)
    with pytest.raises(ValidationError, match="frozen"):
        images.n = 200


def test_run_key_is_what_it_always_was() -> None:
    # A changed key orphans every stored result: raise the schema version instead.
    evaluation = make_result({0.1: "r", 8 / 255 + 0.1: "f"}).evaluation
    assert evaluation.run_key == "ad7f4c5df27a4f1f63bee05aab04fc78acdb93df568571d7bcd174835df836d4"


def test_run_key_changes_with_everything_that_it_covers() -> None:
    letters = {0.1: "rrff"}
    keys = [
        make_result(letters, **change).run_key
        for change in (
            {},
            {"model": "ode"},
            {"train_seed": 1},
            {"horizon": 2.0},
            {"train_horizon": 2.0},
            {"solver": fixed_step(step=0.5)},
            {"dataset": "mnist"},
            {"split": "validation"},
            {"offset": 100},
            {"norm": "l2"},
            {"attack": "fgsm"},
            {"steps": 40},
            {"attack_seed": 1},
        )
    ]
    assert len(set(keys)) == len(keys)
    assert make_result(letters, weights="others", created="2026").run_key == keys[0]


@given(st.dictionaries(KEYS, JSON, max_size=5), st.randoms())
def test_digest_does_not_know_the_order_of_keys(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert digest(dict(items)) == digest(value)


def test_canonical_json_is_plain() -> None:
    assert canonical_json({"b": [1, 0.5, None], "a": "é"}) == '{"a":"é","b":[1,0.5,null]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": math.nan})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (0.10000000149011612, 0.1),
        (0.05000000074505806, 0.05),
        (0.0313725508749485, 8 / 255),
        (0.003921568859368563, 1 / 255),
        (0.0009803922148421407, 0.25 / 255),
        (0.25, 0.25),
        (0.5, 0.5),
        (1.0, 1.0),
        (0.1, 0.1),
        (8 / 255, 8 / 255),
        (0.123456789, 0.123456789),
        (float("inf"), float("inf")),
        (1e300, 1e300),
    ],
)
def test_a_radius_that_went_through_float32_is_the_one_that_was_meant(given: float, meant: float) -> None:
    assert without_float32(given) == meant


def test_a_name_that_cannot_be_is_refused_in_plain_words() -> None:
    with pytest.raises(ValidationError) as caught:
        ModelSpec(name="a/b", arguments={}, weights="0" * 64)
    assert (
        first_problem(caught.value)
        == "name cannot be 'a/b': it must be a name: no slash, no dot in front, at most 100 characters"
    )
