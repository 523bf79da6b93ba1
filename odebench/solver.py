"""Where training scripts of earlier entries import `integrate` from; new ones write `odebench.integrate`."""

from odebench.model.solver import integrate

__all__ = ["integrate"]
