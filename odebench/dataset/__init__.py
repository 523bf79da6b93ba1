"""Data sets: images in [0, 1] in one fixed, stratified order, built in or from an image folder.

Nothing heavy is imported before it is used, so that definitions can be read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odebench.registry import load_target

if TYPE_CHECKING:
    from odebench.dataset.base import Dataset as Dataset
    from odebench.dataset.base import Split as Split
    from odebench.dataset.definition import DatasetDefinition as DatasetDefinition
    from odebench.dataset.load import describe_dataset as describe_dataset
    from odebench.dataset.load import load_dataset as load_dataset
    from odebench.dataset.order import stratified_order as stratified_order

_EXPORTS = {
    "Dataset": "odebench.dataset.base:Dataset",
    "DatasetDefinition": "odebench.dataset.definition:DatasetDefinition",
    "Split": "odebench.dataset.base:Split",
    "describe_dataset": "odebench.dataset.load:describe_dataset",
    "load_dataset": "odebench.dataset.load:load_dataset",
    "stratified_order": "odebench.dataset.order:stratified_order",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'odebench.dataset' has no attribute {name!r}")
    return load_target(_EXPORTS[name])


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])


__all__ = sorted(_EXPORTS)
