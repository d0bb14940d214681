"""Shipped checkpoints with raw inputs, through the command line on real files, against the same without them."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from perceiver_deploy.cli.main import main
from perceiver_deploy.data.raw_sets import raw_data_set
from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.data.flow_files import read_flow


def run_json(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def digit(folder: Path) -> list[Path]:
    from sklearn.datasets import load_digits

    grey = np.round(load_digits().images[7] * (255 / 16)).astype(np.uint8)
    Image.fromarray(grey).resize((31, 45), Image.Resampling.BICUBIC).convert("RGB").save(folder / "digit.png")
    return [folder / "digit.png"]


def review(folder: Path) -> list[Path]:
    (folder / "review.txt").write_text("A film of great warmth \N{EM DASH} and utterly dull at the end.", encoding="utf-8")
    return [folder / "review.txt"]


def prompt(folder: Path) -> list[Path]:
    """A second and a half of a voice-like buzz: no speech, but enough to be told apart by."""
    time = np.arange(12_000) / 8000
    sound = sum(np.sin(2 * np.pi * 120 * harmonic * time) / harmonic for harmonic in range(1, 12))
    pcm = (9000 * sound * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time))).astype("<i2")
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, len(pcm), "NONE", ""))
        file.writeframes(pcm.tobytes())
    return [folder / "sound.wav"]
