"""`odebench run` with several models, attacks, horizons, seeds and data sets: every combination, once, and a table."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from real_entry import write_real_entry
from result_factory import make_result

from odebench.cli import _exit_code
from odebench.cli.run_grid import print_results
from odebench.leaderboard.figures import CARRY_OVER
from odebench.protocol.spec import fixed_step
from odebench.result.file import read_result, result_files
from odebench.sweep.scheduler import State, Watcher

SHORT = "-n 20 --chunk 20 --epsilon 0.1 --set epochs=1 --set batch_size=800"
Call = Callable[..., tuple[int, str, str]]


def conduct(client: object, state: State, watcher: Watcher) -> None:
    """What a cluster does, task by task in this process; clusters have tests of their own."""
    for key, task in state.tasks.items():
        function, *arguments = task.call
        function(*arguments)
        state.done.add(key)
        watcher.done(task, state)


@pytest.fixture
def call(
    narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    @contextmanager
    def client(*_: object, **__: object) -> Iterator[None]:
        yield

    def call(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["odebench", *line.split()])
        code = _exit_code()
        return (code, *capsys.readouterr())

    monkeypatch.setattr("odebench.sweep.scheduler._client", client)
    monkeypatch.setattr("odebench.sweep.scheduler._conduct", conduct)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    threads = torch.get_num_threads()
    yield call
    torch.set_num_threads(threads)


def evaluations(folder: str = "results") -> list[tuple[Any, ...]]:
    found = [read_result(path).evaluation for path in result_files(Path(folder))]
    return sorted(
        (one.dataset.name, one.model.name, one.horizon or 0, one.model.train_seed, one.attack.name) for one in found
    )


def untouchable(*_: object, **__: object) -> None:
    raise AssertionError("it is there")


def test_a_model_without_a_field_is_evaluated_without_the_solver_of_the_others(call: Call) -> None:
    code, _, err = call(f"run -m ode,resnet -a fgsm --solver euler --step 0.5 {SHORT}")
    assert code == 0, err
    assert "resnet has no field to integrate: evaluated once, with no solver or T" in err
    found = {
        one.model.name: one.solver for path in result_files(Path("results")) for one in [read_result(path).evaluation]
    }
    assert found == {"ode": fixed_step("euler", step=0.5), "resnet": None}


def test_an_interrupted_grid_says_what_the_same_command_does(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(client: object, state: State, watcher: Watcher) -> None:
        watcher.look(state)
        raise KeyboardInterrupt

    monkeypatch.setattr("odebench.sweep.scheduler._conduct", interrupted)
    line = f"run -m ode,resnet -a fgsm {SHORT}"
    for more, said in (("", "the same command goes on"), (" --force", "the same command begins anew; without --force")):
        code, _, err = call(line + more)
        assert code == 130
        assert f"odebench: interrupted; 0 of 2 done and kept; {said}" in err


def test_every_combination_is_an_evaluation_and_a_row(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"run -m ode,resnet -a fgsm -a noise --horizon 0.25,0.5 --seeds 0-1 {SHORT}"
    code, out, err = call(line)
    assert code == 0, err
    ode = [("digits", "ode", t, seed, attack) for t in (0.25, 0.5) for seed in (0, 1) for attack in ("fgsm", "noise")]
    resnet = [("digits", "resnet", 0, seed, attack) for seed in (0, 1) for attack in ("fgsm", "noise")]
    assert evaluations() == sorted([*ode, *resnet])
    assert sum("training" in line for line in err.splitlines()) == 6, "a training for both attacks"
    heading, columns, *rows, empty, last = out.splitlines()
    assert heading == "digits (test), linf: accuracy in %, with half the width of its 95% interval"
    assert columns.split() == ["model", "T", "seed", "attack", "n", "clean", "robust", "0.1"]
    assert (len(rows), empty, last) == (12, "", "run: 12 results written to results")
    assert re.fullmatch(r"ode +0\.25 +0 +fgsm +20 +\d+\.\d ±\d+\.\d +\d+\.\d ±\d+\.\d", rows[0])
    assert [row.split()[0] for row in rows] == ["ode", "ode", "ode", "ode", "resnet", "resnet"] * 2

    # one of them alone is the same evaluation
    code, alone, err = call(f"run -m ode -a fgsm --horizon 0.5 --seed 1 {SHORT}")
    assert (code, err) == (0, "")
    assert alone.endswith(" (there already; --force runs it again)\n")
    with monkeypatch.context() as patch:
        patch.setattr("odebench.evaluation.evaluate.run", untouchable)
        assert call(line) == (0, out.replace(last, "run: nothing to do: all 12 results are in results"), "")
        code, printed, err = call(f"{line} --json")
        assert (code, len(json.loads(printed))) == (0, 12)
        assert err == "run: nothing to do: all 12 results are in results\n"
        (lost, *_) = result_files(Path("results"))
        lost.unlink()
        patch.setenv("ODEBENCH_DEBUG", "1")
        with pytest.raises(AssertionError, match="it is there"):
            call(line)
    before = {path: path.stat().st_ino for path in result_files(Path("results"))}
    assert "1 result written to results, 11 were there" in call(line)[1]
    assert {path: path.stat().st_ino for path in before} == before
    assert "12 results written to results\n" in call(f"{line} --force")[1]
    assert all(path.stat().st_ino != inode for path, inode in before.items())


def test_weights_and_entries_are_evaluated_without_a_training(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = write_real_entry(Path("entries"))
    monkeypatch.setattr("odebench.model.training.find_or_train", untouchable)
    line = f"run -m ./{entry} -a fgsm,noise -n 20 --chunk 20 --epsilon 0.1"
    assert call(line)[0] == 2, "its code may not run unless it is trusted"
    code, _, err = call(f"{line} --trust")
    assert code == 0, err
    assert evaluations() == [("digits", "mine", 0, 0, "fgsm"), ("digits", "mine", 0, 0, "noise")]
    assert call(f"{line} --trust")[1].endswith("nothing to do: all 2 results are in results\n")


def test_weights_of_a_file_are_attacked_several_times(call: Call, tmp_path: Path) -> None:
    code, out, err = call("train -m ode --set epochs=1 --set batch_size=800 --horizon 0.25 --json")
    assert code == 0, err
    weights = shutil.copy(json.loads(out)["path"], "mine.safetensors")
    code, _, err = call(
        f"run -m ode -a fgsm,noise --horizon 0.25,0.5 -n 20 --chunk 20 --epsilon 0.1 --weights {weights}"
    )
    assert code == 0, err
    assert "training" not in err
    results = [read_result(path) for path in result_files(Path("results"))]
    assert len(results) == 4
    assert {result.found.weights_sha256 for result in results} == {json.loads(out)["sha256"]}


def test_data_sets_are_tables_of_their_own(call: Call, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for kind, low in (("dark", 0), ("light", 128)):
            folder = tmp_path / "data" / "leaves" / split / kind
            folder.mkdir(parents=True)
            for number in range(20):
                pixels = torch.randint(low, low + 128, (8, 8), dtype=torch.uint8, generator=generator)
                Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    code, out, err = call(f"run -m resnet -a fgsm -d digits,leaves --data-dir {tmp_path / 'data'} {SHORT}")
    assert code == 0, err
    assert evaluations() == [("digits", "resnet", 0, 0, "fgsm"), ("leaves", "resnet", 0, 0, "fgsm")]
    assert [line.split(" (")[0] for line in out.splitlines() if "accuracy in %" in line] == ["digits", "leaves"]


def test_the_horizon_of_a_model_that_integrates_by_itself_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, shown in (({"horizon": 2.0}, "2"), ({"horizon": True}, "0"), ({}, "0")):
        print_results([make_result({0.1: "rfrm"}, model="Net", arguments=arguments, horizon=None)])
        assert capsys.readouterr().out.splitlines()[2].split()[:2] == ["Net", shown]  # the seed follows, 0


def test_a_fall_at_a_smaller_radius_counts_at_a_larger_one(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([make_result({0.1: "rfrm", 0.2: "rrfm"})])
    out = capsys.readouterr().out
    assert out.splitlines()[2].split()[5::2] == ["75.0", "50.0", "25.0"]
    assert out.endswith(f"{CARRY_OVER}\n")
    print_results([make_result({0.1: "rfrm", 0.2: "rffm"})])
    assert CARRY_OVER not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run -m ode,ode -a fgsm", "model ode is given twice; remove one"),
        ("run -m ode -m resnet -m ode -a fgsm", "model ode is given twice"),
        ("run -m ode -a fgsm,noise,fgsm", "attack fgsm is given twice"),
        ("run -m ode -a fgsm --horizon 1,1.0", "horizon 1 is given twice"),
        ("run -m ode -a fgsm --seeds 0-2,1", "train seed 1 is given twice"),
        ("run -m ode -a fgsm --seed 0 --seeds 0", "train seed 0 is given twice"),
        ("run -m ode -a fgsm -d digits,digits", "data set digits is given twice"),
        ("run -m ode -a fgsm --epsilon 0.1 --epsilon 0.1", "epsilon 0.1 is given twice"),
        ("run -m ode -a fgsm --set epochs=1 --set epochs=2", "epochs is given twice"),
        ("run -m ode -a pgd --parameter steps=1 --parameter steps=2", "steps is given twice"),
        ("run -m ode -a transfer --source resnet --source resnet", "source resnet is given twice"),
        ("run -m ode -a fgsm --norm linf --norm l2", "--norm is given twice; it takes one value, so remove one"),
        ("run -m ode -a fgsm --json --json", "--json is given twice"),
        ("diagnose -m ode -m kd-ode", "--model is given twice"),
        ("train -m ode --seed 0 --seed 1", "--seed is given twice"),
        ("leaderboard -f md --format csv", "--format is given twice"),
        ("sweep digits --section cw --section cw", "section cw is given twice"),
        ("verify ode --chunks 0,1,0", "chunk 0 is given twice"),
        ("validate leaderboard leaderboard", "folder leaderboard is given twice"),
        ("run -m ode, -a fgsm", "a model is missing before or after a comma in 'ode,'"),
        (
            "run -m ode -a fgsm --seeds 2-0",
            "train seed '2-0' is neither an integer of at least 0 nor a range such as 0-2",
        ),
        ("run -m ode -a fgsm --seeds -1", "train seed '-1' is neither an integer of at least 0"),
        ("run -m ode -a fgsm --seeds 0-9999999", "train seed '0-9999999' is neither"),
        ("run -m ode -a fgsm --workers 2", "--workers is for several evaluations; this is one"),
        ("run -m ode,resnet -a fgsm --save-candidates c", "--save-candidates is one file: give one model"),
        ("run -m ode,resnet -a fgsm --weights w", "--weights are those of one model"),
        ("run -m resnet,ode-ablated -a fgsm --horizon 1,2", "resnet integrates nothing, so it takes no --horizon"),
        ("run -m ode,odee -a fgsm", "unknown model 'odee'; did you mean 'ode'"),
        ("run -m ode -a pgd,cw --norm linf", "cw attacks in l2, not in linf"),
        ("run -m ode -a pgd,fgsm --source resnet", "pgd crafts no candidates on other models"),
    ],
)
def test_nothing_that_is_given_is_dropped_in_silence(line: str, message: str, call: Call) -> None:
    code, out, err = call(line)
    assert (code, out) == (2, "")
    assert re.search(re.escape(message), " ".join(err.split()))
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_one_entry_by_two_names_is_said(call: Call) -> None:
    entry = write_real_entry(Path("leaderboard/entries"))
    code, _, err = call(f"run -m ./{entry},{entry}/ -a fgsm --trust -n 20 --chunk 20")
    assert code == 2
    assert "mine seed 0, fgsm in linf on digits is given twice; remove one" in err
