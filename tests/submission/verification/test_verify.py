"""Verifying entries: the good ones, and every kind of bad one, refused for the right reason."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from entry_factory import write_entry
from real_entry import PLAIN, trained, write_field_entry, write_real_entry
from result_factory import epsilon_result, make_result

from odebench.attack.builtin import PGD
from odebench.cli import _exit_code
from odebench.dataset import load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.errors import ModelError, UsageError
from odebench.evaluation.evaluate import run
from odebench.evaluation.examination import examine
from odebench.evaluation.plan import EvaluationRequest, Slice, plan
from odebench.evaluation.staged_attack import StagedAttack
from odebench.io.https import RemoteError
from odebench.numerics.statistics import difference_interval
from odebench.progress import Silent
from odebench.result.file import read_result, result_files, write_result
from odebench.result.schema import Result, outcomes_digest
from odebench.submission.entry import read_entry
from odebench.submission.submitted_model import find_entry, find_model, results_beside
from odebench.submission.verification import jobs
from odebench.submission.verification.agreement import TOLERATED, differing, disagreement
from odebench.submission.verification.committed_results import COVERED, Committed, committed_results
from odebench.submission.verification.sampling import block, drawn_chunks, drawn_results, given_chunks, rows_of
from odebench.submission.verification.verify import Verification, verify_entry

pytestmark = pytest.mark.usefixtures("one_pgd_step", "inspected_once")

PUBLISHED = Path(__file__).parents[3] / "leaderboard"


@pytest.fixture(scope="module")
def committed(one_pgd_step: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the good entry: PGD on all test images, FGSM on the first hundred."""
    folder = tmp_path_factory.mktemp("committed")
    mine = write_real_entry(folder / "entries")
    for attack, n in (("pgd", 500), ("fgsm", 100)):
        planned = plan(EvaluationRequest(find_model(str(mine)), attack, images=Slice(n=n)), DIGITS, total=500)
        run(planned, load_dataset("digits"), results=folder / "results")
    return folder / "results"


@pytest.fixture
def results(committed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(committed, tmp_path / "results"))


def verified(mine: Path, results: Path, **options: Any) -> Verification:
    return verify_entry(mine, results=results, trust=True, **{"chunks": [0], **options})


def rules(found: Verification) -> list[str]:
    return [each.rule for each in found.findings]


def changed(results: Path, attack: str, **changes: Any) -> Path:
    """Changes the stored result of an attack, whole and with all its digests; returns its file."""
    (path,) = [each for each in result_files(results) if f"-{attack}-" in each.name]
    result = read_result(path)
    path.write_text(result.model_copy(update=changes).model_dump_json(), encoding="utf-8")
    read_result(path)
    return path


def with_letters(result: Result, index: int, letters: str) -> dict[str, Any]:
    """What changes in a result that has these letters at one of its epsilons."""
    epsilons = list(result.epsilons)
    written = epsilon_result(epsilons[index].epsilon, letters)
    # the legend is one for all epsilons, which reading compares
    (own,), (other,) = epsilons[index].felled_by.legend, written.felled_by.legend
    letters_by = written.felled_by.letters.replace(other, own)
    by = epsilons[index].felled_by.model_copy(update={"letters": letters_by})
    epsilons[index] = written.model_copy(update={"felled_by": by})
    return {"epsilons": tuple(epsilons), "outcomes_sha256": outcomes_digest(tuple(epsilons))}


def stored(results: Path, attack: str) -> Result:
    (path,) = [each for each in result_files(results) if f"-{attack}-" in each.name]
    return read_result(path)


def claim(robust: float, **changes: Any) -> str:
    words = {"attack": "pgd", "n": 500, **changes}
    return (
        f"\n  - {{dataset: digits, train_seed: 0, norm: linf, epsilon: 0.1, attack: {words['attack']}, "
        f"n: {words['n']}, robust_accuracy: {robust}}}"
    )


# --- good ones ---------------------------------------------------------------------------------------------------


def test_a_good_entry_is_found_again_letter_by_letter(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[str] = []

    def counted(attack: StagedAttack, *given: Any, **options: Any) -> Any:
        examined.append(attack.evaluation.attack.name)
        return examine(attack, *given, **options)

    monkeypatch.setattr("odebench.evaluation.execution.examine", counted)
    robust = stored(results, "pgd").epsilons[1].figures.robust_accuracy.value
    mine = write_real_entry(tmp_path / "entries", claims=claim(round(robust, 3)))
    found = verified(mine, results, chunks=None, draw=7)
    assert sorted(examined) == ["pgd", "quick-diagnosis"], "once for both chunks"
    assert found.findings == ()
    assert found.ok
    assert (found.draw, found.chunks) == (7, drawn_chunks(7, {"digits": 500}))
    pgd = [cell for cell in found.compared if cell.attack == "pgd"]
    assert [(cell.chunk, cell.images, cell.letters, cell.differ) for cell in pgd] == [
        (chunk, 100, 300, 0) for chunk in found.chunks["digits"]
    ]
    assert all(each.robust_found == each.robust_committed for cell in pgd for each in cell.shares)
    assert json.loads(json.dumps(found.json()))["ok"] is True
    assert sorted(path.name for path in mine.iterdir()) == ["README.md", "entry.yaml", "model.py", "one.safetensors"]


@pytest.mark.parametrize(("chunk", "size"), [(100, 100), (50, 100), (97, 97), (60, 120), (10, 100), (200, 200)])
def test_about_a_hundred_images_are_attacked_again_together(chunk: int, size: int) -> None:
    planned = plan(EvaluationRequest("kd-ode", "fgsm", images=Slice(n=500, chunk=100)), DIGITS, total=500)
    assert block(planned.evaluation.model_copy(update={"chunk": chunk})) == size


@pytest.mark.parametrize("chunk", [10, 30, 40, 60, 67, 70, 97, 100, 150, 200, 500])
def test_every_image_can_be_drawn(chunk: int) -> None:
    planned = plan(EvaluationRequest("kd-ode", "fgsm", images=Slice(n=500, chunk=chunk)), DIGITS, total=500)
    result = make_result({0.1: "r" * 500}).model_copy(update={"evaluation": planned.evaluation})
    item = Committed(Path("a.json"), result, planned)
    seen: set[int] = set()
    for number in range(5):
        rows = rows_of(item, [number], 500)
        found = {row for each in rows for row in range(each.start, each.stop)}
        assert found >= set(range(100 * number, 100 * number + 100))
        assert all(each.start % chunk == 0 and each.stop - each.start <= max(chunk, 149) for each in rows)
        seen |= found
    assert seen == set(range(500))


def test_of_an_odd_number_of_images_one_chunk_is_found_again(tmp_path: Path) -> None:
    mine = write_real_entry(tmp_path / "entries")
    planned = plan(EvaluationRequest(find_model(str(mine)), "fgsm", images=Slice(n=97)), DIGITS, total=500)
    run(planned, load_dataset("digits"), results=tmp_path / "results")
    found = verified(mine, tmp_path / "results", chunks=None, draw=7)
    inside = [(cell.chunk, cell.images, cell.differ) for cell in found.compared if cell.letters]
    assert inside == [(0, 97, 0)]
    assert {cell.images for cell in found.compared} <= {97, 15}


def test_one_data_set_alone_is_looked_at_and_no_other_must_be_there(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("ODEBENCH_DATA", str(tmp_path / "empty"))
    mine = write_real_entry(tmp_path / "entries", claims=claim(0.9).replace("digits", "mnist"))
    file = mine / "entry.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    doubled = [more for line in lines for more in (line, line.replace("digits", "mnist") if "digits" in line else None)]
    text = "\n".join(line for line in doubled if line is not None)
    elsewhere = "dataset: mnist, train_seed: 0, url: https://example.org/one"
    text = text.replace("dataset: mnist, train_seed: 0, file: one.safetensors", elsewhere)
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr("odebench.submission.weights.fetch", lambda *_, **__: pytest.fail("it fetched"))
    found = verified(mine, results, dataset="digits")
    assert found.findings == ()
    assert found.notes[0] == "digits alone was looked at, not mnist"
    assert {cell.dataset for cell in found.compared} == {"digits"}
    assert list(found.chunks) == ["digits"]
    with pytest.raises(UsageError, match="mine is not trained for svhn; its data sets: digits, mnist"):
        verified(mine, results, dataset="svhn")


def test_chunks_without_committed_letters_are_compared_by_figures(tmp_path: Path, results: Path) -> None:
    found = verified(write_real_entry(tmp_path / "entries"), results, chunks=[0, 3])
    assert found.ok
    fgsm = [cell for cell in found.compared if cell.attack == "fgsm"]
    assert [(cell.chunk, cell.letters, cell.shares[0].n) for cell in fgsm] == [(0, 300, 100), (3, 0, 100)]
    result = stored(results, "fgsm")
    changed(results, "fgsm", **with_letters(result, 2, result.epsilons[2].outcomes.replace("f", "r")))
    edited = verified(tmp_path / "entries" / "mine", results, chunks=[3])
    assert rules(edited) == ["figure"]
    assert "chunk 3 at epsilon 0.15: robust accuracy is" in edited.findings[0].message
    assert "of the 100 images looked at, and said to be" in edited.findings[0].message


def test_no_result_is_too_short_to_be_looked_at(tmp_path: Path, results: Path) -> None:
    draw = next(number for number in range(99) if 0 not in drawn_chunks(number, {"digits": 500})["digits"])
    mine = write_real_entry(tmp_path / "entries")
    found = verified(mine, results, draw=draw)
    assert found.ok
    assert next((cell.chunk, cell.letters) for cell in found.compared if cell.attack == "fgsm") == (0, 300)
    result = stored(results, "fgsm")
    changed(results, "fgsm", **with_letters(result, 2, result.epsilons[2].outcomes.replace("f", "r")))
    assert "letters" in rules(verified(mine, results, draw=draw))


def with_results(mine: Path, folder: Path) -> Path:
    """A folder with the results of an entry at its own horizon, on all test images, and at half of it."""
    data = load_dataset("digits")
    for n, horizon in ((500, None), (100, 0.5)):
        request = EvaluationRequest(find_model(str(mine)), "pgd", images=Slice(n=n), horizon=horizon)
        planned = plan(request, DIGITS, total=500)
        run(planned, data, results=folder / "results")
    return folder / "results"


def test_a_neural_ode_is_integrated_as_it_was_trained(tmp_path: Path) -> None:
    mine = write_field_entry(tmp_path / "entries")
    found = verified(mine, with_results(mine, tmp_path), chunks=[1])
    assert found.ok
    assert {cell.horizon for cell in found.compared} == {1.0}


@pytest.mark.slow
def test_full_looks_at_all_horizons_and_chunks(tmp_path: Path) -> None:
    mine = write_field_entry(tmp_path / "entries")
    whole = verified(mine, with_results(mine, tmp_path), chunks=None, full=True)
    assert whole.ok
    assert sorted((cell.horizon, cell.chunk) for cell in whole.compared) == [
        (0.5, 0),
        *((1.0, chunk) for chunk in range(5)),
    ]
    assert whole.letters == (1800, 0)


# --- models that are refused -------------------------------------------------------------------------------------

LAST = "return self.last(torch.tanh(self.first(images.flatten(1))))"


def trying(code: str) -> str:
    """The good model, which tries something beside its work and swallows what comes of it."""
    return ending("try:", f"    {code}", "except BaseException:", "    pass", "return logits")


def ending(*lines: str, before: str = "") -> str:
    """The good model's code, with other last lines of its forward pass; `logits` are the good ones."""
    asked = LAST.replace("return", "logits =")
    assert PLAIN.count(LAST) == 1
    return before + PLAIN.replace(LAST, "\n        ".join([asked, *lines]))


BAD = {
    "leans on its batchmates": (
        ending("return logits - 0.1 * logits.mean(0)"),
        ["batch"],
        "letters or logits that move between batch, permuted batch and alone",
    ),
    "uses its place in the batch": (
        ending("return logits + torch.arange(len(logits))[:, None] * torch.eye(10)[3]"),
        ["batch"],
        "attacked and judged image by image",
    ),
    "draws from a generator of its own": (
        ending(
            "return logits + 0.1 * torch.randn(logits.shape, generator=DICE)",
            before="import torch\n\nDICE = torch.Generator()\n",
        ),
        ["gradient", "unseeded"],
        "it draws random numbers that no seed reaches",
    ),
    "masks its gradient by rounding": (
        PLAIN.replace("images.flatten(1)", "((images * 16).round() / 16).flatten(1)"),
        ["gradient", "gradient"],
        "whole input gradient is zero or not finite",
    ),
    "lies about its gradient": (
        ending(
            "other = images.flatten(1)[:, :10] - images.flatten(1)[:, 10:20]",
            "return logits.detach() + other - other.detach()",
        ),
        ["gradient"],
        "a gradient of another function hides weaknesses",
    ),
    "lies about its gradient beside clean images": (
        PLAIN.replace("images.flatten(1)", "torch.where(off, images.detach(), images).flatten(1)").replace(
            "        return",
            "        grey = images.detach() * 16\n"
            "        off = ((grey - grey.round()).abs().amax((1, 2, 3), keepdim=True) > 1e-3) & torch.tensor(\n"
            "            images.dtype == torch.float32\n"
            "        )\n"
            "        return",
        ),
        ["gradient"],
        "gradient fidelity",
    ),
    "hands over probabilities": (ending("return logits.softmax(1)"), ["probabilities"], "hand over the logits"),
    "stays in training mode": (
        PLAIN + "\n    def train(self, mode=True):\n        return super().train(True)\n",
        ["training"],
        "stays in training mode after eval()",
    ),
    "keeps count in a buffer": (
        ending("self.seen += len(images)", "return logits").replace(
            "self.first =", "self.register_buffer('seen', torch.zeros(()), persistent=False)\n        self.first ="
        ),
        ["training"],
        "its parameters or buffers change during evaluation",
    ),
    "returns a wrong shape": (ending("return logits[:, :9]"), ["model"], "returned logits of shape (100, 9)"),
    "returns NaN": (
        ending("return logits * float('nan')"),
        ["failure", "gradient"],
        "100 of 100 clean images have no finite logits",
    ),
    "raises": (ending("raise KeyError('missing')"), ["model"], "Net raised KeyError: 'missing'"),
    "cannot be imported": ("import nowhere\n" + PLAIN, ["model"], "No module named 'nowhere'"),
    "does not take its weights": (
        PLAIN.replace("self.last = ", "self.more = self.last = "),
        ["model"],
        "has no tensor 'more",
    ),
    "writes outside its folder": (
        trying("open('/tmp/odebench-was-here', 'w')"),
        ["guard"],
        "model.py, line 14: refused writing /tmp/odebench-was-here",
    ),
    "starts a process": (
        trying("__import__('os').system('true')"),
        ["guard"],
        "refused starting or ending a process (os.system)",
    ),
    "opens a socket when imported": (
        "import socket\nsocket.create_connection(('127.0.0.1', 9))\n" + PLAIN,
        ["model"],
        "cannot be imported: PermissionError: odebench refuses reaching the network",
    ),
}


SLOW = ("uses its place in the batch",)
"""It is asked image by image, as the one that leans on its batchmates is."""


@pytest.mark.usefixtures("few_passes")
@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name, case in BAD.items()],
)
def test_a_bad_model_is_refused(tmp_path: Path, results: Path, code: str, expected: list[str], said: str) -> None:
    kept = "fgsm" if "batch" in expected else "pgd"  # what is asked image by image is attacked by a step
    for path in result_files(results):
        if f"-{kept}-" not in path.name:
            path.unlink()
    found = verified(write_real_entry(tmp_path / "entries", code=code), results)
    mine = {rule for rule in rules(found) if rule not in ("letters", "figure", "coverage" if kept == "fgsm" else "")}
    assert mine == set(expected), found.findings
    assert any(said in each.message for each in found.findings), found.findings
    assert not Path("/tmp/odebench-was-here").exists()


@pytest.mark.usefixtures("few_passes")
def test_what_was_found_before_a_model_failed_is_said_all_the_same(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, asked = jobs._measure, []

    def fails_later(*arguments: Any, **more: Any) -> Any:
        asked.append(1)
        if len(asked) > 1:
            raise ModelError("the model's process has not answered after 77 s")
        return true(*arguments, **more)

    monkeypatch.setattr(jobs, "_measure", fails_later)
    code = BAD["masks its gradient by rounding"][0]
    found = verified(write_real_entry(tmp_path / "entries", code=code), results)
    assert set(rules(found)) == {"gradient", "model"}
    assert "has not answered after 77 s" in "".join(one.message for one in found.findings if one.rule == "model")
    assert found.compared == ()


@pytest.mark.usefixtures("few_passes")
def test_a_randomised_model_is_admitted_and_compared_by_figures(tmp_path: Path, results: Path) -> None:
    code = ending("return logits + 0.1 * torch.randn_like(logits)")
    for path in result_files(results):
        if "-pgd-" in path.name:
            path.unlink()
    lines: list[str] = []

    class Listening(Silent):
        def say(self, line: str) -> None:
            lines.append(line)

    found = verified(write_real_entry(tmp_path / "entries", code=code), results, progress=Listening())
    assert rules(found) == ["coverage"]
    assert f"refused, whatever its attacks find: {found.findings[0]}" in lines[0], "before minutes of attacks"
    assert [(cell.letters, cell.images) for cell in found.compared] == [(0, 100)]
    assert any("is randomised: compared by figures, shown, and not ranked" in note for note in found.notes)


# --- results that are refused ------------------------------------------------------------------------------------


def test_letters_changed_by_hand_are_found_though_all_digests_fit(tmp_path: Path, results: Path) -> None:
    mine = write_real_entry(tmp_path / "entries")
    result = stored(results, "pgd")
    few = result.epsilons[1].outcomes.replace("f", "r", 2)
    changed(results, "pgd", **with_letters(result, 1, few))
    found = verified(mine, results)
    assert found.ok, "hardware may move as many"
    assert found.letters[1] == 2
    assert not [note for note in found.notes if "were found on" in note]
    elsewhere = result.found.model_copy(update={"device": "cpu (Another)"})
    changed(results, "pgd", found=elsewhere)
    (note,) = [note for note in verified(mine, results).notes if "were found on" in note]
    assert note.startswith("letters that differ were found on cpu (Another), and now on cpu (")
    changed(results, "pgd", found=result.found.model_copy(update={"device": "cpu"}))
    (note,) = [note for note in verified(mine, results).notes if "were found on" in note]
    assert note.startswith("letters that differ were found on a cpu that was not named, and now on cpu (")
    changed(results, "pgd", **with_letters(result, 1, result.epsilons[1].outcomes.replace("f", "r", 20)))
    found = verified(mine, results)
    assert rules(found) == ["letters"]
    assert "20 of 300 letters differ from those found now (chunks 0), more than 1%" in found.findings[0].message
    assert found.findings[0].file.endswith(".json")


def test_a_few_letters_that_all_flatter_are_noted(tmp_path: Path, results: Path) -> None:
    mine = write_real_entry(tmp_path / "entries")
    both, most = (stored(results, attack).epsilons for attack in ("pgd", "fgsm"))
    flattered = both[1].outcomes.replace("f", "r", 3)
    changed(results, "pgd", **with_letters(stored(results, "pgd"), 1, flattered))
    changed(results, "fgsm", **with_letters(stored(results, "fgsm"), 1, most[1].outcomes.replace("f", "r", 3)))
    found = verified(mine, results)
    assert found.ok, "1% of the letters of each may differ"
    assert (found.letters[1], sum(cell.flatter for cell in found.compared)) == (6, 6)
    assert [note for note in found.notes if note.startswith("all 6 letters that differ are robust in the committed")]
    # one of them the other way
    changed(results, "pgd", **with_letters(stored(results, "pgd"), 1, flattered.replace("r", "f", 1)))
    mixed = verified(mine, results)
    assert mixed.letters[1] > sum(cell.flatter for cell in mixed.compared)
    assert not [note for note in mixed.notes if "letters that differ" in note]


def test_claims_are_held_against_committed_results(tmp_path: Path, results: Path) -> None:
    mine = write_real_entry(tmp_path / "entries", claims=claim(0.9) + claim(0.5, attack="worst-case", n=200))
    found = verified(mine, results)
    assert sorted(set(rules(found))) == ["claim"]
    said = " ".join(each.message for each in found.findings)
    assert "robust_accuracy is claimed to be 0.9" in said
    assert "worst-case in linf at 0.1, n=200 has no committed result; run it with --results leaderboard/results" in said
    assert "robust accuracy is" in said, "against the letters found now, too"


def test_results_must_be_the_entrys_own(tmp_path: Path, results: Path) -> None:
    mine = write_real_entry(tmp_path / "entries")
    other = write_real_entry(tmp_path / "others", weights={**trained(), "last.bias": trained()["last.bias"] + 0.01})
    planned = plan(EvaluationRequest(find_model(str(other)), "fgsm", images=Slice(n=100)), DIGITS, total=500)
    _, foreign, _ = run(planned, load_dataset("digits"), results=results)
    result = stored(results, "pgd")
    renamed = result.evaluation.model_copy(
        update={"model": result.evaluation.model.model_copy(update={"name": "other"})}
    )
    odd = result.model_copy(update={"evaluation": renamed, "run_key": renamed.run_key})
    found_with = result.found.model_copy(update={"weights_sha256": "0" * 64})
    changed(results, "pgd", found=found_with)
    misplaced = write_result(odd, results)
    shutil.move(misplaced, results / "mine" / misplaced.name)
    (results / "mine" / "half.json").write_text("{", encoding="utf-8")
    found = verified(mine, results)
    assert rules(found).count("result") == 4
    said = " ".join(each.message for each in found.findings if each.rule == "result")
    for part in (
        "the entry names other weights or arguments",
        "it is of 'other', not of mine",
        "it was found with weights 000000000000",
        "is not whole JSON",
    ):
        assert part in said, said
    assert foreign.name in " ".join(each.file for each in found.findings)
    assert "coverage" in rules(found)


def test_what_the_code_imports_and_names_is_noted(tmp_path: Path, results: Path) -> None:
    mine = write_real_entry(tmp_path / "entries", code="import gc\nimport odebench\nl\u0435n = 1\n" + PLAIN)
    notes = " ".join(verified(mine, results).notes)
    for part in (
        "model.py imports gc (line 1)",
        "imports odebench (line 2), which holds data sets",
        "'l\\u0435n' (line 3)",
    ):
        assert part in notes, notes


def test_an_entry_without_results_is_asked_and_told_what_to_run(tmp_path: Path) -> None:
    mine = write_real_entry(tmp_path / "entries", code=ending("return logits[:, :9]"))
    found = verified(mine, tmp_path / "results")
    assert rules(found) == ["coverage", "model"]
    assert (
        f"run: odebench run --model mine --dataset digits --attack pgd -n {COVERED} --trust "
        "--results leaderboard/results"
    ) in found.findings[0].message


def test_what_does_not_validate_is_not_run(tmp_path: Path) -> None:
    mine = write_entry(tmp_path, ("licence: MIT", "licence: mine"))
    found = verified(mine, tmp_path / "results")
    assert (rules(found), found.compared, found.notes) == (["licence"], (), ("nothing was run",))
    assert not (mine / "trace").exists()


# --- apart, and as a command -------------------------------------------------------------------------------------


@pytest.mark.fresh_process
def test_code_runs_in_a_process_of_its_own_without_secrets(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    code = "import os\nprint('{}')\nassert 'SOME_TOKEN' not in os.environ\n" + PLAIN
    mine = write_real_entry(tmp_path / "entries", code=code)
    monkeypatch.setattr(sys, "argv", ["odebench", "verify", str(mine), "--chunks", "0", "--trust"])
    monkeypatch.delitem(sys.modules, "model", raising=False)  # another test's
    assert _exit_code() == 0
    said = capfd.readouterr().out
    assert "mine: good; 0 of 600 letters differ" in said
    assert re.search(r"^data +T +seed +attack +norm +n", said, re.MULTILINE)
    assert re.search(r"^digits .*pgd +linf +\d+", said, re.MULTILINE)
    assert max(map(len, said.splitlines())) <= 100
    assert "model" not in sys.modules


@pytest.mark.fresh_process
def test_a_process_that_ends_early_is_no_answer(tmp_path: Path, results: Path) -> None:
    mine = write_real_entry(tmp_path / "entries", code="import os\nos.write(2, b'bye')\nos._exit(3)\n" + PLAIN)
    found = verified(mine, results)
    assert rules(found) == ["model"]
    said = "the model's process ended with code 3 instead of an answer to the order to build the model"
    assert said in found.findings[0].message


@pytest.mark.fresh_process
def test_a_process_that_does_not_end_is_stopped(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = write_real_entry(tmp_path / "entries", code="while True:\n    pass\n" + PLAIN)
    words = ["verify", str(mine), "--results", str(results), "--chunks", "0", "--trust", "--time-limit", "5"]
    monkeypatch.setattr(sys, "argv", ["odebench", *words])
    assert _exit_code() == 1
    said, err = capsys.readouterr()
    said = " ".join(said.split())
    assert err == "mine: its code runs in separate processes, silently, 5 s at most\n"
    assert "digits seed 0: the model's process has not answered after 5 s and was stopped" in said
    assert "give it longer: --time-limit" in said


@pytest.mark.parametrize("seconds", ["0", "nan", "inf", "1e9", "604801"])
def test_a_time_limit_is_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    for words in (["verify", "mine"], ["check-pr", "main"]):
        monkeypatch.setattr(sys, "argv", ["odebench", *words, "--time-limit", seconds])
        assert _exit_code() == 2
        assert "--time-limit" in capsys.readouterr().err


def test_weights_elsewhere_are_fetched_for_every_seed_once_the_code_is_trusted(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = write_real_entry(tmp_path / "entries")
    text = (mine / "entry.yaml").read_text(encoding="utf-8")
    other = "{dataset: digits, train_seed: 5, url: https://example.org/five, sha256: '" + "5" * 64 + "', bytes: 9}"
    (mine / "entry.yaml").write_text(text.replace("authors", f"  - {other}\nauthors"), encoding="utf-8")
    asked = []

    def fetch(url: str, **_: Any) -> Path:
        asked.append(url)
        raise RemoteError(f"{url} cannot be fetched: gone")

    monkeypatch.setattr("odebench.submission.weights.fetch", fetch)
    with pytest.raises(UsageError, match="give --trust"):
        verify_entry(mine, results=results, trust=False)
    assert not asked
    found = verified(mine, results)
    assert (rules(found), asked, found.compared) == (["url"], ["https://example.org/five"], ())


@pytest.mark.parametrize("attacks", ["fgsm|pgd", pytest.param(".*", marks=pytest.mark.slow, id="all")])
def test_a_published_model_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], attacks: str
) -> None:
    """What is published of these attacks, as if it were all."""
    monkeypatch.setitem(PGD.parameters, "steps", 20)  # type: ignore[arg-type]
    name = "ode-ablated"
    for folder in ("entries", "results"):
        shutil.copytree(PUBLISHED / folder / name, tmp_path / folder / name)
    (tmp_path / "weights").mkdir()
    for each in read_entry(PUBLISHED / "entries" / name).weights:
        shutil.copy(PUBLISHED / "entries" / name / str(each.file), tmp_path / "weights")
    for path in result_files(tmp_path / "results"):
        if not re.match(f"digits-({attacks})-(l2|linf)-", path.name):
            path.unlink()
    claims = tmp_path / "entries" / name / "entry.yaml"
    lines = claims.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if re.search(f" attack: ({attacks}),", line) or " attack: " not in line]
    claims.write_text("".join(kept), encoding="utf-8")
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(tmp_path))
    monkeypatch.setattr(
        sys, "argv", ["odebench", "verify", "ode-ablated", "--dataset", "digits", "--chunks", "1", "--json"]
    )
    assert _exit_code() == 0
    said: Mapping[str, Any] = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["findings"], said["differ"]) == (True, [], 0)
    assert said["letters"] >= 600
    count = sum("diagnosis" not in path.name for path in result_files(tmp_path / "results" / name))
    ran = [
        re.match(r"(\d+) of (\d+) results were run again, those of drawn train seeds", note) for note in said["notes"]
    ]
    assert [(int(each[1]) < int(each[2]), int(each[2])) for each in ran if each] == [(True, count)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody"], "unknown model 'nobody'"),
        (["mine"], "read it, then give --trust"),
        (["mine", "--trust", "--chunks", "0,7"], "digits has chunks 0 to 4 of 100 test images, no chunk 7"),
        (["mine", "--trust", "--chunks", "a"], "--chunks is a list of whole numbers, such as 0,3, not 'a'"),
        (["mine", "--trust", "--chunks", "0", "--full"], "leave out --chunks"),
        (["mine", "--trust", "--device", "tpu"], "no device 'tpu' on this machine"),
    ],
)
def test_wrong_words_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    write_real_entry(tmp_path / "leaderboard" / "entries")
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(tmp_path / "leaderboard"))
    monkeypatch.setattr(sys, "argv", ["odebench", "verify", *words])
    assert _exit_code() == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_trust_the_library_runs_nothing(tmp_path: Path) -> None:
    mine = write_real_entry(tmp_path / "entries")
    with pytest.raises(UsageError, match=r"mine runs .*model\.py: read it, then give --trust"):
        verify_entry(mine, results=tmp_path, trust=False)


# --- drawing and comparing ---------------------------------------------------------------------------------------


def test_chunks_are_drawn_by_the_seed_alone() -> None:
    totals = {"digits": 500, "fashion-mnist": 10_000, "few": 60}
    assert drawn_chunks(3, totals) == drawn_chunks(3, totals)
    drawn = {drawn_chunks(seed, totals)["digits"] for seed in range(60)}
    assert len(drawn) == 10, "every pair of five chunks"
    assert drawn_chunks(3, totals)["few"] == (0,)
    assert given_chunks([3, 0, 3], {"digits": 500}) == {"digits": (0, 3)}


def test_a_result_on_all_images_is_looked_at_whatever_seed_is_drawn() -> None:
    folder = PUBLISHED / "entries" / "ode-ablated"
    data = {"digits": load_dataset("digits")}
    entry = read_entry(folder).only("digits")
    good, findings = committed_results(folder, entry, PUBLISHED / "results", data, dataset="digits")
    assert findings == []
    seeds = set()
    for draw in range(20):
        drawn = drawn_results(draw, entry, good)
        assert max(each.evaluation.dataset.n for each in drawn) == 500
        seeds |= {each.weights[2] for each in drawn if each.evaluation.dataset.n < 500}
    assert seeds == {0, 1, 2}


def test_entries_and_results_are_found_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = write_real_entry(tmp_path / "leaderboard" / "entries")
    assert results_beside(mine) == tmp_path / "leaderboard" / "results"
    assert results_beside(tmp_path / "drafts" / "mine") == Path("leaderboard") / "results"
    monkeypatch.chdir(mine.parent)
    assert find_entry("mine") == Path("mine")


def test_shares_of_two_samples_are_compared_by_newcombes_interval() -> None:
    # Newcombe 1998, table II, method 10: 56/70 - 48/80
    assert difference_interval(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference_interval(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert difference_interval(0, 0, 3, 10) == (-1.0, 1.0)
    assert disagreement("it", 0.5, 100, 0.45, 200, confidence=0.95) is None
    assert "it is 50.0% of the 100 images looked at, and said to be 80.0% of 200" in str(
        disagreement("it", 0.5, 100, 0.8, 200, confidence=0.95)
    )
    assert differing(["rf", "mf"], ["rr", "mf"]) == 1
    assert TOLERATED == 0.01
