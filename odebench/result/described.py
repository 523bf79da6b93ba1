"""The JSON Schema of a result in words: what each property holds, in which unit, and what the letters stand for."""

from __future__ import annotations

from typing import Any

from odebench.result.outcome import MEANINGS
from odebench.result.schema import SCHEMA_VERSION, Result

SCHEMA_ID = f"urn:odebench:result:{SCHEMA_VERSION}"
_LEGEND = "; ".join(f"{letter}: {meaning}" for letter, meaning in MEANINGS.items())
_UNIT = "in units of the image range [0, 1]"
_NORM = f"A quantile of the perturbation's norm over the fooled images, {_UNIT}: "
_SHARES = "share of all n images, from 0 to 1"

DESCRIPTIONS: dict[str, str] = (
    {
        "Result.schema_version": "The version of this schema that the file was written in.",
        "Result.run_key": "The sha256 of the evaluation as canonical JSON: the identity of the result.",
        "Result.evaluation": "All that determines the result and is known before the run.",
        "Result.found": "What was at hand when the evaluation ran: data, weights, packages, device.",
        "Result.epsilons": "The outcome of every image, one item per radius, rising.",
        "Result.nfe": "Evaluations of the vector field per image; null parts for a model without a field.",
        "Result.cost": "What attack and verdict took, without the checks.",
        "Result.checks": "The automated checks that were made, or why one was not.",
        "Result.flags": "The checks that flag by their names, then other warnings about model or settings.",
        "Result.outcomes_sha256": "The sha256 of all letters: outcomes and felled_by of every epsilon. The codes of "
        "felled_by differ between versions 1 and 2, and so does the digest of equal letters.",
        "Result.created": "When the result was written: date and time in UTC, ISO 8601.",
        "Result.doubt": "Why stages ran that false gradients do not mislead, one sentence per reason.",
        "AttackSpec.name": "The registered name of the attack.",
        "AttackSpec.parameters": "All parameters of the attack, with defaults; relative_step is in units of epsilon.",
        "AttackSpec.seed": "The seed of the attack's random numbers.",
        "AttackSpec.sources": "The models that transfer candidates are crafted on, as --source writes them.",
        "AttackSpec.surrogate": "A coarser solver of the same weights that is attacked first; null for none.",
        "CandidatesFile.sha256": "The sha256 of the file of candidates that was judged.",
        "CandidatesFile.address": "The https address of that file; null where none is known.",
        "Check.id": "The number of the check (docs/diagnosis.md).",
        "Check.name": "The name of the check.",
        "Check.status": "pass, flag, or skipped where the check could not be made.",
        "Check.speaks_of": "Whether a flag is about the model or about the settings of the attack.",
        "Check.figure": "What was measured, in the unit of the threshold; null where only images were counted.",
        "Check.threshold": "The value beyond which the figure flags; null where there is none.",
        "Check.k": "The number of images that the check counted; null where a quantity was measured.",
        "Check.n": "The number of images that were looked at; null where a quantity was measured.",
        "Check.why": "What the check found, and what to do where it flags; one sentence.",
        "Check.evidence": "The numbers behind the figure, by name.",
        "CoarseSolver.solver": "The solver that is attacked first.",
        "Cost.forward": "Forward passes through the model, per image.",
        "Cost.backward": "Backward passes through the model, per image.",
        "Cost.seconds": "Wall-clock time of attack and verdict, in seconds.",
        "Cost.stages": "What each stage of the attack took of it, at all epsilons together.",
        "DatasetSlice.name": "The name of the data set.",
        "DatasetSlice.split": "The split that the images are from.",
        "DatasetSlice.n": "The number of images.",
        "DatasetSlice.offset": "The place of the first image in the fixed, stratified order of the split, from 0.",
        "EpsilonResult.epsilon": f"The radius of the ball around each image, {_UNIT}.",
        "EpsilonResult.outcomes": f"One letter per image, in order. {_LEGEND}.",
        "EpsilonResult.felled_by": "Which attack or stage succeeded on each image.",
        "EpsilonResult.figures": "What the letters say, as shares with intervals.",
        "Evaluation.model": "The model.",
        "Evaluation.train_horizon": "The horizon T that the model was trained at; null where none is known.",
        "Evaluation.horizon": "The horizon T: the field is integrated over [0, T]; null for a model without a field.",
        "Evaluation.solver": "The solver of the verdict; null for a model without a field.",
        "Evaluation.dataset": "The images.",
        "Evaluation.threat_model": "What an attacker may change.",
        "Evaluation.attack": "The attack, with all that it depends on.",
        "Evaluation.chunk": "The number of consecutive images that the attack sees at once.",
        "Evaluation.precision": "The precision of the attack's gradients; the verdict is always fp32.",
        "FelledBy.letters": "One code of two letters per image (of one in version 1), in order; - for none.",
        "FelledBy.legend": "The attack or stage, with its epsilon if there are several, by code.",
        "Figure.value": "The share, from 0 to 1.",
        "Figure.low": "The lower end of its 95% Wilson interval, which covers the sampling of images.",
        "Figure.high": "The upper end of its 95% Wilson interval.",
        "Figures.clean_accuracy": f"Images classified correctly without an attack, (f + x + r) / n: {_SHARES}.",
        "Figures.robust_accuracy": f"Images that withstood every candidate, r / n: {_SHARES}.",
        "Figures.conditional_robustness": "Robust images among the correct ones, r / (f + x + r): from 0 to 1.",
        "Figures.norm_quantiles": "The norms of the perturbations that fooled an image; null where none did.",
        "Figures.invalid": "The number of candidates that were not finite, or outside the ball.",
        "Found.dataset_sha256": "The sha256 of all images and labels of the split.",
        "Found.weights_sha256": "The sha256 of the weights: of their file, or of a module that was handed over.",
        "Found.sources_sha256": "The sha256 of the weights of each transfer source, by its name.",
        "Found.parameters": "The number of parameters of the model.",
        "Found.versions": "The versions of what computed the result.",
        "Found.device": "The device, with its name, such as cpu (name of the processor).",
        "Found.threads": "The number of threads that torch computed with.",
        "Found.trained_on": "What the weights were trained on; null where it is not known.",
        "Found.candidates": "The file of candidates that was judged; null where the attack made its own.",
        "ModelSpec.name": "The name of a registered model or the id of an entry.",
        "ModelSpec.arguments": "The train seed, and what differs from the model's default recipe.",
        "ModelSpec.weights": "The digest that identifies the weights: of a recipe, of a file, or of a module's state.",
        "Nfe.clean": "Evaluations of the vector field per clean image.",
        "Nfe.adversarial": "Evaluations of the vector field per image, on the last candidates judged.",
        "NfeSummary.mean": "The mean over images, in evaluations of the vector field.",
        "NfeSummary.p95": "The 95th percentile over images, in evaluations of the vector field.",
        "NfeSummary.max": "The largest of all images, in evaluations of the vector field.",
        "Quantiles.q05": f"{_NORM}5%.",
        "Quantiles.q25": f"{_NORM}25%.",
        "Quantiles.q50": f"{_NORM}50%, the median.",
        "Quantiles.q75": f"{_NORM}75%.",
        "Quantiles.q95": f"{_NORM}95%.",
        "Solver.method": "The method, such as rk4 or dopri5.",
        "Solver.backend": "The library that integrates.",
        "Solver.step": "The length of a step, in the unit of the horizon; null for an adaptive method.",
        "Solver.rtol": "The relative tolerance of an adaptive method; null for fixed steps.",
        "Solver.atol": "The absolute tolerance of an adaptive method; null for fixed steps.",
        "Solver.max_steps": "The most steps of an adaptive method, after which it has failed; null for fixed steps.",
        "StageCost.name": "The name of the stage.",
        "StageCost.forward": "Forward passes through the model, per image of the result.",
        "StageCost.backward": "Backward passes through the model, per image of the result.",
        "StageCost.seconds": "Wall-clock time of the stage, in seconds.",
        "ThreatModel.norm": "The norm of the ball around each image.",
        "ThreatModel.epsilons": f"The radii, rising, {_UNIT}.",
        "TrainedOn.device": "The kind of device: cpu or cuda.",
        "TrainedOn.torch": "The version of torch that trained them.",
    }
    | {
        f"Versions.{name}": f"The version of {name}."
        for name in ("odebench", "python", "numpy", "scipy", "torch", "torchdiffeq", "torchode", "foolbox")
    }
    | {"Versions.pyautoattack": "The version of pyautoattack; null where it was not installed."}
)
"""What each property of the schema holds, by definition and property."""


def result_schema() -> dict[str, Any]:
    """The JSON Schema of a result (draft 2020-12), with an identifier and a description of every property."""
    schema = Result.model_json_schema()
    for definition, content in [("Result", schema), *schema["$defs"].items()]:
        for name, value in content.get("properties", {}).items():
            value["description"] = DESCRIPTIONS[f"{definition}.{name}"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}
