"""The registered models: built in, or from entry points of the group odebench.models."""

from __future__ import annotations

from odebench.registry import Registry

MODELS = Registry("model", "odebench.models", built_in="odebench.model.builtin")
