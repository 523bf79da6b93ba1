"""Files of candidates: images that somebody claims to be adversarial, for the verdict to judge.

Such a file is a safetensors file with three tensors, candidates (m, channels, height, width) float32, indices (m,)
int64, which are positions in the fixed order of the split, and epsilons (m,) float64. Its one metadata key "odebench"
holds JSON: dataset, split, dataset_sha256 (of the whole ordered split), norm, source (what made the candidates) and,
for somebody who is to be credited, author.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.errors import OdebenchError
from odebench.io.tensor_file import read_tensors, write_tensors
from odebench.numerics.shapes import Images

_TENSORS = ("candidates", "indices", "epsilons")
_KEYS = ("dataset", "split", "dataset_sha256", "norm", "source")


class CandidateError(OdebenchError):
    """A file of candidates is damaged, or was made for other images."""


@dataclass(frozen=True)
class Candidates:
    """Candidates for images of one split, at most one per image and epsilon."""

    images: Float[Tensor, "m channel height width"]
    indices: Int[Tensor, " m"]
    epsilons: Float[Tensor, " m"]
    dataset: str
    split: str
    dataset_sha256: str
    norm: str
    source: str
    author: str = ""

    @property
    def radii(self) -> tuple[float, ...]:
        """The epsilons that occur, in rising order."""
        return tuple(sorted(set(self.epsilons.tolist())))

    def by_epsilon(self, clean: Images, *, offset: int) -> dict[float, Tensor]:
        """The candidates for the images of a slice by epsilon: the clean image where the file has none.

        `clean` holds these images, the first of which is at position `offset` of the split. Raises CandidateError where
        the candidates have another shape.
        """
        if self.images.shape[1:] != clean.shape[1:]:
            raise CandidateError(
                f"the candidates have shape {tuple(self.images.shape[1:])}, the images {tuple(clean.shape[1:])}"
            )
        found = {}
        for epsilon in self.radii:
            here = (self.epsilons == epsilon) & (self.indices >= offset) & (self.indices < offset + len(clean))
            found[epsilon] = clean.clone()
            found[epsilon][self.indices[here] - offset] = self.images[here]
        return found


def write_candidates(path: Path, candidates: Candidates) -> None:
    """Writes a file of candidates, complete or not at all. Raises FileError."""
    values = (candidates.images.float(), candidates.indices, candidates.epsilons.double())
    said = {key: getattr(candidates, key) for key in (*_KEYS, *(["author"] if candidates.author else []))}
    write_tensors(path, dict(zip(_TENSORS, values, strict=True)), said)


def read_candidates(path: Path) -> Candidates:
    """The candidates in a file. Raises WeightError where it is not a complete safetensors file, CandidateError where
    its tensors or metadata are not as described above."""
    tensors, metadata = read_tensors(path)
    if set(tensors) != set(_TENSORS):
        raise CandidateError(f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}; expected {', '.join(_TENSORS)}")
    if missing := [key for key in _KEYS if not isinstance(metadata.get(key), str)]:
        raise CandidateError(f"{path} does not say its {', '.join(missing)} in its metadata")
    author = metadata.get("author", "")
    if not isinstance(author, str):
        raise CandidateError(f"{path}: the author in its metadata is not a text")
    images, indices, epsilons = (tensors[name] for name in _TENSORS)
    _check(path, images, indices, epsilons, metadata)
    said = {key: metadata[key] for key in _KEYS}
    return Candidates(images.float(), indices.long(), epsilons, **said, author=author)


def _check(path: Path, images: Tensor, indices: Tensor, epsilons: Tensor, metadata: Mapping[str, str]) -> None:
    n = len(images)
    if images.ndim != 4 or not images.is_floating_point() or indices.shape != (n,) or epsilons.shape != (n,) or not n:
        raise CandidateError(
            f"{path}: expected candidates (m, channels, height, width), indices (m,), epsilons (m,), m above 0; found "
            f"{tuple(images.shape)}, {tuple(indices.shape)}, {tuple(epsilons.shape)}"
        )
    if indices.dtype not in (torch.int64, torch.int32) or (indices < 0).any():
        raise CandidateError(f"{path}: indices must be integers of at least 0 (int64)")
    if epsilons.dtype != torch.float64:
        # 0.1 in float32 is another number than the 0.1 of an evaluation.
        raise CandidateError(f"{path}: epsilons must be float64, not {str(epsilons.dtype).removeprefix('torch.')}")
    if not torch.isfinite(epsilons).all() or (epsilons <= 0).any():
        raise CandidateError(f"{path}: epsilons must be finite numbers above 0")
    if len(torch.unique(torch.stack([indices.double(), epsilons]), dim=1).T) != n:
        raise CandidateError(f"{path} has two candidates for one image and epsilon; keep the stronger one")
    if metadata["norm"] not in ("linf", "l2"):
        raise CandidateError(f"{path}: the norm is linf or l2, not {metadata['norm']!r}")
    if metadata["split"] not in ("test", "validation"):
        raise CandidateError(f"{path}: the split is test or validation, not {metadata['split']!r}")
