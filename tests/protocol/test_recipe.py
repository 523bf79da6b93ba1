"""Recipes: what they take, what they refuse in one line, and digests that stay what they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from odebench.dataset.builtin import CIFAR10, DIGITS, FASHION_MNIST, MNIST
from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError
from odebench.io.canonical_json import canonical_json
from odebench.model.definition import load_definition
from odebench.model.recipe_changes import changeable
from odebench.protocol.recipe import Adversary, Loss, Recipe, Schedule
from odebench.protocol.spec import adaptive, fixed_step

MADRY = Adversary(kind="madry", epsilon=0.1, steps=7, step=0.25 / 7)
TRADES = Adversary(kind="trades", epsilon=0.1, steps=7, step=0.25 / 7, beta=6.0)
RSLAD = Adversary(kind="rslad", epsilon=0.1, steps=7, step=0.25 / 7)
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


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("kd-ode", {}, "f140c8a386ee2212e5c63d3fbb59d507ffda412813cd001fca4180ddb2a7e9d3"),
        ("resnet", {}, "58ea533175e0aa953bea1d69dea31b4e47d5539c8e32011683804b747e5a3571"),
        ("ode", {}, "a79bf13b1a2e6e16926e93c998dba1cc33c4432109fad5a9dd950924cb91f5e2"),
        ("ode-ablated", {}, "672564d39eaf2c9a1990080b5ba8268ac5b89c5b17e8c4f8ce6f85ae5278530f"),
        ("kd-ode", {"temperature": 2}, "22c1dd266006bde91f312f9e35d4ff851a1e8350b18a3c16a98a1a2870faed72"),
    ],
)
def test_recipes_of_published_results_are_what_they_were_before_there_were_adversaries(
    name: str, changes: dict[str, Any], key: str
) -> None:
    for also in ({}, {"adversary": "none"}):
        recipe = load_definition(name).recipe(DIGITS, changes=changes | also)
        assert recipe.adversary is None
        assert recipe.key == key


def test_an_adversary_is_written_where_there_is_one_and_nowhere_else() -> None:
    for mode in ("json", "python"):
        assert "adversary" not in written().model_dump(mode=mode)
        assert "adversary" not in written().model_dump(mode=mode)["teacher"]
        taught = written(adversary=TRADES).model_dump(mode=mode)
        assert taught["adversary"] == {
            "kind": "trades", "norm": "linf", "epsilon": 0.1, "steps": 7, "step": 0.25 / 7, "beta": 6.0
        }  # fmt: skip
        assert "adversary" not in taught["teacher"]
    assert "adversary" not in written().model_dump_json()


def test_the_digest_of_an_adversarial_recipe_stays_what_it_is() -> None:
    assert written(adversary=MADRY).key == "c86769e935818cff06f5f70406938a3329126b1908bb20510f7e44bbc20c2ff9"
    assert written(adversary=TRADES).key == "f518bd8c67e4cd4520ff97dede64c61ba65cd946e6990c459fc5e80fc0039d65"
    robust = teacher().model_copy(update={"adversary": MADRY})
    own = Loss(kind="distillation", temperature=1.0, weight=1.0)
    assert (
        written(adversary=RSLAD, loss=own, teacher=robust).key
        == "e75ce1397e29afa8ab1b16bec0c3d462b8530612d8d569d9387700df2adadf88"
    )


@pytest.mark.parametrize("adversary", [MADRY, TRADES, RSLAD], ids=lambda adversary: adversary.kind)
def test_an_adversarial_recipe_survives_its_json(adversary: Adversary) -> None:
    recipe = written(adversary=adversary)
    again = Recipe.model_validate_json(canonical_json(recipe))
    assert again == recipe
    assert again.key == recipe.key
    assert Recipe.model_validate(recipe.model_dump()) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pgd"}, "'madry', 'trades' or 'rslad'"),
        ({"beta": 6.0}, "trades needs a beta, madry and rslad take none"),
        ({"kind": "rslad", "beta": 6.0}, "trades needs a beta, madry and rslad take none"),
        ({"kind": "trades", "beta": None}, "trades needs a beta, madry and rslad take none"),
        ({"kind": "trades", "beta": -1.0}, "greater than or equal to 0"),
        ({"norm": "l1"}, "linf"),
        ({"epsilon": 0.0}, "greater than 0"),
        ({"epsilon": 1.5}, "less than or equal to 1"),
        ({"epsilon": "0.1"}, "valid number"),
        ({"epsilon": True}, "valid number"),
        ({"epsilon": float("nan")}, "finite"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"steps": 2.0}, "valid integer"),
        ({"step": 0.0}, "greater than 0"),
        ({"step": 1e39}, "less than or equal to 10"),
        ({"restarts": 2}, "restarts"),
    ],
)
def test_adversaries_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Adversary.model_validate({"kind": "madry", "epsilon": 0.1, "steps": 7, "step": 0.03} | changes)


def test_trades_beta_is_its_authors_unless_it_is_given() -> None:
    fields = {"kind": "trades", "epsilon": 0.1, "steps": 7, "step": 0.25 / 7}
    assert Adversary.model_validate(fields) == TRADES
    assert Adversary.model_validate(fields | {"beta": 1}).beta == 1.0
    assert MADRY.beta is None


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
        {"adversary": MADRY},
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
    with pytest.raises(ValidationError, match="rslad distils, so it needs a teacher"):
        written(loss=Loss(kind="cross-entropy"), teacher=None, adversary=RSLAD)
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


def test_each_field_of_an_adversary_changes_the_digest() -> None:
    changes: list[dict[str, Any]] = [{}, {"epsilon": 0.2}, {"steps": 8}, {"step": 0.1}, {"beta": 3.0}]
    keys = {written(adversary=TRADES.model_copy(update=change)).key for change in changes}
    others = {written().key, written(adversary=MADRY).key, written(adversary=RSLAD).key}
    assert len(keys | others) == len(changes) + 3


def adversary_of(name: str, dataset: DatasetDefinition = DIGITS, **changes: Any) -> Adversary | None:
    return load_definition(name).recipe(dataset, changes=changes).adversary


@pytest.mark.parametrize(
    ("dataset", "epsilon"),
    [
        (DIGITS, 0.1),
        (FASHION_MNIST, 0.04),
        (MNIST, 0.3),
        (CIFAR10, 8 / 255),
        (DatasetDefinition("own", (3, 48, 48), ("a", "b"), {}, "own:load"), 8 / 255),
        (DatasetDefinition("own", (3, 12, 48), ("a", "b"), {}, "own:load"), 0.1),
    ],
    ids=lambda given: getattr(given, "name", None),
)
def test_an_adversary_takes_its_defaults_from_the_images(dataset: DatasetDefinition, epsilon: float) -> None:
    expected = Adversary(kind="madry", epsilon=epsilon, steps=7, step=2.5 * epsilon / 7)
    for name in ("kd-ode-at", "ode-at"):
        assert adversary_of(name, dataset) == expected
    assert adversary_of("kd-ode", dataset) is None
    assert adversary_of("kd-ode", dataset, adversary="madry") == expected
    trades = expected.model_copy(update={"kind": "trades", "beta": 6.0})
    for name in ("resnet", "kd-ode", "kd-ode-at"):
        assert adversary_of(name, dataset, adversary="trades") == trades


def test_changes_replace_fields_of_the_adversary_by_name() -> None:
    assert adversary_of("ode", adversary="trades", beta=3, adversary_steps=5) == Adversary(
        kind="trades", epsilon=0.1, steps=5, step=0.05, beta=3.0
    )
    assert adversary_of("ode-at", adversary_epsilon="8/255", adversary_steps=2) == Adversary(
        kind="madry", epsilon=8 / 255, steps=2, step=1.25 * 8 / 255
    )
    assert adversary_of("ode-at", adversary_step="1/255") == Adversary(kind="madry", epsilon=0.1, steps=7, step=1 / 255)
    assert adversary_of("kd-ode-at", adversary_epsilon=1).epsilon == 1.0
    assert adversary_of("kd-ode-at", adversary="none") is None


def test_an_adversary_changes_neither_the_rest_of_the_recipe_nor_the_teacher() -> None:
    plain = load_definition("kd-ode").recipe(DIGITS)
    hardened = load_definition("kd-ode").recipe(DIGITS, changes={"adversary": "madry"})
    assert hardened.model_copy(update={"adversary": None}) == plain
    assert hardened.teacher == plain.teacher == load_definition("kd-ode-at").recipe(DIGITS).teacher


def test_rslad_has_its_authors_loss_unless_another_is_given() -> None:
    recipe = load_definition("kd-ode").recipe(DIGITS, changes={"adversary": "rslad"})
    assert recipe.adversary == RSLAD
    assert recipe.loss == Loss(kind="distillation", temperature=1.0, weight=1.0)
    default = load_definition("kd-ode").recipe(DIGITS)
    assert recipe.model_copy(update={"adversary": None, "loss": default.loss}) == default
    given = load_definition("kd-ode-at").recipe(DIGITS, changes={"adversary": "rslad", "weight": 0.5})
    assert given.loss == Loss(kind="distillation", temperature=1.0, weight=0.5)
    setting = replace(load_definition("kd-ode").settings[8], adversary={"kind": "rslad"})
    own = replace(load_definition("kd-ode"), settings={8: setting})
    for changes in ({}, {"adversary": "rslad"}):
        assert own.recipe(DIGITS, changes=changes).loss == default.loss, "a setting's own loss stays"


def test_changes_of_the_teacher_are_those_of_its_recipe_and_of_nothing_else() -> None:
    plain = load_definition("kd-ode").recipe(DIGITS, train_seed=2)
    changes: dict[str, Any] = {"teacher_adversary": "madry", "teacher_adversary_epsilon": "1/4", "teacher_epochs": 3}
    student = load_definition("kd-ode").recipe(DIGITS, train_seed=2, changes=changes)
    teacher_changes = {"adversary": "madry", "adversary_epsilon": 0.25, "epochs": 3}
    assert student.teacher == load_definition("resnet").recipe(DIGITS, train_seed=2, changes=teacher_changes)
    assert student.model_copy(update={"teacher": plain.teacher}) == plain
    assert student.key != plain.key
    both = load_definition("kd-ode").recipe(DIGITS, changes={"adversary": "rslad", "teacher_adversary": "trades"})
    assert (both.adversary, both.teacher and both.teacher.adversary) == (RSLAD, TRADES)


def test_what_changes_can_name_is_told_of_the_teacher_too() -> None:
    held = changeable(load_definition("kd-ode").recipe(DIGITS, changes={"teacher_adversary": "madry"}))
    assert (held["adversary"], held["teacher_adversary"], held["teacher_adversary_epsilon"]) == ("none", "madry", 0.1)
    assert (held["temperature"], held["teacher_temperature"], held["teacher_epochs"]) == (4.0, None, 15)
    assert not [name for name in changeable(load_definition("ode").recipe(DIGITS)) if name.startswith("teacher")]


def test_a_setting_may_carry_any_adversary() -> None:
    definition = load_definition("ode")
    setting = replace(definition.settings[8], adversary={"kind": "trades", "epsilon": 0.2, "beta": 2.0})
    own = replace(definition, settings={8: setting})
    assert own.recipe(DIGITS).adversary == Adversary(kind="trades", epsilon=0.2, steps=7, step=0.5 / 7, beta=2.0)
    madry = own.recipe(DIGITS, changes={"adversary": "madry"}).adversary
    assert madry == Adversary(kind="madry", epsilon=0.2, steps=7, step=0.5 / 7)
    assert own.recipe(DIGITS, changes={"adversary": "none"}).adversary is None
    wrong = replace(definition, settings={8: replace(setting, adversary={"kind": "madry", "steps": 0})})
    with pytest.raises(UsageError, match="adversary_steps=0 does not fit a recipe: it must be at least"):
        wrong.recipe(DIGITS)


def test_unknown_changes_are_answered_with_the_known_ones() -> None:
    known = "known: epochs, batch_size, learning_rate, weight_decay, warmup, temperature, weight, smoothing"
    known += ", label_noise, train_images, train_step, channels, stem, initial_scale"
    known += ", adversary, adversary_epsilon, adversary_steps, adversary_step, beta$"
    with pytest.raises(UsageError, match=f"a recipe has no chanels, epoch; {known}"):
        load_definition("ode").recipe(DIGITS, changes={"epoch": 3, "chanels": 8, "warmup": 0.1})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ode", {"channels": "x"}, "channels='x' does not fit a recipe: it must be a whole number, such as 16"),
        ("ode", {"channels": True}, "channels=True does not fit a recipe: it must be a whole number"),
        ("resnet", {"widths": 3}, r"widths=3 does not fit a recipe: it must be a list, such as \[16, 32\]"),
        ("ode", {"epochs": "x"}, "epochs='x' does not fit a recipe: it must be a whole number"),
        ("ode", {"epochs": 0}, "epochs=0 does not fit a recipe: it must be at least 1"),
        ("ode", {"epochs": 1.5}, "epochs=1.5 does not fit a recipe: it must be a whole number"),
        ("ode", {"epochs": True}, "epochs=True does not fit a recipe: it must be a whole number"),
        ("ode", {"batch_size": -3}, "batch_size=-3 does not fit a recipe: it must be at least 1"),
        ("ode", {"learning_rate": None}, "learning_rate=None does not fit a recipe: it must be a number"),
        ("ode", {"learning_rate": 0}, "learning_rate=0 does not fit a recipe: it must be above 0"),
        (
            "ode",
            {"learning_rate": 1e39},
            r"learning_rate=1e\+39 does not fit a recipe: it must be at most",
        ),
        (
            "ode",
            {"weight_decay": 1e39},
            r"weight_decay=1e\+39 does not fit a recipe: it must be at most",
        ),
        ("ode", {"learning_rate": float("nan")}, "learning_rate=nan does not fit a recipe"),
        ("resnet", {"warmup": 1.0}, "warmup=1.0 does not fit a recipe: it must be below 1"),
        ("resnet", {"weight_decay": [1]}, r"weight_decay=\[1\] does not fit a recipe"),
        ("kd-ode", {"weight": 2}, "weight=2 does not fit a recipe: it must be at most 1"),
        ("kd-ode", {"temperature": "hot"}, "temperature='hot' does not fit a recipe"),
        ("kd-ode", {"temperature": None}, "distillation needs a temperature and a weight"),
        ("ode", {"adversary": "pgd"}, "adversary='pgd' does not fit a recipe: it must be none, madry, trades or rslad"),
        ("ode", {"adversary": None}, "adversary=None does not fit a recipe: it must be none, madry, trades or rslad"),
        ("ode", {"adversary": "rslad"}, "^rslad distils, but ode has no teacher; take one that has, such as kd-ode$"),
        ("kd-ode", {"adversary": "rslad", "beta": 6}, "^beta goes with adversary=trades, not with adversary=rslad$"),
        (
            "ode",
            {"teacher_adversary": "madry", "teacher_epochs": 2},
            "^ode has no teacher, so it takes no teacher_adversary, teacher_epochs$",
        ),
        (
            "kd-ode",
            {"teacher_adversary": "pgd"},
            "^the teacher, resnet: adversary='pgd' does not fit a recipe: it must be none, madry, trades or rslad$",
        ),
        ("kd-ode", {"teacher_beta": 6}, "^the teacher, resnet: beta without an adversary: add"),
        ("kd-ode", {"teacher_depth": 6}, "^the teacher, resnet: a recipe has no depth; known: epochs, "),
        ("kd-ode", {"teacher_": 6}, "^the teacher, resnet: a recipe has no ; known: epochs, "),
        ("kd-ode", {"teacher_adversary": "rslad"}, "^the teacher, resnet: rslad distils, but resnet has no teacher"),
        (
            "kd-ode",
            {"teacher_teacher_epochs": 2},
            "^the teacher, resnet: resnet has no teacher, so it takes no teacher_",
        ),
        ("ode", {"adversary": ["madry"]}, r"adversary=\['madry'\] does not fit a recipe"),
        (
            "ode",
            {"adversary_epsilon": 0.1},
            "^adversary_epsilon without an adversary: add adversary=madry or adversary=trades$",
        ),
        (
            "ode-at",
            {"beta": 1, "adversary_steps": 3, "adversary": "none"},
            "^adversary_steps, beta without an adversary: add",
        ),
        ("ode", {"beta": 6, "adversary": "madry"}, "^beta goes with adversary=trades, not with adversary=madry$"),
        ("kd-ode-at", {"beta": 6}, "^beta goes with adversary=trades, not with adversary=madry$"),
        ("ode", {"beta": -1, "adversary": "trades"}, "beta=-1 does not fit a recipe: it must be at least"),
        ("ode", {"beta": None, "adversary": "trades"}, "this recipe cannot be changed so: trades needs a beta"),
        (
            "ode-at",
            {"adversary_epsilon": 8},
            r"^adversary_epsilon=8 is above 1, but images are in \[0, 1\]; did you mean 8/255\?$",
        ),
        (
            "ode-at",
            {"adversary_epsilon": 0},
            "adversary_epsilon=0 does not fit a recipe: it must be above 0",
        ),
        (
            "ode-at",
            {"adversary_epsilon": float("nan")},
            "adversary_epsilon=nan does not fit a recipe: it must be a finite number",
        ),
        ("ode-at", {"adversary_epsilon": "8/0"}, "adversary_epsilon '8/0' is not a finite number; write it like 0.1"),
        ("ode-at", {"adversary_epsilon": "far"}, "adversary_epsilon='far' does not fit a recipe: it must be a"),
        ("ode-at", {"adversary_epsilon": True}, "adversary_epsilon=True does not fit a recipe: it must be a"),
        ("ode-at", {"adversary_epsilon": None}, "adversary_epsilon=None does not fit a recipe: it must be a"),
        ("ode-at", {"adversary_steps": 1.5}, "adversary_steps=1.5 does not fit a recipe: it must be a whole"),
        ("ode-at", {"adversary_steps": 0}, "adversary_steps=0 does not fit a recipe: it must be at least"),
        ("ode-at", {"adversary_step": -0.1}, "adversary_step=-0.1 does not fit a recipe: it must be above 0"),
        ("ode-at", {"adversary_step": 2}, r"^adversary_step=2 is above 1, but images are in .* did you mean 2/255\?$"),
        (
            "ode-at",
            {"adversary_epsilon": 256},
            "adversary_epsilon=256 does not fit a recipe: it must be",
        ),
        ("ode-at", {"adversary_epsilon": 10**400}, "adversary_epsilon=1000+ does not fit a recipe: it must be "),
        ("ode", {"temperature": 2.0}, "this recipe cannot be changed so: .*cross-entropy takes neither"),
    ],
)
def test_changes_that_do_not_fit_are_refused_in_one_line(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_definition(name).recipe(DIGITS, changes=changes)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
