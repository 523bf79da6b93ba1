"""Modules that keep a state or look at who asks, honest and deceiving; processes that tests start import them."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn


class Wrapped(nn.Module):
    """The logits of another module."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits


class Counting(Wrapped):
    """Counts its calls and prints a lot; its answers do not depend on it."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        print(f"call {self.calls}", "x" * 100_000)
        return super().forward(images)


class Keeping(Wrapped):
    """Keeps its last logits, with their graph."""

    last: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.last = super().forward(images)
        return self.last


class Memory(Wrapped):
    """Answers as for the nearest image that it has seen, where one is within 0.2 of each pixel; else remembers it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([self._of(image, row) for image, row in zip(images, super().forward(images), strict=True)])

    def _of(self, image: Tensor, logits: Tensor) -> Tensor:
        for known, answer in self.seen:
            if float((known - image.detach()).abs().max()) < 0.2:
                return answer + 0 * logits
        self.seen.append((image.detach().clone(), logits.detach().clone()))
        return logits


class Tired(Wrapped):
    """Turns its logits round after 50 calls."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits = super().forward(images)
        return logits if self.calls <= 50 else logits.flip(1)


class GradientAware(Wrapped):
    """Answers another way where gradients may be taken."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits * 1.01 if torch.is_grad_enabled() else logits


class BatchAware(Wrapped):
    """Answers another way to batches of the verdict's size, which check 15 asks in, too, and to images alone."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if len(images) in (1, 100) else logits.flip(1)


class Locked(Wrapped):
    """Holds a lock, which no pickle takes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.lock = threading.Lock()


class Awkward(Counting):
    """Prints a lot, and does as the first pixel says: 0.25 adds noise, 0.5 raises, 0.75 ends the process."""

    def forward(self, images: Tensor) -> Tensor:
        logits, wish = super().forward(images), float(images.detach()[0, 0, 0, 0])
        if wish == 0.5:
            raise RuntimeError("an awkward\x1b[31m image\nsecond line")
        if wish == 0.75:
            raise SystemExit(7)
        return logits + torch.randn(logits.shape, dtype=logits.dtype) if wish == 0.25 else logits
