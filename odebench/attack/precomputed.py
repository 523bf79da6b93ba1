"""An attack that proposes candidates made elsewhere."""

from __future__ import annotations

from odebench.attack.early_stopping import IsAdversarial
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.shapes import Images, Labels


def precomputed(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    file_sha256: str,
    credit: str,
    proposals: Images,
) -> Images:
    """`proposals` unchanged: the candidates of the file `file_sha256`, made by `credit`."""
    return proposals.to(images.device)
