"""Does the test of a claim keep its level? python benchmarks/claim_level.py [--studies 2000] [--output FILE.md]

Simulated studies: each image of each arm is right or wrong (Bernoulli), by a probit model in which images differ in how
hard they are, arms favour some images over others, and train seeds scatter. Without an effect both arms are alike, so
the true gain is exactly zero; with one it is known in closed form. Every study is a family of two claims, a clean and a
robust gain, tested by the code that answers claims (odebench.numerics.crossed, Holm, docs/protocol.md section 5).

Columns, in percent with the 95% binomial interval: p < .05 and p < .025 of one claim without effect; families without
effect in which a claim is called supported or reversed; 95% intervals that hold the true gain; robust gains of 2 and of
5 points that are found (adjusted p < .05); gains of exactly the margin that are called ruled out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from odebench.numerics.crossed import CrossedMean, crossed_mean
from odebench.numerics.statistics import holm, wilson

LEVEL = 0.05
MARGIN = 2.0
HORIZONS = 3


@dataclass(frozen=True)
class Components:
    """Standard deviations in units of the probit scale: of train seeds, of an arm's favour for single images, and of
    how hard images are. The gain is the mean over three horizons, which share all of these."""

    name: str
    seed: float
    image: float
    hardness: float = 1.0

    @property
    def scale(self) -> float:
        """The standard deviation of one answer's whole latent value."""
        return float(np.sqrt(1 + self.hardness**2 + self.seed**2 + self.image**2))

    def share(self, level: float) -> float:
        """The share of right answers in the mean over seeds and images of an arm at this latent level."""
        return NormalDist().cdf(level / self.scale)

    def level(self, share: float) -> float:
        """The latent level at which this share of answers is right."""
        return NormalDist().inv_cdf(share) * self.scale


SETTINGS = (
    Components("as on digits", 0.15, 0.2),
    Components("as on Fashion-MNIST", 0.05, 0.45, hardness=4.0),
    Components("no seeds", 0.0, 0.2),
    Components("no images", 0.15, 0.0),
    Components("neither", 0.0, 0.0),
)


def gain(
    generator: np.random.Generator, found: Components, *, seeds: int, images: int, base: float, points: float
) -> CrossedMean:
    """The tested gain of one claim, in points: the second arm is right on a share `base`, the first on more."""
    hard = generator.normal(0, found.hardness, images)
    answers = []
    for share in (base + points / 100, base):
        level = found.level(share) + hard + generator.normal(0, found.image, images)
        expected = (level + generator.normal(0, found.seed, (seeds, 1))).astype(np.float32)
        noise = generator.standard_normal((HORIZONS, seeds, images), dtype=np.float32)
        answers.append((noise + expected > 0).mean(axis=0))
    return crossed_mean(100.0 * (answers[0] - answers[1]))


def rates(found: Components, *, seeds: int, images: int, studies: int) -> Iterator[tuple[str, int]]:
    """How often each thing happened in so many studies."""
    generator = np.random.default_rng([seeds, images, round(1000 * found.seed), round(1000 * found.image)])
    counts = dict.fromkeys(("p < .05", "p < .025", "family", "covered", "power 2", "power 5", "ruled out"), 0)
    for _ in range(studies):
        clean, robust = (
            gain(generator, found, seeds=seeds, images=images, base=base, points=0.0) for base in (0.9, 0.3)
        )
        counts["p < .05"] += robust.p < LEVEL
        counts["p < .025"] += robust.p < LEVEL / 2
        counts["family"] += min(holm([clean.p, robust.p])) < LEVEL
        small, large = (
            gain(generator, found, seeds=seeds, images=images, base=0.3, points=points) for points in (MARGIN, 5.0)
        )
        low, high = large.interval()
        counts["covered"] += low <= 5.0 <= high
        counts["power 2"] += holm([clean.p, small.p])[1] < LEVEL and small.mean > 0
        counts["power 5"] += holm([clean.p, large.p])[1] < LEVEL and large.mean > 0
        counts["ruled out"] += small.interval(1 - LEVEL / 2)[1] < MARGIN
    yield from counts.items()


def _percent(count: int, studies: int) -> str:
    low, high = wilson(count, studies)
    return f"{100 * count / studies:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    """Prints the table as it comes; with --output also writes it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", default="3,5,8,18,45", help="numbers of train seeds")
    parser.add_argument("--images", default="200,1000", help="numbers of images")
    parser.add_argument("--studies", type=int, default=2000, help="simulated for each line")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = []
    for found in SETTINGS:
        for seeds in map(int, options.seeds.split(",")):
            for images in map(int, options.images.split(",")):
                counts = dict(rates(found, seeds=seeds, images=images, studies=options.studies))
                if not lines:
                    names = ["components", "seeds", "images", *counts]
                    lines += [f"| {' | '.join(names)} |", f"| --- |{' --: |' * (len(names) - 1)}"]
                    print("\n".join(lines))
                figures = [_percent(count, options.studies) for count in counts.values()]
                lines.append(f"| {' | '.join([found.name, str(seeds), str(images), *figures])} |")
                print(lines[-1], flush=True)
    if options.output is not None:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
