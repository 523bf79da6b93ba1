"""Solvers against closed forms, NFE against the calls that were made, and failures that stay in their rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from odebench.errors import UsageError
from odebench.model import solver as solver_module
from odebench.model.ode import OdeNet
from odebench.model.solver import Solution, fixed_steps, integrate, integrate_quickly
from odebench.protocol.spec import (
    FIXED_STEP_STAGES,
    JOINT_METHODS,
    MAX_FIXED_STEPS,
    PER_SAMPLE_METHODS,
    adaptive,
    fixed_step,
)

ORDERS = {"euler": 1, "midpoint": 2, "heun3": 3, "rk4": 4}
PER_STEP = {"dopri5": 6, "tsit5": 6, "heun": 2}


class Counted:
    """A field that counts its calls and keeps the shapes of the times it was asked at."""

    def __init__(self, field: Any) -> None:
        self.field, self.calls, self.shapes = field, 0, set()

    def __call__(self, t: Tensor, state: Tensor) -> Tensor:
        self.calls += 1
        self.shapes.add(tuple(t.shape))
        return self.field(t, state)


def decay(t: Tensor, state: Tensor) -> Tensor:
    return -state


def rotate(t: Tensor, state: Tensor) -> Tensor:
    x, y = state.unbind(1)
    return torch.stack([-y, x], 1)


def square(t: Tensor, state: Tensor) -> Tensor:
    """y' = y^2: y(t) = y0 / (1 - y0 t), infinite at t = 1 / y0."""
    return state**2


def stiff(t: Tensor, state: Tensor) -> Tensor:
    """Relaxation at a rate that the row itself carries, so that rows need different numbers of steps."""
    return torch.stack([torch.zeros_like(state[:, 0]), -state[:, 0] * (state[:, 1] - torch.cos(3 * state[:, 0]))], 1)


def toward(t: Tensor, state: Tensor) -> Tensor:
    """y' = 2 t: y(T) = y0 + T^2, a test of the times that a field is given."""
    return torch.zeros_like(state) + 2 * t


def column(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)[:, None]


def all_solvers(tolerance: float = 1e-6) -> list[Any]:
    found = [fixed_step(method, step=0.01) for method in FIXED_STEP_STAGES if method != "euler"]
    found.append(fixed_step("euler", step=1e-3))
    found += [adaptive(method, rtol=tolerance, max_steps=5000) for method in PER_SAMPLE_METHODS]
    found += [adaptive(method, rtol=tolerance, max_steps=5000, backend="torchdiffeq") for method in JOINT_METHODS]
    return [pytest.param(solver, id=f"{solver.backend}-{solver.method}") for solver in found]


def tolerance_of(solver: Any) -> float:
    return {"euler": 3e-3, "midpoint": 2e-4, "fehlberg2": 5e-4}.get(solver.method, 3e-5)


@pytest.mark.parametrize("solver", all_solvers())
def test_every_method_reaches_the_closed_forms(solver: Any) -> None:
    within = {"rtol": tolerance_of(solver), "atol": tolerance_of(solver)}
    start = column(1.0, -2.0, 0.5)
    found = integrate(decay, start, horizon=1.5, solver=solver)
    torch.testing.assert_close(found.state, start * math.exp(-1.5), **within)
    assert not found.failed.any()
    turned = integrate(rotate, torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64), horizon=1.2, solver=solver)
    c, s = math.cos(1.2), math.sin(1.2)
    torch.testing.assert_close(turned.state, torch.tensor([[c, s], [-2 * s, 2 * c]], dtype=torch.float64), **within)
    start = column(0.5, -1.0, 0.8)
    grown = integrate(square, start, horizon=1.0, solver=solver)
    torch.testing.assert_close(grown.state, start / (1 - start), rtol=10 * within["rtol"], atol=10 * within["atol"])
    timed = integrate(toward, torch.ones(2, 1, 2, 2, dtype=torch.float64), horizon=0.7, solver=solver)
    torch.testing.assert_close(timed.state, torch.full_like(timed.state, 1.49), **within)


@pytest.mark.parametrize("method", ORDERS)
def test_fixed_step_methods_converge_at_their_order(method: str) -> None:
    start = column(0.6)
    exact = start / (1 - start)

    def error(step: float) -> float:
        return float((integrate(square, start, horizon=1.0, solver=fixed_step(method, step=step)).state - exact).abs())

    steps = (1 / 32, 1 / 64)
    order = math.log2(error(steps[0]) / error(steps[1]))
    assert order == pytest.approx(ORDERS[method], abs=0.25)


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
def test_a_tighter_tolerance_means_a_smaller_error(method: str) -> None:
    start = column(0.6)

    def error(rtol: float) -> float:
        return float((integrate(square, start, horizon=1.0, solver=adaptive(method, rtol=rtol)).state - 1.5).abs())

    assert error(1e-3) < 1e-2
    assert error(1e-6) < error(1e-3) / 20


@pytest.mark.parametrize("method", FIXED_STEP_STAGES)
@pytest.mark.parametrize(
    ("horizon", "step", "steps"),
    [
        *((0.3, 0.1, 3), (1.0, 0.3, 4), (1.0, 3.0, 1), (1.0, 1.0, 1), (0.7, 0.1, 7), (2.1, 0.3, 7), (1.0, 1 / 3, 3)),
        *((5.0, 0.05, 100), (1e-3, 1e-4, 10), (1.0, 0.999, 2), (1.1, 0.1, 11)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fixed_step_nfe_is_the_number_of_calls(
    method: str, horizon: float, step: float, steps: int, dtype: torch.dtype
) -> None:
    field = Counted(toward)
    found = integrate(field, torch.ones(3, 2, dtype=dtype), horizon=horizon, solver=fixed_step(method, step=step))
    assert fixed_steps(horizon, step) == steps
    assert field.calls == steps * FIXED_STEP_STAGES[method]
    assert found.nfe.tolist() == [field.calls] * 3
    if method != "euler":  # exact for y' = 2 t: the steps reach the horizon, neither short of it nor past it
        torch.testing.assert_close(found.state, torch.full((3, 2), 1 + horizon**2, dtype=dtype), rtol=1e-5, atol=1e-6)


def test_the_steps_of_an_uneven_grid_end_at_the_horizon() -> None:
    times: list[float] = []

    def field(t: Tensor, state: Tensor) -> Tensor:
        times.append(float(t))
        return torch.zeros_like(state)

    integrate(field, torch.ones(1, 1), horizon=1.0, solver=fixed_step("euler", step=0.3))
    assert times == pytest.approx([0.0, 0.3, 0.6, 0.9])


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
def test_per_sample_nfe_is_that_of_the_image_alone(method: str) -> None:
    rates = torch.tensor([0.5, 40.0, 3.0, 15.0, 0.5])
    states = torch.stack([rates, torch.ones(5)], 1)
    solver = adaptive(method, rtol=1e-3)
    batch = Counted(stiff)
    together = integrate(batch, states, horizon=1.0, solver=solver)
    counts = []
    for row, state in enumerate(states):
        alone = Counted(stiff)
        found = integrate(alone, state[None], horizon=1.0, solver=solver)
        assert found.nfe.tolist() == [alone.calls], "NFE must be the calls that were made"
        assert (alone.calls - 2) % PER_STEP[method] == 0
        torch.testing.assert_close(found.state[0], together.state[row], rtol=1e-5, atol=1e-6)
        counts.append(alone.calls)
    assert together.nfe.tolist() == counts
    assert len(set(counts)) >= 3, "the rows must need different numbers of steps"
    assert batch.calls == max(counts)


def test_joint_nfe_is_what_the_batch_cost() -> None:
    field = Counted(stiff)
    states = torch.tensor([[0.5, 1.0], [40.0, 1.0]])
    found = integrate(field, states, horizon=1.0, solver=adaptive(backend="torchdiffeq"))
    assert found.nfe.tolist() == [field.calls] * 2


@pytest.mark.parametrize(
    ("solver", "shapes"),
    [
        (fixed_step(step=0.5), {()}),
        (adaptive(), {(3, 1, 1, 1)}),
        (adaptive(backend="torchdiffeq"), {()}),
    ],
    ids=["rk4", "torchode", "torchdiffeq"],
)
def test_the_time_broadcasts_against_the_state(solver: Any, shapes: set[tuple[int, ...]]) -> None:
    field = Counted(toward)
    found = integrate(field, torch.zeros(3, 2, 4, 4), horizon=1.0, solver=solver)
    assert field.shapes == shapes
    assert found.state.shape == (3, 2, 4, 4)
    torch.testing.assert_close(found.state, torch.ones(3, 2, 4, 4))
    flat = Counted(toward)
    integrate(flat, torch.zeros(3, 2), horizon=1.0, solver=solver)
    assert flat.shapes == {shape[:2] for shape in shapes}


@pytest.mark.parametrize("solver", [fixed_step(step=0.5), adaptive(), adaptive(backend="torchdiffeq")], ids=str)
@pytest.mark.parametrize("horizon", [0.0, -1.0, math.nan, math.inf])
def test_a_horizon_that_is_none_is_refused(solver: Any, horizon: float) -> None:
    with pytest.raises(UsageError, match=r"horizon .* must be a finite number above 0, such as 1 or 0\.5"):
        integrate(decay, torch.ones(1, 1), horizon=horizon, solver=solver)


def test_too_many_fixed_steps_are_refused_before_they_are_taken() -> None:
    field = Counted(decay)
    message = r"a step of 1e-05 needs 100000 steps to reach horizon 1, more than 10000; take a longer step"
    with pytest.raises(UsageError, match=message):
        integrate(field, torch.ones(1, 1), horizon=1.0, solver=fixed_step(step=1e-5))
    with pytest.raises(UsageError, match="take a longer step"):
        integrate(field, torch.ones(1, 1), horizon=1.0, solver=fixed_step(step=5e-324))
    assert field.calls == 0
    assert fixed_steps(1.0, 1 / MAX_FIXED_STEPS) == MAX_FIXED_STEPS
    with pytest.raises(UsageError, match="needs 10001 steps"):
        fixed_steps(1.0001, 1 / MAX_FIXED_STEPS)


# Failures


def assert_failed(found: Solution, rows: list[int]) -> None:
    assert found.failed.nonzero().flatten().tolist() == rows
    assert found.failed.dtype == torch.bool
    assert (found.state[rows] == 0).all()
    assert found.state.isfinite().all()


def test_a_nan_row_fails_alone_with_fixed_steps() -> None:
    states = torch.rand(4, 3)
    spoilt = states.clone()
    spoilt[2, 1] = math.nan
    whole = integrate(decay, states, horizon=1.0, solver=fixed_step(step=0.25))
    found = integrate(decay, spoilt, horizon=1.0, solver=fixed_step(step=0.25))
    assert_failed(found, [2])
    assert torch.equal(found.state[[0, 1, 3]], whole.state[[0, 1, 3]])
    assert not whole.failed.any()


def test_a_blow_up_fails_with_fixed_steps() -> None:
    found = integrate(lambda t, y: y**3, column(0.1, 30.0, dtype=torch.float32), horizon=4.0, solver=fixed_step(step=1))
    assert_failed(found, [1])


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
def test_rows_that_blow_up_at_different_times_leave_the_others_right(method: str) -> None:
    start = column(0.3, 20.0, -1.0, 2.0, 0.5, 1.1, dtype=torch.float32)
    solver = adaptive(method, rtol=1e-4, max_steps=300)
    found = integrate(square, start, horizon=1.0, solver=solver)
    assert_failed(found, [1, 3, 5])
    healthy = start[[0, 2, 4]]
    torch.testing.assert_close(found.state[[0, 2, 4]], healthy / (1 - healthy), rtol=1e-2, atol=1e-3)
    for row in range(6):
        alone = integrate(square, start[row : row + 1], horizon=1.0, solver=solver)
        assert alone.failed.tolist() == [row in (1, 3, 5)]
        assert alone.nfe.tolist() == [int(found.nfe[row])]
        torch.testing.assert_close(alone.state[0], found.state[row], rtol=1e-5, atol=1e-5)


def test_the_neighbours_of_a_failing_row_are_bit_equal_to_those_of_a_healthy_one() -> None:
    start = column(*(0.1 * index for index in range(1, 9)), dtype=torch.float32)
    solver = adaptive(rtol=1e-5, max_steps=200)
    whole = integrate(square, torch.cat([start, start[:1]]), horizon=1.0, solver=solver)
    for bad in (50.0, 1.5, math.nan, math.inf):
        found = integrate(square, torch.cat([start, column(bad, dtype=torch.float32)]), horizon=1.0, solver=solver)
        assert_failed(found, [8])
        assert torch.equal(found.state[:8], whole.state[:8])
        assert found.nfe[:8].tolist() == whole.nfe[:8].tolist()
        assert (found.nfe[8] == 0) == (not math.isfinite(bad)), "nothing is spent on a row that cannot begin"


@pytest.mark.parametrize("starts", [[math.nan], [9.0], [9.0, math.nan, 3.0], [math.inf, math.nan], [2.0, 2.0]])
@pytest.mark.parametrize(
    "solver",
    [adaptive(max_steps=100), adaptive(max_steps=100, backend="torchdiffeq")],
    ids=["torchode", "torchdiffeq"],
)
def test_all_rows_may_fail_and_their_gradient_is_zero(starts: list[float], solver: Any) -> None:
    start = column(*starts, dtype=torch.float32).requires_grad_()
    found = integrate(square, start, horizon=1.0, solver=solver)
    assert_failed(found, list(range(len(starts))))
    (gradient,) = torch.autograd.grad(found.state.sum(), start)
    assert torch.equal(gradient, torch.zeros_like(start))


def test_a_row_out_of_steps_fails_though_its_state_is_finite() -> None:
    states = torch.tensor([[0.5, 1.0], [400.0, 1.0], [2.0, 1.0]])
    enough = integrate(stiff, states, horizon=1.0, solver=adaptive(rtol=1e-4, max_steps=1000))
    assert not enough.failed.any()
    few = adaptive(rtol=1e-4, max_steps=20)
    raw, stopped, _ = solver_module._torchode(stiff, states[1:2], 1.0, few)
    assert raw.isfinite().all()
    assert stopped.tolist() == [True]
    found = integrate(stiff, states, horizon=1.0, solver=few)
    assert_failed(found, [1])
    torch.testing.assert_close(found.state[[0, 2]], enough.state[[0, 2]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
def test_max_steps_is_the_last_number_of_steps_that_suffices(method: str) -> None:
    state = torch.tensor([[5.0, 1.0]])
    needed = (int(integrate(stiff, state, horizon=1.0, solver=adaptive(method)).nfe) - 2) // PER_STEP[method]
    assert needed > 2
    enough = integrate(stiff, state, horizon=1.0, solver=adaptive(method, max_steps=needed))
    assert not enough.failed.any()
    assert_failed(integrate(stiff, state, horizon=1.0, solver=adaptive(method, max_steps=needed - 1)), [0])


def test_steps_may_become_as_small_as_they_must() -> None:
    # a step far below any that a lower bound would allow, and still a success
    found = integrate(
        lambda t, y: -1e6 * y, column(1.0), horizon=1e-5, solver=adaptive(rtol=1e-9, atol=1e-12, max_steps=5000)
    )
    assert not found.failed.any()
    torch.testing.assert_close(found.state, column(math.exp(-10)), rtol=1e-5, atol=1e-8)


def test_a_row_that_fails_only_beside_others_is_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    start = column(0.1, 0.2, 0.3, dtype=torch.float32)
    genuine = solver_module._torchode
    sizes = []

    def suspicious(field: Any, state: Tensor, horizon: float, solver: Any) -> tuple[Tensor, Tensor, Tensor]:
        end, stopped, nfe = genuine(field, state, horizon, solver)
        sizes.append(len(state))
        if len(state) > 1 and state[1] == start[1]:  # row 1 stops the batch, and the ends of all are void
            return torch.full_like(end, 777.0), torch.tensor([False, True, False]), nfe + 1000
        return end, stopped, nfe

    monkeypatch.setattr(solver_module, "_torchode", suspicious)
    found = integrate(square, start, horizon=1.0, solver=adaptive(rtol=1e-6))
    monkeypatch.undo()
    honest = integrate(square, start, horizon=1.0, solver=adaptive(rtol=1e-6))
    assert not found.failed.any()
    assert sizes == [3, 3, 1]
    torch.testing.assert_close(found.state, honest.state, rtol=1e-6, atol=1e-6)
    assert found.nfe.tolist() == honest.nfe.tolist()


def test_a_stopping_copy_puts_its_original_under_suspicion(monkeypatch: pytest.MonkeyPatch) -> None:
    start = column(math.nan, 0.2, 0.3, dtype=torch.float32)
    genuine = solver_module._torchode

    def touchy(field: Any, state: Tensor, horizon: float, solver: Any) -> tuple[Tensor, Tensor, Tensor]:
        end, stopped, nfe = genuine(field, state, horizon, solver)
        if len(state) > 1 and state[0] == start[1]:  # the copy of row 1 that stands in for row 0
            return torch.full_like(end, 777.0), torch.tensor([True, False, False]), nfe
        return end, stopped, nfe

    monkeypatch.setattr(solver_module, "_torchode", touchy)
    found = integrate(square, start, horizon=1.0, solver=adaptive(rtol=1e-6))
    assert_failed(found, [0])
    healthy = start[1:]
    torch.testing.assert_close(found.state[1:], healthy / (1 - healthy), rtol=1e-4, atol=1e-4)


def test_a_healthy_row_is_not_suspected_for_what_extrapolation_made_of_it() -> None:
    start = column(1e35, 2.0, dtype=torch.float32)
    sizes = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(y))
        return torch.where(y == 2, math.nan, -20 * y)

    solver = adaptive(rtol=1e-4)
    end, stopped, _ = solver_module._torchode(field, start, 1.0, solver)
    assert end[0].isinf(), "extrapolated to the horizon from where row 1 stopped the batch"
    assert stopped.tolist() == [False, True]
    sizes.clear()
    found = integrate(field, start, horizon=1.0, solver=solver)
    assert_failed(found, [1])
    torch.testing.assert_close(found.state[0] / 1e35, column(math.exp(-20), dtype=torch.float32)[0])
    assert sizes.count(1) == int(found.nfe[1]), "alone, only the row that stopped is asked again"


def test_the_gradient_of_healthy_rows_is_that_without_the_failing_one() -> None:
    start = column(0.1, 0.7, 0.4, dtype=torch.float32)
    solver = adaptive(rtol=1e-5, max_steps=200)

    def gradient(states: Tensor) -> Tensor:
        states = states.clone().requires_grad_()
        return torch.autograd.grad(integrate(square, states, horizon=1.0, solver=solver).state.sum(), states)[0]

    whole = gradient(torch.cat([start, start[:1]]))
    torch.testing.assert_close(whole[:3], 1 / (1 - start) ** 2, rtol=1e-3, atol=1e-3)
    for bad in (50.0, math.nan):
        spoilt = gradient(torch.cat([start, column(bad, dtype=torch.float32)]))
        assert torch.equal(spoilt[:3], whole[:3])
        assert spoilt[3] == 0


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
def test_a_zero_field_has_finite_gradients(method: str) -> None:
    start = torch.rand(3, 4, requires_grad=True)
    scale = torch.zeros((), requires_grad=True)
    found = integrate(lambda t, y: y * scale, start, horizon=1.0, solver=adaptive(method))
    of_start, of_scale = torch.autograd.grad(found.state.sum(), (start, scale))
    torch.testing.assert_close(of_start, torch.ones_like(start))
    torch.testing.assert_close(of_scale, start.detach().sum(), rtol=1e-4, atol=1e-5)


def test_one_image_that_blows_up_leaves_the_others_solved_with_a_joint_solver() -> None:
    start = column(0.3, 9.0, -1.0, dtype=torch.float32)
    solver = adaptive(rtol=1e-5, max_steps=200, backend="torchdiffeq")
    found = integrate(square, start, horizon=1.0, solver=solver)
    assert_failed(found, [1])
    torch.testing.assert_close(found.state[[0, 2]], start[[0, 2]] / (1 - start[[0, 2]]), rtol=1e-3, atol=1e-4)
    for row in range(3):
        alone = Counted(square)
        one = integrate(alone, start[row : row + 1], horizon=1.0, solver=solver)
        assert one.nfe.tolist() == [alone.calls] == [int(found.nfe[row])]


@pytest.mark.parametrize("method", JOINT_METHODS)
def test_a_joint_solver_ends_its_last_step_at_the_horizon(method: str) -> None:
    times: list[float] = []

    def field(t: Tensor, state: Tensor) -> Tensor:
        times.append(float(t))
        return 2 * t - state

    integrate(field, column(1.0), horizon=0.8, solver=adaptive(method, rtol=1e-4, backend="torchdiffeq"))
    assert max(times) == pytest.approx(0.8, abs=1e-12)


def test_a_joint_solver_stops_at_its_step_limit() -> None:
    field = Counted(stiff)
    states = torch.tensor([[4000.0, 1.0]])
    found = integrate(field, states, horizon=10.0, solver=adaptive(rtol=1e-5, max_steps=20, backend="torchdiffeq"))
    assert_failed(found, [0])
    assert field.calls == int(found.nfe[0]) <= 2 + 6 * 21


@pytest.mark.parametrize(
    "solver",
    [fixed_step(step=0.5), adaptive(), adaptive(backend="torchdiffeq")],
    ids=["rk4", "torchode", "torchdiffeq"],
)
def test_an_assertion_of_the_field_is_no_solver_failure(solver: Any) -> None:
    def broken(t: Tensor, state: Tensor) -> Tensor:
        raise AssertionError("four channels, please")

    with pytest.raises(AssertionError, match="four channels, please"):
        integrate(broken, torch.ones(2, 3), horizon=1.0, solver=solver)


# Networks


def net(solver: Any, *, seed: int = 0, horizon: float = 1.0, dtype: torch.dtype = torch.float32) -> OdeNet:
    torch.manual_seed(seed)
    module = OdeNet(image_shape=(1, 8, 8), n_classes=10, channels=8, stem="conv", horizon=horizon, solver=solver)
    return module.to(dtype).eval()


def solve(module: OdeNet, images: Tensor) -> tuple[Tensor, Solution]:
    found = integrate(module.field, module.stem(images), horizon=module.horizon, solver=module.solver)
    return module.head(found.state), found


def test_a_nan_image_among_31_healthy_ones_changes_none_of_them() -> None:
    module = net(adaptive(rtol=1e-4))
    images = torch.rand(32, 1, 8, 8)
    healthy = [row for row in range(32) if row != 13]
    spoilt, copied = images.clone(), images.clone()
    spoilt[13, 0, 3, 3] = math.nan
    copied[13] = images[0]
    with torch.no_grad():
        logits, found = solve(module, spoilt)
        beside_copy, _ = solve(module, copied)
        without, _ = solve(module, images[healthy])
    assert_failed(found, [13])
    assert torch.equal(logits[healthy], beside_copy[healthy])
    torch.testing.assert_close(logits[healthy], without, rtol=1e-5, atol=1e-5)


def test_rk4_is_bit_equal_under_permutation_neighbours_and_padding() -> None:
    module = net(fixed_step(step=0.25))
    images = torch.rand(16, 1, 8, 8)
    order = torch.randperm(16)
    others = images.clone()
    others[5:] = torch.rand(11, 1, 8, 8)
    padded = images.clone()
    padded[10:] = images[9]
    with torch.no_grad():
        plain = module(images)
        assert torch.equal(module(images[order]), plain[order])
        assert torch.equal(module(others)[:5], plain[:5])
        assert torch.equal(module(padded)[:10], plain[:10])


@pytest.mark.parametrize(
    "solver",
    [fixed_step(step=0.25), adaptive(rtol=1e-10, max_steps=5000)],
    ids=["rk4", "torchode dopri5"],
)
def test_gradients_are_finite_differences(solver: Any) -> None:
    torch.manual_seed(1)
    weights = {"w": torch.randn(3, 3, dtype=torch.float64)}
    state = torch.randn(2, 3, dtype=torch.float64)
    aim = torch.randn(2, 3, dtype=torch.float64)

    def value(state: Tensor, w: Tensor) -> Tensor:
        found = integrate(lambda t, y: torch.tanh(y @ w) + t * y, state, horizon=1.0, solver=solver)
        return (found.state * aim).sum()

    leaf, w = state.clone().requires_grad_(), weights["w"].clone().requires_grad_()
    gradients = torch.autograd.grad(value(leaf, w), (leaf, w))
    for gradient, base, other, first in (
        (gradients[0], state, weights["w"], True),
        (gradients[1], weights["w"], state, False),
    ):
        numeric = torch.zeros_like(base)
        for index in range(base.numel()):
            bump = torch.zeros(base.numel(), dtype=torch.float64)
            bump[index] = 1e-5
            bump = bump.view_as(base)
            above, below = (value(p, other) if first else value(other, p) for p in (base + bump, base - bump))
            numeric.view(-1)[index] = (above - below) / 2e-5
        torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-7)


def test_the_gradient_through_a_network_is_a_finite_difference() -> None:
    module = net(fixed_step(step=0.5), dtype=torch.float64)
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    parameters = dict(module.named_parameters())

    def loss(x: Tensor) -> Tensor:
        return functional_call(module, parameters, (x,)).square().sum()

    (gradient,) = torch.autograd.grad(loss(images), images)
    direction = torch.randn_like(gradient)
    with torch.no_grad():
        numeric = (loss(images + 1e-6 * direction) - loss(images - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-8)


def test_copies_of_a_failing_row_are_confirmed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    solve = solver_module._torchode

    def counted(field: Any, state: Tensor, *rest: Any) -> Any:
        batches.append(len(state))
        return solve(field, state, *rest)

    monkeypatch.setattr(solver_module, "_torchode", counted)
    start = torch.tensor([[0.1], [3.0], [3.0], [3.0], [4.0]])
    solution = integrate(lambda t, y: y**2, start, horizon=1.0, solver=adaptive(max_steps=50))
    assert solution.failed.tolist() == [False, True, True, True, True]
    assert batches.count(1) == 2


# The adjoint equation


ADJOINT = {
    "rk4": fixed_step("rk4", step=0.01),
    "torchode": adaptive("dopri5", rtol=1e-6),
    "torchdiffeq": adaptive("dopri5", rtol=1e-6, backend="torchdiffeq"),
    "tsit5": adaptive("tsit5", rtol=1e-6),
    "heun": adaptive("heun", rtol=1e-5),
}


def ends_and_slopes(solver: Any, gradient: Any, *, field: Any = square) -> tuple[torch.Tensor, torch.Tensor]:
    """The end states of three starts and the derivative of their sum."""
    start = torch.tensor([[0.1], [0.3], [0.5]], dtype=torch.float64, requires_grad=True)
    found = integrate(field, start, horizon=1.0, solver=solver, gradient=gradient)
    assert not found.failed.any()
    (slope,) = torch.autograd.grad(found.state.sum(), start)
    return found.state.detach(), slope


@pytest.mark.parametrize("name", ADJOINT)
def test_the_adjoint_has_the_same_values_and_the_gradient_of_the_closed_form(name: str) -> None:
    """y' = y^2 ends at y / (1 - y), whose derivative is 1 / (1 - y)^2; y' = y ends at e y."""
    direct, _ = ends_and_slopes(ADJOINT[name], "direct")
    state, slope = ends_and_slopes(ADJOINT[name], "adjoint")
    if name in ("rk4", "torchdiffeq"):
        assert torch.equal(state, direct)
    else:  # torchode's steps are its own
        torch.testing.assert_close(state, direct, rtol=1e-4, atol=1e-5)
    start = torch.tensor([[0.1], [0.3], [0.5]], dtype=torch.float64)
    torch.testing.assert_close(slope, 1 / (1 - start) ** 2, rtol=1e-3, atol=1e-4)
    _, growth = ends_and_slopes(ADJOINT[name], "adjoint", field=lambda t, state: state)
    torch.testing.assert_close(growth, torch.full_like(growth, math.e), rtol=1e-4, atol=1e-4)


def test_where_the_step_is_coarse_the_adjoint_is_another_gradient() -> None:
    coarse = fixed_step("euler", step=0.5)
    direct, slope = ends_and_slopes(coarse, "direct")
    adjoint, other = ends_and_slopes(coarse, "adjoint")
    assert torch.equal(direct, adjoint), "the values are those of the same steps"
    # Two steps by hand: y -> y + y^2 / 2, forward from y0 to y1 to y2; the adjoint from y2 backward with its own ys.
    y0 = torch.tensor([[0.1], [0.3], [0.5]], dtype=torch.float64)
    y1 = y0 + y0**2 / 2
    y2 = y1 + y1**2 / 2
    torch.testing.assert_close(slope, (1 + y0) * (1 + y1))
    back = y2 - y2**2 / 2
    torch.testing.assert_close(other, (1 + y2) * (1 + back))
    assert not torch.allclose(slope, other, rtol=0.05)


def test_the_adjoint_of_an_uneven_grid_takes_its_steps_backwards() -> None:
    """Steps of 0.75 and 0.25 forward; backward 0.25 first."""
    uneven = fixed_step("euler", step=0.75)
    state, slope = ends_and_slopes(uneven, "adjoint")
    back = state - 0.25 * state**2
    torch.testing.assert_close(slope, (1 + 0.5 * state) * (1 + 1.5 * back))


@pytest.mark.parametrize("name", ADJOINT)
def test_the_adjoint_leaves_no_gradient_in_the_parameters_of_a_field(name: str) -> None:
    layer = torch.nn.Linear(1, 1).double()
    _, slope = ends_and_slopes(ADJOINT[name], "adjoint", field=lambda t, state: layer(state))
    assert slope.isfinite().all()
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_a_failing_row_has_no_adjoint_gradient_and_leaves_the_others_right() -> None:
    start = torch.tensor([[0.5], [3.0]], requires_grad=True)
    found = integrate(square, start, horizon=1.0, solver=adaptive("dopri5", rtol=1e-4), gradient="adjoint")
    assert found.failed.tolist() == [False, True]
    (slope,) = torch.autograd.grad(found.state.sum(), start)
    assert float(slope[0]) == pytest.approx(4.0, rel=1e-2)
    assert float(slope[1]) == 0.0
    # Beside a failing row too it is the adjoint's: at a loose tolerance another one than through the steps.
    loose = adaptive("dopri5", rtol=0.3, backend="torchdiffeq")
    slopes = []
    for rows, gradient in ((2, "adjoint"), (1, "adjoint"), (1, "direct")):
        start = torch.tensor([[0.6], [3.0]][:rows], requires_grad=True)
        found = integrate(square, start, horizon=1.0, solver=loose, gradient=gradient)  # type: ignore[arg-type]
        slopes.append(torch.autograd.grad(found.state.sum(), start)[0][0].item())
    assert slopes[0] == slopes[1] != slopes[2]


# Less work for attacks


@pytest.mark.parametrize("horizon", [0.5, 1.0, 1.3])
@pytest.mark.parametrize(
    "solver",
    [fixed_step(step=0.25), fixed_step("euler", step=0.25), adaptive("dopri5", rtol=1e-3)],
    ids=["rk4", "euler", "dopri5"],
)
def test_the_quick_way_gives_the_same_but_for_rounding(solver: Any, horizon: float) -> None:
    torch.manual_seed(0)
    net = OdeNet(image_shape=(1, 8, 8), n_classes=10, channels=8, stem="conv", horizon=horizon, solver=solver).eval()
    start = torch.randn(3, 8, 4, 4)
    found = []
    for way, field in ((integrate, net.field), (integrate_quickly, net.field.prepared(start))):
        state = start.clone().requires_grad_()
        counted = Counted(field)

        def asked(t: Any, state: Tensor, counted: Counted = counted) -> Tensor:
            return counted(torch.as_tensor(t, dtype=state.dtype), state)

        solution = way(asked, state, horizon=horizon, solver=solver)
        (gradient,) = torch.autograd.grad(solution.state.pow(2).sum(), state)
        found.append((solution.state, gradient, solution.nfe, counted.calls))
    (exact, exact_gradient, nfe, calls), (quick, quick_gradient, quick_nfe, quick_calls) = found
    torch.testing.assert_close(quick, exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(quick_gradient, exact_gradient, rtol=1e-3, atol=1e-3)
    assert quick_nfe.tolist() == nfe.tolist()
    assert quick_calls == calls


def test_the_quick_way_has_failed_rows_as_well() -> None:
    def explodes(t: Any, state: Tensor) -> Tensor:
        return torch.where(state > 1, torch.inf, state)

    found = integrate_quickly(explodes, torch.tensor([[0.1], [2.0]]), horizon=1.0, solver=fixed_step(step=0.5))
    assert found.failed.tolist() == [False, True]
    assert found.state[1].tolist() == [0.0]
