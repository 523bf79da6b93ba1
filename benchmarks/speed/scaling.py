"""How time and memory of an attack grow with the number of images, the steps, NFE and the channels.

PGD at an epsilon so small that next to nothing falls, on networks of random weights whose own answers are the labels:
every image is attacked to the end, so the work is known. Each point runs in a fresh process, which tells its peak
memory; times are the least of the repetitions, and the points are visited in turn.

    python benchmarks/speed/scaling.py

Fits are least squares: a straight line in images, steps and NFE, a power in channels. The last line is the larger of
two ratios, largest number of images over smallest: time an image, and peak memory. Where time is linear and memory
constant it is 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench import attacked, clocked, finish, parser, show, test_images

from odebench.model.ode import OdeNet
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import fixed_step

BASE = {"images": 200, "steps": 20, "nfe": 8, "channels": 32}
AXES = {
    "images": (100, 200, 400, 800),
    "steps": (5, 10, 20, 40),
    "nfe": (4, 8, 16, 32),
    "channels": (16, 32, 64),
}
EPSILON = 1e-4


def measured(point: dict[str, int], threads: int, *, cpu: bool) -> dict[str, float]:
    """Seconds by odebench's clock (else of the CPU, probes included) and peak memory in MiB of one point, in this
    process."""
    torch.set_num_threads(threads)
    solver = fixed_step(step=4 / point["nfe"])
    with seeded(0):
        net = OdeNet(
            image_shape=(1, 28, 28), n_classes=10, channels=point["channels"], stem="conv", horizon=1.0, solver=solver
        )
    images, _ = test_images(point["images"])
    with torch.no_grad():
        labels = torch.cat([net(part).argmax(1) for part in torch.split(images, 100)])
    parameters = {"steps": point["steps"]}
    spent, result = clocked(
        partial(
            attacked, net.eval(), images, labels, attack="pgd", epsilon=EPSILON, parameters=parameters, solver=solver
        ),
        cpu=cpu,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
    return {"seconds": spent if cpu else result.cost.seconds, "mib": peak, "backward": result.cost.backward}


def in_a_process(point: dict[str, int], threads: int, *, cpu: bool) -> dict[str, float]:
    """The same, in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--point", json.dumps(point), "--threads", str(threads)]
    command += ["--cpu-clock"] if cpu else []
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer.strip().split("\n")[-1])
    return found


def fitted(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of a straight line."""
    slope, intercept = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (slope * np.asarray(x) + intercept)
    return float(slope), float(intercept), float(1 - (rest**2).sum() / ((y - np.mean(y)) ** 2).sum())


def main() -> None:
    options: argparse.ArgumentParser = parser(str(__doc__).split("\n")[0])
    options.add_argument("--point", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.point:
        print(json.dumps(measured(json.loads(given.point), given.threads, cpu=given.cpu_clock)))
        return
    points = [BASE | {axis: value} for axis, values in AXES.items() for value in values]
    found: dict[str, list[dict[str, float]]] = {json.dumps(point): [] for point in points}
    for _ in range(given.repeats):
        for name, runs in found.items():
            runs.append(in_a_process(json.loads(name), given.threads, cpu=given.cpu_clock))
    rows, fits = [], []
    ends: dict[str, float] = {}
    for axis, values in AXES.items():
        runs = [found[json.dumps(BASE | {axis: value})] for value in values]
        seconds = [min(run["seconds"] for run in point) for point in runs]
        memory = [min(run["mib"] for run in point) for point in runs]
        images = [value if axis == "images" else BASE["images"] for value in values]
        each = [1000 * spent / n for spent, n in zip(seconds, images, strict=True)]
        rows += [
            (axis, value, spent, one, f"{peak:.0f}", f"{point[0]['backward']:.1f}")
            for value, spent, one, peak, point in zip(values, seconds, each, memory, runs, strict=True)
        ]
        power = axis == "channels"
        x, y = (np.log(values), np.log(seconds)) if power else (values, seconds)
        slope, intercept, r2 = fitted(list(x), list(y))
        law = f"seconds ~ channels^{slope:.2f}" if power else f"{1000 * slope:.2f} ms each + {intercept:.2f} s"
        fits.append((axis, law, f"{r2:.4f}"))
        if axis == "images":
            ends = {"time an image": each[-1] / each[0], "peak memory": memory[-1] / memory[0]}
    show(("axis", "value", "seconds", "ms an image", "peak MiB", "gradients an image"), rows)
    show(("axis", "law", "R^2"), fits)
    for name, value in ends.items():
        print(f"{name}, {AXES['images'][-1]} images over {AXES['images'][0]}: {value:.2f}")
    finish(max(ends.values()))


if __name__ == "__main__":
    main()
