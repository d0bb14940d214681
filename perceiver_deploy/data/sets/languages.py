"""Spoken language: Asterisk's telephone prompts in five languages, 8 kHz, one speaker a language.

With one speaker and one studio a language, a model may tell voices and microphones apart instead of languages; only
English and Spanish share a speaker. Prompts are held out, not recordings: what is said under one name goes to one split
in all languages.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.bundle.preprocessing import AudioPreprocessing
from perceiver_deploy.data.datasets import DataSet
from perceiver_deploy.data.fetch.archives import read_members
from perceiver_deploy.data.fetch.fetching import cached
from perceiver_deploy.data.fetch.sources import SOURCES
from perceiver_deploy.data.media.audio import preprocess_sound
from perceiver_deploy.data.split import Split

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
PREPROCESSING = AudioPreprocessing(sample_rate=8000, samples=24000, samples_per_patch=160)
_TEST_SHARE = 0.2
_SPLIT_SEED = 0
_NO_SPEECH = (
    *("ascending-2tone", "beep", "beeperr", "confbridge-join", "confbridge-leave", "descending-2tone", "tt-monkeys"),
    *(f"silence/{seconds}" for seconds in range(1, 11)),
)


def load_languages() -> DataSet:
    """The data set: the first three seconds of each prompt, a fifth of the prompts to test on.

    Raises:
        MissingError: a package of recordings is not fetched.
    """
    prompts, sounds, targets = [], [], []
    for target, language in enumerate(LANGUAGES):
        for prompt, sound in _recordings(language):
            prompts.append(prompt)
            sounds.append(preprocess_sound(sound, PREPROCESSING))
            targets.append(target)
    inputs = {name: np.stack([sound[name] for sound in sounds]) for name in sounds[0]}
    in_test = held_out(prompts)
    train, test = (
        Split({name: array[rows] for name, array in inputs.items()}, np.array(targets)[rows])
        for rows in (~in_test, in_test)
    )
    return DataSet(
        name="languages",
        task="audio_classification",
        source="Debian asterisk-core-sounds (telephone prompts in five languages, one speaker a language)",
        license="CC-BY-SA-3.0 AND CC-BY-3.0",
        labels=tuple(LANGUAGES.values()),
        preprocessing=PREPROCESSING,
        train=train,
        test=test,
    )


def held_out(prompts: Sequence[str]) -> NDArray[np.bool_]:
    """Which recordings are to test on, given what is said in each: a fifth of the prompts, in whatever language."""
    names = sorted(set(prompts))
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(names))
    return np.isin(prompts, [names[index] for index in order[: int(_TEST_SHARE * len(names))]])


def _recordings(language: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Names of prompts and what is said, float32 [samples]. All are 16-bit mono at 8 kHz, and few are empty."""
    source = SOURCES[f"asterisk-{language}"]
    for path, content in read_members(cached(source), source.content):
        prompt = path.removesuffix(".wav").split("/", 5)[5]
        if prompt in _NO_SPEECH:
            continue
        with wave.open(io.BytesIO(content)) as file:  # far faster than PyAV, which matters for thousands
            samples = np.frombuffer(file.readframes(PREPROCESSING.samples), "<i2")
        if len(samples):
            yield prompt, samples.astype(np.float32) / np.float32(32768)
