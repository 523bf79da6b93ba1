"""The pipeline on another device: tests/on_device.py, in a process of its own; on a real card with `-m gpu`.

torch's autograd counts the devices at its first backward pass, so the emulated one must be there before any.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
UNAVAILABLE = "torch before 2.10 takes no device written in Python"
"""What tests/on_device.py says where it cannot emulate one."""


@pytest.mark.parametrize(
    ("which", "fewest"),
    [
        ("not gpu and not slow", 29),
        pytest.param("not gpu", 42, marks=pytest.mark.slow),
        pytest.param("gpu", 39, marks=pytest.mark.gpu),
    ],
)
def test_the_pipeline_does_the_same_on_another_device(which: str, fewest: int) -> None:
    asked = ["-q", "-n", "0", "-p", "no:cacheprovider", "-rs", "-m", which]
    command = [sys.executable, "-m", "pytest", *asked, str(HERE / "on_device.py")]
    alone = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=HERE.parent, env=alone, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    for reason in (UNAVAILABLE, "no card"):
        if f": {reason}" in done.stdout:
            pytest.skip(reason)
    counted = re.search(r"(\d+) passed(?!.*(failed|skipped))", done.stdout)
    assert counted is not None, done.stdout[-2000:]
    assert int(counted[1]) >= fewest
