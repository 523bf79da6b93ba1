"""The images and labels that a recipe trains on."""

from __future__ import annotations

import torch

from odebench.dataset import Split
from odebench.dataset.order import stratified_order
from odebench.errors import ModelError
from odebench.protocol.recipe import Recipe


def train_split(recipe: Recipe, train: Split, n_classes: int) -> Split:
    """The images and labels that a recipe trains on: its share of other labels is drawn with seed 0 from the whole
    split, whatever the train seed, and its number of images are the first of the stratified order of the true labels.

    Raises ModelError where there are fewer images than it asks for.
    """
    labels = train.labels
    if recipe.label_noise is not None:
        generator = torch.Generator().manual_seed(0)
        wrong = torch.randperm(len(labels), generator=generator)[: round(recipe.label_noise * len(labels))]
        shift = torch.randint(1, n_classes, (len(wrong),), generator=generator)
        labels = labels.clone()
        labels[wrong] = (labels[wrong] + shift) % n_classes
    if recipe.train_images is None:
        return train if labels is train.labels else Split(train.pixels, labels)
    if recipe.train_images > len(labels):
        raise ModelError(f"train_images={recipe.train_images}, but there are {len(labels)} to train on")
    rows = stratified_order(train.labels)[: recipe.train_images]
    return Split(train.pixels, labels).part(rows)
