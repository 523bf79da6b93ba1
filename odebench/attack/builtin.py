"""The built-in attacks and their budgets (docs/protocol.md, "Attacks and budgets").

Each definition here is a name of `odebench attacks`, listed in this order.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from odebench.attack.definition import AttackDefinition, DiagnosisDefinition, StagedAttackDefinition

_BOTH = ("linf", "l2")

FGSM = AttackDefinition(
    "fgsm", "odebench.attack.foolbox:fgsm", _BOTH, {}, summary="fast gradient (sign) method: one step of epsilon"
)
PGD = AttackDefinition(
    "pgd",
    "odebench.attack.foolbox:pgd",
    _BOTH,
    {"steps": 20, "random_start": True},
    summary="projected gradient descent from a random start",
    passes=("steps",),
    step_share=2.5,
    resumes="steps",
    restarts=True,
    examines_model=True,
)
CW = AttackDefinition(
    "cw",
    "odebench.attack.foolbox:cw",
    ("l2",),
    {"searches": 6, "steps": 200, "step": 1e-2, "initial_constant": 1e-3},
    summary="Carlini and Wagner's smallest l2 perturbation",
    passes=("searches", "steps"),
    fixed_budget=False,
)
APGD_CE = AttackDefinition(
    "apgd-ce",
    "odebench.attack.autoattack:apgd_ce",
    _BOTH,
    {"steps": 100},
    summary="Auto-PGD on the cross-entropy",
    passes=("steps",),
    resumes="steps",
    restarts=True,
)
APGD_DLR = AttackDefinition(
    "apgd-dlr",
    "odebench.attack.autoattack:apgd_dlr",
    _BOTH,
    {"steps": 100},
    summary="Auto-PGD on the difference of logits ratio",
    passes=("steps",),
    resumes="steps",
    restarts=True,
)
APGD_T = AttackDefinition(
    "apgd-t",
    "odebench.attack.autoattack:apgd_targeted",
    _BOTH,
    {"steps": 100, "targets": 9},
    summary="Auto-PGD towards each of the likeliest other classes",
    passes=("steps", "targets"),
    restarts=True,
)
PGD_MARGIN = AttackDefinition(
    "pgd-margin",
    "odebench.attack.margin:pgd_margin",
    _BOTH,
    {"steps": 30, "targets": 9, "restarts": 1},
    summary="ascent on the margin of the nearest other classes",
    passes=("steps", "targets", "restarts"),
    doubles="restarts",
)
FAB_T = AttackDefinition(
    "fab-t",
    "odebench.attack.autoattack:fab_targeted",
    _BOTH,
    {"steps": 100, "targets": 9},
    summary="targeted FAB: the smallest perturbation",
    passes=("steps", "targets"),
    fixed_budget=False,
    verifies_falls=False,
)
SMOOTHED = AttackDefinition(
    "smoothed",
    "odebench.attack.smoothed:smoothed",
    _BOTH,
    {"steps": 20, "targets": 9, "draws": 16, "directions": 64},
    summary="ascent on a smoothed gradient, for models that mask theirs",
    passes=("steps", "targets", "directions"),
    doubles="draws",
)
SUBSTITUTE = AttackDefinition(
    "substitute",
    "odebench.attack.substitute:substitute",
    _BOTH,
    {"steps": 30, "targets": 3, "epochs": 20},
    summary="ascent from candidates for a net distilled from the model",
    passes=("steps", "targets"),
    needs_train_images=True,
)


def _boundary_step(parameters: Mapping[str, JsonValue]) -> float:
    """The gradient, halvings and differences of a step; where points are dropped, half of them, as measured
    on digits."""
    whole = 1 + int(str(parameters["halvings"])) / 3 + (2 * 64 / 3 if parameters["differences"] else 0)
    return whole / 2 if parameters["drop_far"] else whole


BOUNDARY = AttackDefinition(
    "boundary",
    "odebench.attack.boundary:boundary",
    _BOTH,
    {"steps": 12, "starts": 5, "halvings": 14, "drop_far": True, "differences": False},
    summary="from train images of other classes along the boundary",
    passes=("steps", "starts"),
    pass_gradients=_boundary_step,
    needs_train_images=True,
)
SPSA = AttackDefinition(
    "spsa",
    "odebench.attack.spsa:spsa",
    _BOTH,
    {"steps": 50, "targets": 3, "directions": 64},
    summary="black box: gradients estimated from logits",
    passes=("steps", "targets", "directions"),
    uses_gradients=False,
)
SQUARE = AttackDefinition(
    "square",
    "odebench.attack.autoattack:square",
    _BOTH,
    {"queries": 5000},
    summary="black box: random search on the logits",
    passes=("queries",),
    uses_gradients=False,
    doubles="queries",
)
NOISE = AttackDefinition(
    "noise",
    "odebench.attack.autoattack:noise",
    _BOTH,
    {"draws": 20},
    summary="random points at distance epsilon",
    passes=("draws",),
    uses_gradients=False,
)
TRANSFER = AttackDefinition(
    "transfer",
    "odebench.attack.transfer:transfer",
    _BOTH,
    {"steps": 100},
    summary="candidates crafted on other models, the sources",
    passes=("steps",),
    needs_sources=True,
    doubles="steps",
)
CANDIDATES = AttackDefinition(
    "candidates",
    "odebench.attack.precomputed:precomputed",
    _BOTH,
    {"file_sha256": "", "credit": ""},
    summary="made elsewhere, from a file: odebench judge",
    needs_candidates=True,
    uses_gradients=False,
)
WORST_CASE = StagedAttackDefinition(
    "worst-case",
    "odebench.attack.worst_case_stages:stages",
    _BOTH,
    {"effort": "fast-2"},
    summary="several attacks in stages, each on the images still standing",
    choices={"effort": ("fast-2", "standard-2", "fast", "standard")},
    needs_sources=True,
    examines_model=True,
)
CLAIMS = StagedAttackDefinition(
    "claims",
    "odebench.attack.worst_case_stages:claim_stages",
    _BOTH,
    {},
    summary="the stages of worst-case that fool honest models, at one radius",
)

_SETTINGS_OF_PGD = {"steps": 20, "random_start": True}

QUICK_DIAGNOSIS = DiagnosisDefinition(
    "quick-diagnosis",
    "odebench.attack.probes:quick_stages",
    _BOTH,
    _SETTINGS_OF_PGD,
    summary="the quick checks, with PGD: odebench diagnose",
    step_share=2.5,
    checks=(5, 8, 11, 16, 17),
    only_middle=True,
    examines_model=True,
)
DIAGNOSIS = DiagnosisDefinition(
    "diagnosis",
    "odebench.attack.probes:full_stages",
    _BOTH,
    _SETTINGS_OF_PGD,
    summary="all checks: odebench diagnose --full",
    step_share=2.5,
    needs_sources=True,
    checks=(4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 17),
    examines_model=True,
)
