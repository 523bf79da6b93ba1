"""What all tests share: one thread, a cache folder of their own, nothing published, and no network."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Equal bytes are promised for equal threads. A pytest plugin may have imported torch before, so the variable, which
# the tests' own processes inherit, is not enough here.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# Published weights would stand in for the trainings that are tested; fixtures of a session see this, too.
os.environ["ODEBENCH_LEADERBOARD"] = ""


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


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "network" not in request.keywords:
        connect = socket.socket.connect

        def refuse(self: socket.socket, address: object) -> None:
            if self.family != socket.AF_UNIX and not str(address).startswith("('127.0.0.1'"):
                raise OSError(f"a test that is not marked network wants to reach {address}")
            connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for weights that several tests share."""
    return tmp_path_factory.mktemp("weights")
