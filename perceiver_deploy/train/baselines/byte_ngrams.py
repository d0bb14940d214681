"""Baseline for masked bytes: n-grams of bytes from both sides, interpolated as Witten and Bell did."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.sets.topics import IGNORED, PREPROCESSING
from perceiver_deploy.train.recipe import Baseline

ORDER = 5
_VOCABULARY = 262


class ByteNgrams:
    """Probabilities of the next token given up to `order - 1` before it.

    Source: Witten and Bell 1991, "The zero-frequency problem", method C, interpolated down to the uniform distribution.
    """

    def __init__(self, sequences: Iterable[NDArray[np.int64]], order: int) -> None:
        self._order = order
        self._counts: defaultdict[bytes, Counter[int]] = defaultdict(Counter)
        for sequence in sequences:
            data = (sequence.astype("<u2")).tobytes()
            for end, token in enumerate(sequence.tolist()):
                for size in range(min(order, end + 1)):
                    self._counts[data[2 * (end - size) : 2 * end]][token] += 1

    def probabilities(self, context: NDArray[np.int64]) -> NDArray[np.float64]:
        """[vocabulary] after the context [tokens], of which what follows its last mask counts."""
        known = context[max(0, len(context) - self._order + 1) :]
        masks = np.flatnonzero(known == PREPROCESSING.mask_id)
        known = known[masks[-1] + 1 :] if len(masks) else known
        result = np.full(_VOCABULARY, 1 / _VOCABULARY)
        for size in range(len(known) + 1):
            counts = self._counts.get(known[len(known) - size :].astype("<u2").tobytes())
            if counts is None:
                break
            total = counts.total()
            result *= len(counts) / (total + len(counts))
            result[list(counts.keys())] += np.array(list(counts.values())) / (total + len(counts))
        return result


def fit_ngrams(data: DataSet) -> Baseline:
    """n-grams of both directions on the training split.

    p(byte | left, right) is taken as p(byte | left) p(byte | right) / p(byte), as if both sides were independent given
    the byte.
    """
    ids = np.where(data.train.targets == IGNORED, data.train.inputs["input_ids"], data.train.targets)
    left, right = ByteNgrams(ids, ORDER), ByteNgrams(ids[:, ::-1], ORDER)
    alone = np.log(left.probabilities(np.empty(0, np.int64)))

    def run(inputs: Arrays) -> Arrays:
        tokens: NDArray[np.int64] = inputs["input_ids"].astype(np.int64)
        logits = np.zeros((*tokens.shape, _VOCABULARY))
        for row, place in zip(*np.nonzero(tokens == PREPROCESSING.mask_id), strict=True):
            before = left.probabilities(tokens[row, :place])
            after = right.probabilities(tokens[row, :place:-1])
            logits[row, place] = np.log(before) + np.log(after) - alone
        return {"logits": logits}

    return Baseline(f"{ORDER}-grams of bytes, both sides", run)
