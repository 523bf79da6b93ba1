"""Sources of transfer: how they are written, which one is the default, and where they stand in a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from odebench.attack.candidate_file import read_candidates
from odebench.dataset import load_dataset
from odebench.dataset.builtin import DIGITS, FASHION_MNIST
from odebench.errors import UsageError
from odebench.evaluation.evaluate import run
from odebench.evaluation.plan import EvaluationRequest, Plan, Slice, plan
from odebench.evaluation.transfer_source import TransferSource, default_sources, parse_source, several_sources
from odebench.io.files import sha256_file
from odebench.io.tensor_file import write_tensors
from odebench.model.definition import load_definition
from odebench.model.training import build
from odebench.protocol.recipe import weights_path
from odebench.protocol.spec import adaptive, fixed_step
from odebench.result.file import read_result

RK4 = fixed_step(step=0.25)


def parsed(text: str, *, model: str = "kd-ode", seed: int = 0, horizon: float = 1.0) -> TransferSource:
    definition = load_definition(model)
    recipe = definition.recipe(DIGITS, horizon=horizon if definition.has_horizon else None, train_seed=seed)
    at = horizon if definition.has_horizon else None
    return parse_source(text, DIGITS, origin=recipe, horizon=at, solver=recipe.solver)


def planned(model: str = "ode", attack: str = "transfer", **options: Any) -> Plan:
    dataset, total = options.pop("dataset", DIGITS), options.pop("total", 500)
    return plan(EvaluationRequest(model, attack, **options), dataset, total=total)


# Texts


def test_a_name_is_the_model_of_the_same_data_and_train_seed() -> None:
    found = parsed("resnet", seed=3)
    assert found.recipe == load_definition("resnet").recipe(DIGITS, train_seed=3)
    assert (found.horizon, found.solver, found.itself) == (None, None, False)
    ode = parsed("ode", seed=3)
    assert (ode.recipe.train_seed, ode.horizon, ode.solver) == (3, 1.0, RK4)


def test_seed_horizon_and_solver_are_chosen_by_key() -> None:
    found = parsed("ode:seed=1:horizon=2")
    assert found.recipe == load_definition("ode").recipe(DIGITS, horizon=2.0, train_seed=1)
    assert (found.horizon, found.solver) == (2.0, RK4)
    other = parsed("ode:solver=euler:step=1/2")
    assert other.solver == fixed_step("euler", step=0.5)
    assert other.recipe.solver == RK4, "it is trained with its default solver"


@pytest.mark.parametrize(
    ("text", "solver"),
    [
        ("self:solver=euler", fixed_step("euler", step=0.25)),
        ("self:solver=dopri5", adaptive("dopri5", rtol=1e-3)),
        ("self:solver=tsit5:tolerance=0.01", adaptive("tsit5", rtol=0.01)),
        ("self:solver=dopri5:backend=torchdiffeq", adaptive("dopri5", rtol=1e-3, backend="torchdiffeq")),
        ("self", RK4),
    ],
)
def test_self_is_the_same_weights_with_another_solver(text: str, solver: Any) -> None:
    found = parsed(text, horizon=2.0)
    assert (found.solver, found.horizon, found.itself) == (solver, 2.0, True)
    assert found.recipe.key == load_definition("kd-ode").recipe(DIGITS, horizon=2.0).key


def test_self_may_look_from_another_horizon() -> None:
    assert parsed("self:horizon=0.5").horizon == 0.5


WRONG = {
    "rsnet": "unknown model 'rsnet'; did you mean 'resnet'",
    "": "unknown model ''",
    "ode:sed=1": "source 'ode:sed=1': unknown sed; known: seed, horizon, solver, step, tolerance, backend",
    "ode:seed": "source 'ode:seed': a seed is an integer of at least 0, not ''",
    "ode:seed=1.5": "a seed is an integer of at least 0, not '1.5'",
    "ode:seed=-1": "a seed is an integer of at least 0, not '-1'",
    "ode:seed=99999999999999999999": "train seed 99999999999999999999 must be an integer from 0 to",
    "ode:seed=1:seed=2": "source 'ode:seed=1:seed=2' sets one thing twice",
    "ode:horizon=0": "horizon 0 must be a finite number above 0",
    "ode:horizon=long": "horizon 'long' is not a finite number",
    "resnet:horizon=2": "resnet integrates nothing, so it takes no horizon",
    "resnet:solver=rk4": "source 'resnet:solver=rk4': resnet integrates nothing, so it takes no solver",
    "self:seed=1": "source 'self:seed=1': self has the weights of the model; name the model to choose a seed",
    "ode:step=0.5": "source 'ode:step=0.5': step, tolerance and backend go with a solver, such as solver=dopri5",
    "ode:solver=rk5": "source 'ode:solver=rk5': unknown method 'rk5' for torchode; adaptive there: dopri5",
    "ode:solver=rk4:step=0": "source .*: the fixed-step method rk4 needs a step above 0",
    "ode:solver=rk4:step=1e-9": "a step of 1e-09 needs more than 10000 steps to reach horizon 1; take a longer step",
    "ode:solver=rk4:tolerance=0.1": "source .*: rk4 takes no tolerance",
    "ode:solver=rk4:backend=torchode:tolerance=1": "source .*: rk4 takes no backend and no tolerance",
    "ode:solver=dopri5:step=0.1": "source .*: dopri5 takes no step",
    "ode:solver=dopri5:tolerance=0": "source .*: the adaptive method dopri5 needs rtol and atol above 0",
    "ode:solver=dopri5:tolerance=x": "tolerance 'x' is not a finite number",
    "ode:solver=dopri5:backend=scipy": "source .*: backend cannot be 'scipy': it must be 'torchdiffeq' or 'torchode'",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_source_that_is_none_is_refused_before_anything_is_trained(text: str) -> None:
    with pytest.raises(UsageError, match=WRONG[text]) as caught:
        planned(sources=[text])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["self:solver=rk4", "self:horizon=2", "self:gradient=adjoint"])
def test_a_model_that_integrates_nothing_is_no_source_with_a_solver(text: str) -> None:
    with pytest.raises(
        UsageError, match=f"source '{text}': the model integrates nothing: no horizon, no solver, no adjoint"
    ):
        parsed(text, model="resnet")


def test_candidates_may_follow_the_gradient_of_the_adjoint() -> None:
    assert parsed("ode").gradient == parsed("self").gradient == "direct"
    assert parsed("ode:gradient=adjoint").gradient == parsed("self:gradient=adjoint").gradient == "adjoint"
    assert parsed("self:gradient=direct", model="resnet").gradient == "direct"
    found = parsed("self:solver=dopri5:gradient=adjoint")
    assert (found.solver, found.gradient, found.itself) == (adaptive("dopri5", rtol=1e-3), "adjoint", True)
    one, other = (planned(sources=[text]) for text in ("ode:seed=1", "ode:seed=1:gradient=adjoint"))
    assert one.evaluation.run_key != other.evaluation.run_key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ode:gradient=exact", "source 'ode:gradient=exact': the gradient is direct or adjoint, not 'exact'"),
        ("self:gradient=", "the gradient is direct or adjoint, not ''"),
        ("resnet:gradient=adjoint", "resnet integrates nothing, so it takes no solver and has no adjoint"),
    ],
)
def test_a_gradient_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(sources=[text])


# Defaults


@pytest.mark.parametrize(
    ("model", "options", "sources"),
    [
        ("kd-ode", {}, ("resnet", "ode-ablated", "kd-ode:seed=1")),
        ("ode", {"train_seed": 4}, ("resnet", "ode-ablated", "ode:seed=5")),
        ("ode-ablated", {}, ("resnet", "ode-ablated:seed=1")),
        ("resnet", {}, ("ode-ablated", "resnet:seed=1")),
        ("kd-ode", {"horizon": 2.0}, ("resnet", "ode-ablated", "kd-ode:seed=1:horizon=2")),
        ("ode", {"changes": {"epochs": 1}}, ("resnet", "ode-ablated", "ode:seed=1")),
    ],
)
def test_a_diagnosis_crafts_on_several_models_that_are_not_its_own(
    model: str, options: dict[str, Any], sources: tuple[str, ...]
) -> None:
    found = planned(model, "diagnosis", **options)
    assert found.evaluation.attack.sources == sources
    recipe = found.recipe
    assert several_sources(model, DIGITS, recipe) == sources
    assert recipe.key not in {source.recipe.key for source in found.sources}
    assert found.sources[-1].recipe.train_seed == recipe.train_seed + 1
    assert found.sources[-1].recipe.horizon == recipe.horizon
    assert planned(model, "diagnosis", sources=["ode:seed=9"], **options).evaluation.attack.sources == ("ode:seed=9",)
    assert planned(model, "quick-diagnosis", **options).evaluation.attack.sources == ()


@pytest.mark.parametrize("model", ["ode", "kd-ode", "ode-ablated"])
def test_every_other_model_faces_the_resnet_of_its_seed(model: str) -> None:
    found = planned(model, "worst-case", train_seed=2)
    assert found.evaluation.attack.sources == ("resnet",)
    (source,) = found.sources
    assert source.recipe == load_definition("resnet").recipe(DIGITS, train_seed=2)


def test_the_resnet_itself_has_no_default_source() -> None:
    recipe = load_definition("resnet").recipe(DIGITS)
    assert default_sources(DIGITS, recipe) == ()
    assert planned("resnet", "worst-case").evaluation.attack.sources == ()
    assert planned("resnet", "worst-case", changes={"epochs": 1}).evaluation.attack.sources == ("resnet",)
    with pytest.raises(UsageError, match="transfer needs a source to craft candidates on, such as --source ode:seed=1"):
        planned("resnet")
    assert planned("resnet", sources=["ode"]).evaluation.attack.sources == ("ode",)


def test_a_source_belongs_to_the_same_data() -> None:
    (source,) = planned("ode", "worst-case", dataset=FASHION_MNIST, total=10_000).sources
    assert source.recipe.dataset == "fashion-mnist"


def test_sources_are_part_of_the_run_key_in_their_order_and_once() -> None:
    one, two, twice = (planned(sources=texts) for texts in (["resnet"], ["resnet", "ode"], ["resnet", "resnet"]))
    assert one.evaluation.run_key == twice.evaluation.run_key == planned().evaluation.run_key
    assert one.evaluation.run_key != two.evaluation.run_key
    assert [source.text for source in two.sources] == ["resnet", "ode"]


def test_attacks_that_craft_on_nothing_else_take_no_source() -> None:
    with pytest.raises(UsageError, match="pgd crafts no candidates on other models, so it takes no source"):
        planned("ode", "pgd", sources=["resnet"])


def test_a_surrogate_is_for_models_with_a_field() -> None:
    euler = fixed_step("euler", step=0.5)
    found = planned("ode", "pgd", surrogate=euler)
    assert found.evaluation.attack.surrogate is not None
    assert found.evaluation.attack.surrogate.solver == euler
    assert found.evaluation.run_key != planned("ode", "pgd").evaluation.run_key
    with pytest.raises(UsageError, match="a surrogate takes fixed steps, such as rk4:1; dopri5 chooses its own"):
        planned("ode", "pgd", surrogate=adaptive("dopri5"))
    with pytest.raises(UsageError, match="resnet integrates nothing, so no cheaper solver can propose for it"):
        planned("resnet", "pgd", surrogate=euler)
    with pytest.raises(UsageError, match="needs more than 10000 steps to reach horizon 1"):
        planned("ode", "pgd", surrogate=fixed_step(step=1e-9))


# In a result


def test_sources_and_their_weights_stand_in_the_result(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    assert digits.train is not None
    found = planned(
        sources=["resnet", "self:solver=euler", "ode:seed=1"],
        images=Slice(n=20, chunk=20),
        epsilons=(0.1,),
        parameters={"steps": 2},
    )
    recipes = {"self:solver=euler": found.recipe} | {source.text: source.recipe for source in found.sources}
    for recipe in recipes.values():  # untrained weights where trained ones would lie
        metadata = {"recipe": recipe.model_dump(mode="json"), "train_sha256": digits.train.sha256}
        write_tensors(weights_path(recipe), build(recipe).state_dict(), metadata)
    result, path, new = run(found, digits, results=tmp_path / "results")
    assert new
    assert result.evaluation.attack.sources == ("resnet", "self:solver=euler", "ode:seed=1")
    assert result.found.sources_sha256 == {text: sha256_file(weights_path(recipe)) for text, recipe in recipes.items()}
    assert result.found.sources_sha256["self:solver=euler"] == result.found.weights_sha256
    assert read_result(path) == result


def test_a_source_with_the_gradient_of_the_adjoint_crafts_other_candidates(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    assert digits.train is not None
    kept: dict[str, Any] = {}
    for text in ("self", "self:gradient=adjoint"):
        found = planned(
            sources=[text],
            solver=fixed_step("euler", step=0.5),
            images=Slice(n=20, chunk=20),
            epsilons=(0.1,),
            parameters={"steps": 5},
        )
        metadata = {"recipe": found.recipe.model_dump(mode="json"), "train_sha256": digits.train.sha256}
        write_tensors(weights_path(found.recipe), build(found.recipe).state_dict(), metadata)
        file = tmp_path / f"{len(kept)}.safetensors"
        run(found, digits, results=tmp_path / "results", save_candidates=file)
        kept[text] = read_candidates(file)
    assert kept["self"].indices.tolist() == kept["self:gradient=adjoint"].indices.tolist()
    assert not kept["self"].images.equal(kept["self:gradient=adjoint"].images)
