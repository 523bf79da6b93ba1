"""Which images of a split an evaluation takes, and in which chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from odebench.errors import UsageError
from odebench.protocol.spec import DatasetSlice

DEFAULT_N = 500
DEFAULT_CHUNK = 100

Split = Literal["test", "validation"]


@dataclass(frozen=True)
class Slice:
    """Images of a split: `n` of them (None: 500, or all if there are fewer) from `offset` on, attacked in chunks."""

    split: Split = "test"
    n: int | None = None
    offset: int = 0
    chunk: int | None = None

    def chunk_of(self, total: int) -> int:
        """The size of a chunk: as given, else 100; where that does not divide the slice, all of fewer than 100 images,
        or the largest divisor from 50 on. Of a slice to the end of the split, the last chunk may be smaller."""
        if self.chunk is not None:
            return self.chunk
        n, offset = self.n, self.offset
        if n is None or n < 1 or (offset % DEFAULT_CHUNK == 0 and n == total - offset):
            return DEFAULT_CHUNK
        sizes = {n, *range(DEFAULT_CHUNK // 2, DEFAULT_CHUNK + 1)}
        fitting = [size for size in sizes if size <= DEFAULT_CHUNK and n % size == offset % size == 0]
        return max(fitting, default=DEFAULT_CHUNK)

    def of(self, name: str, total: int) -> DatasetSlice:
        """The slice of the data set `name`, whose split has `total` images. Raises UsageError unless it consists of
        whole chunks."""
        chunk = self.chunk_of(total)
        if chunk < 1:
            raise UsageError(f"a chunk has at least one image, not {chunk}; the default is {DEFAULT_CHUNK}")
        if self.offset not in range(0, max(1, total), chunk):
            last = (total - 1) // chunk * chunk
            raise UsageError(
                f"{name} has {total} {self.split} images in chunks of {chunk}; no chunk begins at offset "
                f"{self.offset}: choose a multiple of {chunk} from 0 to {last}"
            )
        rest = total - self.offset
        n = min(DEFAULT_N, rest) if self.n is None else self.n
        if not 1 <= n <= rest:
            raise UsageError(
                f"{name} has {total} {self.split} images; {n} from {self.offset} on cannot be taken: "
                f"choose -n between 1 and {rest}"
            )
        if n % chunk and n != rest:
            below = n - n % chunk
            choices = [below] * (below > 0) + [min(below + chunk, rest)]
            raise UsageError(
                f"{n} images from {self.offset} on are not whole chunks of {chunk}; letters would depend on "
                f"the slice: take -n {' or '.join(map(str, choices))}"
            )
        return DatasetSlice(name=name, split=self.split, n=n, offset=self.offset)
