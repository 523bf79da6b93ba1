"""Names of outcomes, flags and checks."""

from __future__ import annotations

from odebench.result.outcome import CheckId


def test_the_names_of_checks_are_those_of_published_results() -> None:
    assert [check.label for check in CheckId] == [
        "gradient availability",
        "determinism",
        "logits, not probabilities",
        "black box",
        "iterative beats single step",
        "convergence",
        "incomplete optimisation",
        "silent success",
        "unbounded attack",
        "monotone budget",
        "random noise",
        "transfer",
        "recomputation",
        "reach",
        "batch independence",
        "solver gap",
        "gradient fidelity",
        "solver failure",
        "state",
        "useful gradient",
        "zero gradients",
        "memorised images",
    ]
