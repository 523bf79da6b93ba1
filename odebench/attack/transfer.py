"""Candidates crafted on other models, the sources, for this one to be judged on."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.autoattack import apgd_ce
from odebench.attack.early_stopping import Fallen
from odebench.attack.wrapped_model import WrappedModel

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]


def transfer(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Fallen | None = None,
    steps: int,
    sources: Sequence[WrappedModel],
) -> Images:
    """Auto-PGD on each source in turn, on the images that still stand: the last candidates of the last source.

    With `fallen` an image stops at the first candidate that fells the model itself. Without sources the images come
    back as they were.
    """
    candidates = images.clone()
    standing = images.new_ones(len(images)).bool()
    for source in sources:
        rows = standing.nonzero().flatten()
        if not len(rows):
            break
        # On the source the attack goes on after the source is fooled: what fools it barely does not transfer.
        found = apgd_ce(
            source, images[rows], labels[rows], norm=norm, epsilon=epsilon, seed=seed, steps=steps, best=True
        )
        candidates[rows] = found
        if fallen is not None:
            standing[rows[fallen(rows, found)]] = False
    return candidates
