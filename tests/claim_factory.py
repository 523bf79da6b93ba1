"""Registered claims over made results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from result_factory import make_result

from odebench.leaderboard.union import StoredResult
from odebench.protocol.registration import ClaimCell, ClaimCells, RegisteredClaim
from odebench.result.schema import Result

HORIZONS = (0.5, 1.0, 2.0)
N = 200
Shares = Callable[[str, float], float]
"""The share of images that a model keeps at a horizon."""


def registered(name: str = "digits-robust-gain", **changes: Any) -> RegisteredClaim:
    """A claim of kd-ode over ode, or with kind "slope" of ode alone."""
    arms: list[dict[str, Any]] = [{"model": "kd-ode", "sections": ["a"]}, {"model": "ode", "sections": ["a"]}]
    values = {
        "name": name,
        "question": "Does it help?",
        "kind": "robust",
        "dataset": "digits",
        "protocol": "digits-study",
        "arms": arms[1:] if changes.get("kind") == "slope" else arms,
        "horizons": HORIZONS,
        "train_seeds": list(range(8)),
        "images": N,
        "attack": {"name": "claims"},
        "norm": "linf",
        "epsilon": 0.1,
        "margin": 2.0,
        "family": "digits primary",
    }
    return RegisteredClaim.model_validate(values | changes)


def letters(clean: float, robust: float, *, n: int, generator: np.random.Generator) -> str:
    """Letters of images drawn with these shares of correct and of robust ones; the same images are hard for all."""
    ease = np.linspace(0, 1, n) + generator.normal(0, 0.05, n)
    order = np.argsort(ease)
    found = np.full(n, "r")
    found[order[: round(n * (1 - robust))]] = "f"
    found[order[: round(n * (1 - clean))]] = "m"
    return "".join(found)


def study(
    claim: RegisteredClaim,
    robust: Shares,
    *,
    clean: Shares = lambda model, horizon: 0.97,
    attack: str = "claims",
    scatter: float = 0.01,
    seeds: Sequence[int] | None = None,
    **more: Any,
) -> dict[ClaimCell, Result]:
    """A result a cell of a claim; the shares of a train seed scatter."""
    found = {}
    for seed in claim.train_seeds if seeds is None else seeds:
        generator = np.random.default_rng(seed)
        for number, arm in enumerate(claim.arms):
            for section, name in enumerate(arm.sections):
                for at, horizon in enumerate(arm.horizons or claim.horizons):
                    share = robust(arm.model, horizon) + generator.normal(0, scatter)
                    text = letters(clean(arm.model, horizon), share, n=claim.images, generator=generator)
                    found[ClaimCell(number, section, at, seed)] = make_result(
                        {claim.epsilon: text},
                        model=arm.model,
                        arguments={"section": name},
                        horizon=horizon,
                        train_seed=seed,
                        attack=attack,
                        norm=claim.norm,
                        dataset=claim.dataset,
                        **more,
                    )
    return found


def asked(
    claim: RegisteredClaim, found: dict[ClaimCell, Result], weak: dict[ClaimCell, Result] | None = None
) -> ClaimCells:
    """The claim with the run keys of these results."""
    return ClaimCells(claim, *({cell: each.run_key for cell, each in part.items()} for part in (found, weak or {})))


def stored(*results: Result) -> list[StoredResult]:
    """The results as if they had been read from files."""
    return [StoredResult(Path(f"results/{number}.json"), result) for number, result in enumerate(results)]
