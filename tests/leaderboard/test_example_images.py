"""Images under attack beside published results: made by the result's own attack, read strictly, removed with care."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from real_entry import write_real_entry
from result_factory import epsilon_result, make_result

from odebench.cli import _exit_code
from odebench.dataset import describe_dataset, load_dataset
from odebench.errors import ResultError
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.example_images import GAIN, MOST, examples_folder, file_names, read_examples, results_to_show
from odebench.leaderboard.read import read_results
from odebench.leaderboard.union import StoredResult
from odebench.numerics.projection import distance
from odebench.protocol.spec import adaptive
from odebench.result.file import read_result, result_json, write_result
from odebench.result.schema import Result, outcomes_digest
from odebench.submission.submitted_model import find_model
from odebench.sweep.example_images import make_examples

RUN = "run -m resnet --set epochs=1 -a pgd -n 200 --epsilon 0.02,0.05,0.3 --parameter steps=3"
Call = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def call(
    tmp_path: Path,
    trained_folder: Path,
    narrow: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("ODEBENCH_CACHE", str(trained_folder / "example"))

    def call(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["odebench", *line.split()])
        capsys.readouterr()
        code = _exit_code()
        return code, *capsys.readouterr()

    return call


def only_result() -> StoredResult:
    (stored,), _ = read_results([Path("results")])
    return stored


def problem(folder: str = "results") -> str:
    strips, (found,) = read_examples([Path(folder)], read_results([Path(folder)])[0])
    assert strips == []
    return str(found)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def test_examples_show_what_the_result_says(call: Call) -> None:
    assert call(RUN)[0] == 0
    code, out, err = call("examples results")
    assert (code, "Traceback" in err) == (0, False), err
    item = only_result()
    folder = examples_folder(item)
    assert out == f"{folder}\n"
    (strip,), problems = read_examples([Path("results")], [item])
    assert problems == []
    examples = strip.examples
    assert (examples.run_key, examples.epsilon, examples.attack) == (item.result.run_key, 0.05, "pgd")
    letters = item.result.epsilons[1].outcomes
    correct = [index for index, letter in enumerate(letters) if letter != "m"][:MOST]
    assert [pair.index for pair in examples.pairs] == correct, "the first that are classified correctly"
    assert "".join(pair.outcome for pair in examples.pairs) == "".join(letters[index] for index in correct)
    assert {pair.outcome for pair in examples.pairs} == {"f", "r"}
    split = load_dataset("digits").test
    for pair, (clean, adversarial, difference) in zip(examples.pairs, strip.images, strict=True):
        assert pair.label == str(int(split.labels[pair.index]))
        assert (pair.predicted == pair.label) == (pair.outcome == "r")
        assert (pair.felled_by is not None) == (pair.outcome == "f")
        before, after = pixels(clean), pixels(adversarial)
        assert np.array_equal(before, (255 * split.images[pair.index, 0]).round().numpy())
        assert 0 < np.abs(after - before).max() <= 255 * 0.05 + 1
        assert np.array_equal(pixels(difference), np.clip(128 + GAIN * (after - before), 0, 255))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["examples.json", *(name for pair in examples.pairs for name in file_names(pair))]
    )
    # they are no results, for no reader
    assert len(list(Path("results").rglob("*.json"))) == 2
    assert read_results([Path("results")])[1] == []

    written = {path: path.read_bytes() for path in folder.iterdir()}
    assert call("examples results") == (0, f"{folder} (there already)\n", "")
    assert call("examples results --force")[0] == 0
    assert {path: path.read_bytes() for path in folder.iterdir()} == written


@pytest.mark.usefixtures("short_stages")
def test_a_candidate_that_fell_at_a_smaller_epsilon_is_shown_where_it_fell(call: Call) -> None:
    line = "run -m resnet --set epochs=1 -a worst-case -n 100 --epsilon 0.08,0.2,0.3"
    assert call(line)[0] == 0
    item = only_result()
    first = [pair for pair in item.result.epsilons[0].outcomes[:20] if pair == "f"]
    assert first, "some fall at the smallest epsilon"
    assert call("examples results")[0] == 0
    (strip,), _ = read_examples([Path("results")], [item])
    for pair, (clean, adversarial, _) in zip(strip.examples.pairs, strip.images, strict=True):
        fell = next((one.epsilon for one in item.result.epsilons if one.outcomes[pair.index] == "f"), 0.3)
        moved = torch.from_numpy(np.abs(pixels(adversarial) - pixels(clean)) / 255)[None, None]
        assert float(distance(torch.zeros_like(moved), moved, norm="linf")) <= min(fell, 0.2) + 1 / 255


def changed(item: StoredResult, letters: str) -> StoredResult:
    """The same result with other letters at the middle epsilon."""
    parts = list(item.result.epsilons)
    parts[1] = epsilon_result(parts[1].epsilon, letters)
    return StoredResult(
        item.path,
        item.result.model_copy(update={"epsilons": tuple(parts), "outcomes_sha256": outcomes_digest(tuple(parts))}),
    )


def test_an_entry_is_shown_once_its_code_is_trusted(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write_real_entry(Path("leaderboard/entries"))
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "leaderboard")
    assert call("run --model mine -a fgsm -n 100 --epsilon 0.05,0.1 --trust")[0] == 0
    item = only_result()
    code, _, err = call("examples results")
    assert (code, err.count("\n")) == (1, 1)
    assert "mine runs" in err
    assert "give --trust" in err
    assert not examples_folder(item).exists()
    assert call("examples results --trust")[0] == 0
    (strip,), _ = read_examples([Path("results")], [item])
    assert strip.examples.run_key == item.result.run_key


def test_what_cannot_be_made_again_is_one_line(call: Call) -> None:
    assert call(RUN)[0] == 0
    item = only_result()
    data, described, model = load_dataset("digits"), describe_dataset("digits"), find_model("resnet")
    letters = item.result.epsilons[1].outcomes
    place = letters.index("f")
    turned = changed(item, letters[:place] + "r" + letters[place + 1 :])
    with pytest.raises(ResultError, match=rf"images {place} end in other letters here"):
        make_examples(turned, data, described, model=model)
    with pytest.raises(ResultError, match="no image in its first chunk that is classified correctly"):
        make_examples(changed(item, "m" * 100 + letters[100:]), data, described, model=model)
    found = item.result.found.model_copy(update={"weights_sha256": "0" * 64})
    other = StoredResult(item.path, item.result.model_copy(update={"found": found}))
    with pytest.raises(ResultError, match="was found with weights 000000000000, those at hand are"):
        make_examples(other, data, described, model=model)
    assert not examples_folder(item).exists()

    write_result(make_result({0.1: "rf" * 50}, attack="pgd", train_seed=3, model="ode"), Path("results"))
    write_result(make_result({0.1: "rf" * 50}, attack="pgd", train_seed=3, model="stranger"), Path("results"))
    code, out, err = call("examples results")
    said = [line for line in err.splitlines() if line.startswith("odebench: ")]
    assert (code, len(said), out.count("\n")) == (1, 3, 1)
    assert "two data sets called digits" in said[0]
    assert all("cannot be run again here" in line for line in said[1:])
    assert "unknown model 'stranger'" in err
    assert out == f"{examples_folder(item)}\n"


def test_damaged_or_contradictory_examples_are_named_and_left_out(call: Call) -> None:
    assert call(RUN)[0] == 0
    assert call("examples results")[0] == 0
    folder = examples_folder(only_result())
    path = folder / "examples.json"
    good = path.read_text()
    values = json.loads(good)

    def said(**changes: object) -> str:
        path.write_text(json.dumps({**values, **changes}))
        return problem()

    path.write_text(good[:-20])
    assert "holds no examples" in problem()
    assert "strange: it is unknown" in said(strange=1)
    assert "which is not there; run odebench examples" in said(run_key="0" * 64)
    first = values["pairs"][0]
    turned = {"f": "r", "r": "f"}[first["outcome"]]
    assert "contradicts its result: image" in said(pairs=[{**first, "outcome": turned}])
    assert "the result says nothing" in said(pairs=[{**first, "index": 400}])
    assert "contradicts its result" in said(epsilon=0.07)
    path.write_text(good)
    image = folder / f"{first['index']}-adversarial.png"
    image.write_bytes(b"GIF89a")
    assert "its images cannot be shown" in problem()
    Image.new("L", (9, 8)).save(image, "PNG")
    assert "the two images differ in size or kind" in problem()
    Image.new("L", (600, 8)).save(image, "PNG")
    assert "at most 512 pixels a side" in problem()
    image.write_bytes(b"0" * (1 << 20) + b"0")
    assert "is larger than 1 MiB" in problem()
    image.unlink()
    assert "cannot read" in problem()
    code, out, _ = call("examples results")
    assert (code, out) == (0, f"{folder}\n"), "what is damaged is made again"
    assert path.read_text() == good


def test_only_examples_of_no_result_are_taken_away(call: Call) -> None:
    assert call(RUN)[0] == 0
    assert call("examples results")[0] == 0
    old = examples_folder(only_result())
    foreign = Path("results/resnet/notes")
    foreign.mkdir()
    (foreign / "examples.json").write_text("{}")
    (foreign / "mine.txt").write_text("keep")
    (old / "mine.txt").write_text("keep")
    only_result().path.unlink()
    code, out, _ = call("examples results")
    assert code == 0
    assert out == f"{old} (taken away)\n"
    assert [path.name for path in old.iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in foreign.iterdir()) == ["examples.json", "mine.txt"]


def shown(*results: Result) -> list[tuple[str, float | None]]:
    stored = [StoredResult(Path(f"{index}.json"), result) for index, result in enumerate(results)]
    found = [item.result.evaluation for item in results_to_show(build_tables(stored)[0])]
    return [
        (f"{e.model.name} {e.threat_model.norm} {e.attack.name} {e.model.arguments['train_seed']}", e.horizon)
        for e in found
    ]


def test_one_result_a_model_is_shown() -> None:
    letters = {0.1: "rf" * 50}
    results = [
        make_result(letters, model="ode", horizon=horizon, train_seed=seed, attack=attack, norm=norm)
        for horizon in (0.5, 1.0, 4.0)
        for seed in (1, 0)
        for attack in ("fgsm", "worst-case")
        for norm in ("l2", "linf")
    ]
    assert shown(*results) == [("ode linf worst-case 0", 1.0)]
    more = [
        make_result(letters, model="ode", horizon=2.0, solver=adaptive()),
        make_result(letters, model="resnet", horizon=None),
        make_result(letters, model="resnet", horizon=None, split="validation"),
    ]
    assert shown(*results, *more) == [
        ("ode linf worst-case 0", 1.0),
        ("resnet linf pgd 0", None),
    ]
    assert shown(more[0]) == [("ode linf pgd 0", 2.0)], "another solver, where it is all there is"


def test_published_examples_agree_with_the_published_results() -> None:
    published = Path(__file__).parents[2] / "leaderboard" / "results"
    stored, _ = read_results([published])
    strips, problems = read_examples([published], stored)
    assert problems == []
    wanted = {item.result.run_key for item in results_to_show(build_tables(stored)[0])}
    assert {strip.examples.run_key for strip in strips} == wanted
    for strip in strips:
        result = read_result(next(item.path for item in stored if item.result.run_key == strip.examples.run_key))
        assert result_json(result)
        assert strip.folder == examples_folder(StoredResult(published / result.evaluation.model.name / "x", result))
