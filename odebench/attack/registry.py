"""The registered attacks: built in, or from entry points of the group odebench.attacks."""

from __future__ import annotations

from odebench.registry import Registry

ATTACKS = Registry(
    "attack",
    "odebench.attacks",
    {
        "fgsm": ("odebench.attack.builtin:FGSM", "fast gradient (sign) method: one step of epsilon"),
        "pgd": ("odebench.attack.builtin:PGD", "projected gradient descent from a random start"),
        "cw": ("odebench.attack.builtin:CW", "Carlini and Wagner's smallest l2 perturbation"),
        "apgd-ce": ("odebench.attack.builtin:APGD_CE", "Auto-PGD on the cross-entropy"),
        "apgd-dlr": ("odebench.attack.builtin:APGD_DLR", "Auto-PGD on the difference of logits ratio"),
        "apgd-t": ("odebench.attack.builtin:APGD_T", "Auto-PGD towards each of the likeliest other classes"),
        "fab-t": ("odebench.attack.builtin:FAB_T", "targeted FAB: the smallest perturbation"),
        "spsa": ("odebench.attack.builtin:SPSA", "black box: random search on the logits"),
        "square": ("odebench.attack.builtin:SQUARE", "black box: random search on the logits"),
        "noise": ("odebench.attack.builtin:NOISE", "random points at distance epsilon"),
        "transfer": ("odebench.attack.builtin:TRANSFER", "candidates crafted on other models, the sources"),
        "candidates": ("odebench.attack.builtin:CANDIDATES", "made elsewhere, from a file: odebench judge"),
        "worst-case": ("odebench.attack.builtin:WORST_CASE", "several of these in stages, each on what still stands"),
        "quick-diagnosis": (
            "odebench.attack.builtin:QUICK_DIAGNOSIS",
            "the quick checks, with PGD: odebench diagnose",
        ),
        "diagnosis": ("odebench.attack.builtin:DIAGNOSIS", "all checks: odebench diagnose --full"),
    },
)
