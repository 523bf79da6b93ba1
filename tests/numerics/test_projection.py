"""Distances and projections: known values, and what must hold for any image and candidate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from odebench.numerics.projection import ROUNDING, distance, project

NORMS = st.sampled_from(["linf", "l2"])


@st.composite
def pairs(draw: st.DrawFn, *, spread: float = 100.0) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and finite candidates anywhere."""
    n, size = draw(st.integers(1, 4)), 4
    unit = st.floats(0, 1, width=32)
    anywhere = st.one_of(unit, st.floats(-spread, spread, width=32))
    images = draw(st.lists(unit, min_size=n * size, max_size=n * size))
    candidates = draw(st.lists(anywhere, min_size=n * size, max_size=n * size))
    shape = (n, 1, 2, 2)
    return torch.tensor(images).reshape(shape), torch.tensor(candidates).reshape(shape)


def test_distances_are_those_of_the_norms() -> None:
    images = torch.zeros(2, 1, 1, 2)
    candidates = torch.tensor([[[[3.0, -4.0]]], [[[0.0, 0.5]]]])
    assert distance(images, candidates, norm="linf").tolist() == [4.0, 0.5]
    assert distance(images, candidates, norm="l2").tolist() == [5.0, 0.5]


def test_linf_clips_each_pixel_and_l2_shortens_the_whole() -> None:
    images = torch.full((1, 1, 1, 2), 0.5)
    candidates = torch.tensor([[[[0.8, 0.1]]]])
    assert project(images, candidates, norm="linf", epsilon=0.1).flatten().tolist() == pytest.approx([0.6, 0.4])
    assert project(images, candidates, norm="l2", epsilon=0.05).flatten().tolist() == pytest.approx([0.53, 0.46])


def test_the_range_of_images_holds_after_the_ball() -> None:
    images = torch.tensor([[[[0.05, 0.98]]]])
    candidates = torch.tensor([[[[-3.0, 3.0]]]])
    assert project(images, candidates, norm="linf", epsilon=0.1).flatten().tolist() == [0.0, 1.0]
    assert project(images, candidates, norm="l2", epsilon=9.0).flatten().tolist() == [0.0, 1.0]


@given(pairs(), NORMS, st.floats(1e-3, 2))
@settings(max_examples=200, deadline=None)
def test_projected_points_lie_within_epsilon_and_the_range(
    pair: tuple[Tensor, Tensor], norm: str, epsilon: float
) -> None:
    images, candidates = pair
    judged = project(images, candidates, norm=norm, epsilon=epsilon)
    assert (distance(images, judged, norm=norm) <= epsilon + ROUNDING).all()
    assert ((judged >= 0) & (judged <= 1)).all()


@given(pairs(spread=1.5), NORMS, st.floats(1e-3, 2))
@settings(max_examples=200, deadline=None)
def test_points_inside_stay_and_points_outside_come_back_to_the_edge(
    pair: tuple[Tensor, Tensor], norm: str, epsilon: float
) -> None:
    images, candidates = pair
    inside = (distance(images, candidates, norm=norm) <= epsilon * (1 - 1e-5)) & (
        ((candidates >= 0) & (candidates <= 1)).flatten(1).all(1)
    )
    judged = project(images, candidates, norm=norm, epsilon=epsilon)
    torch.testing.assert_close(judged[inside], candidates[inside], rtol=0, atol=1e-7)
    torch.testing.assert_close(project(images, judged, norm=norm, epsilon=epsilon), judged, rtol=0, atol=ROUNDING)
    if norm == "linf":
        expected = np.clip(candidates.numpy(), images.numpy() - np.float32(epsilon), images.numpy() + epsilon)
        np.testing.assert_allclose(judged.numpy(), np.clip(expected, 0, 1), rtol=0, atol=1e-6)


@given(pairs(), NORMS, st.floats(1e-3, 2))
@settings(max_examples=100, deadline=None)
def test_an_image_is_projected_as_if_it_were_alone(pair: tuple[Tensor, Tensor], norm: str, epsilon: float) -> None:
    images, candidates = pair
    together = project(images, candidates, norm=norm, epsilon=epsilon)
    for row in range(len(images)):
        part = slice(row, row + 1)
        assert torch.equal(project(images[part], candidates[part], norm=norm, epsilon=epsilon), together[part])


@pytest.mark.parametrize("epsilon", [1 / 255, 2 / 255, 4 / 255, 8 / 255, 0.01, 0.05])
def test_rounding_covers_what_fp32_adds_to_epsilon(epsilon: float) -> None:
    images = torch.arange(256).reshape(1, 1, 16, 16) / 255
    edge = (images + epsilon).clamp(0, 1)
    assert float(distance(images, edge, norm="linf")) <= epsilon + ROUNDING
