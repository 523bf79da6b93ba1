"""The time that `odebench run` tells beforehand against the time that the attack and the checks then take.

    python benchmarks/speed/estimates.py [--cpu-clock]

Four commands on digits: PGD and the worst case on kd-ode, the worst case on resnet. `--cpu-clock` counts processor
seconds of the one thread, for a machine that others use too. The last line is the largest factor between the two,
either way.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path

import torch

from odebench.dataset import describe_dataset, load_dataset
from odebench.evaluation.evaluate import run
from odebench.evaluation.plan import EvaluationRequest, Slice, plan
from odebench.progress import Silent

COMMANDS = (("kd-ode", "pgd", 20), ("kd-ode", "pgd", 500), ("kd-ode", "worst-case", 100), ("resnet", "worst-case", 100))
"""Model, attack, images."""


class Told(Silent):
    """Keeps the seconds that are told, and when."""

    seconds, at = 0.0, 0.0

    def say(self, message: str) -> None:
        """Takes the estimates out of a message that has some."""
        if "at most" in message:
            told = re.findall(r"about (\d+) (s|min)\b", message)
            self.seconds = sum(float(count) * (60 if unit == "min" else 1) for count, unit in told)
            self.at = time.perf_counter()


def main() -> None:
    """Prints a line a command, and the largest factor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-clock", action="store_true")
    if parser.parse_args().cpu_clock:
        time.perf_counter = time.process_time
    torch.set_num_threads(1)
    described, data = describe_dataset("digits"), load_dataset("digits")
    worst = 1.0
    for model, attack, n in COMMANDS:
        told = Told()
        asked = plan(EvaluationRequest(model, attack, images=Slice(n=n)), described, total=len(data.test))
        with tempfile.TemporaryDirectory() as folder:
            run(asked, data, results=Path(folder), progress=told)
            taken = time.perf_counter() - told.at
        worst = max(worst, told.seconds / taken, taken / told.seconds)
        print(f"{model} -a {attack} -n {n}: told {told.seconds:.0f} s, took {taken:.1f} s", flush=True)
    print(f"apart by a factor of {worst:.2f} at most")


if __name__ == "__main__":
    main()
