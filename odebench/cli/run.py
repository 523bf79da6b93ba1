"""`odebench run` and `odebench train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odebench.cli.options import (
    AsJson,
    AttackName,
    AttackParameters,
    AttackSeed,
    BackendName,
    Changes,
    ContestantName,
    DataDir,
    DatasetName,
    Device,
    Epsilon,
    Force,
    Horizon,
    Images,
    MaxSteps,
    Method,
    ModelName,
    NormName,
    Offset,
    Results,
    Seed,
    SourceNames,
    SplitName,
    StepLength,
    Tolerance,
    TrainHorizon,
    Trust,
    Weights,
    number,
    radii_of,
    settings,
    solver,
    split_name,
)
from odebench.cli.root import app
from odebench.cli.trust import trusted_model
from odebench.errors import UsageError

if TYPE_CHECKING:
    from odebench.evaluation.plan import Plan


@app.command(
    epilog="Examples:\n\nodebench run --model kd-ode --attack pgd\n\nodebench run -m resnet -a cw\n\n"
    "odebench run -m ode -a pgd --horizon 2 --epsilon 2/255,8/255 -n 200\n\n"
    "odebench run -m ode -a pgd --solver dopri5 --tolerance 1e-3\n\n"
    "odebench run -m kd-ode -a worst-case -n 200 --parameter effort=standard\n\n"
    "odebench run -m my-ode -a pgd --trust --results leaderboard/results"
)
def run(
    model: ContestantName,
    attack: AttackName,
    dataset: DatasetName = "digits",
    horizon: Horizon = None,
    epsilon: Epsilon = None,
    norm: NormName = None,
    n: Images = None,
    offset: Offset = 0,
    split: SplitName = "test",
    seed: Seed = 0,
    attack_seed: AttackSeed = 0,
    train_horizon: TrainHorizon = None,
    method: Method = None,
    step: StepLength = None,
    tolerance: Tolerance = None,
    backend: BackendName = None,
    max_steps: MaxSteps = None,
    parameter: AttackParameters = None,
    changes: Changes = None,
    weights: Weights = None,
    trust: Trust = False,
    source: SourceNames = None,
    surrogate: Annotated[
        str | None,
        typer.Option(metavar="METHOD:STEP", help="A cheaper solver of the same weights goes first: rk4:0.5."),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16, of the attack; the verdict is fp32.")] = "fp32",
    chunk: Annotated[int, typer.Option(help="Images that an attack sees at once; part of the run key.")] = 100,
    data_dir: DataDir = None,
    device: Device = "cpu",
    results: Results = Path("results"),
    save_candidates: Annotated[
        Path | None, typer.Option(help="Save the last candidates judged (safetensors), for `odebench judge`.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train or load a model, attack it, judge every image, write the result."""
    from odebench.cli.console import ScreenProgress, print_result, write_text
    from odebench.dataset import describe_dataset, load_dataset
    from odebench.evaluation.plan import Slice, plan, threat_model
    from odebench.io.remote_weights import weights_file

    # All that can be wrong with the words is said before anything heavy is imported or trained.
    progress = ScreenProgress()
    trusted_model(model, trust=trust)
    radii = radii_of(epsilon, attack, norm)
    evaluated_with = solver(method, step, tolerance, backend, max_steps)
    evaluated_at, trained_at = number(horizon, "horizon"), number(train_horizon, "train horizon")
    described = describe_dataset(dataset, data_dir=data_dir, progress=progress)
    threat_model(attack, described, norm=norm, epsilons=radii)
    images = Slice(split=split_name(split), n=n, offset=offset, chunk=chunk)
    recipe_changes, parameters = settings(changes), settings(parameter)
    if precision not in ("fp32", "bf16"):
        raise UsageError(f"--precision is fp32 or bf16, not {precision!r}")
    proposing = None
    if surrogate is not None:
        cheap, _, length = surrogate.partition(":")
        proposing = solver(cheap, length or None, None, None, None)

    weights_path = None if weights is None else weights_file(weights, progress=progress)
    contestant = trusted_model(model, weights=weights_path, trust=True)

    def planned(total: int) -> Plan:
        return plan(
            contestant,
            attack,
            described,
            total=total,
            images=images,
            horizon=evaluated_at,
            train_horizon=trained_at,
            solver=evaluated_with,
            norm=norm,
            epsilons=radii,
            train_seed=seed,
            attack_seed=attack_seed,
            changes=recipe_changes,
            parameters=parameters,
            sources=source,
            surrogate=proposing,
            precision="bf16" if precision == "bf16" else "fp32",
        )

    from odebench.evaluation.evaluate import data_split
    from odebench.evaluation.evaluate import run as run_plan

    data = load_dataset(dataset, data_dir=data_dir, progress=progress)
    result, path, new = run_plan(
        planned(len(data_split(data, images.split))),
        data,
        results=results,
        force=force,
        save_candidates=save_candidates,
        device=device,
        progress=progress,
    )
    if as_json:
        from odebench.result.file import result_json

        write_text(result_json(result))
        return
    print_result(result)
    print(f"result: {path}" if new else f"result: {path} (there already; --force runs it again)")


@app.command(
    epilog="Examples:\n\nodebench train --model kd-ode --horizon 2\n\nodebench train -m resnet -d fashion-mnist"
)
def train(
    model: ModelName,
    dataset: DatasetName = "digits",
    horizon: Horizon = None,
    seed: Seed = 0,
    changes: Changes = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train a model, and its teacher first: what `run` does on first use."""
    from odebench.cli.console import ScreenProgress, write_text
    from odebench.dataset import describe_dataset, load_dataset
    from odebench.model.definition import load_definition

    progress = ScreenProgress()
    definition, trained_at = load_definition(model), number(horizon, "horizon")
    described = describe_dataset(dataset, data_dir=data_dir, progress=progress)
    recipe = definition.recipe(described, horizon=trained_at, train_seed=seed, changes=settings(changes))
    from odebench.evaluation.environment import usable_device
    from odebench.model.training import find_or_train

    data = load_dataset(dataset, data_dir=data_dir, progress=progress)
    trained = find_or_train(recipe, data, device=usable_device(device), progress=progress)
    if as_json:
        from odebench.io.canonical_json import canonical_json

        write_text(canonical_json({"path": str(trained.path), "sha256": trained.weights_sha256}))
    else:
        print(f"weights: {trained.path}\nsha256: {trained.weights_sha256}")
