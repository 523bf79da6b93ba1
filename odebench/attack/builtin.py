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
    resumes="steps",
    restarts=True,
)

CW = AttackDefinition(
    "cw",
    "odebench.attack.foolbox:cw",
    ("l2",),
    {"searches": 6, "steps": 200, "step": 1e-2, "initial_constant": 1e-3},
    passes=("searches", "steps"),
    fixed_budget=False,
)

_BOTH = ("linf", "l2")
_AUTOATTACK = "odebench.attack.autoattack"

APGD_CE = AttackDefinition(
    "apgd-ce", f"{_AUTOATTACK}:apgd_ce", _BOTH, {"steps": 100}, passes=("steps",), resumes="steps", restarts=True
)
APGD_DLR = AttackDefinition(
    "apgd-dlr", f"{_AUTOATTACK}:apgd_dlr", _BOTH, {"steps": 100}, passes=("steps",), resumes="steps", restarts=True
)
APGD_T = AttackDefinition(
    "apgd-t",
    f"{_AUTOATTACK}:apgd_targeted",
    _BOTH,
    {"steps": 100, "targets": 9},
    passes=("steps", "targets"),
    restarts=True,
)
FAB_T = AttackDefinition(
    "fab-t",
    f"{_AUTOATTACK}:fab_targeted",
    _BOTH,
    {"steps": 100, "targets": 9},
    passes=("steps", "targets"),
    fixed_budget=False,
    verifies_falls=False,
)
SQUARE = AttackDefinition(
    "square",
    f"{_AUTOATTACK}:square",
    _BOTH,
    {"queries": 5000},
    passes=("queries",),
    uses_gradients=False,
    doubles="queries",
)
SPSA = AttackDefinition(
    "spsa",
    "odebench.attack.spsa:spsa",
    _BOTH,
    {"steps": 50, "targets": 3, "directions": 64},
    passes=("steps", "targets", "directions"),
    uses_gradients=False,
)
NOISE = AttackDefinition("noise", f"{_AUTOATTACK}:noise", _BOTH, {"draws": 20}, passes=("draws",), uses_gradients=False)
TRANSFER = AttackDefinition(
    "transfer",
    "odebench.attack.transfer:transfer",
    _BOTH,
    {"steps": 100},
    passes=("steps",),
    needs_sources=True,
    doubles="steps",
)
WORST_CASE = AttackDefinition(
    "worst-case",
    "",
    _BOTH,
    {"effort": "fast"},
    choices={"effort": ("fast", "standard")},
    needs_sources=True,
    expansion="odebench.attack.worst_case:stages",
)
CANDIDATES = AttackDefinition(
    "candidates",
    "odebench.attack.precomputed:precomputed",
    _BOTH,
    {"file_sha256": "", "credit": ""},
    needs_candidates=True,
    credits="credit",
    uses_gradients=False,
)

_EXAMINED = {"steps": 20, "random_start": True}
QUICK_DIAGNOSIS = AttackDefinition(
    "quick-diagnosis",
    "",
    _BOTH,
    _EXAMINED,
    step_share=2.5,
    expansion="odebench.attack.probes:quick_stages",
    examines=(5, 8, 11, 16, 17),
    narrow=True,
)
DIAGNOSIS = AttackDefinition(
    "diagnosis",
    "",
    _BOTH,
    _EXAMINED,
    step_share=2.5,
    needs_sources=True,
    expansion="odebench.attack.probes:full_stages",
    examines=(4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 17),
    many_sources=True,
)
