"""The worst case against pyautoattack's own standard harness, on the same weights and images.

Both attack the rk4 network in linf. The transfer stage has no source here: the harness has none either. odebench's
seconds are those that its result states, without the checks of the model, which the harness does not make.

    python benchmarks/speed/worst_case_vs_autoattack.py --epsilon 0.1
    python benchmarks/speed/worst_case_vs_autoattack.py --effort standard --precision bf16
    python benchmarks/speed/worst_case_vs_autoattack.py --seeds 0,1,2
    python benchmarks/speed/worst_case_vs_autoattack.py --seeds 0,1,2 --without-bf16

An image at the edge falls to a lucky start: with several seeds each side attacks once with each, and the last row of
each side counts all. The last line is the harness's seconds over those of odebench in the given precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from bench import (
    attacked,
    clocked,
    finish,
    median,
    middle_ratio,
    network,
    parser,
    show,
    switched_off,
    test_images,
    turn_about,
)
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from odebench.evaluation.stage_run import StageRun
from odebench.evaluation.verdict import Judge
from odebench.model.classifier import Classifier
from odebench.result.schema import Result


def harness(
    net: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, frozen: bool, batch_size: int, seed: int
) -> Tensor:
    """The candidates of AutoAttack's standard version, its seed given."""
    with switched_off(net, learn=not frozen), torch.random.fork_rng(devices=[]):
        attack = AutoAttack(net, norm="Linf", eps=epsilon, version="standard", seed=seed, device="cpu")
        found: Tensor = attack.run_standard_evaluation(images, labels, batch_size=batch_size)[0]
    return found.detach()


def judged(net: nn.Module, images: Tensor, labels: Tensor, candidates: Tensor, epsilon: float) -> list[str]:
    """odebench's letters of the harness's candidates."""
    with switched_off(net, learn=False):
        judge = Judge(Classifier(net, n_classes=10))
        clean = judge.clean(images, labels)
        letters = judge.candidates(images, labels, candidates, norm="linf", epsilon=epsilon).letters
    return [str(found if before == "r" else before) for before, found in zip(clean, letters, strict=True)]


class Share:
    """Seconds that each attack of either side takes, from clocks around its calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: type, name: str, label: object) -> None:
        """Puts a clock around a method; `label` is the row's name, or a function of its arguments."""
        original = getattr(owner, name)

        def timed(*arguments: object, **named: object) -> object:
            started = time.perf_counter()
            try:
                return original(*arguments, **named)
            finally:
                row = label(*arguments) if callable(label) else str(label)
                self.seconds[row] = self.seconds.get(row, 0.0) + time.perf_counter() - started

        setattr(owner, name, timed)

    def print(self, title: str) -> None:
        """A table of what was spent since the last one."""
        total = sum(self.seconds.values())
        show((title, "seconds", "share"), [(row, spent, f"{spent / total:.0%}") for row, spent in self.seconds.items()])
        self.seconds.clear()


HEADER = ("side", "seconds", "times faster", "robust", "fells, harness not", "harness fells, it not")


@dataclass(frozen=True)
class Side:
    """What one side took with one seed, and the letters that it left."""

    seconds: list[float]
    letters: list[str]


def ratio(slow: Sequence[Side], fast: Sequence[Side]) -> float:
    """How many times faster, the seeds of a side together."""
    if len(slow) == 1:
        return middle_ratio(slow[0].seconds, fast[0].seconds)
    return sum(median(side.seconds) for side in slow) / sum(median(side.seconds) for side in fast)


def rows(label: str, sides: dict[str, list[Side]]) -> list[tuple[object, ...]]:
    """A row a side: its seconds, and whose images fall to it alone, summed over the seeds."""
    found: list[tuple[object, ...]] = []
    for name, own in sides.items():
        pairs = [
            pair
            for one, two in zip(own, sides["harness"], strict=True)
            for pair in zip(one.letters, two.letters, strict=True)
        ]
        robust = f"{sum(mine == 'r' for mine, _ in pairs)} of {len(pairs)}"
        only = sum(mine in "fx" and other == "r" for mine, other in pairs)
        missed = sum(other in "fx" and mine == "r" for mine, other in pairs)
        seconds = sum(median(side.seconds) for side in own)
        found.append((name + label, seconds, ratio(sides["harness"], own), robust, only, missed))
    return found


def main() -> None:
    options = parser(str(__doc__).split("\n")[0], repeats=1)
    options.add_argument("--effort", default="standard-2", help="odebench's (default %(default)s)")
    options.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="which ratio is printed last")
    options.add_argument(
        "--without-bf16",
        action="store_true",
        help="leave bf16 out: without instructions for it, it is slower than fp32",
    )
    options.add_argument("--seeds", default="0", help="attack seeds of both sides, parted by commas")
    options.add_argument("--frozen", action="store_true", help="freeze the parameters for the harness too")
    options.add_argument("--batch-size", type=int, default=250, help="of the harness (default: its own, 250)")
    options.add_argument("--chunk", type=int, default=200, help="of odebench: images attacked at once (default 200)")
    options.add_argument("--shares", action="store_true", help="run each side once more under clocks: who takes what")
    given = options.parse_args()
    precisions = ("fp32",) if given.without_bf16 else ("fp32", "bf16")
    if given.precision not in precisions:
        options.error("--precision bf16 and --without-bf16 exclude each other")
    torch.set_num_threads(given.threads)
    net = network(given.channels)
    images, labels = test_images(given.images)
    epsilon = given.epsilon

    shares: dict[str, list[float]] = {}

    def ours(precision: str, seed: int = 0) -> Result:
        result: Result
        whole, result = clocked(
            lambda: attacked(
                net,
                images,
                labels,
                attack="worst-case",
                epsilon=epsilon,
                parameters={"effort": given.effort},
                precision=precision,
                chunk=given.chunk,
                seed=seed,
            )
        )
        shares.setdefault(precision, []).append(result.cost.seconds / whole)
        return result

    def theirs(seed: int = 0) -> Tensor:
        return harness(
            net, images, labels, epsilon=epsilon, frozen=given.frozen, batch_size=given.batch_size, seed=seed
        )

    def compare(seed: int) -> dict[str, Side]:
        """Both sides with one seed, turn about, and their rows."""
        tasks: dict[str, Callable[[], Any]] = {"harness": partial(theirs, seed)}
        tasks |= {precision: partial(ours, precision, seed) for precision in precisions}
        seconds, answers = turn_about(tasks, given.repeats, cpu=given.cpu_clock)
        for precision in precisions:
            done = shares.pop(precision)
            seconds[precision] = [whole * share for whole, share in zip(seconds[precision], done, strict=True)]
        letters = {"harness": judged(net, images, labels, answers["harness"], epsilon)}
        letters |= {precision: list(answers[precision].epsilons[0].outcomes) for precision in precisions}
        for precision in precisions:
            cost = answers[precision].cost
            print(f"{precision}: {cost.seconds:.1f} s by odebench's clock, {cost.forward:.0f} forward and ", end="")
            print(f"{cost.backward:.0f} backward passes an image")
        return {name: Side(seconds[name], letters[name]) for name in tasks}

    print(f"{len(images)} images, linf {epsilon:g}, the harness {'' if given.frozen else 'not '}frozen", flush=True)
    sides: dict[str, list[Side]] = {name: [] for name in ("harness", *precisions)}
    for seed in (int(text) for text in given.seeds.split(",")):
        for name, side in compare(seed).items():
            sides[name].append(side)
        show(HEADER, rows(f" {seed}", {name: found[-1:] for name, found in sides.items()}))
    if len(sides["harness"]) > 1:
        show(HEADER, rows(" all", sides))
    ratios = {name: ratio(sides["harness"], sides[name]) for name in sides}
    if given.shares:
        share = Share()
        for owner, name in ((APGDAttack, "apgd-ce"), (APGDAttack_targeted, "apgd-t")):
            share.watch(owner, "perturb", name)
        share.watch(FABAttack_PT, "perturb", "fab-t")
        share.watch(SquareAttack, "perturb", "square")
        theirs()
        share.print("harness")
        share = Share()
        share.watch(StageRun, "run", lambda call, *rest: call.stage.name)
        for precision in precisions:
            ours(precision)
            share.print(precision)
    finish(ratios[given.precision])


if __name__ == "__main__":
    main()
