"""The exponent with which latency grows with an axis."""

from __future__ import annotations

import pytest

from perceiver_deploy.evaluate.report.scaling import fit_exponent, scaling_tables
from tests.helpers.benchmark_reports import make_report


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_exponent_of_a_power_is_found(exponent):
    sizes = [64, 128, 512, 2048]
    assert fit_exponent(sizes, [3e-4 * size**exponent for size in sizes]) == pytest.approx(exponent, abs=1e-9)


def test_table_shows_the_exponent_of_every_candidate_where_there_are_three_sizes():
    (table,) = scaling_tables(make_report(lengths=(8, 16, 64)))  # made to grow linearly
    assert table.title == "Growth of the median with length"
    assert table.rows == (("eager fp32", "1.00", "1.00"), ("onnxruntime fp32", "1.00", "1.00"))
    assert scaling_tables(make_report(lengths=(8, 16))) == ()
