"""Integrating a vector field over [0, T], with failures and NFE per image, so that no image affects another.

Fixed-step methods run on torchdiffeq with an explicit grid, adaptive ones on torchode, which steps each image by
itself. On request torchdiffeq's adaptive methods run, whose one error norm couples the images of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from odebench.errors import UsageError
from odebench.protocol.spec import FIXED_STEP_STAGES, MAX_FIXED_STEPS, Solver, check_horizon

Field = Callable[[Tensor, Tensor], Tensor]
"""A vector field f(t, state). t broadcasts against the state: a scalar, or (batch, 1, ..., 1) with a time per image."""


@dataclass(frozen=True)
class Solution:
    """The state at the horizon (zero for a failed row), which rows failed, and the NFE that were spent on each row."""

    state: Float[Tensor, batch * shape]
    failed: Bool[Tensor, " batch"]
    nfe: Int[Tensor, " batch"]


def integrate(
    field: Field,
    state: Float[Tensor, batch * shape],
    *,
    horizon: float,
    solver: Solver,
    gradient: Literal["direct", "adjoint"] = "direct",
) -> Solution:
    """The solution of d state / dt = field(t, state) from t = 0 to t = `horizon`, computed by `solver`: its `state` at
    the end, which rows `failed`, and the `nfe` of each row.

    A row fails when its state is not finite or the step limit is reached; the other rows are solved as if it were not
    there. With `gradient` "adjoint" the backward pass solves the adjoint equation (Chen et al. 2018) on torchdiffeq,
    for the whole batch at once, with the method and tolerances of `solver`: a gradient to compare with, or to craft
    candidates for other models. Raises UsageError for a horizon or step that cannot be used.
    """
    check_horizon(horizon)
    adjoint = gradient == "adjoint"
    if not solver.adaptive:
        return _fixed_step(field, state, horizon, solver, adjoint=adjoint)
    if solver.backend == "torchode" and not adjoint:
        return _per_sample(field, state, horizon, solver)
    return _joint(field, state, horizon, solver, adjoint=adjoint)


def integrate_quickly(field: Field, state: Tensor, *, horizon: float, solver: Solver) -> Solution:
    """The solution of `integrate`, but for rounding, with less work around each evaluation of the field.

    rk4's steps are written out here, other methods are solved there. For attacks, whose candidates are judged under
    `integrate`.
    """
    if solver.method != "rk4":
        return integrate(field, state, horizon=horizon, solver=solver)
    check_horizon(horizon)
    step = cast(float, solver.step)
    steps = fixed_steps(horizon, step)
    for index in range(steps):
        start = step * index
        width = (horizon if index == steps - 1 else step * (index + 1)) - start
        state = _three_eighths(field, state, start, width)
    return _finished(state, torch.full((len(state),), 4 * steps, device=state.device))


def _three_eighths(field: Field, state: Tensor, start: float, width: float) -> Tensor:
    """One step of the 3/8 rule (Kutta 1901), which torchdiffeq calls rk4."""
    first = field(start, state)  # type: ignore[arg-type]
    second = field(start + width / 3, state + first * (width / 3))  # type: ignore[arg-type]
    third = field(start + width * 2 / 3, state + (second - first / 3) * width)  # type: ignore[arg-type]
    fourth = field(start + width, state + (first - second + third) * width)  # type: ignore[arg-type]
    return state + (first + 3 * (second + third) + fourth) * (width / 8)


def fixed_steps(horizon: float, step: float) -> int:
    """The number of steps of at most `step` that cover [0, `horizon`]. Raises UsageError above MAX_FIXED_STEPS."""
    steps = max(1, math.ceil(min(horizon / step, 1e18) - 1e-6))
    if steps > MAX_FIXED_STEPS:
        raise UsageError(
            f"a step of {step:g} needs {steps} steps to reach horizon {horizon:g}, "
            f"more than {MAX_FIXED_STEPS}; take a longer step"
        )
    return steps


_JOINT_NAMES = {"heun": "adaptive_heun", "tsit5": "dopri5"}
"""torchdiffeq's name for a method of torchode, or the method that it has instead."""


def _odeint(*, adjoint: bool) -> Callable[..., Any]:
    """torchdiffeq's solver, with the direct gradient or that of the adjoint equation."""
    from torchdiffeq import odeint, odeint_adjoint

    return partial(odeint_adjoint, adjoint_params=()) if adjoint else odeint


def _fixed_step(field: Field, state: Tensor, horizon: float, solver: Solver, *, adjoint: bool) -> Solution:
    step = cast(float, solver.step)
    steps = fixed_steps(horizon, step)
    # A grid of our own: torchdiffeq's rounds horizon / step in fp32 and may add a step of no length.
    grid = torch.tensor([*(step * index for index in range(steps)), horizon], dtype=state.dtype, device=state.device)
    ends = torch.stack([grid[0], grid[-1]])
    options: dict[str, Any] = {"options": {"grid_constructor": lambda *_: grid}}
    if adjoint:
        options["adjoint_options"] = {"grid_constructor": lambda *_: grid.flip(0)}
    end = cast(Tensor, _odeint(adjoint=adjoint)(field, state, ends, method=solver.method, **options)[-1])
    nfe = steps * FIXED_STEP_STAGES[solver.method]
    return _finished(end, torch.full((len(state),), nfe, device=state.device))


def _finished(end: Tensor, nfe: Tensor) -> Solution:
    """The solution with these end states, in which the rows that are not finite have failed."""
    failed = ~end.flatten(1).isfinite().all(1)
    return Solution(end.masked_fill(_like(failed, end), 0.0) if failed.any() else end, failed, nfe)


def _like(mask: Tensor, state: Tensor) -> Tensor:
    return mask.view(-1, *(1,) * (state.ndim - 1))


def _zeros(state: Tensor) -> Tensor:
    """Zeros in the graph of `state`, so that its gradient is zero, also where the state is not finite."""
    return state.masked_fill(torch.ones_like(state, dtype=torch.bool), 0.0)


def _per_sample(field: Field, state: Tensor, horizon: float, solver: Solver) -> Solution:
    """The solution by torchode, where each failed row is replaced by a copy of a healthy one: in torchode one failure
    stops the whole batch, and the other rows would be extrapolated to the end with status SUCCESS."""
    failed = ~state.flatten(1).isfinite().all(1)
    nfe = torch.zeros(len(state), dtype=torch.long, device=state.device)
    suspects = torch.zeros_like(failed)
    while not (failed | suspects).all():
        out = failed | suspects
        healthy = int((~out).nonzero()[0, 0])
        start = torch.where(_like(out, state), state[healthy].detach(), state) if out.any() else state
        end, stopped, spent = _torchode(field, start, horizon, solver)
        nfe = torch.where(out, nfe, spent)
        stopped[healthy] |= (stopped & out).any()  # a copy's failure is its original's
        stopped &= ~out
        if not stopped.any():
            break
        suspects = suspects | stopped
    else:  # no solve can be trusted
        end = _zeros(state)
    rows = suspects.nonzero().flatten().tolist()
    for index, row in enumerate(rows):
        if len(state) == 1:
            failed = suspects
            break
        # A row counts as failed only if it also fails alone. Equal rows, which fill up a batch, are solved once.
        if index == 0 or not torch.equal(state[row], state[rows[index - 1]]):
            alone, stopped, spent = _torchode(field, state[row : row + 1], horizon, solver)
        nfe = nfe.index_fill(0, torch.tensor([row], device=nfe.device), int(spent[0]))
        if stopped[0]:
            failed = failed.index_fill(0, torch.tensor([row], device=failed.device), True)
        else:
            end = end.index_copy(0, torch.tensor([row], device=end.device), alone)
    return Solution(end.masked_fill(_like(failed, end), 0.0) if failed.any() else end, failed, nfe)


def _torchode(field: Field, state: Tensor, horizon: float, solver: Solver) -> tuple[Tensor, Tensor, Tensor]:
    """One solve: end states, which rows stopped it, NFE per row. If any row stopped it, the others are void."""
    import torchode

    shape = state.shape
    times = (-1, *(1,) * (state.ndim - 1))

    def flat_field(t: Tensor, flat: Tensor) -> Tensor:
        return field(t.view(times), flat.view(shape)).flatten(1)

    term = torchode.ODETerm(flat_field)
    method = {"dopri5": torchode.Dopri5, "tsit5": torchode.Tsit5, "heun": torchode.Heun}[solver.method](term=term)
    controller = torchode.IntegralController(atol=solver.atol, rtol=solver.rtol, term=term)
    adjoint = torchode.AutoDiffAdjoint(
        method,
        controller,
        # torchode fails a row that takes this many steps, even if the last one brings it to the end.
        max_steps=cast(int, solver.max_steps) + 1,
        backprop_through_step_size_control=False,
    ).to(state.device)
    start = state.new_zeros(len(state))
    problem = torchode.InitialValueProblem(y0=state.flatten(1), t_start=start, t_end=start + horizon)
    found = adjoint.solve(problem)
    end = found.ys[:, -1].view(shape)
    # Finiteness alone does not tell: a row that reached max_steps is finite, and a healthy row that is extrapolated
    # because another has stopped may not be.
    stopped = found.status != torchode.status_codes.SUCCESS
    if not stopped.any():
        stopped = ~end.flatten(1).isfinite().all(1)
    # n_f_evals counts for the batch. A row takes two to choose its first step, then those of each of its steps.
    per_step = {"dopri5": 6, "tsit5": 6, "heun": 2}[solver.method]
    return end, stopped, 2 + per_step * found.stats["n_steps"]


def _joint(field: Field, state: Tensor, horizon: float, solver: Solver, *, adjoint: bool) -> Solution:
    calls = 0
    inside = False

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls, inside
        calls, inside = calls + 1, True
        rate = field(t, y)
        inside = False
        return rate

    ends = torch.tensor([0.0, horizon], dtype=state.dtype, device=state.device)
    # With step_t the last step ends at the horizon. Otherwise torchdiffeq steps past it and interpolates, which for
    # bosh3 and similar methods is far outside the tolerance.
    options: dict[str, Any] = {"options": {"max_num_steps": solver.max_steps, "step_t": ends[1:]}}
    if adjoint:
        options["adjoint_options"] = {"max_num_steps": solver.max_steps}
    method = _JOINT_NAMES.get(solver.method, solver.method)
    try:
        solve = _odeint(adjoint=adjoint)
        end = solve(counted, state, ends, rtol=solver.rtol, atol=solver.atol, method=method, **options)[-1]
    except AssertionError:  # raised by torchdiffeq where a step underflows, or where there are too many
        if inside:
            raise  # it came from the field
        nfe = torch.full((len(state),), calls, device=state.device)
        if len(state) == 1:
            return Solution(_zeros(state), torch.ones_like(nfe, dtype=torch.bool), nfe)
        alone = [_joint(field, state[row : row + 1], horizon, solver, adjoint=adjoint) for row in range(len(state))]
        return Solution(
            torch.cat([one.state for one in alone]),
            torch.cat([one.failed for one in alone]),
            torch.cat([one.nfe for one in alone]),
        )
    return _finished(end, torch.full((len(state),), calls, device=state.device))
