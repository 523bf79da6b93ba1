"""The command line that makes a stored result again. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from odebench.attack.builtin import DIAGNOSIS
from odebench.attack.definition import DiagnosisDefinition, load_attack
from odebench.errors import UsageError
from odebench.evaluation.model_reference import ModelReference, RegisteredModel
from odebench.evaluation.plan import DEFAULT_CHUNK
from odebench.model.registry import MODELS
from odebench.protocol.spec import Evaluation, Solver, parse_number, radius
from odebench.result.schema import Result
from odebench.submission.own_model import CODE
from odebench.submission.submitted_model import SubmittedModel, find_model

DEFAULT_MAX_STEPS = 1000
"""Of an adaptive solver on the command line."""
FILE = "FILE"
"""Stands for a file that the user must name."""


def run_command(result: Result, model: ModelReference | None = None) -> list[str]:
    """The words of the command that makes a result again; FILE stands for a weights file that the user must name, and
    FILE.py for the file of a model of one's own. The model is looked up by its name unless it is given.

    Raises UsageError where there is no such command: for a module handed over in Python, a model that is not here, and
    candidates made elsewhere.
    """
    evaluation = result.evaluation
    if evaluation.attack.is_function:
        raise UsageError(f"its attack, {evaluation.attack.name}, is a function that was handed over in Python")
    attack, spec = load_attack(evaluation.attack.name), evaluation.attack
    if attack.needs_candidates:
        raise UsageError(f"its candidates were made elsewhere: odebench judge -m {evaluation.model.name} {FILE}")
    own = CODE in evaluation.model.arguments and evaluation.model.name not in MODELS.entries()
    name = f"{FILE}.py:{evaluation.model.name}" if own else evaluation.model.name
    model = model if model is not None or own else find_model(name)
    words = ["odebench", "run", "--model", name, "--attack", attack.name]
    if isinstance(attack, DiagnosisDefinition):
        words = ["odebench", "diagnose", "--model", name]
        words += ["--full"] if attack.name == DIAGNOSIS.name else []
    words += [*_images(evaluation), *_integration(evaluation)]
    words += [
        "--norm",
        evaluation.threat_model.norm,
        "--epsilon",
        ",".join(map(_exact, evaluation.threat_model.epsilons)),
    ]
    words += _seed("--seed", evaluation.model.train_seed)
    words += _seed("--attack-seed", spec.seed)
    words += _pairs("--parameter", _needed_parameters(attack, spec.parameters))
    words += [word for source in spec.sources for word in ("--source", source)]
    if spec.surrogate is not None:
        words += ["--surrogate", f"{spec.surrogate.solver.method}:{_number(spec.surrogate.solver.step)}"]
    words += ["--precision", evaluation.precision] if evaluation.precision != "fp32" else []
    if isinstance(model, RegisteredModel):
        words += _pairs("--set", evaluation.model.other_arguments)
        words += ["--weights", FILE] if evaluation.model.weights == result.found.weights_sha256 else []
    elif own:
        words += ["--weights", FILE, "--trust"]
    elif isinstance(model, SubmittedModel) and model.code is not None:
        words.append("--trust")
    return words


def joined(commands: Sequence[list[str]]) -> list[list[str]]:
    """The commands, those of `odebench run` that differ in their train seed or their attack alone as one: a grid makes
    every combination, so it makes the same results."""
    grids = [words for words in commands if words[1] == "run" and FILE not in words]  # weights are those of one model
    others = [words for words in commands if words not in grids]
    return [*_joined(_joined(grids, "--seed", default="0"), "--attack", default=""), *others]


def _joined(commands: Sequence[list[str]], option: str, *, default: str) -> list[list[str]]:
    """The commands that are equal but for the value of an option as one, with all values."""
    values: dict[tuple[str, ...], list[str]] = {}
    for words in commands:
        at = words.index(option) if option in words else len(words)
        values.setdefault((*words[:at], *words[at + 2 :]), []).append("".join(words[at + 1 : at + 2]) or default)
    for each in values.values():
        each.sort(key=lambda value: (len(value), value) if option == "--seed" else (0, ""))
    return [
        list(rest) if each == [default] else [*rest[:_MODEL], option, ",".join(each), *rest[_MODEL:]]
        for rest, each in values.items()
    ]


_MODEL = 4
"""How many words there are up to the name of the model."""


def _images(evaluation: Evaluation) -> Iterator[str]:
    dataset = evaluation.dataset
    yield from ("--dataset", dataset.name, "-n", str(dataset.n))
    if dataset.offset:
        yield from ("--offset", str(dataset.offset))
    if dataset.split != "test":
        yield from ("--split", dataset.split)
    if evaluation.chunk != DEFAULT_CHUNK:
        yield from ("--chunk", str(evaluation.chunk))


def _integration(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.horizon is not None:
        yield from ("--horizon", _number(evaluation.horizon))
    if evaluation.train_horizon not in (None, evaluation.horizon):
        yield from ("--train-horizon", _number(evaluation.train_horizon))
    if evaluation.solver is not None:
        yield from _solver(evaluation.solver)


def _solver(solver: Solver) -> Iterator[str]:
    yield from ("--solver", solver.method)
    if solver.step is not None:
        yield from ("--step", _number(solver.step))
        return
    if solver.rtol != solver.atol:
        raise UsageError(f"no command has an rtol and an atol of their own: {solver}")
    yield from ("--tolerance", _number(solver.rtol))
    if solver.backend != "torchode":
        yield from ("--backend", solver.backend)
    if solver.max_steps != DEFAULT_MAX_STEPS:
        yield from ("--max-steps", str(solver.max_steps))


def _needed_parameters(attack: Any, parameters: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The parameters that must be given for the attack to have all of these."""
    needed = dict(parameters)
    for name in parameters:
        fewer = {other: value for other, value in needed.items() if other != name}
        if attack.complete(fewer) == parameters:
            needed = fewer
    return needed


def _pairs(option: str, values: Mapping[str, JsonValue]) -> Iterator[str]:
    for name, value in values.items():
        yield from (option, f"{name}={value if _is_plain(value) else json.dumps(value)}")


def _is_plain(value: JsonValue) -> bool:
    """Whether a text is read as itself where the command line reads JSON first."""
    if not isinstance(value, str):
        return False
    try:
        json.loads(value)
    except ValueError:
        return True
    return False


def _seed(option: str, seed: JsonValue) -> list[str]:
    return [] if seed in (0, None) else [option, str(seed)]


def _exact(epsilon: float) -> str:
    text = radius(epsilon)
    return text if parse_number(text, name="epsilon") == epsilon else repr(epsilon)


def _number(value: float | None) -> str:
    assert value is not None
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)
