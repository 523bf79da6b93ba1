"""How much faster two workers of one thread are than one: the smoke protocol, enlarged, from nothing each time.

    python benchmarks/scale_sweep.py [--seeds 16] [--workers 1,2]

Smoke with that many train seeds in its first section (16: about ten minutes for one worker). Each number of workers
runs once, in order, in a folder and with a cache of its own. The last line is `ratio: X`: the time of the first number
of workers over that of the last.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

PROTOCOLS = Path(__file__).with_name("protocols")


def enlarged(seeds: int) -> str:
    """The smoke protocol with this many train seeds in its first section."""
    protocol = yaml.safe_load((PROTOCOLS / "smoke.yaml").read_text(encoding="utf-8"))
    protocol["name"] = f"smoke-{seeds}"
    protocol["sections"][0]["train_seeds"] = list(range(seeds))
    text: str = yaml.safe_dump(protocol, sort_keys=False)
    return text


def sweep(folder: Path, protocol: Path, workers: int) -> float:
    """Seconds of a sweep from nothing in an empty folder, which must succeed."""
    folder.mkdir()
    environment = os.environ | {"ODEBENCH_CACHE": str(folder / "cache"), "ODEBENCH_LEADERBOARD": ""}
    began = time.perf_counter()
    command = [sys.executable, "-m", "odebench", "sweep", str(protocol), "--workers", str(workers)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    print(f"{workers} worker{'s' * (workers > 1)}: {seconds:.0f} s; {done.stdout.strip()}", flush=True)
    if done.returncode:
        sys.exit(done.stderr)
    return seconds


def main() -> None:
    """Runs the sweeps and prints their times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--workers", default="1,2", help="numbers of workers, parted by commas")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-sweep-") as name:
        top = Path(name)
        protocol = top / f"smoke-{given.seeds}.yaml"
        protocol.write_text(enlarged(given.seeds), encoding="utf-8")
        numbers = [int(text) for text in given.workers.split(",")]
        seconds = [sweep(top / f"workers-{number}-{turn}", protocol, number) for turn, number in enumerate(numbers)]
    print(f"ratio: {seconds[0] / seconds[-1]:.2f}")


if __name__ == "__main__":
    main()
