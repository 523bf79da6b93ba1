"""What a result says of the machine that it was found on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from odebench.evaluation.environment import device_name


def test_a_processor_is_named_with_the_instructions_that_torch_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some Processor 7 @ 2 GHz \nflags\t\t: sse\n")
    monkeypatch.setattr("odebench.evaluation.environment._CPU_INFO", told)
    assert device_name("cpu") == f"cpu (Some Processor 7 @ 2 GHz, {torch.backends.cpu.get_cpu_capability()})"


@pytest.mark.parametrize("told", ["processor: 0\n", None])
def test_where_the_system_does_not_name_it_its_kind_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None
) -> None:
    path = tmp_path / "cpuinfo"
    if told is not None:
        path.write_text(told)
    monkeypatch.setattr("odebench.evaluation.environment._CPU_INFO", path)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "kind9")
    assert device_name("cpu").startswith("cpu (kind9, ")
