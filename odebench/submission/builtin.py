"""Definitions of built-in names. Those of a plugin are not loaded, since that would run its code."""

from __future__ import annotations

from odebench.attack.definition import NamedAttack, load_attack
from odebench.attack.registry import ATTACKS
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.registry import DATASETS
from odebench.model.definition import ModelDefinition, load_definition
from odebench.model.registry import MODELS
from odebench.registry import Registry


def built_in_model(name: str) -> ModelDefinition | None:
    """The definition of a built-in model; None for any other name."""
    return load_definition(name) if _is_built_in(MODELS, name) else None


def built_in_dataset(name: str) -> DatasetDefinition | None:
    """The definition of a built-in data set; None for any other name."""
    definition = DATASETS.load(name) if _is_built_in(DATASETS, name) else None
    return definition if isinstance(definition, DatasetDefinition) else None


def built_in_attack(name: str) -> NamedAttack | None:
    """The definition of a built-in attack; None for any other name."""
    return load_attack(name) if _is_built_in(ATTACKS, name) else None


def _is_built_in(registry: Registry, name: str) -> bool:
    registered = registry.entries().get(name)
    return registered is not None and registered.origin == "built in"
