"""The built-in models and their default recipes, chosen on validation images.

Each definition here is a name of `odebench models`, listed in this order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from odebench.model.definition import ModelDefinition, Setting
from odebench.protocol.recipe import Loss, Schedule
from odebench.protocol.spec import fixed_step


def _schedule(epochs: int, learning_rate: float, batch_size: int = 128) -> Schedule:
    return Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=5e-4, warmup=0.2)


def _loss(temperature: float, weight: float) -> Loss:
    return Loss(kind="distillation", temperature=temperature, weight=weight)


_RESNET = {
    8: Setting({"widths": [16, 32], "strides": [1, 2]}, _schedule(15, 1e-2, 32)),
    28: Setting({"widths": [32, 64, 128], "strides": [2, 2, 2]}, _schedule(4, 4e-3)),
    32: Setting({"widths": [32, 64, 128], "strides": [2, 1, 2]}, _schedule(24, 2e-2), augmentation="flip-crop"),
}

_ODE = {
    8: Setting({"channels": 16, "stem": "conv"}, _schedule(15, 1e-2, 32), fixed_step(step=0.25)),
    28: Setting({"channels": 32, "stem": "conv"}, _schedule(4, 2e-2, 64), fixed_step(step=0.5)),
    32: Setting(
        {"channels": 64, "stem": "conv"}, _schedule(12, 2e-2, 64), fixed_step(step=0.5), augmentation="flip-crop"
    ),
}

_DISTILLATION: dict[int, dict[str, Any]] = {
    8: {"schedule": _schedule(15, 1e-2, 32), "loss": _loss(4, 0.9)},
    28: {"schedule": _schedule(4, 1e-2), "loss": _loss(2, 0.9)},
    32: {"schedule": _schedule(12, 2e-2, 64), "loss": _loss(4, 0.9)},
}
"""Schedule and loss of distilled models, by side (docs/recipes.md)."""


def _distilled(settings: dict[int, Setting]) -> dict[int, Setting]:
    return {side: replace(setting, **_DISTILLATION[side]) for side, setting in settings.items()}


def _adversarial(settings: dict[int, Setting]) -> dict[int, Setting]:
    """The same settings with Madry's training. Radius, epochs and learning rate were tried on digits alone."""
    return {side: replace(setting, adversary={"kind": "madry"}) for side, setting in settings.items()}


def _stemless(settings: dict[int, Setting]) -> dict[int, Setting]:
    return {
        side: replace(setting, arguments={"channels": min(int(str(setting.arguments["channels"])), 32), "stem": "pool"})
        for side, setting in settings.items()
    }


_STEMLESS_DISTILLED = _distilled(_stemless(_ODE))
# For 8x8 images the learning rate was tried again.
_STEMLESS_DISTILLED[8] = replace(_STEMLESS_DISTILLED[8], schedule=_schedule(15, 3e-2, 32))

RESNET = ModelDefinition(
    "resnet",
    "odebench.model.resnet:ResNet",
    _RESNET,
    summary="residual network: the teacher, and the discrete baseline",
    has_horizon=False,
)
ODE = ModelDefinition(
    "ode",
    "odebench.model.ode:OdeNet",
    _ODE,
    summary="Neural ODE with a learned stem, trained on the labels",
    has_horizon=True,
    optional=("initial_scale",),
)
KD_ODE = ModelDefinition(
    "kd-ode",
    "odebench.model.ode:OdeNet",
    _distilled(_ODE),
    summary="the same Neural ODE, distilled from resnet",
    has_horizon=True,
    optional=("initial_scale",),
    teacher="resnet",
)
SELF_KD_ODE = ModelDefinition(
    "self-kd-ode",
    "odebench.model.ode:OdeNet",
    _distilled(_ODE),
    summary="control: ode, distilled from an ode of another train seed",
    has_horizon=True,
    optional=("initial_scale",),
    teacher="ode",
    teacher_seed_shift=1000,
)
ODE_AT = ModelDefinition(
    "ode-at",
    "odebench.model.ode:OdeNet",
    _adversarial(_ODE),
    summary="ode, trained on adversarial images (Madry et al.)",
    has_horizon=True,
    optional=("initial_scale",),
)
KD_ODE_AT = ModelDefinition(
    "kd-ode-at",
    "odebench.model.ode:OdeNet",
    _adversarial(_distilled(_ODE)),
    summary="kd-ode, distilled on adversarial images",
    has_horizon=True,
    optional=("initial_scale",),
    teacher="resnet",
)
ODE_ABLATED = ModelDefinition(
    "ode-ablated",
    "odebench.model.ode:StemHead",
    {side: replace(setting, solver=None) for side, setting in _ODE.items()},
    summary="control: ode with the ODE block cut out",
    has_horizon=False,
)
ODE_STEMLESS = ModelDefinition(
    "ode-stemless",
    "odebench.model.ode:OdeNet",
    _stemless(_ODE),
    summary="Neural ODE on pooled pixels, without learned downsampling",
    has_horizon=True,
    optional=("initial_scale",),
)
KD_ODE_STEMLESS = ModelDefinition(
    "kd-ode-stemless",
    "odebench.model.ode:OdeNet",
    _STEMLESS_DISTILLED,
    summary="ode-stemless, distilled from resnet",
    has_horizon=True,
    optional=("initial_scale",),
    teacher="resnet",
)
