"""The registered attacks: built in, or from entry points of the group odebench.attacks."""

from odebench.registry import Registry

ATTACKS = Registry("attack", "odebench.attacks", built_in="odebench.attack.builtin")
