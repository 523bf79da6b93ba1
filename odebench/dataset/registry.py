"""The registered data sets: built in, or from entry points of the group odebench.datasets."""

from __future__ import annotations

from odebench.registry import Registry

DATASETS = Registry(
    "data set",
    "odebench.datasets",
    {
        "digits": (
            "odebench.dataset.builtin:DIGITS",
            "handwritten digits, 8x8 grey, in scikit-learn: no download",
        ),
        "fashion-mnist": ("odebench.dataset.builtin:FASHION_MNIST", "clothing, 28x28 grey"),
        "mnist": ("odebench.dataset.builtin:MNIST", "handwritten digits, 28x28 grey"),
        "cifar10": ("odebench.dataset.builtin:CIFAR10", "objects, 32x32 colour"),
        "cifar10-jpeg": ("odebench.dataset.builtin:CIFAR10_JPEG", "cifar10 after JPEG compression, as an image folder"),
        "svhn": ("odebench.dataset.builtin:SVHN", "house numbers, 32x32 colour"),
    },
)
