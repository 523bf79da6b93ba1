"""Are dishonest models caught, and honest ones left alone? Exits 1 where not.

    python benchmarks/controls.py [--seeds 0,1,2] [--images 200] [--epsilon 0.1] [--only "rk4;3-bit input"]

On digits: a distilled Neural ODE of each train seed, the controls and masks made of it (deceptive_models.py,
masked_models.py and strangers_masks.py), honest models, honest modules as people write them (honest_modules.py), and
three built-in models that clip their input. Each is attacked by the worst case, effort fast-2, as `odebench run
--attack worst-case` does. `--output` keeps finished rows as JSON lines, and a row that stands there is not made again.
A control must be flagged there by a check that is meant for it (check 16 is made by a diagnosis alone), if there is
one, and brought down: within 2 points (a mask 3) of its honest twin where it has the twin's function, else within 3 of
an attacker who knows the defence; one that remembers images must be flagged. No check that speaks of the model may flag
an honest one, and a clip may move the figure by a point at most, or to what an attacker reaches who knows of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from deceptive_models import Control, controls, oracle
from honest_modules import honest_modules
from masked_models import Clipped, Rectified, Unclipped, clips, masks
from strangers_masks import strangers_masks
from torch import Tensor, nn

import odebench
from odebench.dataset import Dataset, describe_dataset, load_dataset
from odebench.evaluation.plan import DEFAULT_CHUNK, Slice
from odebench.evaluation.verdict import RANDOMISED_PASSES, Judge
from odebench.model.classifier import Classifier
from odebench.model.definition import load_definition
from odebench.model.ode import OdeNet
from odebench.model.training import find_or_train
from odebench.protocol.spec import ThreatModel, adaptive
from odebench.result.schema import Check, Result

TWIN_MARGIN, MASK_MARGIN, ORACLE_MARGIN, CLIP_MARGIN = 0.02, 0.03, 0.03, 0.01
EFFORT = "fast-2"
MODEL_CHECKS = (1, 2, 3, 5, 11, 15, 16, 17, 18, 19, 20)
"""Those that speak of the model."""
MASKS = {control.name for make in (masks, strangers_masks) for control in make(nn.Identity())}  # type: ignore[arg-type]
CLIPPED = ("kd-ode", "ode", "resnet")
"""The built-in models that are put behind clips."""
RANDOMISED_IMAGES = 50
"""A randomised model costs twenty times as much, and check 2, which is meant for it, is made by every attack."""


@dataclass(frozen=True)
class Row:
    """One model: the checks that were made of it, what the worst case left standing, and against which figure."""

    name: str
    checks: tuple[Check, ...]
    robust: float
    beside: str
    reference: float | None
    faults: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of every seed and returns 0, or 1 where anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0", help="train seeds, such as 0,1,2")
    parser.add_argument("--images", type=int, default=200, help="how many test images, in chunks of 100")
    parser.add_argument("--epsilon", type=float, default=0.1, help="linf radius; at least 1/14 for the 3-bit control")
    parser.add_argument("--only", default="", help="names of rows, parted by semicolons, such as rk4;3-bit input")
    parser.add_argument("--output", type=Path, help="a file that keeps finished rows, to go on from")
    given = parser.parse_args(arguments)
    if given.epsilon < 1 / 14:
        parser.error("below 1/14 rounding to 3 bits makes a model truly harder to fool: take a larger --epsilon")
    wanted = tuple(name.strip() for name in given.only.split(";") if name.strip())
    started, missed = time.perf_counter(), 0
    for seed in (int(text) for text in given.seeds.split(",")):
        makers = rows(seed, images=given.images, epsilon=given.epsilon)
        if strange := set(wanted) - set(makers):
            parser.error(f"no row is called {'; '.join(sorted(strange))}; known: {'; '.join(makers)}")
        print_head(seed)
        kept = Kept(given.output, seed, given.images, given.epsilon)
        for name in wanted or makers:
            row = kept.row(name, makers[name])
            print_row(row)
            missed += bool(row.faults)
    print(f"{missed} missed; {time.perf_counter() - started:.0f} s")
    return 1 if missed else 0


def rows(seed: int, *, images: int, epsilon: float) -> dict[str, Callable[[], Row]]:
    """What makes each row of one train seed, by its name: the twin first, then controls, then other honest models."""
    described, data = describe_dataset("digits"), load_dataset("digits")
    bench = Bench(data, epsilon)

    def trained(name: str) -> nn.Module:
        return find_or_train(load_definition(name).recipe(described, train_seed=seed), data).module

    built = {name: trained(name) for name in CLIPPED}
    net, teacher = built["kd-ode"], built["resnet"]
    assert isinstance(net, OdeNet)
    on_teacher, on_ode = {"resnet": teacher}, {"ode": built["ode"]}
    made: dict[str, Callable[[], Row]] = {"rk4": partial(bench.honest, "rk4", net, on_teacher, images)}
    for control in (*controls(net), *masks(net), *strangers_masks(net)):
        few = RANDOMISED_IMAGES if control.randomised else images
        made[control.name] = partial(bench.control, control, on_teacher, few)
    for name, twin in built.items():
        sources = on_ode if twin is teacher else on_teacher
        for how, clipped in clips(twin).items():
            title = f"{how} ({name})"
            made[title] = partial(bench.clip, title, clipped, twin, sources, images)
    made["torchode dopri5"] = partial(
        bench.honest, "torchode dopri5", net, on_teacher, images, solver=adaptive("dopri5", rtol=1e-3)
    )
    made["adversarially trained"] = lambda: bench.honest(
        "adversarially trained", trained("kd-ode-at"), on_teacher, images
    )
    made["resnet"] = partial(bench.honest, "resnet", teacher, on_ode, images)
    for name, module in honest_modules(net, built["ode"], data).items():
        made[name] = partial(bench.honest, name, module, on_teacher, images)
    return made


@dataclass(frozen=True)
class Kept:
    """Finished rows of one train seed in a file of JSON lines, if there is one."""

    path: Path | None
    seed: int
    images: int
    epsilon: float

    def row(self, name: str, make: Callable[[], Row]) -> Row:
        """The row of this name: as it was kept, else made now and kept."""
        asked = {"seed": self.seed, "images": self.images, "epsilon": self.epsilon, "name": name}
        for line in self.path.read_text().splitlines() if self.path is not None and self.path.exists() else ():
            found = json.loads(line)
            if {key: found.get(key) for key in asked} == asked:
                checks = tuple(Check.model_validate(check) for check in found["checks"])
                return Row(name, checks, found["robust"], found["beside"], found["reference"], tuple(found["faults"]))
        started, row = time.perf_counter(), make()
        values = asdict(row) | {"checks": [check.model_dump() for check in row.checks]} | asked
        values["seconds"] = round(time.perf_counter() - started)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(values) + "\n")
        return row


@dataclass(frozen=True)
class Bench:
    """What is asked of every model."""

    data: Dataset
    epsilon: float
    twins: dict[tuple[nn.Module, int], float] = field(default_factory=dict)

    def honest(
        self,
        name: str,
        module: nn.Module,
        sources: Mapping[str, nn.Module],
        images: int,
        *,
        solver: odebench.Solver | None = None,
    ) -> Row:
        """An honest model: no check may flag it."""
        (attacked,) = self._evaluate(module, ["worst-case"], sources, images, solver=solver)
        if solver is None:
            self.twins[module, images] = robust(attacked)
        return Row(name, attacked.checks, robust(attacked), "", None, _flags(attacked))

    def clip(
        self,
        name: str,
        module: Clipped | Rectified,
        twin: nn.Module,
        sources: Mapping[str, nn.Module],
        images: int,
    ) -> Row:
        """An honest model that clips its input: it must fall like its twin, unflagged, or, where the clip makes it
        harder, as far as an attacker gets who knows of it."""
        (attacked,) = self._evaluate(module, ["worst-case"], sources, images)
        beside, reference = "twin", self._twin(twin, sources, images)
        lower = robust(attacked) < reference - CLIP_MARGIN - 1e-9
        if robust(attacked) > reference + CLIP_MARGIN + 1e-9:
            known = Control(name, module, (), Unclipped(module), preserves_function=False)
            beside, reference = "oracle", self._oracle(known, images)
        apart = lower or robust(attacked) > reference + CLIP_MARGIN + 1e-9
        faults = (*_flags(attacked), *([f"the worst case leaves {robust(attacked):.1%}"] if apart else []))
        return Row(name, attacked.checks, robust(attacked), beside, reference, faults)

    def control(self, control: Control, sources: Mapping[str, nn.Module], images: int) -> Row:
        """A control: it must be flagged by what is meant for it, and fall as far as it must."""
        attacks = ["worst-case", *(["quick-diagnosis"] if 16 in control.meant else [])]
        results = self._evaluate(control.module, attacks, sources, images)
        worst, checks = results[0], [check for result in results for check in result.checks]
        caught = [c.id for c in checks if c.status == "flag" and c.id in control.meant]
        faults = [] if caught or not control.meant else [f"missed by {' and '.join(map(str, control.meant))}"]
        margin = MASK_MARGIN if control.name in MASKS else TWIN_MARGIN
        beside, reference = "flagged", None
        if control.preserves_function:
            beside, reference, margin = "twin", self._twin(control.stand_in, sources, images), margin
        elif control.meant != (19,):
            beside, reference, margin = "oracle", self._oracle(control, images), ORACLE_MARGIN
        if reference is not None and robust(worst) > reference + margin + 1e-9:
            faults.append(f"the worst case leaves {robust(worst):.1%}")
        return Row(control.name, tuple(checks), robust(worst), beside, reference, tuple(faults))

    def _twin(self, twin: nn.Module, sources: Mapping[str, nn.Module], images: int) -> float:
        if (twin, images) not in self.twins:
            self.twins[twin, images] = robust(self._evaluate(twin, ["worst-case"], sources, images)[0])
        return self.twins[twin, images]

    def _oracle(self, control: Control, images: int) -> float:
        passes = RANDOMISED_PASSES if control.randomised else 1
        judge = Judge(Classifier(control.module, n_classes=self.data.n_classes), passes=passes)
        stand_in = control.module if control.randomised else control.stand_in
        with judge.classifier.frozen():
            part, labels = self.data.test.images[:images], self.data.test.labels[:images]
            correct = torch.from_numpy(judge.clean(part, labels) == "r")
            asked = Differentiable(stand_in, self.data.n_classes) if control.randomised else stand_in
            letters = oracle(
                judge,
                asked,
                part[correct],
                labels[correct],
                norm="linf",
                epsilon=self.epsilon,
                restarts=1 if control.randomised else 3,
                passes=passes,
            )
        return float((letters == "r").sum()) / images

    def _evaluate(
        self,
        module: nn.Module,
        attacks: Sequence[str],
        sources: Mapping[str, nn.Module],
        images: int,
        *,
        solver: odebench.Solver | None = None,
    ) -> list[Result]:
        return odebench.evaluate(
            module,
            self.data,
            attacks=attacks,
            parameters={"worst-case": {"effort": EFFORT}},
            threat_model=ThreatModel(norm="linf", epsilons=(self.epsilon,)),
            images=Slice(n=images, chunk=min(DEFAULT_CHUNK, images)),
            sources=sources,
            solver=solver,
        )


class Differentiable(nn.Module):
    """A classifier's logits as a module, whoever integrates."""

    def __init__(self, module: nn.Module, n_classes: int) -> None:
        super().__init__()
        self.classifier = Classifier(module, n_classes=n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.classifier.answer(images).logits


def _flags(result: Result) -> tuple[str, ...]:
    """What flags a model that is honest."""
    flagged = [check for check in result.checks if check.status == "flag" and check.speaks_of == "model"]
    return tuple(f"flagged by {check.id}: {check.k if check.k is not None else check.figure}" for check in flagged)


def robust(result: Result) -> float:
    """The share of images that nothing felled."""
    return result.epsilons[0].figures.robust_accuracy.value


def print_head(seed: int) -> None:
    """The numbers of the checks that speak of the model."""
    print(f"\ntrain seed {seed}\n{'':26}" + "".join(f"{number:>3}" for number in MODEL_CHECKS) + "  robust", flush=True)


def print_row(row: Row) -> None:
    """A row of the table: F a flag, . a pass, - not made; and the figure beside the one that it must come down to."""
    marks = {"flag": "F", "pass": ".", "skipped": "-"}
    by_id = {check.id: marks[check.status] for check in row.checks}
    cells = "".join(f"{by_id.get(number, '-'):>3}" for number in MODEL_CHECKS)
    reference = "" if row.reference is None else f"  {row.beside} {row.reference:.1%}"
    faults = f"  MISSED: {'; '.join(row.faults)}" if row.faults else ""
    print(f"{row.name:26}{cells}  {row.robust:6.1%}{reference}{faults}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
