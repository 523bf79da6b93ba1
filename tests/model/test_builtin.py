"""The built-in networks: sizes, parameter counts, initial weights, and what is lazy about them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from odebench.dataset.builtin import DIGITS, FASHION_MNIST, SVHN
from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError
from odebench.model.classifier import Classifier
from odebench.model.definition import load_definition
from odebench.model.layers import POOLED_SIDE, group_norm, pooled_stem
from odebench.model.ode import OdeNet, StemHead, TimeConv
from odebench.model.registry import MODELS
from odebench.model.solver import integrate
from odebench.model.training import build
from odebench.protocol.spec import adaptive, fixed_step

NAMES = sorted(
    ["resnet", "ode", "kd-ode", "self-kd-ode", "ode-at", "kd-ode-at", "ode-ablated", "ode-stemless", "kd-ode-stemless"]
)
SIDES = [
    *((8, 8), (9, 9), (12, 12), (16, 16), (20, 20), (27, 27), (28, 28), (32, 32), (33, 33), (48, 48)),
    *((8, 12), (12, 8), (16, 40), (20, 33), (28, 31), (64, 32)),
]


def images_like(*shape: int, classes: int = 10) -> DatasetDefinition:
    return DatasetDefinition("own", (shape[0], shape[1], shape[2]), tuple(map(str, range(classes))), {}, "own:load")


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def odenet(channels_in: int, side: int) -> OdeNet:
    return OdeNet(
        image_shape=(channels_in, side, side),
        n_classes=10,
        channels=64,
        stem="conv",
        horizon=1.0,
        solver=fixed_step(step=0.5),
    )


def test_odenet_has_the_parameters_of_its_model() -> None:
    assert parameters(odenet(1, 28)) == 208_266
    assert parameters(odenet(3, 32)) == 209_418
    assert parameters(StemHead(image_shape=(1, 28, 28), n_classes=10, channels=64, stem="conv")) == 132_874


def test_odenet_downsamples_and_normalises_as_its_model_does() -> None:
    module = odenet(1, 28)
    assert module.stem(torch.rand(2, 1, 28, 28)).shape == (2, 64, 6, 6)
    assert odenet(1, 27).stem(torch.rand(2, 1, 27, 27)).shape == (2, 64, 13, 13)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {32}
    assert len(norms) == 6
    assert [type(layer).__name__ for layer in module.stem] == [
        *("Conv2d", "GroupNorm", "ReLU", "Conv2d", "GroupNorm", "ReLU", "Conv2d"),
    ]


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (32, 16), (16, 8), (8, 4), (2, 1), (1, 1), (24, 4)])
def test_group_norm_divides_every_width(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups
    assert group_norm(channels)(torch.rand(2, channels, 3, 3)).isfinite().all()


@pytest.mark.parametrize("dataset", [DIGITS, FASHION_MNIST, SVHN], ids=lambda dataset: dataset.name)
def test_the_teacher_is_small(dataset: DatasetDefinition) -> None:
    teacher = build(load_definition("resnet").recipe(dataset))
    assert 1000 < parameters(teacher) <= 600_000


def test_the_built_in_models_are_those_tested_here() -> None:
    assert sorted(name for name, entry in MODELS.entries().items() if entry.origin == "built in") == NAMES


@pytest.mark.parametrize(
    ("height", "width", "channels"), [*((*sides, 1) for sides in SIDES), (8, 8, 3), (20, 33, 3), (32, 32, 3)]
)
def test_every_model_classifies_images_of_every_size(height: int, width: int, channels: int) -> None:
    images = torch.rand(2, channels, height, width)
    for name in NAMES:
        definition = load_definition(name)
        recipe = definition.recipe(images_like(channels, height, width, classes=7))
        classifier = Classifier(build(recipe), n_classes=7)
        with classifier.frozen(), torch.no_grad():
            answer = classifier.answer(images)
            direct = classifier.module(images)
        assert answer.logits.shape == (2, 7)
        assert answer.logits.std() > 0
        assert not answer.failed.any()
        assert classifier.is_ode == definition.has_horizon
        assert (answer.nfe is None) == (not definition.has_horizon)
        torch.testing.assert_close(direct, answer.logits)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 7, 32), (1, 28, 1)])
def test_smaller_images_are_refused(name: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match=rf"{name} needs images of at least 8 pixels a side, not {min(shape[1:])}"):
        load_definition(name).setting(shape)


@pytest.mark.parametrize(
    ("shape", "side"),
    [((1, 8, 8), 8), ((1, 27, 60), 8), ((1, 28, 28), 28), ((3, 31, 31), 28), ((3, 32, 32), 32), ((3, 99, 64), 32)],
)
def test_a_setting_is_that_of_the_largest_side_that_fits(shape: tuple[int, int, int], side: int) -> None:
    definition = load_definition("ode")
    assert definition.setting(shape) is definition.settings[side]


def test_stemless_models_learn_no_downsampling() -> None:
    for side in (8, 16, 28, 48):
        stem = pooled_stem(3, 8, side)
        convolutions = [layer for layer in stem if isinstance(layer, nn.Conv2d)]
        assert [layer.kernel_size for layer in convolutions] == [(1, 1)]
        expected = min(side, POOLED_SIDE)
        assert stem(torch.rand(1, 3, side, side)).shape == (1, 8, expected, expected)
    for name in ("ode-stemless", "kd-ode-stemless"):
        assert load_definition(name).recipe(SVHN).arguments["stem"] == "pool"
        assert load_definition(name).recipe(SVHN).arguments["channels"] == 32


def test_the_stemless_pair_has_learning_rates_of_its_own_on_8x8_alone() -> None:
    plain, distilled = load_definition("ode-stemless"), load_definition("kd-ode-stemless")
    assert plain.settings[8].schedule == load_definition("ode").settings[8].schedule
    found = distilled.settings[8].schedule
    assert (found.learning_rate, found.epochs, found.batch_size) == (0.03, 15, 32)
    for side in (28, 32):
        assert distilled.settings[side].schedule == load_definition("kd-ode").settings[side].schedule


def test_time_is_one_more_channel_whether_shared_or_one_for_each_image() -> None:
    torch.manual_seed(0)
    layer, state = TimeConv(4), torch.rand(3, 4, 5, 5)
    shared = layer(torch.tensor(0.3), state)
    torch.testing.assert_close(layer(torch.full((3, 1, 1, 1), 0.3), state), shared)
    apart = layer(torch.tensor([0.3, 0.9, 0.3])[:, None, None, None], state)
    torch.testing.assert_close(apart[[0, 2]], shared[[0, 2]])
    assert not torch.allclose(apart[1], shared[1])
    assert torch.equal(layer.conv(torch.cat([torch.full((3, 1, 5, 5), 0.3), state], 1)), shared)


def test_an_ode_model_solves_what_it_exposes() -> None:
    module = build(load_definition("ode").recipe(DIGITS, horizon=2.0, solver=fixed_step("euler", step=0.5)))
    assert isinstance(module, OdeNet)
    images = torch.rand(2, 1, 8, 8)
    state = module.stem(images)
    for index in range(4):
        state = state + 0.5 * module.field(torch.tensor(0.5 * index), state)
    torch.testing.assert_close(module(images), module.head(state))
    solution = integrate(module.field, module.stem(images), horizon=2.0, solver=module.solver)
    assert solution.nfe.tolist() == [4, 4]


@pytest.mark.parametrize("dataset", [DIGITS, FASHION_MNIST, SVHN], ids=lambda dataset: dataset.name)
@pytest.mark.parametrize(
    ("plain", "distilled"),
    [("ode", "kd-ode"), ("ode-at", "kd-ode-at"), ("ode", "ode-at"), ("ode-stemless", "kd-ode-stemless")],
)
def test_plain_and_distilled_models_begin_with_the_same_weights(
    dataset: DatasetDefinition, plain: str, distilled: str
) -> None:
    def weights(name: str, **given: Any) -> dict[str, torch.Tensor]:
        return build(load_definition(name).recipe(dataset, **given)).state_dict()

    first, second, longer, other = (
        weights(plain),
        weights(distilled),
        weights(distilled, horizon=3.0),
        weights(plain, train_seed=1),
    )
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) and torch.equal(first[name], longer[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_building_disturbs_no_global_generator() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    build(load_definition("ode").recipe(DIGITS, train_seed=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_do_not_depend_on_the_global_generator() -> None:
    recipe = load_definition("resnet").recipe(DIGITS)
    torch.manual_seed(1)
    first = build(recipe).state_dict()
    torch.manual_seed(2)
    second = build(recipe).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_ablated_model_is_its_ode_model_without_the_field() -> None:
    for dataset in (DIGITS, FASHION_MNIST, SVHN):
        whole = build(load_definition("ode").recipe(dataset))
        assert isinstance(whole, OdeNet)
        cut = build(load_definition("ode-ablated").recipe(dataset))
        assert parameters(cut) == parameters(whole) - parameters(whole.field)


def test_an_unknown_model_is_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'kd-odes'; did you mean 'kd-ode'\? known: .*resnet"):
        load_definition("kd-odes")


def test_two_definitions_of_one_setting_do_not_share_changes() -> None:
    definition = load_definition("ode")
    changed = replace(definition, name="other")
    recipe = changed.recipe(DIGITS, changes={"epochs": 99})
    assert recipe.schedule.epochs == 99
    assert definition.recipe(DIGITS).schedule.epochs != 99


@pytest.mark.parametrize(
    "module",
    [
        *("odebench", "odebench.registry", "odebench.protocol.recipe", "odebench.protocol.spec"),
        *("odebench.model.builtin", "odebench.model.definition", "odebench.evaluation.plan", "odebench.attack.builtin"),
        "odebench.dataset.builtin",
    ],
)
def test_definitions_are_read_without_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'torchode', 'torchdiffeq', 'scipy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_recipe_is_written_without_torch() -> None:
    code = (
        "import sys; from odebench.model.definition import load_definition; "
        "from odebench.dataset.builtin import DIGITS; print(load_definition('kd-ode').recipe(DIGITS).key); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == load_definition("kd-ode").recipe(DIGITS).key


def test_a_failing_solver_shows_when_the_module_is_wrapped() -> None:
    model = OdeNet(
        image_shape=(1, 8, 8),
        n_classes=10,
        channels=4,
        stem="conv",
        horizon=1.0,
        solver=adaptive(max_steps=1, rtol=1e-6),
    )
    wrapped = Classifier(nn.Sequential(model), n_classes=10)
    assert not wrapped.is_ode
    assert wrapped.answer(torch.rand(3, 1, 8, 8)).failed.all()


def test_an_unknown_stem_is_named() -> None:
    with pytest.raises(ValueError, match="stem must be conv or pool, not 'foo'"):
        StemHead(image_shape=(1, 8, 8), n_classes=10, channels=8, stem="foo")  # type: ignore[arg-type]
