"""Baseline of text classifiers: logistic regression on counts of character n-grams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.media.text import decode
from perceiver_deploy.data.sets.snippets import PREPROCESSING


def fit_classifier(inputs: Arrays, targets: NDArray[np.int64]) -> Callable[[Arrays], NDArray[Any]]:
    """Logits [examples, classes] of inputs, from TF-IDF of 1 to 5 characters, within words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    classifier = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), min_df=2, sublinear_tf=True),
        LogisticRegression(max_iter=1000, C=4),
    ).fit(_texts(inputs), targets)

    def logits(inputs: Arrays) -> NDArray[Any]:
        found: NDArray[Any] = classifier.predict_log_proba(_texts(inputs))
        return found

    return logits


def _texts(inputs: Arrays) -> list[str]:
    return [decode(ids, PREPROCESSING) for ids in inputs["input_ids"]]
