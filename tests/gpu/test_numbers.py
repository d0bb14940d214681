"""Parity and accuracy of every shipped task in every runtime and precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perceiver_deploy import load, validate_bundle
from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.data.metrics import measure
from perceiver_deploy.evaluate.parity.verdicts import Verdict
from perceiver_deploy.model.checkpoints.load import shipped_names
from tests.gpu.conftest import PRECISIONS

EXAMPLES = 64
METRIC_DRIFT = 0.02
"""Of a metric between two runtimes of one graph: they round differently, which turns a few close decisions."""


@pytest.fixture(scope="session")
def verdicts(gpu_bundle: Callable[[str], Path]) -> Callable[[str], tuple[Verdict, ...]]:
    """Of every runtime here over the grid of shapes and masks: min, odd, opt and max of each axis."""
    found: dict[str, tuple[Verdict, ...]] = {}

    def get(name: str) -> tuple[Verdict, ...]:
        if name not in found:
            found[name] = validate_bundle(gpu_bundle(name)).verdicts
        return found[name]

    return get


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", shipped_names())
def test_outputs_keep_the_bound_of_their_precision_over_the_grid_of_shapes(
    name: str, precision: str, runtime: str, verdicts: Callable[[str], tuple[Verdict, ...]]
) -> None:
    ours = [verdict for verdict in verdicts(name) if (verdict.runtime, verdict.variant) == (runtime, precision)]
    assert len({verdict.case for verdict in ours}) > 3
    failed = [f"{v.case}, {v.output}: {v.error or v.figures} (bound {v.bound:.1e})" for v in ours if not v.passed]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", shipped_names())
def test_metric_on_the_test_split_is_that_of_the_same_graph_on_the_cpu(
    name: str, precision: str, runtime: str, gpu_bundle: Callable[[str], Path]
) -> None:
    data = load_dataset(name)
    rows = slice(0, min(EXAMPLES, len(data.test)))
    part = type(data.test)({key: array[rows] for key, array in data.test.inputs.items()}, data.test.targets[rows])
    part = type(part)(part.inputs, part.targets, data.test.shared)
    values = {}
    for each in ("onnxruntime", runtime):
        with load(gpu_bundle(name), runtime=each, variant=precision) as session:
            batches = [session.run(part.rows(slice(k, k + 4))) for k in range(0, len(part), 4)]
        outputs = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        values[each] = [measured.value for measured in measure(outputs, part, data.metrics)]
    np.testing.assert_allclose(values[runtime], values["onnxruntime"], rtol=METRIC_DRIFT, atol=METRIC_DRIFT)
