"""Small images are computed on one thread, unless the user says how many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from odebench.cli.console import ScreenProgress
from odebench.cli.evaluation import Evaluator
from odebench.cli.run import train
from odebench.evaluation.environment import one_thread_if_small
from odebench.evaluation.plan import EvaluationRequest


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("shape", "threads"), [((1, 8, 8), 1), ((1, 28, 28), 1), ((3, 32, 32), 2), ((3, 28, 28), 2)])
def test_small_images_get_one_thread(shape: tuple[int, int, int], threads: int) -> None:
    one_thread_if_small(shape)

    assert torch.get_num_threads() == threads


def test_a_users_number_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    one_thread_if_small((1, 8, 8))

    assert torch.get_num_threads() == 2


class ReachedError(Exception):
    """Stops a command where it would compute."""


def stopped(*_: object, **__: object) -> None:
    raise ReachedError(torch.get_num_threads())


def test_the_commands_train_and_run_compute_small_images_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("odebench.model.training.find_or_train", stopped)
    monkeypatch.setattr("odebench.evaluation.evaluate.run", stopped)
    evaluator = Evaluator("digits", None, "cpu", tmp_path, force=False, progress=ScreenProgress())

    with pytest.raises(ReachedError, match=r"^1$"):
        train("ode")
    torch.set_num_threads(2)
    with pytest.raises(ReachedError, match=r"^1$"):
        evaluator.run(EvaluationRequest("ode", "pgd"), evaluator.describe())
