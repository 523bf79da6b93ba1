"""Results and examples that a page is made of."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from result_factory import counted_check, make_result

from odebench.leaderboard.example_images import ExamplePair, Examples, examples_folder, file_names
from odebench.leaderboard.union import StoredResult
from odebench.render.page import page_html
from odebench.render.publish import page_content
from odebench.result.file import write_result
from odebench.result.schema import Check, Result
from odebench.submission.provenance import provenance

HOSTILE = "<script>alert(1)</script>"


def check(name: str = "solver gap", *, id: int = 16, k: int = 20) -> Check:
    return counted_check(name, id=id, k=k, n=100, why="half the step moves letters: take a finer one")


def results() -> list[Result]:
    """Three models; two horizons, two seeds, two epsilons, two norms, an attack of its own; a flag on one."""
    found = []
    for model, horizons, robust in (("kd-ode", (0.5, 2.0), 60), ("ode", (0.5, 2.0), 50), ("resnet", (None,), 70)):
        for horizon in horizons:
            for seed in (0, 1):
                for attack, extra in (("worst-case", 0), ("fgsm", 15)):
                    stand = {0.05: robust + extra + seed + 5, 0.1: robust + extra + seed}
                    letters = {epsilon: "r" * r + "f" * (95 - r) + "m" * 5 for epsilon, r in stand.items()}
                    flagged = (model, horizon, attack) == ("kd-ode", 2.0, "worst-case")
                    found.append(
                        make_result(
                            letters,
                            model=model,
                            horizon=horizon,
                            train_seed=seed,
                            attack=attack,
                            flags=["solver gap"] if flagged else [],
                            checks=[check() if flagged else check(k=0)],
                        )
                    )
    found.append(make_result({0.5: "r" * 40 + "f" * 55 + "m" * 5}, model="ode", norm="l2", attack="cw", horizon=0.5))
    return found


def write_examples(item: StoredResult, *, label: str = "1", predicted: str = "7") -> None:
    """Pairs beside a result, as `odebench examples` leaves them."""
    letters = item.result.epsilons[-1].outcomes
    pairs = [
        ExamplePair(index=letters.index(letter), label=label, predicted=predicted, outcome=letter, felled_by=None)
        for letter in "rf"
    ]
    evaluation = item.result.evaluation
    folder = examples_folder(item)
    folder.mkdir()
    for pair in pairs:
        for level, name in zip((10, 30), file_names(pair), strict=True):
            Image.new("L", (8, 8), level).save(folder / name, "PNG")
    examples = Examples(
        schema_version=1,
        run_key=item.result.run_key,
        dataset=evaluation.dataset.name,
        norm=evaluation.threat_model.norm,
        epsilon=evaluation.threat_model.epsilons[-1],
        attack="worst-case",
        pairs=tuple(pairs),
    )
    (folder / "examples.json").write_text(examples.model_dump_json())


def stored_in(folder: Path, found: list[Result]) -> list[StoredResult]:
    return [StoredResult(write_result(result, folder), result) for result in found]


def html_of(folder: Path) -> str:
    content, problems = page_content([folder], [], provenance=provenance(None))
    assert problems == []
    return page_html(content, link=lambda path: path.relative_to(folder).as_posix())
