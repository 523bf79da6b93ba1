"""Kills workers of a sweep at random, then the sweep itself, which holds the scheduler, and compares what comes out.

    python benchmarks/kill_sweep.py [--protocol smoke] [--kills 10] [--seed 0] [--workers 2] [--folder DIR]

A first sweep runs undisturbed. Of a second one, from nothing as well, SIGKILL ends a worker `--kills` times at random
moments, then the process of the sweep once, and it is started again. Weights must be the same files byte for byte, and
results too, but for times and what they say of the environment. Exit 1 where they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil


def begin(folder: Path, protocol: str, workers: int) -> subprocess.Popen[str]:
    """A sweep in `folder`, with its cache there."""
    return subprocess.Popen(
        [sys.executable, "-m", "odebench", "sweep", protocol, "--workers", str(workers)],
        cwd=folder,
        env=os.environ | {"ODEBENCH_CACHE": str(folder / "cache"), "ODEBENCH_LEADERBOARD": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr.txt").open("a", encoding="utf-8"),
        text=True,
    )


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes in which a sweep computes."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def finish(process: subprocess.Popen[str], folder: Path) -> None:
    """Waits for the end of a sweep, which must be a good one."""
    out, _ = process.communicate()
    print(f"  {out.strip()}", flush=True)
    if process.returncode != 0:
        sys.exit(f"exit {process.returncode}; see {folder / 'stderr.txt'}")


def finished(folder: Path) -> int:
    """How many weights and results there are."""
    return len(list((folder / "results").rglob("*.json"))) + len(list((folder / "cache").rglob("*.safetensors")))


def disturb(folder: Path, protocol: str, workers: int, kills: int, total: int, chance: random.Random) -> None:
    """A sweep whose workers are killed `kills` times, and which is then killed itself and started again.

    The moments are spread over its course: a kill waits for a number of its `total` files, and up to 1.5 seconds.
    """
    process = begin(folder, protocol, workers)
    moments = sorted(chance.randrange(max(1, int(0.5 * total))) for _ in range(kills))
    for number, moment in enumerate([*moments, int(0.6 * total)]):
        time.sleep(chance.uniform(0, 1.5))
        while process.poll() is None and (finished(folder) < moment or not workers_of(process)):
            time.sleep(0.05)
        if process.poll() is not None:
            sys.exit(f"the sweep ended before kill {number + 1}: choose a longer protocol")
        last = number == kills
        victim = psutil.Process(process.pid) if last else chance.choice(workers_of(process))
        victim.send_signal(signal.SIGKILL)
        who = "the sweep, with the scheduler" if last else f"worker {victim.pid}"
        print(f"  kill {number + 1}: {who}, {finished(folder)} of {total} files there", flush=True)
    process.communicate()
    finish(begin(folder, protocol, workers), folder)


def results(folder: Path) -> dict[str, Any]:
    """All results of a sweep by their path, without times and environment."""
    found = {}
    for path in sorted((folder / "results").rglob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        del result["created"], result["cost"]["seconds"]
        for stage in result["cost"]["stages"]:
            del stage["seconds"]
        for name in ("versions", "device", "threads"):
            del result["found"][name]
        found[str(path.relative_to(folder))] = json.dumps(result)
    return found


def weights(folder: Path) -> dict[str, bytes]:
    """All weights of a sweep by their name."""
    return {path.name: path.read_bytes() for path in sorted((folder / "cache" / "weights").glob("*.safetensors"))}


def main() -> None:
    """Runs both sweeps and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", default="smoke", help="name, or path of a .yaml file")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="an empty folder for both sweeps; default: a temporary one")
    given = parser.parse_args()
    top = given.folder or Path(tempfile.mkdtemp(prefix="kill-sweep-"))
    protocol = str(Path(given.protocol).absolute()) if given.protocol.endswith(".yaml") else given.protocol
    quiet, disturbed = top / "undisturbed", top / "disturbed"
    for folder in (quiet, disturbed):
        folder.mkdir(parents=True)
    print(f"undisturbed, in {quiet}", flush=True)
    began = time.monotonic()
    finish(begin(quiet, protocol, given.workers), quiet)
    seconds = time.monotonic() - began
    print(f"  {seconds:.0f} s\ndisturbed, in {disturbed}", flush=True)
    began = time.monotonic()
    disturb(disturbed, protocol, given.workers, given.kills, finished(quiet), random.Random(given.seed))
    print(f"  {time.monotonic() - began:.0f} s")
    bad = 0
    for what, one, other in (
        ("results", results(quiet), results(disturbed)),
        ("weights", weights(quiet), weights(disturbed)),
    ):
        differing = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        bad += len(differing)
        print(f"{what}: {len(one)} and {len(other)}, {len(differing)} differ {differing[:5] or ''}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
