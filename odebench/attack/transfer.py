"""Candidates crafted on other models, the sources."""

from __future__ import annotations

from collections.abc import Sequence

from odebench.attack.autoattack import apgd_ce
from odebench.attack.early_stopping import IsAdversarial
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.shapes import Images, Labels


def transfer(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    steps: int,
    sources: Sequence[WrappedModel],
) -> Images:
    """The candidates of Auto-PGD on each source in turn: those of the last source on which an image was attacked.

    With `fallen` an image is left alone once a candidate is adversarial for the model itself. Without sources the
    images come back unchanged.
    """
    candidates = images.clone()
    remaining = images.new_ones(len(images)).bool()
    for source in sources:
        rows = remaining.nonzero().flatten()
        if not len(rows):
            break
        # The attack does not stop where it fools the source: a candidate that barely does would not transfer.
        found = apgd_ce(
            source, images[rows], labels[rows], norm=norm, epsilon=epsilon, seed=seed, steps=steps, best=True
        )
        candidates[rows] = found
        if fallen is not None:
            remaining[rows[fallen(rows, found)]] = False
    return candidates
