"""Candidates made elsewhere, as an attack: it proposes what it was given."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.early_stopping import Fallen
from odebench.attack.wrapped_model import WrappedModel

Images = Float[Tensor, "batch channel height width"]


def precomputed(
    model: WrappedModel,
    images: Images,
    labels: Int[Tensor, " batch"],
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Fallen | None = None,
    file_sha256: str,
    credit: str,
    proposals: Images,
) -> Images:
    """The candidates of a file (`file_sha256`, made by `credit`), as they are."""
    return proposals.to(images.device)
