"""The learning curve as a table and as a picture."""

import csv
import math

import numpy as np
import pytest
from PIL import Image

from refmaml.training import Row
from refmaml.training.curve import write_csv
from refmaml.training.plot import draw, running_mean, write_png

EPS = np.finfo(float).eps
ROWS = [Row(1, 2 / 3, 0.2, 1e-17, 0.25), Row(2, float(np.float32(0.1)), 0.4, 3.0, 0.5)]


def test_a_curve_reads_back_exactly(tmp_path):
    write_csv(tmp_path / "curve.csv", ROWS)
    with open(tmp_path / "curve.csv", newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == Row._fields[:5]
    assert [Row(int(step), *map(float, rest)) for step, *rest in lines] == ROWS


def test_a_regression_leaves_the_accuracy_empty(tmp_path):
    write_csv(tmp_path / "curve.csv", [Row(1, 0.5, math.nan, 1.0, 0.1)])
    assert (tmp_path / "curve.csv").read_text().splitlines()[1] == "1,0.5,,1.0,0.1"


def test_cg_residuals_are_a_column_only_where_there_are_any(tmp_path):
    write_csv(tmp_path / "curve.csv", [ROWS[0], ROWS[1]._replace(cg_residual=0.1 + 0.2)])
    header, without, having = (tmp_path / "curve.csv").read_text().splitlines()
    assert header == "step,loss,accuracy,grad_norm,seconds,cg_residual" and without.endswith(
        ",0.25,"
    )
    assert float(having.rpartition(",")[2]) == 0.1 + 0.2


def test_inner_residuals_are_columns_and_a_panel_and_an_infinite_one_is_drawn(tmp_path):
    rows = [
        row._replace(inner_residual=a, inner_residual_median=0.1, inner_residual_p95=a)
        for row, a in zip(ROWS, (0.2, math.inf), strict=True)
    ]
    write_csv(tmp_path / "curve.csv", rows)
    header, _, last = (tmp_path / "curve.csv").read_text().splitlines()
    names = "inner_residual,inner_residual_median,inner_residual_p95"
    assert header == f"step,loss,accuracy,grad_norm,seconds,{names}"
    assert last.endswith(",inf,0.1,inf")
    write_png(tmp_path / "curve.png", rows)
    assert (tmp_path / "curve.png").exists()


@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_smoothing_is_the_mean_over_neighbours(window):
    values = np.random.default_rng(0).standard_normal(12)
    expected = [values[max(0, i - window // 2) : i + window // 2 + 1].mean() for i in range(12)]
    # a difference of two running sums of at most 12 numbers near 1
    assert (
        np.abs(running_mean(values, window) - expected).max() <= 2 * 12 * EPS * np.abs(values).sum()
    )


def test_the_picture_has_a_panel_for_accuracy_and_for_cg_residuals_where_there_are_any(tmp_path):
    def size(rows):
        write_png(tmp_path / "curve.png", rows)
        with Image.open(tmp_path / "curve.png") as picture:
            return picture.size

    width, height = size([row._replace(accuracy=math.nan) for row in ROWS])
    assert size(ROWS) == (width * 3 // 2, height) and size([]) == (width, height)
    assert size([row._replace(cg_residual=0.1) for row in ROWS]) == (width * 2, height)


def test_a_band_is_the_standard_deviation_over_the_same_neighbours_as_the_mean():
    from matplotlib.figure import Figure

    values = 1e6 + np.random.default_rng(0).standard_normal(
        100
    )  # far from 0, where squares would cancel
    axes = Figure().subplots()
    draw(axes, np.arange(100), values, "k")
    band = axes.collections[0].get_paths()[0].vertices
    for step in (0, 50, 99):
        near = values[max(0, step - 2) : step + 3]
        ends = sorted(y for x, y in band if x == step)
        # a difference of sums of 100 squares near 1, and of sums of 100 numbers near
        # 1e6
        assert (
            abs(ends[0] - (near.mean() - near.std())) <= 1e-6
            and abs(ends[-1] - (near.mean() + near.std())) <= 1e-6
        )


def test_of_many_points_some_are_drawn_and_none_where_a_logarithm_has_no_value(tmp_path):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw(axes, np.arange(50_000), np.full(50_000, 100.0), "k", log=True)
    assert 1000 <= len(axes.lines[0].get_xdata()) <= 2000 and np.allclose(
        axes.lines[1].get_ydata(), 100, rtol=1e-12
    )
    write_png(tmp_path / "curve.png", [row._replace(cg_residual=0.0) for row in ROWS])
