"""Options that several commands share; values.py reads their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from odebench.attack.registry import ATTACKS
from odebench.cli.values import coarse_solver as coarse_solver
from odebench.cli.values import distinct as distinct
from odebench.cli.values import horizons as horizons
from odebench.cli.values import listed as listed
from odebench.cli.values import number as number
from odebench.cli.values import one_of as one_of
from odebench.cli.values import radii_of as radii_of
from odebench.cli.values import seeds as seeds
from odebench.cli.values import settings as settings
from odebench.cli.values import solver as solver
from odebench.dataset.registry import DATASETS
from odebench.model.registry import MODELS


def completing(known: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A function that completes one of the known names for the shell."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in dict.fromkeys(known()) if name.startswith(incomplete)]

    return complete


def _models_and_entries() -> Iterable[str]:
    from odebench.submission.submitted_model import entry_names

    return [*MODELS.entries(), *entry_names()]


def _solvers() -> Iterable[str]:
    from odebench.protocol.spec import FIXED_STEP_STAGES, JOINT_METHODS, PER_SAMPLE_METHODS

    return sorted({*FIXED_STEP_STAGES, *JOINT_METHODS, *PER_SAMPLE_METHODS})


def _usual_horizons() -> Iterable[str]:
    return ["0.5", "1", "2", "4"]


SOLVER_PANEL, ATTACK_PANEL, MORE_PANEL = "Solver", "Attack", "More"
"""The groups of options in the help, beside the everyday ones."""
complete_model, complete_dataset = completing(_models_and_entries), completing(DATASETS.entries)

ModelName = Annotated[
    str,
    typer.Option("--model", "-m", help="Model; `odebench models` lists them.", autocompletion=complete_model),
]
ReferenceName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Model (`odebench models` lists them), an entry's id, or the path of its folder.",
        autocompletion=complete_model,
    ),
]
ReferenceNames = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="Models, such as ode,kd-ode (`odebench models` lists them), an entry's id or folder, or FILE.py:NAME.",
        autocompletion=complete_model,
    ),
]
Trust = Annotated[bool, typer.Option("--trust", help="Run the entry's own code; read it first.")]
AttackNames = Annotated[
    list[str],
    typer.Option(
        "--attack",
        "-a",
        help="Attacks, such as pgd,cw; `odebench attacks` lists them.",
        autocompletion=completing(ATTACKS.entries),
    ),
]
DatasetName = Annotated[
    str,
    typer.Option("--dataset", "-d", help="Data set, or the stem of an image folder.", autocompletion=complete_dataset),
]
DatasetNames = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset",
        "-d",
        help="Data sets, or stems of image folders. Default: digits.",
        autocompletion=complete_dataset,
    ),
]
Horizons = Annotated[
    list[str] | None,
    typer.Option(
        "--horizon",
        help="T, such as 0.5,1,2: the field is integrated over [0, T]. Default 1.",
        autocompletion=completing(_usual_horizons),
    ),
]
Horizon = Annotated[str | None, typer.Option(help="T: the field is integrated over [0, T]. Default 1.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        envvar="ODEBENCH_DATA",
        help="Folder of data sets and image folders. Default: the cache folder.",
        rich_help_panel=MORE_PANEL,
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:1.", rich_help_panel=MORE_PANEL)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Train seed.")]
Seeds = Annotated[
    list[str] | None, typer.Option("--seed", "--seeds", help="Train seeds, such as 0,1 or 0-2. Default 0.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change the recipe: epochs=30, temperature=2, adversary=trades. Repeatable.",
        rich_help_panel=MORE_PANEL,
    ),
]
Results = Annotated[
    Path, typer.Option("--results", help="Folder that results are written to.", rich_help_panel=MORE_PANEL)
]
Epsilon = Annotated[list[str] | None, typer.Option(help="Radii, such as 0.1,8/255. Default: the data set's.")]
NormName = Annotated[str | None, typer.Option("--norm", help="linf or l2. Default: the attack's first.")]
Images = Annotated[int | None, typer.Option("-n", help="How many images. Default 500.")]
Offset = Annotated[int, typer.Option(help="The first image, in the fixed order.", rich_help_panel=MORE_PANEL)]
SplitName = Annotated[str, typer.Option("--split", help="test or validation.", rich_help_panel=MORE_PANEL)]
AttackSeed = Annotated[
    int, typer.Option(min=0, help="Seed of the attack's random numbers.", rich_help_panel=ATTACK_PANEL)
]
TrainHorizon = Annotated[
    str | None, typer.Option(help="T of training, if not --horizon; alone it sets both.", rich_help_panel=SOLVER_PANEL)
]
Method = Annotated[
    str | None,
    typer.Option(
        "--solver",
        help="Evaluate with rk4, euler, dopri5, tsit5, heun ...",
        autocompletion=completing(_solvers),
        rich_help_panel=SOLVER_PANEL,
    ),
]
StepLength = Annotated[
    str | None, typer.Option("--step", help="Step of a fixed-step solver. Default 0.25.", rich_help_panel=SOLVER_PANEL)
]
Tolerance = Annotated[
    str | None, typer.Option(help="rtol and atol of an adaptive solver. Default 1e-3.", rich_help_panel=SOLVER_PANEL)
]
BackendName = Annotated[
    str | None, typer.Option("--backend", help="torchode or torchdiffeq.", rich_help_panel=SOLVER_PANEL)
]
MaxSteps = Annotated[
    int | None,
    typer.Option(min=1, help="Step limit of an adaptive solver. Default 1000.", rich_help_panel=SOLVER_PANEL),
]
AttackParameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        metavar="NAME=VALUE",
        help="Change the attack, such as steps=100. Repeatable.",
        rich_help_panel=ATTACK_PANEL,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Weights (safetensors) instead of training, or of FILE.py:NAME: a file, https://...#sha256=..., hf://owner/name/file@revision.",
    ),
]
SourceNames = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="NAME[:KEY=VALUE]",
        help="Craft transfer candidates on this model: ode:seed=1, self:solver=dopri5. Repeatable. Default resnet.",
        rich_help_panel=ATTACK_PANEL,
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Run again even if the result exists.", rich_help_panel=MORE_PANEL)
]
TimeLimit = Annotated[
    int, typer.Option(min=1, max=604_800, metavar="SECONDS", help="Stop an entry's own code after this long.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
