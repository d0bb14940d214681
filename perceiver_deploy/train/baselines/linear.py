"""Baselines that several recipes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.train.recipe import Baseline


def logistic_regression(
    name: str, features: Callable[[Arrays], NDArray[Any]], data: DataSet, strength: float = 1.0
) -> Baseline:
    """On standardised features [examples, features] of a data set's inputs; `strength` is scikit-learn's C."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=3000))
    classifier.fit(features(data.train.inputs), data.train.targets)
    return Baseline(name, lambda inputs: {"logits": classifier.decision_function(features(inputs))})
