"""A folder in which a sweep is started as a user would, and what it left there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from odebench.sweep.protocol_cells import read_grid
from odebench.sweep.task import Workspace

psutil = pytest.importorskip("psutil")

HEAD = """\
name: tiny
version: 1
summary: as little as can be
dataset: {name: digits, n: 20}
chunk: 20
recipes:
  ode: {epochs: 1}
  ode-ablated: {epochs: 1}
  ode-stemless: {epochs: 1, learning_rate: 1000, weight_decay: 1000}
sections:
"""
GOOD = """\
  - name: matched
    models: [ode, ode-ablated]
    horizons: [0.5]
    train_seeds: [0]
    threat_models: [{norm: linf, epsilons: [0.1]}]
    attacks: [{name: fgsm}, {name: noise}]
"""


@dataclass(frozen=True)
class Desk:
    """A folder to sweep in, with a cache of its own."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def scratch(self) -> Path:
        """Where all that a sweep needs for a while lies."""
        folder = self.folder / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "ODEBENCH_CACHE": str(self.folder / "cache"),
            "ODEBENCH_LEADERBOARD": str(self.folder / "leaderboard"),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.scratch),
        }

    def protocol(self, *sections: str) -> str:
        path = self.folder / f"p{len(sections)}{len(''.join(sections))}.yaml"
        path.write_text(HEAD + "".join(sections), encoding="utf-8")
        return str(path)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "odebench", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def type(self, *words: str) -> tuple[int, str, str]:
        process = self.begin(*words)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err


def desk(folder: Path) -> Desk:
    folder.mkdir(exist_ok=True)
    return Desk(folder)


def contents(results: Path) -> dict[str, Any]:
    """All results by their path, but for times and versions."""
    found = {}
    for path in sorted(results.rglob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        del result["created"], result["cost"]["seconds"], result["found"]["versions"]
        for stage in result["cost"]["stages"]:
            del stage["seconds"]
        found[str(path.relative_to(results))] = result
    return found


def place_in(folder: Path) -> Workspace:
    return Workspace(folder / "results", folder / "cache", None, "cpu", 1)


def own_grid(folder: Path, *sections: str) -> Any:
    return read_grid(desk(folder).protocol(*sections))


def workers_of(process: subprocess.Popen[str]) -> list[Any]:
    """The processes in which a sweep computes."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def wait_for(condition: Callable[[], bool], *, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)
