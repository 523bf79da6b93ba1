"""The registered models: built in, or from entry points of the group odebench.models."""

from odebench.registry import Registry

MODELS = Registry("model", "odebench.models", built_in="odebench.model.builtin")
