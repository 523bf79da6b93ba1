"""Recipes: what they take, what they refuse in one line, and digests that stay what they are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from odebench.dataset.builtin import DIGITS, FASHION_MNIST
from odebench.errors import UsageError
from odebench.model.definition import load_definition
from odebench.recipe import Loss, Recipe, Schedule
from odebench.spec import adaptive, canonical_json, fixed_step

SCHEDULE = Schedule(epochs=3, batch_size=32, learning_rate=0.01, weight_decay=0.0005, warmup=0.2)


def written(**changes: Any) -> Recipe:
    """A recipe by hand, independent of every default."""
    fields: dict[str, Any] = {
        "architecture": "odebench.model.ode:OdeNet",
        "arguments": {"channels": 16, "stem": "conv", "image_shape": [1, 8, 8], "n_classes": 10},
        "horizon": 2.0,
        "solver": fixed_step("rk4", step=0.25),
        "dataset": "digits",
        "loss": Loss(kind="distillation", temperature=4.0, weight=0.9),
        "schedule": SCHEDULE,
        "augmentation": "none",
        "train_seed": 0,
        "teacher": teacher(),
    }
    return Recipe(**(fields | changes))


def teacher() -> Recipe:
    return Recipe(
        architecture="odebench.model.resnet:ResNet",
        arguments={"widths": [16, 32], "strides": [1, 2], "image_shape": [1, 8, 8], "n_classes": 10},
        horizon=None,
        solver=None,
        dataset="digits",
        loss=Loss(kind="cross-entropy"),
        schedule=SCHEDULE,
        augmentation="none",
        train_seed=0,
        teacher=None,
    )


def test_the_digest_of_a_recipe_stays_what_it_is() -> None:
    assert teacher().key == "01b3aa3e50b783bc8b09d66d0d82f759ce3eb96272cc1f93209daea2ae793616"
    assert written().key == "1230ea1edbfe564c8a43e822876f926906efe2cf0c755f8817266d3dd957f1d7"


def test_a_recipe_survives_its_json() -> None:
    recipe = written()
    assert Recipe.model_validate_json(canonical_json(recipe)) == recipe
    assert Recipe.model_validate_json(canonical_json(recipe)).key == recipe.key


@pytest.mark.parametrize(
    "change",
    [
        {"horizon": 2.5},
        {"solver": fixed_step("rk4", step=0.5)},
        {"solver": adaptive()},
        {"dataset": "mnist"},
        {"loss": Loss(kind="distillation", temperature=4.0, weight=0.8)},
        {"schedule": SCHEDULE.model_copy(update={"warmup": 0.3})},
        {"augmentation": "flip-crop"},
        {"train_seed": 1},
        {"teacher": teacher().model_copy(update={"train_seed": 1})},
        {"architecture": "odebench.model.ode:StemHead"},
        {"arguments": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_that_training_depends_on_changes_the_digest(change: dict[str, Any]) -> None:
    assert written(**change).key != written().key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "distillation"}, "distillation needs a temperature and a weight"),
        ({"kind": "distillation", "temperature": 4.0}, "distillation needs a temperature and a weight"),
        ({"kind": "distillation", "weight": 0.5}, "distillation needs a temperature and a weight"),
        ({"kind": "cross-entropy", "temperature": 4.0, "weight": 0.5}, "cross-entropy takes neither"),
        ({"kind": "cross-entropy", "temperature": 4.0}, "cross-entropy takes neither"),
        ({"kind": "cross-entropy", "weight": 0.5}, "cross-entropy takes neither"),
        ({"kind": "distillation", "temperature": 0.0, "weight": 0.5}, "greater than 0"),
        ({"kind": "distillation", "temperature": 1.0, "weight": 1.1}, "less than or equal to 1"),
        ({"kind": "hinge"}, "cross-entropy"),
    ],
)
def test_losses_that_contradict_themselves_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Loss(**arguments)


def test_a_teacher_goes_with_distillation_only() -> None:
    with pytest.raises(ValidationError, match="a teacher goes with distillation, and only with it"):
        written(teacher=None)
    with pytest.raises(ValidationError, match="a teacher goes with distillation, and only with it"):
        written(loss=Loss(kind="cross-entropy"))
    with pytest.raises(ValidationError, match="version"):
        written(version=2)


def test_the_teacher_is_nested_with_the_same_seed() -> None:
    student = load_definition("kd-ode").recipe(FASHION_MNIST, horizon=2.0, train_seed=5, changes={"temperature": 2.0})
    assert student.teacher == load_definition("resnet").recipe(FASHION_MNIST, train_seed=5)
    assert student.teacher is not None
    assert student.teacher.train_seed == 5
    assert student.teacher.horizon is None
    assert student.train_seed == 5
    assert (student.loss.temperature, student.loss.weight) == (2.0, 0.9)
    assert load_definition("ode").recipe(FASHION_MNIST).teacher is None


def test_a_recipe_takes_its_defaults_from_the_images() -> None:
    recipe = load_definition("ode").recipe(FASHION_MNIST)
    assert recipe.horizon == 1.0
    assert recipe.dataset == "fashion-mnist"
    assert recipe.arguments["image_shape"] == [1, 28, 28]
    assert recipe.arguments["n_classes"] == 10
    assert recipe.solver == load_definition("ode").settings[28].solver
    given = adaptive(rtol=1e-4)
    assert load_definition("ode").recipe(FASHION_MNIST, solver=given).solver == given
    # whole numbers are numbers: 2 and 2.0 name the same weights
    assert (
        load_definition("ode").recipe(DIGITS, horizon=2).key == load_definition("ode").recipe(DIGITS, horizon=2.0).key
    )


@pytest.mark.parametrize("name", ["resnet", "ode-ablated"])
@pytest.mark.parametrize("given", [{"horizon": 1.0}, {"solver": fixed_step(step=0.5)}], ids=["horizon", "solver"])
def test_models_that_integrate_nothing_take_no_horizon(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{name} integrates nothing, so it takes no horizon and no solver"):
        load_definition(name).recipe(DIGITS, **given)


@pytest.mark.parametrize("horizon", [0.0, -1.0, float("nan"), float("inf")])
def test_a_horizon_that_is_none_is_refused(horizon: float) -> None:
    with pytest.raises(UsageError, match=r"horizon .* must be a finite number above 0"):
        load_definition("ode").recipe(DIGITS, horizon=horizon)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_train_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match=rf"train seed {seed} must be an integer from 0 to 2\^63 - 1"):
        load_definition("kd-ode").recipe(DIGITS, train_seed=seed)


def test_changes_replace_fields_by_name() -> None:
    recipe = load_definition("kd-ode").recipe(DIGITS, changes={"epochs": 2, "learning_rate": 1, "weight": 0.5})
    default = load_definition("kd-ode").recipe(DIGITS)
    assert recipe.schedule == default.schedule.model_copy(update={"epochs": 2, "learning_rate": 1.0})
    assert recipe.loss == default.loss.model_copy(update={"weight": 0.5})
    assert recipe.teacher == default.teacher


def test_unknown_changes_are_answered_with_the_known_ones() -> None:
    known = "known: epochs, batch_size, learning_rate, weight_decay, warmup, temperature, weight"
    with pytest.raises(UsageError, match=f"a recipe has no channels, epoch; {known}"):
        load_definition("ode").recipe(DIGITS, changes={"epoch": 3, "channels": 8, "warmup": 0.1})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ode", {"epochs": "x"}, "epochs='x' does not fit a recipe: input should be a valid integer"),
        ("ode", {"epochs": 0}, "epochs=0 does not fit a recipe: input should be greater than or equal to 1"),
        ("ode", {"epochs": 1.5}, "epochs=1.5 does not fit a recipe: input should be a valid integer"),
        ("ode", {"epochs": True}, "epochs=True does not fit a recipe: input should be a valid integer"),
        ("ode", {"batch_size": -3}, "batch_size=-3 does not fit a recipe: input should be greater than or equal to 1"),
        ("ode", {"learning_rate": None}, "learning_rate=None does not fit a recipe: input should be a valid number"),
        ("ode", {"learning_rate": 0}, "learning_rate=0 does not fit a recipe: input should be greater than 0"),
        (
            "ode",
            {"learning_rate": 1e39},
            r"learning_rate=1e\+39 does not fit a recipe: input should be less than or equal",
        ),
        (
            "ode",
            {"weight_decay": 1e39},
            r"weight_decay=1e\+39 does not fit a recipe: input should be less than or equal",
        ),
        ("ode", {"learning_rate": float("nan")}, "learning_rate=nan does not fit a recipe"),
        ("resnet", {"warmup": 1.0}, "warmup=1.0 does not fit a recipe: input should be less than 1"),
        ("resnet", {"weight_decay": [1]}, r"weight_decay=\[1\] does not fit a recipe"),
        ("kd-ode", {"weight": 2}, "weight=2 does not fit a recipe: input should be less than or equal to 1"),
        ("kd-ode", {"temperature": "hot"}, "temperature='hot' does not fit a recipe"),
        ("kd-ode", {"temperature": None}, "distillation needs a temperature and a weight"),
        ("ode", {"temperature": 2.0}, "this recipe cannot be changed so: .*cross-entropy takes neither"),
    ],
)
def test_changes_that_do_not_fit_are_refused_in_one_line(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_definition(name).recipe(DIGITS, changes=changes)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
