"""The entries in the repository beyond the built-in models: what they say holds, and their weights can be had again."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from odebench.dataset import Dataset, Split, load_dataset
from odebench.evaluation.environment import device_name, versions
from odebench.leaderboard.read import read_results
from odebench.model.classifier import Classifier
from odebench.result.file import read_result, result_files
from odebench.result.schema import Result
from odebench.submission.claims import contradictions, is_about
from odebench.submission.entry import Entry, read_entry
from odebench.submission.verification.retraining import retrain

PUBLISHED = Path(__file__).parents[2] / "leaderboard"
ENTRIES = PUBLISHED / "entries"
TIS = ENTRIES / "tis-ode"
SUBMITTED = [
    path.parent for path in sorted(ENTRIES.glob("*/entry.yaml")) if read_entry(path.parent).model != path.parent.name
]


def name_of(folder: Path) -> str:
    return folder.name


def results_of(entry: Entry) -> list[Result]:
    return [read_result(path) for path in result_files(PUBLISHED / "results" / entry.id)]


def test_there_are_entries_of_both_kinds() -> None:
    assert {"rslad-kd-ode", "tis-ode", "trades-kd-ode"} <= {folder.name for folder in SUBMITTED}
    assert read_entry(TIS).contributed is not None


@pytest.mark.parametrize("folder", SUBMITTED, ids=name_of)
def test_every_claim_is_what_one_published_result_says(folder: Path) -> None:
    entry = read_entry(folder)
    results = results_of(entry)
    assert entry.claims
    for claim in entry.claims:
        (result,) = [one for one in results if is_about(claim, entry, one.evaluation)]
        assert contradictions(claim, result) == []
        (item,) = [one for one in result.epsilons if one.epsilon == claim.epsilon]
        assert claim.robust_accuracy == item.figures.robust_accuracy.value


@pytest.mark.parametrize("folder", SUBMITTED, ids=name_of)
def test_every_result_rests_on_weights_that_the_entry_lists_and_pgd_saw_enough_images(folder: Path) -> None:
    entry = read_entry(folder)
    listed = {each.train_seed: each.sha256 for each in entry.weights}
    results = results_of(entry)
    for result in results:
        seed = result.evaluation.model.arguments["train_seed"]
        assert result.found.weights_sha256 == result.evaluation.model.weights == listed[seed]  # type: ignore[index]
    assert max(one.evaluation.dataset.n for one in results if one.evaluation.attack.name == "pgd") >= 500


# --- tis-ode -----------------------------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Its training script, imported."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(TIS)
    monkeypatch.delitem(sys.modules, "model", raising=False)
    spec = importlib.util.spec_from_file_location("tis_ode_train", TIS / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delitem(sys.modules, "model")
    return module


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def few_of(digits: Dataset, n: int) -> Dataset:
    """The same with the first `n` train images."""
    assert digits.train is not None
    few = Split(digits.train.images[:n], digits.train.labels[:n])
    return Dataset("digits", digits.classes, few, digits.validation, digits.test)


def test_the_field_of_tis_ode_does_not_know_the_time(script: ModuleType, digits: Dataset) -> None:
    net = script.make(digits, 0).eval()
    state = net.stem(digits.test.images[:5])
    assert torch.equal(net.field(torch.tensor(0.0), state), net.field(torch.tensor(7.0), state))
    classifier = Classifier(net, n_classes=10)
    answer = classifier.answer(digits.test.images[:5])
    assert answer.nfe is not None
    assert answer.nfe.tolist() == [10] * 5, "Euler, in steps of 0.1"
    torch.testing.assert_close(answer.logits, script.answer(net, digits.test.images[:5])[1], rtol=1e-5, atol=1e-5)


def test_the_steady_state_term_is_the_way_that_the_state_still_goes(script: ModuleType, digits: Dataset) -> None:
    net = script.make(digits, 0).eval()
    with torch.no_grad():
        state, _ = script.answer(net, digits.test.images[:3])
        here, way = state, torch.zeros_like(state)
        for _ in range(10):
            rate = net.field(torch.tensor(0.0), here)
            here, way = here + 0.1 * rate, way + 0.1 * rate.abs()
        torch.testing.assert_close(script.unrest(net, state), way.mean(), rtol=1e-4, atol=1e-6)
    state, _ = script.answer(net, digits.test.images[:3])
    script.unrest(net, state).backward()
    assert net.conv1.weight.grad.abs().sum() > 0
    assert net.stem[0].weight.grad.abs().sum() > 0
    assert net.head[2].weight.grad is None


def test_half_of_the_images_get_noise_of_one_of_the_strengths(script: ModuleType) -> None:
    images = torch.full((2000, 1, 8, 8), 0.5)
    generator = torch.Generator().manual_seed(0)
    moved = script.noisy(images, (0.1, 0.3), generator) - images
    strengths = moved.flatten(1).std(1)
    quiet, weak = strengths == 0, (strengths - 0.1).abs() < 0.06
    assert float(quiet.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(weak.float().mean()) == pytest.approx(0.25, abs=0.05)
    assert float(strengths[~quiet & ~weak].mean()) == pytest.approx(0.3, rel=0.05)
    again = script.noisy(images, (0.1, 0.3), torch.Generator().manual_seed(0)) - images
    assert torch.equal(again, moved)


ON_FEW = """
import runpy, sys
import odebench.dataset as dataset
from odebench.dataset import Dataset, Split

whole = dataset.load_dataset("digits")
few = Split(whole.train.images[:64], whole.train.labels[:64])
dataset.load_dataset = lambda name: Dataset("digits", whole.classes, few, whole.validation, whole.test)
del sys.argv[0]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a training script, as python does, on the first 64 images."""


@pytest.mark.slow
def test_training_tis_ode_again_gives_the_same_bytes(script: ModuleType, digits: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "tis-ode"
    shutil.copytree(TIS, folder)
    before = sorted(path.name for path in folder.iterdir())
    command = [sys.executable, "-c", ON_FEW, str(folder / "train.py"), "--seed", "4", "--epochs", "1"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    written = folder / "digits-t1-seed4.safetensors"
    assert said.startswith(f"{written}: ")
    assert said.endswith("% of the validation images right\n")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, written.name]), "nothing else is left"
    torch.rand(3)
    save_file(script.train(few_of(digits, 64), 4, epochs=1).state_dict(), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == written.read_bytes()


def test_the_steady_state_term_steadies(script: ModuleType, digits: Dataset) -> None:
    small = few_of(digits, 160)
    unrests = []
    for steady in (0.0, 10.0):
        net = script.train(small, 0, epochs=2, steady=steady)
        with torch.no_grad():
            unrests.append(float(script.unrest(net, script.answer(net, digits.test.images[:100])[0])))
    assert unrests[1] < 0.8 * unrests[0]


# --- trained again -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_published_trainings_give_the_recorded_bytes_again() -> None:
    stored, _ = read_results([PUBLISHED / "study"])
    if device_name("cpu") not in {item.result.found.device for item in stored}:
        pytest.skip("another kind of processor than that of the published results: equal bytes are not promised")
    if versions().torch not in {item.result.found.versions.torch for item in stored}:
        pytest.skip("another torch than that of the published results: equal bytes are not promised")
    found = retrain("kd-ode", [PUBLISHED / "study"], dataset="digits", draw=1)
    assert [(one.why, one.equal) for one in found] == [("", True)] * 3
