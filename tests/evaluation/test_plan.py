"""A run is settled before anything is loaded: what its key depends on, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odebench.dataset.builtin import CIFAR10, DIGITS, FASHION_MNIST
from odebench.errors import UsageError
from odebench.evaluation.model_reference import RegisteredModel
from odebench.evaluation.plan import EvaluationRequest, Plan, Slice, plan, threat_model
from odebench.io.files import FileError
from odebench.model.definition import load_definition
from odebench.protocol.spec import adaptive, fixed_step

GRIDLESS = replace(DIGITS, name="photographs", epsilons={})


def planned(model: str = "ode", attack: str = "pgd", **options: Any) -> Plan:
    dataset, total = options.pop("dataset", DIGITS), options.pop("total", 500)
    weights = options.pop("weights", None)
    reference = model if weights is None else RegisteredModel(load_definition(model), weights)
    return plan(EvaluationRequest(reference, attack, **options), dataset, total=total)


def test_a_plan_without_options_is_the_documented_one() -> None:
    found = planned("kd-ode", "pgd")
    evaluation = found.evaluation
    assert evaluation.model_dump() == {
        "model": {"name": "kd-ode", "arguments": {"train_seed": 0}, "weights": found.recipe.key},
        "train_horizon": 1.0,
        "horizon": 1.0,
        "solver": fixed_step("rk4", step=0.25).model_dump(),
        "dataset": {"name": "digits", "split": "test", "n": 500, "offset": 0},
        "threat_model": {"norm": "linf", "epsilons": (0.05, 0.1, 0.15)},
        "attack": {
            "name": "pgd",
            "parameters": {"steps": 20, "random_start": True, "relative_step": 0.125},
            "seed": 0,
            "sources": (),
            "surrogate": None,
        },
        "chunk": 100,
        "precision": "fp32",
    }
    assert (found.weights, found.recipe.dataset, found.recipe.horizon) == (None, "digits", 1.0)
    assert found.recipe.teacher is not None
    assert found.recipe.teacher == planned("resnet").recipe


@pytest.mark.parametrize(("attack", "epsilons"), [("quick-diagnosis", (0.1,)), ("diagnosis", (0.05, 0.1, 0.15))])
def test_a_narrow_attack_takes_the_middle_of_the_grid(attack: str, epsilons: tuple[float, ...]) -> None:
    assert planned("ode", attack).evaluation.threat_model.epsilons == epsilons
    given = planned("ode", attack, epsilons=(0.05, 0.15)).evaluation.threat_model
    assert given.epsilons == (0.05, 0.15), "what is given is taken as it is"
    four = replace(DIGITS, epsilons={"linf": (0.1, 0.2, 0.3, 0.4)})
    assert threat_model("quick-diagnosis", four, norm=None, epsilons=None).epsilons == (0.3,)
    with pytest.raises(UsageError, match="photographs has no default epsilons for linf"):
        threat_model(attack, GRIDLESS, norm=None, epsilons=None)


def test_a_plan_is_made_without_torch() -> None:
    code = (
        "import sys; from odebench.evaluation.plan import EvaluationRequest, plan;"
        "from odebench.dataset.builtin import DIGITS;"
        "plan(EvaluationRequest('kd-ode', 'pgd'), DIGITS, total=500).evaluation.run_key;"
        "assert not {'torch', 'numpy', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_run_key_does_not_depend_on_the_order_of_options() -> None:
    changes = {"epochs": 3, "learning_rate": 0.02, "weight": 0.5}
    parameters = {"steps": 7, "random_start": False}
    keys = {
        planned(
            "kd-ode", changes=dict(reversed(changes.items())) if a else changes, parameters=given, epsilons=(0.1, 0.2)
        ).evaluation.run_key
        for a, given in product((False, True), (parameters, dict(reversed(parameters.items()))))
    }
    assert len(keys) == 1


def test_the_run_key_does_not_depend_on_how_a_number_is_written() -> None:
    one, other = (planned("kd-ode", changes={"temperature": value}) for value in (2, 2.0))
    assert one.recipe.key == other.recipe.key
    assert one.evaluation.run_key == other.evaluation.run_key
    assert one.evaluation.model.arguments == {"train_seed": 0, "temperature": 2.0}


def test_changes_of_the_adversary_stand_in_the_evaluation_as_the_recipe_holds_them() -> None:
    one, other = (planned("kd-ode", changes={"adversary": "trades", "beta": value}) for value in (2, 2.0))
    assert one.recipe.key == other.recipe.key
    assert one.evaluation.run_key == other.evaluation.run_key
    assert one.evaluation.model.arguments == {"train_seed": 0, "adversary": "trades", "beta": 2.0}
    fractions = [
        planned("ode", changes={"adversary": "madry", "adversary_epsilon": value, "adversary_step": 1})
        for value in ("1/10", 0.1)
    ]
    assert len({found.evaluation.run_key for found in fractions}) == 1
    assert fractions[0].evaluation.model.arguments == {
        "train_seed": 0, "adversary": "madry", "adversary_epsilon": 0.1, "adversary_step": 1.0
    }  # fmt: skip
    assert planned("ode", changes={"adversary": "none"}).evaluation.model.arguments == {
        "train_seed": 0, "adversary": "none"
    }  # fmt: skip
    assert planned("ode-at", changes={"adversary_steps": 3}).evaluation.model.arguments["adversary_steps"] == 3


def test_changes_of_the_teacher_stand_in_the_evaluation_as_its_recipe_holds_them() -> None:
    changes = {"adversary": "rslad", "teacher_adversary": "madry", "teacher_adversary_epsilon": "1/10"}
    found = planned("kd-ode", changes=changes)
    assert found.evaluation.model.arguments == {
        "train_seed": 0, "adversary": "rslad", "teacher_adversary": "madry", "teacher_adversary_epsilon": 0.1
    }  # fmt: skip
    assert found.recipe.teacher is not None
    assert found.recipe.teacher.adversary is not None
    assert found.evaluation.model.weights == found.recipe.key != planned("kd-ode").recipe.key


def test_a_default_that_is_spelled_out_is_the_same_run() -> None:
    spelled = planned(
        "ode",
        "pgd",
        horizon=1.0,
        train_horizon=1.0,
        solver=fixed_step(step=0.25),
        norm="linf",
        epsilons=(0.05, 0.1, 0.15),
        images=Slice(n=500),
        parameters={"steps": 20},
    )
    assert spelled.evaluation == planned("ode", "pgd").evaluation


DIFFERENT: dict[str, dict[str, Any]] = {
    "model": {"model": "ode-stemless"},
    "attack": {"attack": "fgsm"},
    "horizon": {"horizon": 2.0},
    "train horizon": {"horizon": 1.0, "train_horizon": 2.0},
    "step": {"solver": fixed_step(step=0.5)},
    "tolerance": {"solver": adaptive(rtol=1e-4)},
    "backend": {"solver": adaptive(rtol=1e-4, backend="torchdiffeq")},
    "step limit": {"solver": adaptive(rtol=1e-4, max_steps=50)},
    "norm": {"norm": "l2"},
    "epsilons": {"epsilons": (0.1,)},
    "train seed": {"train_seed": 1},
    "attack seed": {"attack_seed": 1},
    "recipe": {"changes": {"epochs": 2}},
    "adversary": {"changes": {"adversary": "madry"}},
    "beta": {"changes": {"adversary": "trades", "beta": 5}},
    "parameter": {"parameters": {"steps": 40}},
    "n": {"images": Slice(n=100)},
    "offset": {"images": Slice(n=100, offset=100)},
    "split": {"images": Slice(split="validation")},
    "chunk": {"images": Slice(chunk=50)},
    "data set": {"dataset": FASHION_MNIST},
}


def test_every_option_that_matters_has_a_run_key_of_its_own() -> None:
    keys = {name: planned(**options).evaluation.run_key for name, options in DIFFERENT.items()}
    keys["default"] = planned().evaluation.run_key
    assert len(set(keys.values())) == len(keys), keys


EVALUATION_ONLY = {
    *("attack", "step", "tolerance", "backend", "step limit", "norm", "epsilons", "attack seed", "parameter"),
    *("n", "offset", "split", "chunk"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_weights_are_shared_unless_the_option_is_one_of_training(name: str) -> None:
    same = planned(**DIFFERENT[name]).recipe.key == planned().recipe.key
    assert same == (name in EVALUATION_ONLY)


def test_a_solver_changes_the_evaluation_and_not_the_recipe() -> None:
    found = planned(solver=adaptive("tsit5", rtol=1e-4))
    assert found.evaluation.solver == adaptive("tsit5", rtol=1e-4)
    assert found.recipe == planned().recipe
    assert found.recipe.solver == fixed_step(step=0.25)


@pytest.mark.parametrize(
    ("horizon", "train_horizon", "evaluated", "trained"),
    [(None, None, 1, 1), (2, None, 2, 2), (None, 2, 2, 2), (3, 2, 3, 2), (0.5, 1, 0.5, 1)],
)
def test_the_training_horizon_is_the_evaluations_unless_it_is_given(
    horizon: float | None, train_horizon: float | None, evaluated: float, trained: float
) -> None:
    found = planned(horizon=horizon, train_horizon=train_horizon)
    assert (found.evaluation.horizon, found.evaluation.train_horizon) == (evaluated, trained)
    assert found.recipe.horizon == trained


def test_the_teacher_is_the_same_at_every_horizon_and_has_the_students_seed() -> None:
    teachers = [planned("kd-ode", horizon=horizon, train_seed=3).recipe.teacher for horizon in (1.0, 2.0)]
    assert teachers[0] == teachers[1] == planned("resnet", train_seed=3).recipe


@pytest.mark.parametrize("option", ["horizon", "train_horizon"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_horizon_that_cannot_be_is_refused(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=r"horizon .* must be a finite number above 0"):
        planned(**{option: value})


@pytest.mark.parametrize(
    "options",
    [
        {"horizon": 2501.0},
        {"train_horizon": 2501.0, "horizon": 1.0},
        {"horizon": 1.0, "solver": fixed_step(step=0.9e-4)},
        {"train_horizon": 1.0, "horizon": 10_001.0, "solver": fixed_step(step=1)},
    ],
)
def test_steps_that_are_too_many_are_refused_before_training(options: dict[str, Any]) -> None:
    with pytest.raises(
        UsageError, match=r"a step of .* needs more than 10000 steps to reach horizon .*; take a longer"
    ):
        planned(**options)


def test_as_many_steps_as_there_may_be_are_planned() -> None:
    assert planned(horizon=2500.0).evaluation.horizon == 2500
    assert planned(solver=fixed_step(step=1e-4)).evaluation.horizon == 1
    assert planned(train_horizon=1.0, horizon=1e6, solver=adaptive()).evaluation.horizon == 1e6


def test_a_model_without_a_field_has_no_horizon_and_takes_none() -> None:
    evaluation = planned("resnet").evaluation
    assert (evaluation.horizon, evaluation.train_horizon, evaluation.solver) == (None, None, None)
    for option in ({"horizon": 1.0}, {"train_horizon": 1.0}, {"solver": fixed_step(step=0.5)}):
        with pytest.raises(UsageError, match="resnet integrates nothing, so it takes no --horizon and no --solver"):
            planned("resnet", **option)


def test_the_attacks_first_norm_and_the_data_sets_grid_are_the_default() -> None:
    assert threat_model("cw", DIGITS, norm=None, epsilons=None).model_dump() == {
        "norm": "l2",
        "epsilons": DIGITS.epsilons["l2"],
    }
    assert threat_model("pgd", CIFAR10, norm=None, epsilons=None).epsilons == CIFAR10.epsilons["linf"]
    assert threat_model("pgd", CIFAR10, norm="l2", epsilons=None).epsilons == CIFAR10.epsilons["l2"]
    with pytest.raises(UsageError, match="cw attacks in l2, not in linf"):
        threat_model("cw", DIGITS, norm="linf", epsilons=None)


def test_a_data_set_without_a_grid_needs_epsilons() -> None:
    with pytest.raises(UsageError, match=r"photographs has no default epsilons for l2; give them, .*--epsilon 2/255"):
        planned("ode", "cw", dataset=GRIDLESS)
    assert planned("ode", "cw", dataset=GRIDLESS, epsilons=(0.5,)).evaluation.threat_model.epsilons == (0.5,)


@pytest.mark.parametrize(
    ("norm", "epsilons", "message"),
    [
        ("linf", (1.5,), r"epsilon 1\.5 is above 1, but images are in \[0, 1\]; did you mean 1\.5/255"),
        ("linf", (0.0,), "epsilon 0 must be a finite number above 0"),
        ("l2", (float("nan"),), "epsilon nan must be a finite number above 0"),
        ("l2", (0.5, 8.5), r"epsilon 8\.5 is above 8, the largest l2 distance between two images of digits"),
        ("linf", (0.2, 0.1), r"epsilons cannot be \(0\.2, 0\.1\): epsilons must rise, without repetition"),
        ("linf", (0.1, 0.1), r"epsilons cannot be \(0\.1, 0\.1\): epsilons must rise, without repetition"),
    ],
)
def test_radii_that_cannot_be_are_refused(norm: str, epsilons: tuple[float, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        threat_model("pgd", DIGITS, norm=norm, epsilons=epsilons)


def test_the_diagonal_itself_is_a_radius() -> None:
    assert threat_model("pgd", DIGITS, norm="l2", epsilons=(8.0,)).epsilons == (8.0,)
    assert threat_model("pgd", DIGITS, norm="linf", epsilons=(1.0,)).epsilons == (1.0,)


def test_a_weights_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    for name, data in {"a": b"one", "b": b"one", "c": b"two"}.items():
        (tmp_path / name).write_bytes(data)
    plans = {name: planned(weights=tmp_path / name) for name in "abc"}
    assert plans["a"].evaluation.model.weights == sha256(b"one").hexdigest()
    assert plans["a"].evaluation.run_key == plans["b"].evaluation.run_key != plans["c"].evaluation.run_key
    assert plans["a"].weights == tmp_path / "a"
    assert plans["a"].recipe == planned().recipe


def test_a_weights_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read .*absent\.safetensors: No such file"):
        planned(weights=tmp_path / "absent.safetensors")
    with pytest.raises(FileError, match=r"cannot read .*: Is a directory"):
        planned(weights=tmp_path)


@pytest.mark.parametrize(
    ("images", "total", "chunk"),
    [
        (Slice(), 500, 100),
        (Slice(), 60, 100),
        (Slice(n=60), 60, 100),
        (Slice(n=230), 230, 100),
        (Slice(n=50, offset=400), 450, 100),
        (Slice(n=200), 500, 100),
        (Slice(n=50), 500, 50),
        (Slice(n=7), 500, 7),
        (Slice(n=50, offset=50), 500, 50),
        (Slice(n=150), 500, 75),
        (Slice(n=250), 500, 50),
        (Slice(n=150, offset=100), 500, 50),
        (Slice(n=150, chunk=30), 500, 30),
    ],
)
def test_a_chunk_has_100_images_unless_that_does_not_divide_the_slice(images: Slice, total: int, chunk: int) -> None:
    assert images.chunk_of(total) == chunk
    assert images.of("digits", total).offset == images.offset


@pytest.mark.parametrize(
    ("images", "total", "message"),
    [
        (Slice(n=0), 500, "digits has 500 test images; 0 from 0 on cannot be taken: choose -n between 1 and 500$"),
        (Slice(n=-100), 500, r"choose -n between 1 and 500$"),
        (Slice(n=-1), 50, r"choose -n between 1 and 50$"),
        (Slice(n=600), 500, "600 from 0 on cannot be taken: choose -n between 1 and 500"),
        (Slice(n=300, offset=300), 500, "300 from 300 on cannot be taken: choose -n between 1 and 200"),
        (Slice(n=101), 500, r"101 images from 0 on are not whole chunks of 100; .*take -n 100 or 200$"),
        (Slice(n=50, chunk=100), 500, r"take -n 100$"),
        (Slice(n=50, chunk=100), 60, r"take -n 60$"),
        (Slice(n=127), 130, r"take -n 100 or 130$"),
        (Slice(n=20, offset=400, chunk=100), 450, r"20 images from 400 on .* take -n 50$"),
        (Slice(n=100, offset=30), 500, r"no chunk begins at offset 30: choose a multiple of 100 from 0 to 400$"),
        (Slice(offset=500), 500, r"no chunk begins at offset 500: choose a multiple of 100 from 0 to 400$"),
        (Slice(offset=-100), 500, r"no chunk begins at offset -100"),
        (Slice(split="validation", offset=200), 200, r"200 validation images .* from 0 to 100$"),
        (Slice(chunk=0), 500, "a chunk has at least one image, not 0; the default is 100"),
        (Slice(), 0, "digits has 0 test images; 0 from 0 on cannot be taken"),
    ],
)
def test_a_slice_is_made_of_whole_chunks(images: Slice, total: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        images.of("digits", total)


@pytest.mark.parametrize(
    ("images", "total", "n"),
    [(Slice(), 10_000, 500), (Slice(), 130, 130), (Slice(offset=100), 130, 30), (Slice(n=30, offset=100), 130, 30)],
)
def test_a_slice_takes_500_images_or_what_there_is(images: Slice, total: int, n: int) -> None:
    found = images.of("digits", total)
    assert (found.n, found.offset, found.split) == (n, images.offset, "test")


@given(st.integers(-3, 40), st.integers(-3, 40), st.integers(1, 12), st.integers(1, 40))
def test_an_image_is_always_in_the_same_chunk(n: int, offset: int, chunk: int, total: int) -> None:
    """The chunks of an accepted slice are chunks of the whole, and what an error proposes is accepted."""
    try:
        found = Slice(n=n, offset=offset, chunk=chunk).of("digits", total)
    except UsageError as error:
        message = str(error)
        if "take -n " in message:
            for proposed in message.rpartition("take -n ")[2].split(" or "):
                assert Slice(n=int(proposed), offset=offset, chunk=chunk).of("digits", total).n == int(proposed)
        return
    whole = [set(range(first, min(first + chunk, total))) for first in range(0, total, chunk)]
    for first in range(found.offset, found.offset + found.n, chunk):
        assert set(range(first, min(first + chunk, found.offset + found.n))) in whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "kdode"}, "unknown model 'kdode'; did you mean 'kd-ode'"),
        ({"attack": "pdg"}, "unknown attack 'pdg'; did you mean 'pgd'"),
        ({"changes": {"nosuch": 1}}, "a recipe has no nosuch; known: epochs, batch_size"),
        ({"changes": {"epochs": 0}}, "epochs"),
        ({"changes": {"beta": 6}}, "beta without an adversary: add adversary=madry or adversary=trades"),
        ({"parameters": {"nosuch": 1}}, "pgd has no parameter nosuch; known: steps, random_start, relative_step"),
        ({"parameters": {"steps": 0}}, "pgd: steps must be a whole number of at least 1, not 0"),
        ({"train_seed": -1}, "train seed -1"),
        ({"attack_seed": 0.5}, r"seed cannot be 0\.5"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        planned(**options)
    assert "\n" not in str(caught.value)
