"""Files of candidates: saved, read, judged; and what is said of files that are wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from candidate_factory import made
from safetensors.torch import save_file
from small_model import grey_images, judged, linear, outcomes, predicted
from torch import Tensor

import odebench
from odebench import Slice, ThreatModel
from odebench.attack.candidate_file import CandidateError, Candidates, read_candidates, write_candidates
from odebench.cli import _exit_code
from odebench.dataset import Dataset, load_dataset
from odebench.errors import UsageError, WeightError
from odebench.io.safetensors_file import METADATA_KEY
from odebench.io.tensor_file import write_tensors
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.read import read_results
from odebench.numerics.projection import ROUNDING, distance
from odebench.result.file import read_result
from odebench.result.schema import Result

MODEL = ("-m", "resnet", "--set", "epochs=1")
LINF = ThreatModel(norm="linf", epsilons=(0.1,))
WEAK_PGD = ("run", *MODEL, "-a", "pgd", "-n", "100", "--parameter", "steps=5")
PGD = (*WEAK_PGD, "--epsilon", "0.03,0.1")


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(
    tmp_path: Path, trained_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Runs a command within this process, in an empty folder, with weights that the tests share."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("ODEBENCH_CACHE", str(trained_folder / "candidate"))

    def call(*words: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["odebench", *map(str, words)])
        capsys.readouterr()
        code = _exit_code()
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def assert_one_line(said: Said, code: int, message: str) -> None:
    *told, last = said.err.splitlines()
    assert said.code == code, said.err
    assert message in last
    assert last.startswith("odebench: ")
    assert not [line for line in told if "Traceback" in line]
    assert said.out == ""


def judge(call: Call, file: Path | str, *more: str | Path) -> Result:
    said = call("judge", *MODEL, file, "-n", "100", "--json", *more)
    assert said.code == 0, said.err
    return Result.model_validate_json(said.out)


# Saved and judged again


def test_what_a_run_saves_is_judged_to_the_same_letters(call: Call, digits: Dataset) -> None:
    said = call(*PGD, "--save-candidates", "mine.safetensors", "--json")
    assert said.code == 0, said.err
    ran = Result.model_validate_json(said.out)
    found = read_candidates(Path("mine.safetensors"))
    assert (found.dataset, found.split, found.norm) == ("digits", "test", "linf")
    assert found.dataset_sha256 == digits.test.sha256
    assert found.source == f"pgd on resnet, run {ran.run_key[:16]}"
    assert found.radii == (0.03, 0.1)
    attacked = [letter in "fxr" for letter in outcomes(ran)]
    assert found.indices[found.epsilons == 0.1].tolist() == [row for row, yes in enumerate(attacked) if yes]
    length = distance(digits.test.images[found.indices], found.images, norm="linf")
    assert (length <= found.epsilons + ROUNDING).all()

    said = call("judge", *MODEL, "mine.safetensors", "-n", "100", "--credit", "A. Reviewer")
    assert said.code == 0, said.err
    assert said.out.startswith("resnet on digits (test), 100 images, candidates in linf\n")
    (path,) = Path("results/resnet").glob("digits-candidates-linf-*.json")
    assert f"result: {path}" in said.out
    result = read_result(path)
    for index in (0, 1):
        assert outcomes(result, index) == outcomes(ran, index)
        assert result.epsilons[index].figures.invalid == 0
        assert result.epsilons[index].felled_by.legend == {"aa": "candidates of A. Reviewer"}
    assert {"f", "r"} <= set(outcomes(result, 0) + outcomes(result, 1))
    parameters = result.evaluation.attack.parameters
    assert parameters["credit"] == "A. Reviewer"
    assert len(str(parameters["file_sha256"])) == 64
    assert result.found.weights_sha256 == ran.found.weights_sha256
    assert result.evaluation.model == ran.evaluation.model

    again = call("judge", *MODEL, "mine.safetensors", "-n", "100", "--credit", "A. Reviewer")
    assert "(there already; --force judges it again)" in again.out


def test_candidates_stand_at_their_places_in_the_whole_order(call: Call, digits: Dataset) -> None:
    said = call(*PGD, "--offset", "100", "--save-candidates", "mine.safetensors", "--json")
    assert said.code == 0, said.err
    found = read_candidates(Path("mine.safetensors"))
    assert 100 <= int(found.indices.min()) < int(found.indices.max()) < 200
    assert (distance(digits.test.images[found.indices], found.images, norm="linf") <= 0.1 + ROUNDING).all()
    ran, result = Result.model_validate_json(said.out), judge(call, "mine.safetensors", "--offset", "100")
    assert [outcomes(result, index) for index in (0, 1)] == [outcomes(ran, index) for index in (0, 1)]
    assert "f" in outcomes(result)


def test_a_judged_file_joins_the_union_and_lowers_the_figure(call: Call) -> None:
    weak = call("run", *MODEL, "-a", "noise", "-n", "100", "--epsilon", "0.1", "--parameter", "draws=1")
    assert weak.code == 0, weak.err
    (before,), _ = build_tables(read_results([Path("results")])[0])
    saved = call(*WEAK_PGD, "--epsilon", "0.1", "--save-candidates", "mine.safetensors", "--results", "elsewhere")
    assert saved.code == 0, saved.err
    judge(call, "mine.safetensors", "--results", "unaddressed")
    (alone,), _ = build_tables(read_results([Path("results"), Path("unaddressed")])[0])
    assert next(iter(alone.rows[0].cells.values())).robust_accuracy == (
        next(iter(before.rows[0].cells.values())).robust_accuracy
    ), "what nobody can judge anew lowers nothing"
    result = judge(call, "mine.safetensors", "--address", "https://example.org/mine.safetensors")
    (after,), problems = build_tables(read_results([Path("results")])[0])
    assert problems == []
    cells = [next(iter(table.rows[0].cells.values())) for table in (before, after)]
    assert cells[1].robust_accuracy.value == outcomes(result).count("r") / 100
    assert cells[1].robust_accuracy.value < cells[0].robust_accuracy.value - 0.05
    assert {name: reach.seeds for name, reach in cells[1].attacks.items()} == {"candidates": 1, "noise": 1}
    board = call("leaderboard", "--format", "json")
    assert (board.code, board.err) == (0, "")
    assert '"candidates"' in json.dumps(json.loads(board.out))


@pytest.mark.parametrize("attack", ["pgd", "fab-t", "square", "worst-case"])
def test_the_last_candidate_judged_is_kept_for_every_attacked_image(attack: str) -> None:
    model, images = linear(3), grey_images(24)
    labels = predicted(model, images)
    labels[:3] = (labels[:3] + 1) % 3
    kept: dict[float, dict[int, Tensor]] = {}
    short = {"fab-t": {"steps": 10}, "square": {"queries": 100}}.get(attack, {})
    result = judged(model, images, labels, n_classes=3, attack=attack, epsilons=(0.01, 0.03), keep=kept, **short)
    for index, epsilon in enumerate((0.01, 0.03)):
        letters = outcomes(result, index)
        assert letters[:3] == "mmm"
        assert sorted(kept[epsilon]) == list(range(3, 24))
        for row, candidate in kept[epsilon].items():
            assert (predicted(model, candidate[None])[0] != labels[row]) == (letters[row] == "f")
            assert distance(images[row][None], candidate[None], norm="linf") <= epsilon + ROUNDING
    assert {"f", "r"} <= set(outcomes(result, 0) + outcomes(result, 1))


def test_equal_candidates_are_equal_bytes(tmp_path: Path, digits: Dataset) -> None:
    for name in ("a", "b"):
        write_candidates(tmp_path / name, made(digits))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = read_candidates(tmp_path / "a")
    assert torch.equal(found.images, made(digits).images)
    assert (found.indices.dtype, found.epsilons.dtype) == (torch.int64, torch.float64)


# Candidates that prove less than they say


def test_candidates_out_of_budget_or_range_are_projected_and_counted(call: Call, digits: Dataset) -> None:
    images = digits.test.images[:20].clone()
    images[:5] += 0.05
    images[5:10] = 1 - images[5:10]  # far outside the ball
    images[10:15, :, 0, 0] = -0.01  # outside the range, within the ball
    write_candidates(Path("mine.safetensors"), made(digits, images=images.clamp(-0.01, None)))
    result = judge(call, "mine.safetensors")
    inside = (images[:5] <= 1).flatten(1).all(1)
    letters = outcomes(result)
    attacked = [row for row in range(20) if letters[row] in "fxr"]
    expected = [row for row in attacked if (row >= 5 and row < 15) or (row < 5 and not inside[row])]
    assert result.epsilons[0].figures.invalid == len(expected) > 5
    assert letters[20:] == letters[20:].translate({ord("f"): "r"}), "images without a candidate are not attacked"


def test_candidates_that_are_not_finite_fool_nobody(call: Call, digits: Dataset) -> None:
    images = digits.test.images[:20].clone()
    images[:10] = float("nan")
    images[10:20, :, 3, 3] = float("inf")
    write_candidates(Path("mine.safetensors"), made(digits, images=images))
    result = judge(call, "mine.safetensors")
    assert set(outcomes(result)) == {"m", "r"}
    assert result.epsilons[0].figures.invalid == outcomes(result)[:20].count("r") > 5


def test_the_largest_of_two_radii_is_judged_with_its_own_candidates(call: Call, digits: Dataset) -> None:
    far = (digits.test.images[:20] + torch.where(digits.test.images[:20] > 0.5, -0.4, 0.4)).clamp(0, 1)
    both = made(
        digits,
        images=torch.cat([digits.test.images[:20], far]),
        indices=torch.arange(20).repeat(2),
        epsilons=torch.tensor([0.01] * 20 + [0.4] * 20, dtype=torch.float64),
    )
    write_candidates(Path("mine.safetensors"), both)
    result = judge(call, "mine.safetensors")
    assert result.evaluation.threat_model == ThreatModel(norm="linf", epsilons=(0.01, 0.4))
    assert "f" not in outcomes(result, 0)
    assert "f" in outcomes(result, 1)


# Files that are wrong


def wrong(digits: Dataset) -> dict[str, tuple[Candidates, str]]:
    images = digits.test.images[:20]
    return {
        "other images": (made(digits, dataset_sha256="0" * 64), "were made for digits test images 000000000000, those"),
        "other split": (made(digits, split="validation"), "were made for digits validation images"),
        "no split": (made(digits, split="train"), "the split is test or validation, not 'train'"),
        "other data": (made(digits, dataset="digit"), "unknown data set 'digit'; did you mean 'digits'?"),
        "other shape": (
            made(digits, images=torch.rand(20, 3, 8, 8)),
            "the candidates have shape (3, 8, 8), the images (1, 8, 8)",
        ),
        "two for one": (
            made(digits, indices=torch.tensor([0, *range(19)])),
            "has two candidates for one image and epsilon; keep the stronger one",
        ),
        "unknown norm": (made(digits, norm="l1"), "the norm is linf or l2, not 'l1'"),
        "beyond": (made(digits, indices=torch.arange(20) + 490), "has a candidate for image 509 of 500"),
        "negative": (made(digits, indices=torch.arange(20) - 1), "indices must be integers of at least 0"),
        "elsewhere": (
            made(digits, indices=torch.arange(20) + 100),
            "no candidate for images 0 to 99, but for 100 to 119: choose -n and --offset",
        ),
        "broken index": (made(digits, indices=torch.arange(20.0)), "indices must be integers of at least 0"),
        "flat": (made(digits, images=images.flatten(1)), "expected candidates (m, channels, height, width)"),
        "few indices": (made(digits, indices=torch.arange(19)), "expected candidates (m, channels, height, width)"),
        "none": (made(digits, n=0), "m above 0; found (0, 1, 8, 8), (0,), (0,)"),
        "epsilon zero": (made(digits, epsilon=0.0), "epsilons must be finite numbers above 0"),
        "epsilon NaN": (made(digits, epsilon=float("nan")), "epsilons must be finite numbers above 0"),
        "epsilon of pixels": (made(digits, epsilon=8.0), "epsilon 8 is above 1"),
    }


def test_a_wrong_file_is_one_line_and_leaves_no_result(call: Call, digits: Dataset) -> None:
    for name, (candidates, message) in wrong(digits).items():
        write_candidates(Path("mine.safetensors"), candidates)
        said = call("judge", *MODEL, "mine.safetensors", "-n", "100")
        assert_one_line(said, 2 if "unknown" in message or "above 1" in message else 1, message)
        assert not list(Path("results").rglob("*.json")), name


def test_a_file_that_is_no_file_of_candidates_is_one_line(call: Call, digits: Dataset) -> None:
    write_candidates(Path("whole.safetensors"), made(digits))
    whole = Path("whole.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-7])
    Path("text.safetensors").write_text("no candidates")
    torch.save({"candidates": torch.zeros(1)}, "pickle.safetensors")
    save_file({"candidates": torch.rand(2, 1, 8, 8)}, "less.safetensors")
    plain = made(digits)
    tensors = {"candidates": plain.images, "indices": plain.indices, "epsilons": plain.epsilons}
    save_file(tensors, "bare.safetensors")
    said_of = {key: getattr(plain, key) for key in ("dataset", "split", "dataset_sha256", "norm", "source")}
    write_tensors(Path("number.safetensors"), tensors, {**said_of, "source": 3})
    write_tensors(Path("single.safetensors"), {**tensors, "epsilons": plain.epsilons.float()}, said_of)
    write_tensors(Path("bytes.safetensors"), {**tensors, "candidates": (plain.images * 255).byte()}, said_of)
    save_file(tensors, "broken.safetensors", metadata={METADATA_KEY: "{"})
    for name, message in {
        "absent": "cannot read absent.safetensors: No such file or directory",
        "cut": "cut.safetensors is not a whole safetensors file",
        "text": "text.safetensors is not a whole safetensors file",
        "pickle": "pickle.safetensors is a pickle",
        "less": "less.safetensors holds candidates; expected candidates, indices, epsilons",
        "bare": "bare.safetensors does not say its dataset, split, dataset_sha256, norm, source in its metadata",
        "number": "number.safetensors does not say its source in its metadata",
        "single": "single.safetensors: epsilons must be float64, not float32",
        "bytes": "bytes.safetensors: expected candidates (m, channels, height, width)",
        "broken": "its metadata under 'odebench' is not JSON",
    }.items():
        assert_one_line(call("judge", *MODEL, f"{name}.safetensors"), 1, message)
        with pytest.raises((CandidateError, WeightError)):
            read_candidates(Path(f"{name}.safetensors"))


def test_a_judge_is_given_a_model_and_a_file(call: Call) -> None:
    assert_one_line(call("judge", "mine.safetensors"), 2, "Missing option '--model'")
    said = call("judge", *MODEL)
    assert_one_line(said, 2, "Missing argument '")  # typer has written its name in small letters, and in large ones
    assert "'file'" in said.err.lower()


def test_candidates_are_no_attack_to_run(call: Call, digits: Dataset) -> None:
    message = "candidates are made elsewhere: judge a file of them with odebench judge"
    for more in ((), ("--parameter", "file_sha256=abc")):
        assert_one_line(call("run", *MODEL, "-a", "candidates", "-n", "100", "--epsilon", "0.1", *more), 2, message)
    with pytest.raises(UsageError, match=message):
        odebench.evaluate(linear(10), digits, attacks=["candidates"], images=Slice(n=100), threat_model=LINF)


def test_candidates_of_a_result_that_is_there_are_not_to_be_had(call: Call) -> None:
    assert call(*PGD).code == 0
    said = call(*PGD, "--save-candidates", "mine.safetensors")
    assert_one_line(said, 2, "is there already, and holds no candidates; give --force to find them again")
    assert not Path("mine.safetensors").exists()
    forced = call(*PGD, "--save-candidates", "mine.safetensors", "--force")
    assert forced.code == 0, forced.err
    assert read_candidates(Path("mine.safetensors")).radii == (0.03, 0.1)


def test_a_place_that_cannot_hold_candidates_is_said_before_any_work(call: Call) -> None:
    Path("folder").mkdir()
    Path("taken").write_text("a file")
    for place, message in (
        ("folder", "cannot write folder: it is a folder; name a file"),
        ("taken/mine.safetensors", "cannot write in taken"),
    ):
        assert_one_line(call(*PGD, "--save-candidates", place), 1, message)
    assert not list(Path("results").rglob("*.json"))


def test_a_model_that_is_never_right_has_no_candidates(tmp_path: Path, digits: Dataset) -> None:
    kept: dict[float, dict[int, Tensor]] = {}
    images = grey_images(4)
    labels = (predicted(linear(3), images) + 1) % 3
    assert outcomes(judged(linear(3), images, labels, n_classes=3, attack="fgsm", keep=kept)) == "mmmm"
    assert kept == {0.1: {}}


def test_shapes_are_compared_with_the_images(digits: Dataset) -> None:
    found = made(digits).by_epsilon(digits.test.images[:100], offset=0)
    assert torch.equal(found[0.1][:20], made(digits).images)
    assert torch.equal(found[0.1][20:], digits.test.images[20:100])
    shifted = replace(made(digits), indices=torch.arange(20) + 90).by_epsilon(digits.test.images[100:], offset=100)
    assert torch.equal(shifted[0.1][:10], made(digits).images[10:])
    assert torch.equal(shifted[0.1][10:], digits.test.images[110:])


def test_a_file_with_few_candidates_is_flagged(call: Call, digits: Dataset) -> None:
    write_candidates(Path("few.safetensors"), made(digits, n=20))
    write_candidates(Path("all.safetensors"), made(digits, n=100))
    assert "few-candidates" in judge(call, "few.safetensors").flags
    assert "few-candidates" not in judge(call, "all.safetensors").flags
