"""Short English texts with human ratings of their sentiment: films, tweets, product reviews and editorials.

Source: Hutto and Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text".
Twenty people rated each text from -4 to 4. The class is the sign of their mean; texts rated exactly 0 are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import TextPreprocessing
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.fetch.archives import read_members
from perceiver_deploy.data.fetch.fetching import cached
from perceiver_deploy.data.fetch.sources import SOURCES
from perceiver_deploy.data.media.text import encode
from perceiver_deploy.data.metrics import Metric
from perceiver_deploy.data.split import Split

PREPROCESSING = TextPreprocessing()
LENGTH = 256
SENTIMENTS = ("negative", "positive")
_FILES = {
    "film": "movieReviewSnippets",
    "tweet": "tweets",
    "product": "amazonReviewSnippets",
    "editorial": "nytEditorialSnippets",
}
TASK_LABELS = {"sentiment": SENTIMENTS, "source": tuple(_FILES)}
_TEST_SHARE = 0.2
_SEED = 0


@dataclass(frozen=True)
class _Snippet:
    """`document` is what sentences of one product review or editorial share; films and tweets have one per sentence."""

    source: str
    document: str
    positive: bool
    text: str


def load_sentiment() -> DataSet:
    """Film snippets and whether people found them positive; a fifth to test on.

    Raises:
        MissingError: the archive is not fetched.
    """
    snippets = _read("film")
    targets = np.array([snippet.positive for snippet in snippets], np.int64)
    train, test = _split(snippets, targets)
    return DataSet(
        name="sentiment",
        task="text_classification",
        source="vaderSentiment 0.5 (film snippets rated by people)",
        license="MIT",
        labels=SENTIMENTS,
        preprocessing=PREPROCESSING,
        train=train,
        test=test,
    )


def load_text_tasks() -> DataSet:
    """Two tasks on the same texts: their sentiment, and where they come from; as many texts of each source.

    Sentences of one product review or editorial are in one split. Targets [examples, 2].

    Raises:
        MissingError: the archive is not fetched.
    """
    rng = np.random.default_rng(_SEED)
    by_source = [_read(source) for source in _FILES]
    count = min(len(snippets) for snippets in by_source)
    snippets = [snippets[index] for snippets in by_source for index in sorted(rng.permutation(len(snippets))[:count])]
    sources = list(_FILES)
    targets = np.array([(snippet.positive, sources.index(snippet.source)) for snippet in snippets], np.int64)
    train, test = _split(snippets, targets, shared={"task_ids": np.arange(len(TASK_LABELS))})
    return DataSet(
        name="text-tasks",
        task="multitask_text",
        source="vaderSentiment 0.5 (films, tweets, products and editorials rated by people)",
        license="MIT",
        labels=None,
        preprocessing=PREPROCESSING,
        train=train,
        test=test,
        metrics=tuple(_task_accuracy(name) for name in TASK_LABELS),
    )


def _task_accuracy(task: str) -> Metric:
    index, classes = list(TASK_LABELS).index(task), len(TASK_LABELS[task])

    def correct(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
        return (outputs["logits"][:, index, :classes].argmax(-1) == targets[:, index]).astype(np.float64)

    return Metric(f"{task} accuracy", "%", True, correct)


def _read(source: str) -> list[_Snippet]:
    """All rated texts of a source, but those rated 0; one that is there twice comes once."""
    archive = SOURCES["vader"]
    (_, inner), *_ = read_members(cached(archive), archive.content)
    (_, table), *_ = read_members(inner, f"*/{_FILES[source]}_GroundTruth.txt")
    rows = [line.split("\t") for line in table.decode("utf-8").replace("\r\n", "\n").split("\n") if line.strip()]
    snippets = {
        text: _Snippet(source, f"{source} {name.split('_')[0]}", float(rating) > 0, text)
        for name, rating, text in rows
        if float(rating) != 0
    }
    return list(snippets.values())


def _split(
    snippets: Sequence[_Snippet], targets: NDArray[np.int64], shared: Arrays | None = None
) -> tuple[Split, Split]:
    """Training and test split: a fifth of the documents to test on."""
    documents = sorted({snippet.document for snippet in snippets})
    order = np.random.default_rng(_SEED).permutation(len(documents))
    held_out = {documents[index] for index in order[: int(_TEST_SHARE * len(documents))]}
    in_test = np.array([snippet.document in held_out for snippet in snippets])
    ids = np.stack([_padded(snippet.text) for snippet in snippets])
    inputs = {"input_ids": ids, "attention_mask": (ids != PREPROCESSING.pad_id).astype(np.int64)}
    train, test = (
        Split({name: array[rows] for name, array in inputs.items()}, targets[rows], shared or {})
        for rows in (~in_test, in_test)
    )
    return train, test


def _padded(text: str) -> NDArray[np.int64]:
    """Token ids [length] of a text; a longer one loses its end, few are."""
    ids = encode(text, PREPROCESSING)
    if len(ids) > LENGTH:
        ids = np.append(ids[: LENGTH - 1], PREPROCESSING.sep_id)
    return np.pad(ids, (0, LENGTH - len(ids)), constant_values=PREPROCESSING.pad_id)
