"""The registered models: built in, or from entry points of the group odebench.models."""

from __future__ import annotations

from odebench.registry import Registry

MODELS = Registry(
    "model",
    "odebench.models",
    {
        "resnet": (
            "odebench.model.builtin:RESNET",
            "residual network: the teacher, and the discrete baseline",
        ),
        "ode": ("odebench.model.builtin:ODE", "Neural ODE with a learned stem, trained on the labels"),
        "kd-ode": ("odebench.model.builtin:KD_ODE", "the same Neural ODE, distilled from resnet"),
        "ode-at": ("odebench.model.builtin:ODE_AT", "ode, trained on adversarial images (Madry et al.)"),
        "kd-ode-at": ("odebench.model.builtin:KD_ODE_AT", "kd-ode, distilled on adversarial images"),
        "ode-ablated": ("odebench.model.builtin:ODE_ABLATED", "control: ode with the ODE block cut out"),
        "ode-stemless": (
            "odebench.model.builtin:ODE_STEMLESS",
            "Neural ODE on pooled pixels, without learned downsampling",
        ),
        "kd-ode-stemless": ("odebench.model.builtin:KD_ODE_STEMLESS", "ode-stemless, distilled from resnet"),
    },
)
