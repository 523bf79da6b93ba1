"""What all tests share: one thread, a cache folder of their own, nothing published, and no network."""

from __future__ import annotations

import gc
import os
import pkgutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from local_process import LocalProcess

from odebench.attack import worst_case_stages
from odebench.attack.builtin import PGD
from odebench.attack.definition import AttackDefinition, Stage
from odebench.evaluation import preflight
from odebench.model.definition import load_definition
from odebench.model.registry import MODELS
from odebench.protocol.registration import ClaimCells
from odebench.result import file as result_file
from odebench.result.schema import Result
from odebench.submission.verification.jobs import Inspected, Job, inspect
from odebench.sweep.registered import registered_claims

# Equal bytes are promised for equal threads. A pytest plugin may have imported torch before, so the variable, which
# the tests' own processes inherit, is not enough here.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# How long an example takes says nothing on a busy machine.
settings.register_profile("odebench", deadline=None)
settings.load_profile("odebench")
# Published weights would stand in for the trainings that are tested; fixtures of a session see this, too.
os.environ["ODEBENCH_LEADERBOARD"] = ""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """No search for garbage while test files are imported, a third of the time of which it takes; nor among them later.

    What is imported stays: it is taken out of what the collector looks at.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """What plugins import at the end may ask the collector who holds an object."""
    gc.unfreeze()


MOST_PROCESSES = 4
"""Each holds torch and has read all test files; more of them wait for memory on a large machine."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes run the tests: one a core; this one alone where there is one core or one file is asked for."""
    asked = {Path(word.partition("::")[0]) for word in config.args}
    if len(asked) == 1 and next(iter(asked)).is_file():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES) if cores > 1 else 0


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "")
    monkeypatch.delenv("ODEBENCH_DATA", raising=False)


@pytest.fixture(autouse=True)
def _no_module_of_an_entry_left() -> Iterator[None]:
    """Entries call their module `model`; a script of one that a test runs imports it by that name."""
    yield
    sys.modules.pop("model", None)


_STARTS = {
    "odebench.evaluation.loading.ModelProcess": LocalProcess,
    "odebench.evaluation.fresh_start.ModelProcess": LocalProcess,
    # Not beside the attack, since the guard of a LocalProcess watches all threads.
    "odebench.evaluation.execution.started_early": nullcontext,
    "odebench.evaluation.evaluate.start_of_plan": lambda *_: None,
    "odebench.evaluation.sliced_evaluation.start_of_plan": lambda *_: None,
    "odebench.evaluation.evaluate.start_of_module": lambda *_: None,
}
_REAL = {name: pkgutil.resolve_name(name) for name in _STARTS}


@pytest.fixture(scope="session", autouse=True)
def _no_fresh_process() -> Iterator[None]:
    """Evaluations within the process of the tests start no other for check 19 or for an entry's code, which takes two
    seconds of a core each; tests of that, and commands in processes of their own, do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, replacement in _STARTS.items():
            patch.setattr(name, replacement)
        yield


@pytest.fixture(scope="session", autouse=True)
def _published_claims_once() -> Iterator[None]:
    """The registration of this repository is read once: the run keys of its cells take a second."""
    published = (Path(__file__).parents[1] / "leaderboard" / "claims.yaml").read_bytes()
    kept: list[list[ClaimCells]] = []

    def read(path: Path) -> list[ClaimCells]:
        if path.read_bytes() != published:
            return registered_claims(path)
        if not kept:
            kept.append(registered_claims(path))
        return [*kept[0]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("odebench.sweep.registered.registered_claims", read)
        yield


@pytest.fixture(scope="session", autouse=True)
def _results_parsed_once() -> Iterator[None]:
    """A text is parsed once: many tests read all results of this repository."""
    parse = result_file.parse_result
    kept: dict[str, Result] = {}

    def parsed(text: str, path: Path) -> Result:
        if text not in kept:
            kept[text] = parse(text, path)
        return kept[text]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_file, "parse_result", parsed)
        yield


@pytest.fixture(autouse=True)
def _fresh_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "fresh_process" in request.keywords:
        for name, real in _REAL.items():
            monkeypatch.setattr(name, real)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "network" not in request.keywords:
        connect = socket.socket.connect

        def refuse(self: socket.socket, address: object) -> None:
            if self.family != socket.AF_UNIX and not str(address).startswith("('127.0.0.1'"):
                raise OSError(f"a test that is not marked network wants to reach {address}")
            connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in models of 8x8 images with four channels: the same code, trained and asked in less time."""
    for name in MODELS.entries():
        settings = load_definition(name).settings
        narrower = {"channels": 4, "widths": [4, 8]}
        if 8 in settings:
            given = {key: narrower.get(key, value) for key, value in settings[8].arguments.items()}
            monkeypatch.setitem(settings, 8, replace(settings[8], arguments=given))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def few_pgd_steps() -> Iterator[None]:
    """PGD takes three steps by default: models that are judged image by image answer once per image and step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PGD.parameters, "steps", 3)  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="module")
def one_pgd_step() -> Iterator[None]:
    """PGD takes one step by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PGD.parameters, "steps", 1)  # type: ignore[arg-type]
        yield


_INSPECTED: dict[str, list[Inspected]] = {}


@pytest.fixture
def inspected_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifications within the process of the tests ask the same model the same questions once: tests of committed
    letters and claims differ in what its answers are compared with."""

    def remembered(jobs: Sequence[Job], data: Any, **options: Any) -> list[Inspected]:
        asked = repr(
            [
                (
                    [
                        path.read_bytes()
                        for path in sorted(getattr(job.diagnosis.origin, "folder", Path()).glob("*.py"))
                    ],
                    job.diagnosis.origin.key,
                    job.diagnosis.evaluation.run_key,
                    [(each.plan.evaluation.run_key, each.rows, each.threads) for each in job.attacks],
                )
                for job in jobs
            ]
            + [{name: one.test.sha256 for name, one in data.items()}, preflight.RANDOMISED_PASSES]
            + [(name, value) for name, value in options.items() if name != "progress"]
        )
        if asked not in _INSPECTED:
            _INSPECTED[asked] = inspect(jobs, data, **options)
        return _INSPECTED[asked]

    if "fresh_process" not in request.keywords:
        monkeypatch.setattr("odebench.submission.verification.verify.inspect", remembered)


@pytest.fixture
def few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Randomised models are asked in three passes: with twenty, an image asked alone costs seconds."""
    monkeypatch.setattr("odebench.evaluation.preflight.RANDOMISED_PASSES", 3)


@pytest.fixture
def short_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages of the worst case, by the same names, with a tenth of their work each."""
    stage = worst_case_stages._stage

    def short(definition: AttackDefinition, **given: int) -> Stage:
        parameters = {name: max(1, number // 10) for name, number in given.items()}
        return replace(stage(definition, **given), parameters=definition.complete(parameters))

    monkeypatch.setattr(worst_case_stages, "_stage", short)


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for weights that several tests share."""
    return tmp_path_factory.mktemp("weights")
