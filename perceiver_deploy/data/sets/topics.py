"""Bytes to fill in: windows of CPython's own help topics, 15 % of their bytes masked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import TextPreprocessing
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.media.text import encode
from perceiver_deploy.data.metrics import Metric
from perceiver_deploy.data.split import Split

PREPROCESSING = TextPreprocessing()
LENGTH = 128
MASKED = 19  # 15 % of the 126 bytes between CLS and SEP
IGNORED = -100
_TEST_SHARE = 0.1
_SEED = 0


def load_topics() -> DataSet:
    """The data set: whole topics to test on, so that no passage is in both splits, and every window masked once.

    A passage that several topics repeat stays in the first of them only. Targets [examples, length] are the token ids
    at masked places and -100 elsewhere, in both splits. The text is that of the Python that runs this.
    """
    rng = np.random.default_rng(_SEED)
    train, test = _split_texts(rng)
    return DataSet(
        name="bytes",
        task="masked_lm",
        source="CPython's pydoc_data.topics (the language reference in English)",
        license="PSF-2.0",
        labels=None,
        preprocessing=PREPROCESSING,
        train=_masked(_windows(train), rng),
        test=_masked(_windows(test), rng),
        metrics=(BITS_PER_BYTE,),
    )


def _split_texts(rng: np.random.Generator) -> tuple[str, str]:
    from pydoc_data.topics import topics

    names = sorted(topics)
    held_out = {names[index] for index in rng.permutation(len(names))[: int(_TEST_SHARE * len(names))]}
    first_in = {passage: name for name in reversed(names) for passage in topics[name].split("\n\n")}
    passages = dict.fromkeys(passage for name in names for passage in topics[name].split("\n\n"))
    train = [passage for passage in passages if first_in[passage] not in held_out]
    known = {passage.strip() for passage in train}  # blank lines and indents differ between topics
    test = [passage for passage in passages if first_in[passage] in held_out and passage.strip() not in known]
    return "\n\n".join(train), "\n\n".join(test)


def _windows(text: str) -> NDArray[np.int64]:
    """Token ids [windows, length]: the text cut into windows that do not overlap, its last bytes left out."""
    ids = encode(text, PREPROCESSING)[1:-1]
    size = LENGTH - 2
    ids = ids[: len(ids) // size * size].reshape(-1, size)
    return np.pad(ids, ((0, 0), (1, 1)), constant_values=((0, 0), (PREPROCESSING.cls_id, PREPROCESSING.sep_id)))


def _masked(ids: NDArray[np.int64], rng: np.random.Generator) -> Split:
    """Mask as many bytes in every window, so that a mean over windows is a mean over bytes."""
    order = rng.random(ids.shape)
    order[ids < PREPROCESSING.byte_offset] = 1
    masked = order.argsort(1).argsort(1) < MASKED
    inputs = {"input_ids": np.where(masked, PREPROCESSING.mask_id, ids), "attention_mask": np.ones_like(ids)}
    return Split(inputs, np.where(masked, ids, IGNORED))


def _bits_per_byte(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
    scores = np.empty(len(targets))
    for index, (logits, target) in enumerate(zip(outputs["logits"], targets, strict=True)):
        places = np.flatnonzero(target != IGNORED)
        chosen = logits[places].astype(np.float64)
        top = chosen.max(-1)
        log_sum = top + np.log(np.exp(chosen - top[:, None]).sum(-1))
        scores[index] = (log_sum - chosen[np.arange(len(places)), target[places]]).mean() / math.log(2)
    return scores


BITS_PER_BYTE = Metric("bits per masked byte", "bit", False, _bits_per_byte)
"""Bits that the model's probabilities need for a masked byte; 8 where it knows nothing."""
