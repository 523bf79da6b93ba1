"""How often a claim without any effect gets an unadjusted p below .05: python benchmarks/claim_level.py

Two arms of the same mean accuracy on images of differing difficulty; train seeds scatter, and one arm favours single
images and disfavours others alike in all seeds (--interaction, in standard deviations of the difficulty). Where seeds
are many, their t test does not see that; the images drawn again do (docs/protocol.md, section 5).
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from odebench.analysis.contrasts import Array, estimate


def simulated(generator: np.random.Generator, *, images: int, seeds: int, scatter: float, interaction: float) -> Array:
    """Student minus baseline in points, without any effect: a row a seed, a column an image."""
    difficulty = generator.normal(size=images)
    favour = generator.normal(0, interaction, size=images)
    rows = []
    for _ in range(seeds):
        student, baseline = (
            difficulty + shift + generator.normal(0, scatter) + generator.normal(0, 0.5, size=images) > 0
            for shift in (favour / 2, -favour / 2)
        )
        rows.append(100.0 * (student.astype(float) - baseline))
    return np.array(rows)


def main() -> None:
    """Prints a line for each number of train seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", default="3,5,10", help="numbers of train seeds")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--scatter", type=float, default=0.2, help="of the train seeds, in the same unit")
    parser.add_argument("--interaction", type=float, default=1.0)
    parser.add_argument("--studies", type=int, default=4000, help="simulated for each number of seeds")
    options = parser.parse_args()
    for seeds in (int(text) for text in options.seeds.split(",")):
        generator = np.random.default_rng(seeds)
        found = [
            estimate(
                simulated(
                    generator,
                    images=options.images,
                    seeds=seeds,
                    scatter=options.scatter,
                    interaction=options.interaction,
                ),
                draws=1000,
            ).p
            for _ in range(options.studies)
        ]
        share = sum(p is not None and p < 0.05 for p in found) / options.studies
        error = 2 * (share * (1 - share) / options.studies) ** 0.5
        print(f"{seeds} train seeds: p < .05 in {100 * share:.1f}% of {options.studies} studies (+- {100 * error:.1f})")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
