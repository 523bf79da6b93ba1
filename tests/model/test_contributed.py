"""Entries as models: found by id or path, planned, their modules built, run, judged and diagnosed."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from entry_factory import change_entry, write_registered_entry
from real_entry import FIELD, PARTS, PLAIN, WIDTH, trained, write_field_entry, write_real_entry

from odebench.cli import _exit_code
from odebench.dataset import Dataset, load_dataset
from odebench.dataset.builtin import DIGITS, FASHION_MNIST
from odebench.errors import ModelError, UsageError, WeightError
from odebench.evaluation.evaluate import run
from odebench.evaluation.loading import known_weights, load_models
from odebench.evaluation.model_reference import RegisteredModel
from odebench.evaluation.plan import EvaluationRequest, Plan, Slice, plan
from odebench.evaluation.sliced_evaluation import join_slices, run_slice
from odebench.io.files import sha256_file
from odebench.io.remote_weights import Address
from odebench.model.contributed import build_contribution, load_contribution
from odebench.model.definition import Contributed, load_definition
from odebench.progress import SILENT
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import adaptive, fixed_step
from odebench.result.file import read_result, result_files
from odebench.submission.submitted_model import SubmittedModel, find_model


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def planned(folder: Path, *, attack: str = "fgsm", **options: object) -> Plan:
    request = EvaluationRequest(find_model(str(folder)), attack, **options)  # type: ignore[arg-type]
    return plan(request, DIGITS, total=500)


def contributed(folder: Path) -> Contributed:
    origin = planned(folder).origin
    assert isinstance(origin, Contributed)
    return origin


def typed(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["odebench", *map(str, words)])
    return _exit_code()


# --- names -------------------------------------------------------------------------------------------------------


def test_a_name_is_a_registered_model_an_entry_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = write_real_entry(tmp_path / "leaderboard" / "entries")
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(tmp_path / "leaderboard"))
    assert find_model("kd-ode") == RegisteredModel(load_definition("kd-ode"))
    by_id = find_model("mine")
    assert isinstance(by_id, SubmittedModel)
    assert (by_id.folder, by_id.name, by_id.code) == (mine, "mine", mine / "model.py")
    assert find_model(str(mine)).name == "mine"
    with pytest.raises(UsageError, match="unknown model 'mien'; did you mean 'mine'"):
        find_model("mien")
    with pytest.raises(UsageError, match=r"there is no entry in .*nowhere: no entry\.yaml; odebench new-entry"):
        find_model(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="which lists its weights: leave out --weights"):
        find_model("mine", weights=mine / "one.safetensors")


def test_entries_of_the_folder_at_hand_are_found_without_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_real_entry(tmp_path / "leaderboard" / "entries")
    monkeypatch.delenv("ODEBENCH_LEADERBOARD")
    monkeypatch.chdir(tmp_path)
    assert find_model("mine").name == "mine"
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "")
    with pytest.raises(UsageError, match="unknown model 'mine'"):
        find_model("mine")


def test_an_id_that_would_lead_elsewhere_or_hide_a_model_is_refused(tmp_path: Path) -> None:
    mine = write_real_entry(tmp_path)
    change_entry(mine, ("id: mine", "id: ../mine"))
    with pytest.raises(UsageError, match=r"id '\.\./mine' cannot be one"):
        find_model(str(mine))
    change_entry(mine, ("id: ../mine", "id: kd-ode"))
    with pytest.raises(UsageError, match="id 'kd-ode' is the name of a registered model"):
        find_model(str(mine))


def test_the_entry_of_a_registered_model_is_that_model(tmp_path: Path) -> None:
    mine = write_registered_entry(tmp_path)
    change_entry(mine, ("id: listed", "id: ode-ablated"))
    assert find_model(str(mine)) == RegisteredModel(load_definition("ode-ablated"))


# --- plans -------------------------------------------------------------------------------------------------------


def test_the_plan_of_a_module_has_no_recipe_and_the_identity_of_its_file(tmp_path: Path) -> None:
    mine = write_field_entry(tmp_path)
    found = planned(mine, images=Slice(n=100))
    model = found.evaluation.model
    assert (model.name, model.arguments) == ("flow", {"train_seed": 0, "width": WIDTH})
    assert model.weights == sha256_file(mine / "one.safetensors") == known_weights(found)
    assert (found.evaluation.train_horizon, found.evaluation.horizon) == (1.0, 1.0)
    assert found.evaluation.solver == fixed_step(step=0.5)
    assert found.handed_over
    with pytest.raises(UsageError, match="flow is an entry's own module, which has no recipe"):
        _ = found.recipe


def test_horizon_and_solver_may_be_others_than_those_of_the_training(tmp_path: Path) -> None:
    mine = write_field_entry(tmp_path)
    other = planned(mine, horizon=2.0, solver=adaptive()).evaluation
    assert (other.train_horizon, other.horizon, other.solver) == (1.0, 2.0, adaptive())
    with pytest.raises(UsageError, match=r"flow is not trained at T=2 on digits; --train-horizon is 1"):
        planned(mine, train_horizon=2.0)
    with pytest.raises(UsageError, match="horizon -1 must be a finite number above 0"):
        planned(mine, horizon=-1.0)


def test_what_an_entry_does_not_have_is_said(tmp_path: Path) -> None:
    mine = write_real_entry(tmp_path)
    with pytest.raises(UsageError, match="mine is not trained for fashion-mnist; its data sets: digits"):
        plan(EvaluationRequest(find_model(str(mine)), "fgsm"), FASHION_MNIST, total=10_000)
    with pytest.raises(UsageError, match="mine lists no weights for digits with train seed 3; its seeds there: 0"):
        planned(mine, train_seed=3)
    with pytest.raises(UsageError, match="is an entry with a fixed recipe: leave out --set"):
        planned(mine, changes={"epochs": 1})
    with pytest.raises(UsageError, match="mine integrates nothing, so it takes no --horizon"):
        planned(mine, horizon=2.0)
    with pytest.raises(UsageError, match="mine integrates nothing, so it takes no --horizon and no --solver"):
        planned(mine, solver=adaptive())
    (mine / "one.safetensors").write_bytes(b"other")
    with pytest.raises(WeightError, match=r"has another sha256 than entry\.yaml says; odebench validate says more"):
        planned(mine)
    change_entry(mine, ("train_seed: 0, file", "horizon: 2, train_seed: 0, file"))
    with pytest.raises(UsageError, match="mine lists no weights for digits with train seed 0"):
        planned(mine)


def test_an_entry_of_a_registered_model_has_its_recipe_with_changes(tmp_path: Path) -> None:
    mine = write_registered_entry(tmp_path)
    found = planned(mine)
    recipe = load_definition("ode-ablated").recipe(DIGITS, changes={"epochs": 1})
    assert found.recipe == recipe
    assert found.evaluation.model.name == "listed"
    assert found.evaluation.model.arguments == {"train_seed": 0, "epochs": 1}
    assert found.evaluation.model.weights == sha256_file(mine / "one.safetensors")
    assert not found.handed_over
    text = (mine / "entry.yaml").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "one.safetensors" in line)
    change_entry(mine, (f"weights:\n{line}", "weights: []"))
    without = planned(mine, train_seed=1)
    assert (without.weights, without.evaluation.model.weights) == (None, without.recipe.key)


def test_sources_do_not_name_other_seeds_of_an_entry(tmp_path: Path) -> None:
    found = planned(write_field_entry(tmp_path), attack="diagnosis")
    assert found.evaluation.attack.sources == ("resnet", "ode-ablated")
    itself = planned(tmp_path / "flow", attack="transfer", sources=["self:solver=euler", "resnet"]).sources
    assert [source.itself for source in itself] == [True, False]
    assert isinstance(itself[1].recipe, Recipe)
    with pytest.raises(UsageError, match="source 'self:solver=euler' is an entry's own module"):
        _ = itself[0].recipe


def test_weights_elsewhere_are_known_by_their_sha256_before_they_are_fetched(tmp_path: Path) -> None:
    mine = write_real_entry(tmp_path)
    change_entry(mine, ("file: one.safetensors", "url: https://example.org/one.safetensors"))
    found = planned(mine)
    assert isinstance(found.weights, Address)
    assert found.weights.url == "https://example.org/one.safetensors"
    assert known_weights(found) == found.evaluation.model.weights == sha256_file(mine / "one.safetensors")


# --- modules -----------------------------------------------------------------------------------------------------


def test_a_module_is_built_with_its_weights_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mine = write_field_entry(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    state = torch.get_rng_state()
    module = load_contribution(contributed(mine), mine / "one.safetensors")
    assert not module.training
    assert torch.equal(module.state_dict()["stem.1.weight"], trained()["first.weight"])
    assert sorted(os.listdir(mine)) == ["README.md", "entry.yaml", "model.py", "one.safetensors", "parts.py"]
    assert not {"model", "parts"} & (set(sys.modules) - before)
    assert sys.path == path
    assert torch.equal(torch.get_rng_state(), state)


def test_two_entries_may_call_their_modules_the_same(tmp_path: Path) -> None:
    one, other = write_field_entry(tmp_path, name="one"), write_field_entry(tmp_path, name="other")
    (other / "parts.py").write_text(PARTS.replace("torch.tanh", "torch.sin"), encoding="utf-8")
    state = torch.ones(1, WIDTH)
    answers = [
        load_contribution(contributed(mine), mine / "one.safetensors").field(0.0, state) for mine in (one, other)
    ]
    assert not torch.equal(*answers)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nowhere\n" + PLAIN, "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("raise SystemExit(0)\n" + PLAIN, "cannot be imported: SystemExit: 0"),
        (PLAIN.replace("class Net", "class Other"), "cannot be imported: AttributeError: .*Net"),
        (PLAIN.replace(", width)", ", *, depth)"), "cannot be imported: SyntaxError"),
        (
            PLAIN.replace("n_classes, width", "n_classes, depth"),
            "cannot be built with image_shape, n_classes, width: TypeE",
        ),
        ("Net = lambda **arguments: arguments\n", "gave a dict, not a torch.nn.Module"),
        (
            PLAIN.replace("width)\n", "width)\n        raise KeyError('x')\n", 1),
            "cannot be built with .*: KeyError: 'x'",
        ),
        (
            PLAIN.replace(
                "    def forward", "    def state_dict(self):\n        raise OSError('no')\n\n    def forward"
            ),
            "cannot take its weights: OSError: no",
        ),
    ],
)
def test_code_that_cannot_be_used_is_one_line(tmp_path: Path, code: str, said: str) -> None:
    mine = write_real_entry(tmp_path, code=code)
    with pytest.raises(ModelError, match=rf"model.py:Net .*{said}|{said}"):
        load_contribution(contributed(mine), mine / "one.safetensors")


def test_weights_of_another_module_do_not_fit(tmp_path: Path) -> None:
    mine = write_real_entry(tmp_path, code=PLAIN.replace("self.last = ", "self.more = self.last = "))
    with pytest.raises(WeightError, match="has no tensor 'more"):
        load_contribution(contributed(mine), mine / "one.safetensors")


def test_horizons_and_a_field_go_together(tmp_path: Path) -> None:
    without = write_real_entry(
        tmp_path, code=PLAIN.replace("n_classes, width", "n_classes, width, **more"), horizon=1.0
    )
    with pytest.raises(ModelError, match="does not expose stem, field, head, horizon and solver"):
        build_contribution(contributed(without))
    field = FIELD.replace("horizon, solver):", "horizon=1.0, solver=None):")
    unsaid = write_real_entry(tmp_path, name="unsaid", code=field, parts=PARTS)
    with pytest.raises(ModelError, match=r"has a field that odebench integrates: say its horizons .* in entry.yaml"):
        build_contribution(contributed(unsaid))


# --- running -----------------------------------------------------------------------------------------------------


def test_an_entry_is_run_and_its_result_names_file_and_id(tmp_path: Path, digits: Dataset) -> None:
    mine = write_field_entry(tmp_path)
    one = planned(mine, images=Slice(n=100))
    result, path, new = run(one, digits, results=tmp_path / "results")
    assert new
    assert path.parent == tmp_path / "results" / "flow"
    assert result.found.weights_sha256 == sha256_file(mine / "one.safetensors")
    assert result.epsilons[0].figures.clean_accuracy.value > 0.8
    assert {check.id: check.status for check in result.checks}[17] == "pass", "its gradient is looked at"
    assert run(one, digits, results=tmp_path / "results")[2] is False
    assert load_models(one, digits, "cpu", SILENT).classifier.solver == fixed_step(step=0.5)


def test_slices_of_an_entry_join_to_the_letters_of_one_run(tmp_path: Path, digits: Dataset) -> None:
    one = planned(write_real_entry(tmp_path), images=Slice(n=200))
    whole, _, _ = run(one, digits, results=tmp_path / "whole")
    parts = (slice(0, 100), slice(100, 200))
    for rows in reversed(parts):
        run_slice(one, digits, rows=rows, results=tmp_path / "parts")
    joined = read_result(join_slices(one.evaluation, slices=parts, results=tmp_path / "parts"))
    assert (joined.outcomes_sha256, joined.checks, joined.flags) == (
        whole.outcomes_sha256,
        whole.checks,
        whole.flags,
    )


def test_the_commands_take_an_entry_and_ask_before_its_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leaves_a_trace = PLAIN + "\nfrom pathlib import Path\nPath(__file__).with_name('trace').write_text('imported')\n"
    mine = write_real_entry(tmp_path / "leaderboard" / "entries", code=leaves_a_trace)
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(tmp_path / "leaderboard"))
    monkeypatch.chdir(tmp_path)
    words = ("run", "--model", "mine", "--attack", "fgsm", "-n", "100")
    for refused in (words, ("diagnose", "-m", "mine"), ("run", "-m", str(mine), "-a", "fgsm")):
        assert typed(monkeypatch, *refused) == 2
        said = capsys.readouterr().err
        assert "model.py, with all that you may do here: read it, then give --trust" in said
        assert said.count("\n") == 1
    assert not (mine / "trace").exists()
    assert typed(monkeypatch, *words, "--trust") == 1
    assert "Net cannot be imported: PermissionError: odebench refuses writing" in capsys.readouterr().err
    assert not (mine / "trace").exists()
    (mine / "model.py").write_text(PLAIN, encoding="utf-8")
    assert typed(monkeypatch, *words, "--trust", "--save-candidates", "c.safetensors") == 0
    assert "mine on digits (test), 100 images" in capsys.readouterr().out
    assert typed(monkeypatch, "judge", "-m", "mine", "c.safetensors", "-n", "100") == 2
    assert "give --trust" in capsys.readouterr().err
    assert typed(monkeypatch, "judge", "-m", "mine", "c.safetensors", "-n", "100", "--trust") == 0
    assert typed(monkeypatch, "diagnose", "-m", "mine", "-n", "100", "--trust") == 0
    assert "gradient fidelity" in capsys.readouterr().out
    attacks = {read_result(path).evaluation.attack.name for path in result_files(tmp_path / "results" / "mine")}
    assert attacks == {"fgsm", "candidates", "quick-diagnosis"}


def test_candidates_of_others_bring_an_entry_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_field_entry(tmp_path / "leaderboard" / "entries")
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(tmp_path / "leaderboard"))
    monkeypatch.chdir(tmp_path)
    asked = ("-m", "flow", "-n", "100", "--trust")
    one = (*asked, "--epsilon", "0.05", "--results", "board")
    assert typed(monkeypatch, "run", "-a", "noise", *one) == 0
    strong = ("-a", "pgd", "--epsilon", "0.05", "--save-candidates", "strong.safetensors", "--results", "own")
    assert typed(monkeypatch, "run", *asked, *strong) == 0

    def board() -> tuple[float, str]:
        capsys.readouterr()
        assert typed(monkeypatch, "leaderboard", "board", "--format", "json") == 0
        (cell,) = json.loads(capsys.readouterr().out)
        return cell["robust_accuracy"], str(cell["credits"])

    before, uncredited = board()
    judge = ("judge", *asked, "strong.safetensors", "--author", "A. Reviewer", "--results", "board")
    assert typed(monkeypatch, *judge) == 0
    assert "nobody can judge it again: leaderboards do not count it" in capsys.readouterr().err
    assert board() == (before, "[]")
    assert typed(monkeypatch, *judge, "--address", "https://example.org/strong.safetensors", "--force") == 0
    after, credited = board()
    assert after < before - 0.05
    assert "A. Reviewer" in credited
    assert uncredited == "[]"


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2)])
def test_on_a_terminal_one_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, code: int
) -> None:
    mine = write_real_entry(tmp_path)
    keyboard = io.StringIO(answer)
    monkeypatch.setattr(keyboard, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", keyboard)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    words = ("run", "-m", mine, "-a", "fgsm", "-n", "100", "--results", tmp_path / "results")
    assert typed(monkeypatch, *words) == code
    assert "Run it?" in capsys.readouterr().err
    assert (tmp_path / "results").exists() == (code == 0)
