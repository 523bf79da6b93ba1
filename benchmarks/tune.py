"""How recipes are chosen: the same number of trials for each model, judged on validation images alone.

    python benchmarks/tune.py [--dataset digits] [--models ode,kd-ode] [--horizon 1] [--seeds 0,1,2] [--data-dir DIR]
                              [--device cpu] [--set batch_size=128,temperature=4]
    python benchmarks/tune.py --dataset fashion-mnist --seeds 0 --rates 0.004,0.01 --epochs 3 --more 2

Twelve trials a model, unless --rates, --epochs and --more say fewer. Eight cross the learning rate with the epochs.
Four start from the best of these: a plain model tries two batch sizes and two weight decays, a distilled one
temperature and weight of its loss. Each trial is the mean accuracy over the train seeds on the validation images.
Prints Markdown; the test images are never looked at. Weights stay in the cache folder, so a second start goes on where
the first ended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from pydantic import JsonValue

from odebench.dataset import Dataset, Split, describe_dataset, load_dataset
from odebench.dataset.definition import DatasetDefinition
from odebench.errors import ModelError, OdebenchError, UsageError
from odebench.evaluation.environment import usable_device
from odebench.model.accuracy import accuracy
from odebench.model.definition import load_definition
from odebench.model.recipe_changes import changeable
from odebench.model.training import find_or_train

Changes = Mapping[str, JsonValue]


@dataclass(frozen=True)
class Trial:
    """What was changed in a recipe, and the accuracy of each train seed; none where the training diverged."""

    changes: Changes
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the train seeds; 0 where one of them diverged."""
        return sum(self.accuracies) / len(self.accuracies) if self.accuracies else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the trials of every model and returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--models", default="ode,kd-ode", help="parted by commas")
    parser.add_argument("--horizon", type=float, default=1.0)
    parser.add_argument("--seeds", default="0,1,2", help="train seeds")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--rates", default="", help="learning rates; default: .1 .3 1 3 times the recipe's")
    parser.add_argument("--epochs", default="", help="epochs; default: 1 and 2 times the recipe's")
    parser.add_argument("--more", type=int, default=4, choices=range(5), help="trials from the best of these on")
    parser.add_argument(
        "--set", default="", help="what all trials start from instead of the recipe: batch_size=128,..."
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    given = parser.parse_args(arguments)
    try:
        device = usable_device(given.device)
        data = load_dataset(given.dataset, data_dir=given.data_dir)
        definition = describe_dataset(given.dataset, data_dir=given.data_dir)
        for name in given.models.split(","):
            load_definition(name)
    except OdebenchError as error:
        parser.error(str(error))
    if data.validation is None:
        parser.error(f"{given.dataset} has no validation images")
    names = given.models.split(",")
    try:
        start = _start(given.set, names, definition)
    except UsageError as error:
        parser.error(str(error))
    seeds = [int(text) for text in given.seeds.split(",")]
    for name in names:
        rates = [float(text) for text in given.rates.split(",") if text]
        epochs = [int(text) for text in given.epochs.split(",") if text]
        bench = Bench(
            name, definition, data, data.validation, given.horizon, seeds, rates, epochs, given.more, device, start
        )
        print_trials(name, list(bench.trials()), len(data.validation), len(seeds))
    return 0


def _start(text: str, names: Sequence[str], definition: DatasetDefinition) -> dict[str, JsonValue]:
    """The changes that --set asks for. Raises UsageError for one that is no number of any of the models' recipes."""
    held = {
        key: value
        for name in names
        for key, value in changeable(load_definition(name).recipe(definition)).items()
        if isinstance(value, (int, float))
    }
    start: dict[str, JsonValue] = {}
    for pair in filter(None, text.split(",")):
        name, _, value = pair.partition("=")
        if name not in held:
            raise UsageError(f"--set {name}: no recipe here has that number; choose from {', '.join(sorted(held))}")
        try:
            start[name] = type(held[name])(value)
        except ValueError:
            raise UsageError(f"--set {pair}: write it like {name}={held[name]}") from None
    return start


@dataclass(frozen=True)
class Bench:
    """One model on one data set."""

    name: str
    definition: DatasetDefinition
    data: Dataset
    validation: Split
    horizon: float
    seeds: Sequence[int]
    rates: Sequence[float] = ()
    epochs: Sequence[int] = ()
    more: int = 4
    device: str = "cpu"
    start: Changes = field(default_factory=dict)

    def trials(self) -> Iterator[Trial]:
        """Twelve trials, the default recipe among the first eight, or those that were asked for."""
        default = self.recipe({}, self.seeds[0])
        rate, epochs = default.schedule.learning_rate, default.schedule.epochs
        rates = self.rates or [rate * factor for factor in (0.1, 0.3, 1.0, 3.0)]
        counts = self.epochs or (epochs, 2 * epochs)
        first = [self.trial({"learning_rate": one, "epochs": count}) for one, count in product(rates, counts)]
        yield from first
        best = max(first, key=lambda trial: trial.mean).changes
        if default.loss.kind == "distillation":
            more: list[Changes] = [
                {"temperature": t, "weight": a} for t, a in ((2.0, 0.9), (4.0, 0.5), (8.0, 0.9), (2.0, 0.5))
            ]
        else:
            batch, decay = default.schedule.batch_size, default.schedule.weight_decay
            more = [
                {"batch_size": batch // 2},
                {"weight_decay": 10 * decay},
                {"batch_size": 2 * batch},
                {"weight_decay": 0.0},
            ]
        for changes in more[: self.more]:
            yield self.trial({**best, **changes})

    def recipe(self, changes: Changes, seed: int):
        """The recipe of the model with these changes, made after those that all trials start from and that it takes."""
        model = load_definition(self.name)
        horizon = self.horizon if model.has_horizon else None
        held = changeable(model.recipe(self.definition, horizon=horizon, train_seed=seed))
        start = {name: value for name, value in self.start.items() if held.get(name) is not None}
        return model.recipe(self.definition, horizon=horizon, train_seed=seed, changes={**start, **changes})

    def trial(self, changes: Changes) -> Trial:
        """Trains every seed and judges it on the validation images."""
        found = []
        for seed in self.seeds:
            try:
                trained = find_or_train(self.recipe(changes, seed), self.data, device=self.device)
            except ModelError as error:
                print(f"{self.name}, {changes}: {error}", file=sys.stderr)
                return Trial(changes, ())
            found.append(accuracy(trained.module, self.validation, device=self.device))
        print(f"{self.name}, {changes}: {100 * sum(found) / len(found):.2f}%", file=sys.stderr, flush=True)
        return Trial(changes, tuple(found))


def print_trials(name: str, trials: Sequence[Trial], images: int, seeds: int) -> None:
    """A Markdown table, best first."""
    print(f"\n{name}: {len(trials)} trials, {images} validation images, {seeds} train seeds\n")
    print("| accuracy % | lowest to highest seed | recipe |\n| ---------: | ---------------------: | :----- |")
    for trial in sorted(trials, key=lambda trial: -trial.mean):
        changes = ", ".join(f"{key}={value:g}" for key, value in trial.changes.items())
        if trial.accuracies:
            low, high = 100 * min(trial.accuracies), 100 * max(trial.accuracies)
            print(f"| {100 * trial.mean:.2f} | {low:.1f} to {high:.1f} | {changes} |")
        else:
            print(f"| diverged | | {changes} |")


if __name__ == "__main__":
    sys.exit(main())
