"""The former place of `integrate`, for the training scripts of earlier entries; new ones use `odebench.integrate`."""

from odebench.model.solver import integrate

__all__ = ["integrate"]
