"""The built-in attacks and their budgets (docs/protocol.md, "Attacks and budgets")."""

from __future__ import annotations

from odebench.attack.definition import AttackDefinition

FGSM = AttackDefinition("fgsm", "odebench.attack.foolbox:fgsm", ("linf", "l2"), {})

PGD = AttackDefinition(
    "pgd",
    "odebench.attack.foolbox:pgd",
    ("linf", "l2"),
    {"steps": 20, "random_start": True},
    passes=("steps",),
    step_share=2.5,
)

CW = AttackDefinition(
    "cw",
    "odebench.attack.foolbox:cw",
    ("l2",),
    {"searches": 6, "steps": 200, "step": 1e-2, "initial_constant": 1e-3},
    passes=("searches", "steps"),
    fixed_budget=False,
)
