"""Samples: inputs with the eager model's float64 and float32 outputs. The golden ones travel in the bundle."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import BundleError


@dataclass(frozen=True)
class Sample:
    """One case with what the eager model gives for it."""

    name: str
    inputs: Arrays
    float64: Arrays
    float32: Arrays

    def save(self, path: Path) -> None:
        """Write as .npz with keys `inputs.NAME`, `float64.NAME`, `float32.NAME` and `name`."""
        groups = {"inputs": self.inputs, "float64": self.float64, "float32": self.float32}
        arrays: dict[str, Any] = {
            f"{group}.{name}": array for group, arrays in groups.items() for name, array in arrays.items()
        }
        np.savez_compressed(path, name=np.array(self.name), **arrays)


def load_sample(path: Path) -> Sample:
    """Read what `Sample.save` wrote.

    Raises:
        BundleError: the file is not such a sample.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            groups: dict[str, Arrays] = {"inputs": {}, "float64": {}, "float32": {}}
            for key in file.files:
                group, _, name = key.partition(".")
                if name:
                    groups[group][name] = file[key]
            return Sample(str(file["name"]), **groups)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{path} is not a golden sample: {error}.") from error
