"""Registered claims: what a registration may say, which cells it reads, since when it stands."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from odebench.cli.leaderboard import asked_claims
from odebench.errors import UsageError
from odebench.io.yaml_document import DocumentError
from odebench.protocol.registration import ClaimCell, ClaimCells, registration_file
from odebench.sweep.protocol_cells import read_grid
from odebench.sweep.registered import registered_claims, with_history

ROOT = Path(__file__).parents[2]
PROTOCOL = """\
name: small
version: 1
summary: s
dataset: {name: digits, n: 200}
weights: false
sections:
  - name: a
    models: [ode, kd-ode]
    horizons: [0.5, 1]
    train_seeds: 0-9
    threat_models: [{norm: linf, epsilons: [0.1]}]
    attacks: [{name: claims}, {name: fgsm, n: 500}]
  - name: b
    models: [ode, kd-ode]
    horizons: [0.5, 1]
    train_seeds: 0-9
    recipes: {kd-ode: {learning_rate: 0.003}}
    threat_models: [{norm: linf, epsilons: [0.1]}]
    attacks: [{name: claims}]
"""
CLAIM = """\
version: 1
claims:
  - name: digits-gain
    question: Does it help?
    kind: robust
    dataset: digits
    protocol: PROTOCOL
    arms: [{model: kd-ode, sections: a}, {model: ode, sections: a}]
    horizons: [0.5, 1]
    train_seeds: 0-8
    images: 200
    attack: {name: claims}
    norm: linf
    epsilon: 0.1
    margin: 2
    family: f
"""


def registration(folder: Path, text: str = CLAIM) -> Path:
    (folder / "small.yaml").write_text(PROTOCOL)
    path = folder / "claims.yaml"
    path.write_text(text.replace("PROTOCOL", str(folder / "small.yaml")))
    return path


def test_a_claim_reads_cells_of_its_protocol_by_run_key(tmp_path: Path) -> None:
    (found,) = registered_claims(registration(tmp_path))
    assert len(found.run_keys) == 2 * 2 * 9
    assert found.claim.train_seeds == tuple(range(9))
    cells = {
        (cell.plan.evaluation.model.name, cell.plan.evaluation.horizon, cell.plan.recipe.train_seed): cell.run_key
        for cell in read_grid(str(tmp_path / "small.yaml")).cells
        if cell.section == "a" and cell.plan.evaluation.attack.name == "claims"
    }
    assert found.run_keys[ClaimCell(0, 0, 1, 3)] == cells["kd-ode", 1.0, 3]
    assert found.run_keys[ClaimCell(1, 0, 0, 8)] == cells["ode", 0.5, 8]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sections: a}, {", "sections: b}, {", "line 8: kd-ode T=0.5 seed 0, claims in linf and ode T=0.5 seed 0, "
         "claims in linf differ in schedule.learning_rate too; give both one recipe, or name it as factor"),
        ("sections: a}, {", "sections: c}, {", "line 8: protocol small has no section c; known: a, b"),
        ("model: ode,", "model: odee,", "line 8: section a of small has no odee"),
        ("horizons: [0.5, 1]", "horizons: [0.5, 2]", "line 8: section a of small has no T=2"),
        ("train_seeds: 0-8", "train_seeds: 5-12", "line 8: section a of small has no train seed 10"),
        ("norm: linf", "norm: l2", "line 8: section a of small has no l2"),
        ("epsilon: 0.1", "epsilon: 0.2", "line 14: section a of small asks linf at 0.1"),
        ("images: 200", "images: 500", "line 11: section a asks claims of 200 images, not 500"),
        ("{name: claims}", "{name: pgd}", "line 12: section a has no such attack as pgd"),
        ("dataset: digits", "dataset: svhn", "line 6: protocol small is about digits, not svhn"),
        ("kind: robust", "kind: slope", "a slope has one arm, a gain two: the one that should gain first"),
        ("train_seeds: 0-8", "train_seeds: 9-2", "it must be a list of seeds, or a range of at most 1000 such as 0-44"),
        ("train_seeds: 0-8", "train_seeds: 0-99999999", "a range of at most 1000 such as 0-44"),
        ("family: f", "family: f\n    earlier: true", "data of 8 train seeds decides: register new ones"),
        ("margin: 2", "margin: -2", "margin"),
        ("{model: ode, sections: a}", "{model: ode, sections: [a, b]}", "both arms need the same number of sections"),
        ("kind: robust", "kind: rubust", "line 5"),
        ("protocol: PROTOCOL", "protocol: digts", "line 7: unknown protocol 'digts'; did you mean 'digits'?"),
    ],
)  # fmt: skip
def test_a_claim_that_its_protocol_cannot_answer_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in CLAIM
    with pytest.raises(UsageError) as caught:
        registered_claims(registration(tmp_path, CLAIM.replace(old, new)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_named_factor_may_differ(tmp_path: Path) -> None:
    text = CLAIM.replace("sections: a}, {", "sections: b}, {").replace("family: f", "family: f\n    factor: [schedule]")
    (found,) = registered_claims(registration(tmp_path, text))
    assert len(found.run_keys) == 36


def test_two_claims_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="a claim called 'digits-gain' appears twice"):
        registered_claims(registration(tmp_path, CLAIM + CLAIM.partition("claims:\n")[2]))


def commit(folder: Path, day: int) -> None:
    when = f"2026-01-{day:02}T00:00:00+00:00"
    environment = {**os.environ, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": "2026-02-01T00:00:00+00:00"}
    for words in (("add", "-A"), ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x")):
        subprocess.run(["git", "-C", str(folder), *words], check=True, env=environment)


def test_a_claim_stands_since_the_commit_that_made_it_what_it_is(tmp_path: Path) -> None:
    path = registration(tmp_path)

    def known() -> ClaimCells:
        return with_history(path, registered_claims(path))[0]

    assert (known().registered, known().refused) == (None, "")
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q"], check=True)
    assert known().refused == "it is not committed in this form; commit it before its first run"
    commit(tmp_path, 1)
    assert known().registered == datetime(2026, 1, 1, tzinfo=timezone.utc)
    path.write_text(path.read_text().replace("Does it help?", "Does it help at all?") + "# more\n")
    assert known().registered == datetime(2026, 1, 1, tzinfo=timezone.utc)
    commit(tmp_path, 2)
    path.write_text(path.read_text().replace("margin: 2", "margin: 1"))
    assert known().refused.startswith("it is not committed in this form")
    commit(tmp_path, 3)
    assert known().registered == datetime(2026, 1, 3, tzinfo=timezone.utc)
    path.write_text(path.read_text().replace("margin: 1", "margin: 2"))
    commit(tmp_path, 4)
    assert known().registered == datetime(2026, 1, 4, tzinfo=timezone.utc)


def test_the_registration_of_this_repository_has_cells_and_two_primary_claims_a_data_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    claims = asked_claims()
    assert registration_file(ROOT / "leaderboard") == ROOT / "leaderboard" / "claims.yaml"
    assert all(found.run_keys for found in claims)
    families: dict[str, list[str]] = {}
    for found in claims:
        families.setdefault(found.claim.family, []).append(found.claim.kind)
    for dataset in ("digits", "fashion-mnist", "cifar10-jpeg", "cifar10", "svhn"):
        assert families[f"{dataset} primary"] == ["clean", "robust"]
