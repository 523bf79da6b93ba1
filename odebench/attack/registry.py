"""The registered attacks: built in, or from entry points of the group odebench.attacks."""

from __future__ import annotations

from odebench.registry import Registry

ATTACKS = Registry("attack", "odebench.attacks", built_in="odebench.attack.builtin")
