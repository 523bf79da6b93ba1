"""The crossed mean against numbers worked by hand and against statsmodels' REML."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from odebench.numerics.crossed import CrossedMean, crossed_mean


def test_a_small_table_worked_by_hand() -> None:
    # rows 1 2 3 and 3 5 4: mean 3; rows -1, +1; columns -1, .5, .5; residuals 0, -.5, .5 and 0, .5, -.5
    found = crossed_mean([[1, 2, 3], [3, 5, 4]])
    assert (found.mean, found.ms_seed, found.ms_image, found.ms_residual) == pytest.approx((3, 6, 1.5, 0.5))
    assert found.components == pytest.approx((5.5 / 3, 0.5, 0.5))
    # SE^2 = (6 + 1.5 - .5) / 6; df = 7^2 / (6^2/1 + 1.5^2/2 + .5^2/2)
    assert found.standard_error == pytest.approx(math.sqrt(7 / 6))
    assert found.degrees_of_freedom == pytest.approx(49 / (36 + 1.125 + 0.125))
    # t = 3 / 1.0801 = 2.7775 with 1.3154 degrees of freedom, by a table of the incomplete beta function
    assert found.p == pytest.approx(0.1700, abs=2e-3)
    low, high = found.interval()
    assert (low + high) / 2 == pytest.approx(3)


def test_below_the_residual_the_standard_error_is_the_residual_s() -> None:
    found = CrossedMean(1.0, 5, 11, ms_seed=1.0, ms_image=2.0, ms_residual=4.0)
    assert found.standard_error == pytest.approx(math.sqrt(4 / 55))
    assert found.degrees_of_freedom == 40
    assert found.components == (0.0, 0.0, 4.0)


def test_equal_values_have_no_scatter() -> None:
    assert crossed_mean(np.zeros((3, 4))).p == 1.0
    assert crossed_mean(np.ones((3, 4))).p == 0.0


@pytest.mark.parametrize("table", [[[1.0, 2.0]], [[1.0], [2.0]], [1.0, 2.0]])
def test_too_small_a_table_is_refused(table: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="two train seeds and two images"):
        crossed_mean(table)


def test_p_is_two_sided() -> None:
    generator = np.random.default_rng(0)
    table = generator.normal(0.3, 1, (8, 30))
    assert crossed_mean(table).p == pytest.approx(crossed_mean(-table).p)


def test_the_half_width_to_expect_is_that_of_such_a_study() -> None:
    generator = np.random.default_rng(1)

    def draw(seeds: int, images: int) -> CrossedMean:
        values = generator.normal(0, 1, (seeds, images)) + generator.normal(0, 0.5, (seeds, 1))
        return crossed_mean(values + generator.normal(0, 0.8, (1, images)))

    small = draw(60, 400)
    assert small.half_width_with(seeds=60, images=400) == pytest.approx(small.half_width(), rel=1e-9)
    assert small.half_width_with(seeds=240, images=800) == pytest.approx(draw(240, 800).half_width(), rel=0.2)


@pytest.mark.parametrize(("seeds", "images", "draw"), [(6, 12, 0), (5, 15, 4), (8, 10, 2)])
def test_interior_estimates_equal_reml(seeds: int, images: int, draw: int) -> None:
    from pandas import DataFrame

    mixed = pytest.importorskip("statsmodels.formula.api").mixedlm
    generator = np.random.default_rng(draw)
    table = generator.normal(2, 1, (seeds, images)) + generator.normal(0, 1, (seeds, 1))
    table = table + generator.normal(0, 1.5, (1, images))
    found = crossed_mean(table)
    assert min(found.components) > 0.05
    rows, columns = np.indices(table.shape)
    frame = DataFrame({"y": table.ravel(), "seed": rows.ravel(), "image": columns.ravel(), "all": 1})
    parts = {"seed": "0 + C(seed)", "image": "0 + C(image)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = mixed("y ~ 1", frame, groups="all", vc_formula=parts, re_formula="0").fit(reml=True)
    by_name = dict(zip(fitted.model.exog_vc.names, fitted.vcomp, strict=True))
    assert fitted.fe_params["Intercept"] == pytest.approx(found.mean, abs=1e-6)
    assert fitted.bse_fe["Intercept"] == pytest.approx(found.standard_error, rel=2e-3)
    assert (by_name["seed"], by_name["image"], fitted.scale) == pytest.approx(found.components, rel=5e-3)
