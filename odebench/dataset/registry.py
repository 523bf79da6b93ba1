"""The registered data sets: built in, or from entry points of the group odebench.datasets."""

from odebench.registry import Registry

DATASETS = Registry("data set", "odebench.datasets", built_in="odebench.dataset.builtin")
