"""scikit-learn's digits: 1,797 handwritten digits of 8 x 8 pixels, in the scikit-learn wheel."""

from __future__ import annotations

import numpy as np

from perceiver_deploy.bundle.preprocessing import ImagePreprocessing
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.media.images import normalize
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import requires

PREPROCESSING = ImagePreprocessing(size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
TEST_SIZE = 450
_SPLIT_SEED = 0
_LEVELS = 16


def load_digits() -> DataSet:
    """The data set, 1,347 digits to train on and 450 to test on, as RGB images.

    Raises:
        MissingError: scikit-learn is not installed.
    """
    with requires("train", "The digits data set"):
        from sklearn.datasets import load_digits as load_from_wheel
    bunch = load_from_wheel()
    grey = np.round(bunch.images * (255 / _LEVELS)).astype(np.uint8)
    pixels = normalize(np.repeat(grey[..., None], 3, axis=-1), PREPROCESSING)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(grey))
    test, train = order[:TEST_SIZE], order[TEST_SIZE:]
    targets = bunch.target.astype(np.int64)
    return DataSet(
        name="digits",
        task="image_classification",
        source="scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits)",
        license="CC-BY-4.0",
        labels=tuple("0123456789"),
        preprocessing=PREPROCESSING,
        train=Split({"pixel_values": pixels[train]}, targets[train]),
        test=Split({"pixel_values": pixels[test]}, targets[test]),
    )
