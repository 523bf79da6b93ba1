"""Entries of registered models: written from what is published, never typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from result_factory import hexadecimal, make_result
from weights_factory import written

from odebench.attack.definition import load_attack
from odebench.cli import _exit_code
from odebench.dataset.builtin import DIGITS
from odebench.errors import OdebenchError, UsageError
from odebench.io.files import sha256_file
from odebench.io.folders import PublishedFolder
from odebench.model.definition import load_definition
from odebench.result.file import read_result, result_files, write_result
from odebench.submission.claims import contradictions, is_about
from odebench.submission.entry import read_entry
from odebench.submission.published_entry import published_entry, write_published
from odebench.submission.validate import validate_entry

PUBLISHED = Path(__file__).parents[2] / "leaderboard"
ENTRIES = sorted(path.parent for path in (PUBLISHED / "entries").glob("*/entry.yaml"))


def publish(
    folder: Path,
    model: str,
    *,
    seed: int = 0,
    horizon: float | None = 1.0,
    letters: str = "r" * 60 + "f" * 40,
    attack: str = "pgd",
    weights: str = "their own",
    **changes: object,
) -> Path:
    """A published result of a built-in model, with its (untrained) weights; returns those."""
    recipe = load_definition(model).recipe(DIGITS, horizon=horizon, train_seed=seed)
    path = written(recipe, folder / "weights")
    found = sha256_file(path) if weights == "their own" else hexadecimal(weights)
    result = make_result(
        {0.05: letters, 0.1: letters, 0.15: letters},
        **{"model": model, "train_seed": seed, "horizon": horizon, "solver": recipe.solver, "attack": attack} | changes,  # type: ignore[arg-type]
    )
    evaluation = result.evaluation
    evaluation = evaluation.model_copy(
        update={
            "model": evaluation.model.model_copy(update={"weights": recipe.key}),
            "attack": evaluation.attack.model_copy(update={"parameters": load_attack(attack).complete()}),
        }
    )
    fitting = {"evaluation": evaluation, "run_key": evaluation.run_key}
    sums = result.found.model_copy(update={"weights_sha256": found, "parameters": numbers(path)})
    write_result(result.model_copy(update=fitting | {"found": sums}), folder / "results")
    return path


def numbers(path: Path) -> int:
    from odebench.io.tensor_file import read_tensors

    return sum(tensor.numel() for tensor in read_tensors(path)[0].values())


def test_what_is_published_is_a_good_entry_with_all_weights_and_claims(tmp_path: Path) -> None:
    for seed in (0, 1):
        for horizon in (1.0, 2.0):
            publish(tmp_path, "kd-ode", seed=seed, horizon=horizon)
    publish(tmp_path, "kd-ode", attack="fgsm", letters="r" * 200)
    publish(tmp_path, "kd-ode", attack="fgsm", letters="f" * 100)
    files = write_published("kd-ode", PublishedFolder(tmp_path))
    assert [path.name for path in files] == ["entry.yaml", "README.md"]
    folder = tmp_path / "entries" / "kd-ode"
    report = validate_entry(folder)
    assert report.findings == ()
    assert report.weights_here == 4
    entry = read_entry(folder)
    assert entry == published_entry("kd-ode", PublishedFolder(tmp_path))
    assert (entry.teacher, entry.training["kind"], entry.datasets[0].horizons) == ("resnet", "distillation", (1.0, 2.0))
    assert len(entry.claims) == 5
    (fgsm,) = [claim for claim in entry.claims if claim.attack == "fgsm"]
    assert (fgsm.n, fgsm.epsilon, fgsm.robust_accuracy) == (200, 0.1, 1.0), "the most images, the middle radius"
    results = [read_result(path) for path in result_files(tmp_path / "results")]
    for claim in entry.claims:
        (spoken_of,) = [result for result in results if is_about(claim, entry, result.evaluation)]
        assert contradictions(claim, spoken_of) == []


def test_a_model_without_a_field_has_no_horizon_and_no_solver(tmp_path: Path) -> None:
    publish(tmp_path, "resnet", horizon=None)
    write_published("resnet", PublishedFolder(tmp_path))
    entry = read_entry(tmp_path / "entries" / "resnet")
    assert (entry.solver, entry.teacher, entry.datasets[0].horizons) == (None, None, ())
    assert validate_entry(tmp_path / "entries" / "resnet").findings == ()


def test_refreshing_replaces_the_figures_and_leaves_the_readme(tmp_path: Path) -> None:
    publish(tmp_path, "ode")
    write_published("ode", PublishedFolder(tmp_path))
    (tmp_path / "entries" / "ode" / "README.md").write_text("mine", encoding="utf-8")
    publish(tmp_path, "ode", seed=1)
    assert [path.name for path in write_published("ode", PublishedFolder(tmp_path))] == ["entry.yaml"]
    assert len(read_entry(tmp_path / "entries" / "ode").weights) == 2
    assert (tmp_path / "entries" / "ode" / "README.md").read_text(encoding="utf-8") == "mine"


def test_results_under_another_solver_or_of_a_changed_recipe_make_no_claims(tmp_path: Path) -> None:
    from odebench.protocol.spec import adaptive

    publish(tmp_path, "ode")
    publish(tmp_path, "ode", attack="fgsm", solver=adaptive())
    publish(tmp_path, "ode", attack="noise", arguments={"epochs": 1})
    publish(tmp_path, "ode", attack="apgd-ce", train_horizon=2.0)
    publish(tmp_path, "ode", attack="square", split="validation")
    publish(tmp_path, "ode", attack="quick-diagnosis")
    assert [claim.attack for claim in published_entry("ode", PublishedFolder(tmp_path)).claims] == ["pgd"]


def test_weights_that_no_result_rests_on_are_not_listed(tmp_path: Path) -> None:
    path = publish(tmp_path, "ode")
    path.unlink()
    assert published_entry("ode", PublishedFolder(tmp_path)).weights == ()
    publish(tmp_path, "ode", seed=1, weights="others")
    with pytest.raises(OdebenchError, match="publish the weights that it rests on, or run it again"):
        published_entry("ode", PublishedFolder(tmp_path))


def test_weights_of_another_recipe_are_refused(tmp_path: Path) -> None:
    publish(tmp_path, "ode")
    other = publish(tmp_path, "ode", seed=1)
    write_published("ode", PublishedFolder(tmp_path))
    path = tmp_path / "entries" / "ode" / "entry.yaml"
    entry = read_entry(path.parent)
    first, second = entry.weights
    text = path.read_text(encoding="utf-8")
    swapped = (
        text.replace(str(first.file), "X").replace(str(second.file), str(first.file)).replace("X", str(second.file))
    )
    swapped = swapped.replace(first.sha256, "Y").replace(second.sha256, first.sha256).replace("Y", second.sha256)
    path.write_text(swapped, encoding="utf-8")
    assert other.exists()
    assert [each.rule for each in validate_entry(path.parent).findings] == ["recipe", "recipe"]


def test_nothing_is_written_of_what_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no result of ode with default settings; sweep a protocol"):
        write_published("ode", PublishedFolder(tmp_path))
    with pytest.raises(UsageError, match="unknown model 'oed'; did you mean 'ode'"):
        write_published("oed", PublishedFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["odebench", *words])
    return _exit_code()


def test_the_command_refreshes_one_entry_or_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    publish(tmp_path / "leaderboard", "ode")
    publish(tmp_path / "leaderboard", "resnet", horizon=None)
    assert typed(monkeypatch, "new-entry", "ode", "--published") == 0
    assert capsys.readouterr().out.splitlines()[0] == "leaderboard/entries/ode/entry.yaml"
    assert typed(monkeypatch, "new-entry", "--published") == 0
    assert "leaderboard/entries/resnet/entry.yaml" in capsys.readouterr().out.splitlines()
    assert typed(monkeypatch, "validate") == 0
    assert typed(monkeypatch, "new-entry", "ode", "--published", "--to", "x") == 2
    assert "leave out --to" in capsys.readouterr().err
    assert typed(monkeypatch, "new-entry") == 2
    assert "give the id of the new entry, such as: odebench new-entry my-ode" in capsys.readouterr().err


# --- those in the repository -------------------------------------------------------------------------------------


def test_the_published_models_have_entries() -> None:
    assert {path.name for path in (PUBLISHED / "results").iterdir()} <= {path.name for path in ENTRIES}


@pytest.mark.parametrize("folder", ENTRIES, ids=lambda path: path.name)
def test_an_entry_in_the_repository_is_good_and_says_what_is_published(folder: Path) -> None:
    assert validate_entry(folder).findings == ()
    entry = read_entry(folder)
    if entry.model == entry.id:
        assert entry == published_entry(entry.id, PublishedFolder(PUBLISHED)), "stale: odebench new-entry --published"
