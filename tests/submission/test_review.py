"""Pull requests to the leaderboard: a good one passes, each bad one is refused for what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from board_repository import Clone, needs_git, new_clone
from entry_factory import change_entry
from real_entry import PLAIN, write_real_entry
from result_factory import hexadecimal, make_result

from odebench.attack.candidate_file import Candidates, write_candidates
from odebench.cli import _exit_code
from odebench.dataset import describe_dataset, load_dataset
from odebench.errors import DatasetError
from odebench.evaluation.evaluate import run as run_plan
from odebench.evaluation.plan import EvaluationRequest, plan
from odebench.result.file import read_result, result_json, result_path, write_result
from odebench.result.schema import CandidatesFile, Result, letter_figures, outcomes_digest
from odebench.submission.submitted_model import find_model
from odebench.submission.verification.sampling import drawn_chunks

pytestmark = [needs_git, pytest.mark.usefixtures("one_pgd_step", "inspected_once")]

ENTRIES, RESULTS = "leaderboard/entries", "leaderboard/results"
LETTERS = {0.05: "r" * 80 + "f" * 18 + "mm", 0.1: "r" * 50 + "f" * 48 + "mm"}
TRACE = 'from pathlib import Path\n\nPath("{trace}").write_text("imported")\n'


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The repository that pull requests go to: an entry of somebody else, results of it and of a registered model."""
    clone = new_clone(tmp_path_factory.mktemp("board") / "main")
    write_real_entry(clone.folder / ENTRIES, name="theirs")
    for result in (their_result(), on_digits(make_result(LETTERS, model="ode", attack="worst-case"))):
        write_result(result, clone.folder / RESULTS)
    (clone.board / "weights").mkdir()
    (clone.board / "weights" / f"{hexadecimal('ode')}.safetensors").write_bytes(b"their weights")
    (clone.folder / "README.md").write_text("# a project\n", encoding="utf-8")
    clone.commit("what there is")
    return clone


def their_result(**changes: Any) -> Result:
    return on_digits(
        make_result(LETTERS, **{"model": "theirs", "horizon": None, "solver": None, "nfe": None} | changes)
    )


def on_digits(result: Result) -> Result:
    """The same with the sha256 of the true images."""
    sha256 = load_dataset("digits").test.sha256
    return result.model_copy(update={"found": result.found.model_copy(update={"dataset_sha256": sha256})})


@pytest.fixture
def clone(main: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A clone of it, on a branch of its own."""
    copied = main.copy(tmp_path / "clone")
    monkeypatch.chdir(copied.folder)
    return copied


@pytest.fixture
def entry(clone: Clone) -> Path:
    """An entry that nothing is wrong with so far, not committed."""
    return write_real_entry(clone.folder / ENTRIES)


class Said:
    """What one call of check-pr printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def review(self) -> dict[str, Any]:
        assert self.out, self.err
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def findings(self) -> list[tuple[str, str]]:
        """File and rule of each finding."""
        found = [*self.review["findings"], *(each for one in self.review["entries"] for each in one["findings"])]
        return [(each["file"], each["rule"]) for each in found]

    @property
    def messages(self) -> str:
        found = [*self.review["findings"], *(each for one in self.review["entries"] for each in one["findings"])]
        return "\n".join(each["message"] for each in found)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, base: str = "main", draw: str | None = "5", form: Sequence[str] = ("--json",)) -> Said:
        drawn = [] if draw is None else ["--draw", draw]
        monkeypatch.setattr(sys, "argv", ["odebench", "check-pr", base, "--time-limit", "77", *form, *drawn, *words])
        code = _exit_code()
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


# --- what can be seen without running anything ---------------------------------------------------------------------


def test_another_sha256(clone: Clone, entry: Path, check: Any) -> None:
    text = (entry / "entry.yaml").read_text(encoding="utf-8")
    sha = text.partition("sha256: ")[2][:64]
    change_entry(entry, (sha, "a" * 64))
    clone.commit()
    said = check("--trust", draw=None)
    assert (said.code, said.findings) == (1, [(f"{ENTRIES}/mine/entry.yaml", "sha256")])
    assert f"one.safetensors has another sha256 than aaaaaaaaaaaa...; write sha256: {sha}" in said.messages
    assert said.review["entries"][0]["not_run"] == "fix the findings first"
    assert check("--trust", draw=None).review["draw"] != said.review["draw"]


def test_a_pickle_that_is_called_safetensors(clone: Clone, entry: Path, check: Any) -> None:
    (entry / "one.safetensors").write_bytes(pickle.dumps({"first.weight": [0.0] * 64}))
    clone.commit()
    said = check("--trust")
    assert (f"{ENTRIES}/mine/one.safetensors", "pickle") in said.findings
    assert (said.code, said.review["entries"][0]["verification"]) == (1, None)


def test_no_licence(clone: Clone, entry: Path, check: Any) -> None:
    change_entry(entry, ("licence: MIT\n", ""))
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"{ENTRIES}/mine/entry.yaml", "schema")])
    assert "has no 'licence'; add it" in said.messages


def test_the_id_of_another(clone: Clone, entry: Path, check: Any) -> None:
    change_entry(entry, ("id: mine", "id: theirs"))
    clone.commit()
    said = check("--trust")
    assert (said.code, (f"{ENTRIES}/mine/entry.yaml", "clash") in said.findings) == (1, True)
    assert "id 'theirs' is that of the entry in theirs, too; choose another" in said.messages


def test_the_name_of_a_registered_model(clone: Clone, check: Any) -> None:
    write_real_entry(clone.folder / ENTRIES, name="ode")
    clone.commit()
    said = check("--trust")
    assert said.code == 1
    assert {rule for _, rule in said.findings} == {"clash", "ownership"}
    assert "ode is the name of a registered model" in said.messages


def test_a_name_that_the_branch_has_got_meanwhile(clone: Clone, entry: Path, check: Any) -> None:
    clone.commit()
    clone.git("checkout", "-q", "main")
    write_real_entry(clone.folder / ENTRIES, code=PLAIN + "\n# an earlier one\n")
    clone.commit()
    clone.git("checkout", "-q", "submission")
    said = check("--trust")
    assert {rule for _, rule in said.findings} == {"ownership"}
    assert "is added, and mine is there already" in said.messages


def test_oversized_weights(clone: Clone, entry: Path, check: Any) -> None:
    with (entry / "large.safetensors").open("wb") as file:
        file.truncate(10_000_001)
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"{ENTRIES}/mine/large.safetensors", "size")])
    assert "has 10,000,001 bytes, more than the 10,000,000 that such a file may have" in said.messages


@pytest.mark.parametrize("kind", ["changed", "deleted", "added"])
def test_a_file_of_somebody_elses_entry(clone: Clone, check: Any, kind: str) -> None:
    path = clone.folder / ENTRIES / "theirs" / ("LICENSE" if kind == "added" else "README.md")
    path.write_text("Mine is better.\n", encoding="utf-8")
    if kind == "deleted":
        path.unlink()
    clone.commit()
    said = check("--trust")
    file = f"{ENTRIES}/theirs/{path.name}"
    assert (said.code, (file, "ownership") in said.findings) == (1, True)
    assert f"is {kind}, and theirs is there already; leave it unchanged, or have a maintainer" in said.messages
    assert said.review["entries"][0]["verification"] is None


@pytest.mark.parametrize("model", ["theirs", "ode"])
@pytest.mark.parametrize("kind", ["changed", "deleted"])
def test_a_result_that_is_there(clone: Clone, check: Any, model: str, kind: str) -> None:
    (path,) = (clone.folder / RESULTS / model).iterdir()
    path.write_text(path.read_text(encoding="utf-8").replace("2025-01-01", "2025-01-02"), encoding="utf-8")
    if kind == "deleted":
        path.unlink()
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"{RESULTS}/{model}/{path.name}", "ownership")])
    assert f"is {kind}, and results that are there stay as they are" in said.messages
    if model == "ode":
        assert check("--maintainer").code == 0


def test_letters_by_hand(clone: Clone, entry: Path, check: Any) -> None:
    result = their_result(model="mine")
    path = write_result(result, clone.folder / RESULTS)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(LETTERS[0.1], LETTERS[0.1].replace("rf", "rr")), encoding="utf-8")
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"{RESULTS}/mine/{path.name}", "result")])
    assert "felled_by must name something exactly where the letter is f or x" in said.messages
    assert "results are written by odebench, never by hand" in said.messages
    assert str(clone.folder.parent) not in said.out


def test_figures_by_hand(clone: Clone, entry: Path, check: Any) -> None:
    path = write_result(their_result(model="mine"), clone.folder / RESULTS)
    text = path.read_text(encoding="utf-8")
    assert text.count('"value": 0.5,') == 1
    path.write_text(text.replace('"value": 0.5,', '"value": 0.7,'), encoding="utf-8")
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"{RESULTS}/mine/{path.name}", "result")])
    assert "epsilon 0.1: robust_accuracy is 0.7, but the letters say 0.5" in said.messages


@pytest.mark.parametrize("model", ["theirs", "ode"])
def test_a_new_result_of_another_model(clone: Clone, check: Any, model: str) -> None:
    given = {} if model == "theirs" else {"horizon": 1.0, "solver": make_result(LETTERS).evaluation.solver}
    path = write_result(their_result(model=model, attack_seed=1, **given), clone.folder / RESULTS)
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"{RESULTS}/{model}/{path.name}", "ownership")])
    assert (
        "candidates that fool it are welcome (odebench judge), other results of it come from a maint" in said.messages
    )


def test_new_candidates_against_another_model(clone: Clone, check: Any) -> None:
    result = given_result(their_result(attack="candidates"))
    path = write_result(result, clone.folder / RESULTS)
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings, said.review["entries"]) == (0, [], [])
    assert said.review["results"] == [path.relative_to(clone.folder).as_posix()]
    assert f"(sha256 {hexadecimal('candidates')}): it lowers no figure; ask for an addr" in said.review["notes"][0]


def given_result(result: Result) -> Result:
    parameters = {"file_sha256": hexadecimal("candidates")}
    attack = result.evaluation.attack.model_copy(update={"parameters": parameters})
    evaluation = result.evaluation.model_copy(update={"attack": attack})
    file = CandidatesFile(sha256=hexadecimal("candidates"), address=None)
    found = result.found.model_copy(update={"candidates": file})
    return result.model_copy(update={"evaluation": evaluation, "run_key": evaluation.run_key, "found": found})


def test_a_result_in_another_models_folder(clone: Clone, entry: Path, check: Any) -> None:
    result = their_result(attack_seed=1)
    place = result_path(Path(RESULTS), result.evaluation)
    path = clone.folder / RESULTS / "mine" / place.name
    path.parent.mkdir()
    path.write_text(result_json(result), encoding="utf-8")
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"{RESULTS}/mine/{place.name}", "result")])
    assert f"is a result of theirs, whose place is {place}; put it there" in said.messages


def test_results_without_an_entry(clone: Clone, check: Any) -> None:
    path = write_result(their_result(model="nobody"), clone.folder / RESULTS)
    clone.commit()
    for words in ((), ("--maintainer",)):
        said = check(*words)
        assert (said.code, said.findings) == (1, [(f"{RESULTS}/nobody/{path.name}", "result")])
        assert "is a result of nobody, which is no entry here; odebench new-entry nobody writes one" in said.messages


@pytest.mark.parametrize("size", [10, 2_000_001])
def test_other_files_among_results(clone: Clone, entry: Path, check: Any, size: int) -> None:
    path = clone.folder / RESULTS / "mine" / "run.py"
    path.parent.mkdir()
    path.write_bytes(b"#" * size)
    clone.commit()
    said = check("--trust")
    rule = "file" if size == 10 else "size"
    assert (said.code, said.findings) == (1, [(f"{RESULTS}/mine/run.py", rule)])


@pytest.mark.parametrize("name", ["a" * 300, "..", "../../../stray", "", "/stray", "twice"])
def test_a_path_that_cannot_be_written_is_a_finding(clone: Clone, entry: Path, check: Any, name: str) -> None:
    """git itself writes no such tree, but takes one, and so does a server."""
    clone.commit()

    def stored(kind: str, data: bytes) -> bytes:
        words = ["git", "hash-object", "-t", kind, "-w", "--literally", "--stdin"]
        done = subprocess.run(words, input=data, cwd=clone.folder, check=True, capture_output=True)
        return bytes.fromhex(done.stdout.decode())

    tree = stored("tree", b"100644 x.json\0" + stored("blob", b"{}"))
    tree = stored("tree", b"40000 " + name.encode() + b"\0" + tree)
    twice = b"100644 mine\0" + stored("blob", b"{}") if name == "twice" else b""
    tree = stored("tree", twice + b"40000 mine\0" + tree)
    entries = bytes.fromhex(clone.git("rev-parse", "HEAD:leaderboard/entries"))
    tree = stored("tree", b"40000 entries\0" + entries + b"40000 results\0" + tree)
    tree = stored("tree", b"40000 leaderboard\0" + tree)
    commit = clone.git("commit-tree", "-p", "HEAD", "-m", "odd", tree.hex())
    clone.git("update-ref", "refs/heads/submission", commit)
    said = check()
    assert said.code == 1
    if twice:
        assert (f"{RESULTS}/mine", "file") in said.findings
    elif name:
        odd = {file: rule for file, rule in said.findings if file.startswith(f"{RESULTS}/mine/")}
        assert odd == {f"{RESULTS}/mine/{name}/x.json": "file"}
        assert "is a path that cannot be written everywhere; rename it" in said.messages
    else:
        assert said.err == "odebench: git cannot read a commit; git fsck says more\n"
    assert not list(clone.folder.parent.rglob("stray*"))


def test_a_file_too_large_to_look_at(clone: Clone, entry: Path, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odebench.submission.pull_request.MAX_FILE_BYTES", 100_000)
    (entry / "entry.yaml").write_bytes(b"#" * 100_001)
    clone.commit()
    said = check()
    assert said.code == 1
    assert (f"{ENTRIES}/mine/entry.yaml", "size") in said.findings
    assert "has 100,001 bytes, more than any file below leaderboard may have" in said.messages


def test_more_than_is_looked_at(clone: Clone, entry: Path, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odebench.submission.pull_request.MAX_CHANGED_BYTES", 1000)
    clone.commit()
    said = check()
    assert (said.code, said.out) == (2, "")
    assert re.fullmatch(r"odebench: HEAD brings [\d,]+ bytes below leaderboard, more than the 1,000 .*\n", said.err)


def test_links(clone: Clone, entry: Path, check: Any) -> None:
    (entry / "extra.py").symlink_to("/etc/passwd")
    (clone.folder / RESULTS / "mine").symlink_to("theirs")
    (clone.board / "weights" / f"{'0' * 64}.safetensors").symlink_to("/etc/passwd")
    clone.commit()
    said = check("--trust")
    where = {file for file, rule in said.findings if rule == "link"}
    assert where == {f"{ENTRIES}/mine/extra.py", f"{RESULTS}/mine", f"leaderboard/weights/{'0' * 64}.safetensors"}
    assert said.code == 1


def test_published_weights(clone: Clone, check: Any) -> None:
    (path,) = (clone.board / "weights").glob("*.safetensors")
    path.write_bytes(b"mine")
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"leaderboard/weights/{path.name}", "ownership")])
    assert "is changed, and published results rest on it" in said.messages
    assert check("--maintainer").code == 0


def test_weights_under_the_name_of_a_recipe(clone: Clone, check: Any) -> None:
    data, sha256 = b"mine", hashlib.sha256(b"mine").hexdigest()
    for name in ("0" * 64, sha256):
        (clone.board / "weights" / f"{name}.safetensors").write_bytes(data)
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"leaderboard/weights/{'0' * 64}.safetensors", "weights")])
    assert f"name it {sha256}.safetensors, or put it into the entry's folder" in said.messages
    assert len(said.review["weights"]) == 2
    assert check("--maintainer").code == 0


def test_candidates_without_an_address_are_at_odds_with_nobody(clone: Clone, check: Any) -> None:
    # candidates that nobody can judge anew count for nothing, so they are at odds with nobody
    other = on_digits(make_result({0.1: "m" * 50 + "r" * 50}, model="ode", attack="candidates"))
    write_result(given_result(other), clone.folder / RESULTS)
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (0, [])


ADDRESS = "https://example.org/mine.safetensors"


@pytest.fixture
def judged(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A result of candidates against the entry of somebody else, whose file can be fetched from an address."""
    test = load_dataset("digits").test
    noise = torch.randn(test.images[:200].shape, generator=torch.Generator().manual_seed(0)).sign()
    made = Candidates(
        images=(test.images[:200] + 0.1 * noise).clamp(0, 1),
        indices=torch.arange(200),
        epsilons=torch.full((200,), 0.1, dtype=torch.float64),
        dataset="digits",
        split="test",
        dataset_sha256=test.sha256,
        norm="linf",
        source="signs of noise",
        author="A. Reviewer",
    )
    file = tmp_path / "mine.safetensors"
    write_candidates(file, made)
    words = ["-m", f"{ENTRIES}/theirs", str(file), "-n", "200", "--trust", "--address", ADDRESS, "--results", RESULTS]
    monkeypatch.setattr(sys, "argv", ["odebench", "judge", *words])
    assert _exit_code() == 0
    capsys.readouterr()
    (path,) = (clone.folder / RESULTS / "theirs").glob("digits-candidates-*.json")

    def fetched(address: str, *, sha256: str, **_: object) -> Path:
        assert (address, sha256) == (ADDRESS, hashlib.sha256(file.read_bytes()).hexdigest())
        return file

    monkeypatch.setattr("odebench.submission.verification.candidates.fetch", fetched)
    return path


def test_candidates_with_an_address_are_judged_again(judged: Path, clone: Clone, check: Any) -> None:
    assert "f" in read_result(judged).epsilons[0].outcomes
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (0, []), said.messages
    assert "judges candidates made elsewhere: their file is fetched and judged again" in said.review["notes"][0]


def test_letters_that_candidates_with_an_address_do_not_get_are_refused(judged: Path, clone: Clone, check: Any) -> None:
    result = read_result(judged)
    (item,) = result.epsilons
    outcomes = item.outcomes.replace("r", "f")
    codes = [next(iter(item.felled_by.legend)) if letter == "f" else "--" for letter in outcomes]
    felled_by = item.felled_by.model_copy(update={"letters": "".join(codes)})
    figures = item.figures.model_copy(update=letter_figures(outcomes))
    altered = (item.model_copy(update={"outcomes": outcomes, "felled_by": felled_by, "figures": figures}),)
    changed = result.model_copy(update={"epsilons": altered, "outcomes_sha256": outcomes_digest(altered)})
    judged.write_text(result_json(changed), encoding="utf-8")
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(judged.relative_to(clone.folder).as_posix(), "letters")])
    assert "letters differ from those that its candidates get now" in said.messages


def test_candidates_that_cannot_be_fetched_are_said(
    judged: Path, clone: Clone, check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> Path:
        raise DatasetError(f"{ADDRESS} answers 404")

    monkeypatch.setattr("odebench.submission.verification.candidates.fetch", gone)
    clone.commit()
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(judged.relative_to(clone.folder).as_posix(), "candidates")])
    assert f"cannot be judged again: {ADDRESS} answers 404" in said.messages


def test_code_is_neither_imported_nor_run_unless_it_is_trusted(clone: Clone, check: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    write_real_entry(clone.folder / ENTRIES, code=TRACE.format(trace=trace) + PLAIN)
    clone.commit()
    said = check()
    assert (said.code, said.findings) == (1, [(f"{ENTRIES}/mine/model.py", "trust")])
    assert "read it, then give --trust" in said.messages
    assert not trace.exists()


# --- what is found by running it -----------------------------------------------------------------------------------

NOISY = PLAIN.replace("torch.tanh(self", "self.noise(self").replace(
    "    def forward",
    """    def noise(self, hidden):
        return torch.tanh(hidden + 0.02 * NORMAL)

    def forward""",
)
SEEDED = NOISY.replace("NORMAL", "torch.randn_like(hidden)")
UNSEEDED = NOISY.replace("NORMAL", "torch.randn(hidden.shape, generator=DICE)").replace(
    "from torch import nn\n", "from torch import nn\n\nDICE = torch.Generator()\nDICE.seed()\n"
)
HIDDEN = "self.first(images.flatten(1))"
PLACE = PLAIN.replace(HIDDEN, f"{HIDDEN} + 0.1 * torch.arange(len(images))[:, None]")
BATCHMATES = PLAIN.replace(HIDDEN, f"{HIDDEN} - {HIDDEN}.mean(0)")
MASKED = PLAIN.replace("images.flatten(1)", "torch.round(8 * images.flatten(1)) / 8")
WRITES = PLAIN.replace(
    "    def forward(self, images):\n",
    """    def forward(self, images):
        try:
            open("{trace}", "w").write("I was here")
        except BaseException:
            pass
""",
)


@pytest.fixture(scope="module")
def found(main: Clone, one_pgd_step: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What PGD truly finds about the good entry, on all test images."""
    folder = tmp_path_factory.mktemp("found")
    mine = write_real_entry(folder / "entries")
    contestant = find_model(f"{mine}/")
    data = load_dataset("digits")
    planned = plan(EvaluationRequest(contestant, "pgd"), describe_dataset("digits"), total=len(data.test))
    result, _, _ = run_plan(planned, data, results=folder / "results")
    return result


def submit(clone: Clone, result: Result, *, code: str = PLAIN, claims: str = "[]") -> str:
    """Commits an entry with a result; returns the result's path in the repository."""
    write_real_entry(clone.folder / ENTRIES, code=code, claims=claims)
    path = write_result(result, clone.folder / RESULTS)
    clone.commit()
    return path.relative_to(clone.folder).as_posix()


def claim(robust: float) -> str:
    about = "dataset: digits, train_seed: 0, norm: linf, epsilon: 0.1, attack: pgd, n: 500"
    return f"[{{{about}, robust_accuracy: {robust:.3f}}}]"


def robust(result: Result) -> float:
    return next(each.figures.robust_accuracy.value for each in result.epsilons if each.epsilon == 0.1)


@pytest.mark.fresh_process
def test_a_good_entry_passes(clone: Clone, found: Result, check: Any, tmp_path: Path) -> None:
    path = submit(clone, found, claims=claim(robust(found)))
    summary = tmp_path / "summary.md"
    said = check("--trust", "--summary", str(summary))
    assert (said.code, said.findings) == (0, [])
    (verified,) = said.review["entries"]
    assert verified["verification"]["letters"] == 2 * 100 * 3
    assert verified["verification"]["differ"] == 0
    assert verified["verification"]["path"] == f"{ENTRIES}/mine"
    assert {cell["result"] for cell in verified["verification"]["cells"]} == {path}
    assert "odebench-review-" not in said.out, "a folder that is gone"
    assert tuple(verified["verification"]["chunks"]["digits"]) == drawn_chunks(5, {"digits": 500})["digits"]
    assert (said.review["draw"], said.review["results"]) == (5, [path])
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("# good\n")
    assert "600 letters compared, 0 differ" in text
    assert f"| {100 * robust(found):.1f} [" in text
    assert "| ode" in text
    assert "theirs" not in text
    assert str(clone.folder.parent) not in text + said.out


def test_where_secrets_are_readable_no_code_runs_unless_told(
    clone: Clone, entry: Path, check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.commit()
    monkeypatch.setattr("odebench.submission.review.granted_walls", lambda: ("network", "memory"))
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"{ENTRIES}/mine/model.py", "wall")])
    assert "was not run. secrets readable: its code runs without a user namespace, a process names" in said.messages
    assert "and give --unwalled" in said.messages
    monkeypatch.setattr("odebench.submission.verification.verify.inspect", lambda *_, **__: 1 / 0)
    monkeypatch.setenv("ODEBENCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):  # it would be asked now
        check("--trust", "--unwalled")


def test_an_id_that_looks_like_anothers(clone: Clone, check: Any) -> None:
    write_real_entry(clone.folder / ENTRIES, name="m1ne")
    write_real_entry(clone.folder / ENTRIES, name="mlne")
    clone.commit()
    said = check("--trust")
    assert {rule for _, rule in said.findings} == {"id"}
    assert "the id 'm1ne' looks like 'mlne', which is another's; choose another" in said.messages


@pytest.mark.usefixtures("few_passes")
def test_a_claim_that_is_too_high(clone: Clone, found: Result, check: Any) -> None:
    submit(clone, found, claims=claim(robust(found) + 0.2))
    said = check("--trust")
    assert (said.code, set(said.findings)) == (1, {(f"{ENTRIES}/mine/entry.yaml", "claim")})
    assert f"pgd at 0.1 found {robust(found):g} [" in said.messages


@pytest.mark.usefixtures("few_passes")
def test_letters_and_figures_and_digest_by_hand(clone: Clone, found: Result, check: Any) -> None:
    better = []
    for each in found.epsilons:
        outcomes = each.outcomes.replace("f", "r")
        felled = each.felled_by.model_copy(update={"letters": "--" * len(outcomes)})
        figures = each.figures.model_copy(update=letter_figures(outcomes) | {"norm_quantiles": None})
        better.append(each.model_copy(update={"outcomes": outcomes, "felled_by": felled, "figures": figures}))
    digest = outcomes_digest(tuple(better))
    path = submit(clone, found.model_copy(update={"epsilons": tuple(better), "outcomes_sha256": digest}))
    assert read_result(clone.folder / path).outcomes_sha256 == digest
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(path, "letters")])
    assert "letters differ from those found now" in said.messages


@pytest.mark.fresh_process
def test_code_that_writes_outside_its_folder(clone: Clone, found: Result, check: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    submit(clone, found, code=WRITES.format(trace=trace))
    said = check("--trust")
    assert said.code == 1
    assert ("guard" in {rule for _, rule in said.findings}, trace.exists()) == (True, False)
    assert "model.py, line " in said.messages


@pytest.mark.usefixtures("few_passes")
@pytest.mark.parametrize(
    ("code", "rule", "words"),
    [
        pytest.param(PLACE, "batch", "batch independence", marks=pytest.mark.slow),  # as in verification/test_verify.py
        pytest.param(BATCHMATES, "batch", "batch independence", marks=pytest.mark.slow),
        (MASKED, "gradient", "gradient availability, "),
        pytest.param(UNSEEDED, "unseeded", "it draws random numbers that no seed reaches", marks=pytest.mark.slow),
    ],
    ids=["place", "batchmates", "masked", "unseeded"],
)
def test_a_model_that_is_not_admitted(
    clone: Clone, found: Result, check: Any, code: str, rule: str, words: str
) -> None:
    assert code != PLAIN
    submit(clone, found, code=code)
    said = check("--trust")
    assert said.code == 1
    assert rule in {rule for _, rule in said.findings}, said.messages
    assert words in said.messages


@pytest.mark.slow
@pytest.mark.usefixtures("few_passes")
def test_a_randomised_model_that_seeds_reach_is_compared_by_figures(clone: Clone, found: Result, check: Any) -> None:
    submit(clone, found, code=SEEDED)
    said = check("--trust")
    assert (said.code, said.findings) == (0, [])
    assert said.review["entries"][0]["verification"]["letters"] == 0
    assert any("is randomised: compared by figures, shown, and not ranked" in note for note in said.review["notes"])


def test_an_entry_that_cannot_be_verified_is_a_finding(
    clone: Clone, found: Result, check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, **_: Any) -> None:
        raise DatasetError(f"no images for {folder}")

    monkeypatch.setattr("odebench.submission.verification.verify.verify_entry", fail)
    submit(clone, found)
    said = check("--trust")
    assert (said.code, said.findings) == (1, [(f"{ENTRIES}/mine/entry.yaml", "run")])
    assert f"cannot be verified: no images for {ENTRIES}/mine" in said.messages


def test_examples_lie_beside_the_results_of_an_entry_of_ones_own(clone: Clone, entry: Path, check: Any) -> None:
    for model in ("mine", "theirs"):
        path = clone.folder / RESULTS / model / "digits-examples-0123" / "0-clean.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"an image")
    clone.commit()
    said = check()
    where = {file for file, rule in said.findings if rule == "file"}
    assert where == {f"{RESULTS}/theirs/digits-examples-0123/0-clean.png"}


# --- what is looked at ---------------------------------------------------------------------------------------------


def test_only_what_is_committed_counts(clone: Clone, entry: Path, check: Any) -> None:
    (clone.folder / ".gitattributes").write_text("* export-ignore ident eol=crlf\n", encoding="utf-8")
    (entry / "README.md").write_text("# mine\n\n$Id$\n", encoding="utf-8")
    clone.commit()
    clone.git("config", "core.autocrlf", "true")
    (entry / "__pycache__").mkdir()
    (entry / "entry.yaml").write_text("nonsense", encoding="utf-8")
    said = check()
    assert said.findings == [(f"{ENTRIES}/mine/model.py", "trust")]
    assert said.review["outside"] == [".gitattributes"]


def test_what_lies_outside_is_listed_for_a_normal_review(clone: Clone, check: Any) -> None:
    for name in ("README.md", "leaderboard/LEADERBOARD.md"):
        (clone.folder / name).write_text("new", encoding="utf-8")
    clone.commit()
    said = check(form=())
    assert (said.code, said.err) == (0, "")
    assert "changed README.md" in said.out
    assert "added leaderboard/LEADERBOARD.md" in said.out
    assert "no entry and no result is changed: a normal review" in said.out


def test_findings_are_lines_for_people(clone: Clone, entry: Path, check: Any, tmp_path: Path) -> None:
    change_entry(entry, ("licence: MIT", 'licence: "</code>\\n# good\\n![x](https://example.org/x.png)"'))
    clone.commit()
    summary = tmp_path / "summary.md"
    said = check("--trust", "--summary", str(summary), draw="7", form=())
    assert said.code == 1
    first, *_, last = said.out.splitlines()
    assert first.startswith(f"{ENTRIES}/mine/entry.yaml, line ")
    assert last == "refused: 1 finding (chunks and results drawn by --draw 7)"
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("# refused: 1 finding\n")
    assert f"    {first}\n" in text
    assert "\n# good" not in text


# --- what cannot be reviewed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("nowhere", "'nowhere' is not a commit of this repository; name the branch that the pull request goes to"),
        ("main", "changes nothing since it left main"),
    ],
)
def test_one_line_where_there_is_nothing_to_review(clone: Clone, check: Any, base: str, line: str) -> None:
    (clone.folder / "README.md").write_text("not committed", encoding="utf-8")
    said = check(base=base, form=())
    assert (said.code, said.out) == (2, "")
    assert line in said.err
    assert said.err.count("\n") == 1


def test_one_line_where_there_is_no_repository(check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    said = check(form=())
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "lies in no git repository" in said.err
