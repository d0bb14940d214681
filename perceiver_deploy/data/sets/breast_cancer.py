"""Breast cancer: 569 rows of 30 features of cell nuclei, in the scikit-learn wheel, one entity a feature."""

from __future__ import annotations

import numpy as np

from perceiver_deploy.bundle.preprocessing import EntitiesPreprocessing
from perceiver_deploy.data.datasets import DATA_SETS, DataSet
from perceiver_deploy.data.media.entities import ENTITY_TOP1, standardize
from perceiver_deploy.data.metrics import TOP1
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import requires

LABELS = ("malignant", "benign")
TEST_SIZE = 171
_SPLIT_SEED = 0


def load_breast_cancer() -> DataSet:
    """The data set, 398 rows to train on and 171 to test on, standardised with the mean and spread of the former.

    The target of an entity, too, is the class of its row.

    Raises:
        MissingError: scikit-learn is not installed.
    """
    with requires("train", "The breast cancer data set"):
        from sklearn.datasets import load_breast_cancer as load_from_wheel
    bunch = load_from_wheel()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(bunch.data))
    test, train = order[:TEST_SIZE], order[TEST_SIZE:]
    preprocessing = EntitiesPreprocessing(
        names=tuple(map(str, bunch.feature_names)),
        mean=tuple(bunch.data[train].mean(0).tolist()),
        std=tuple(bunch.data[train].std(0).tolist()),
    )
    targets = bunch.target.astype(np.int64)
    entry = DATA_SETS["breast-cancer"]
    return DataSet(
        name="breast-cancer",
        task=entry.task,
        source=entry.source,
        license=entry.license,
        labels=LABELS,
        preprocessing=preprocessing,
        train=Split(standardize(bunch.data[train], preprocessing), targets[train]),
        test=Split(standardize(bunch.data[test], preprocessing), targets[test]),
        metrics=(TOP1, ENTITY_TOP1),
    )
