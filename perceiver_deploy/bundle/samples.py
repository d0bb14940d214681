"""Samples: inputs with the eager model's float64 and float32 outputs. The golden ones travel in the bundle."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

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

    def save(self, path: Path | BinaryIO) -> None:
        """Write, to a binary file too, as .npz with keys `inputs.NAME`, `float64.NAME`, `float32.NAME` and `name`.

        Not compressed, so that the C++ library reads it too.
        """
        groups = {"inputs": self.inputs, "float64": self.float64, "float32": self.float32}
        arrays: dict[str, Any] = {
            f"{group}.{name}": array for group, arrays in groups.items() for name, array in arrays.items()
        }
        np.savez(path, name=np.array(self.name), **arrays)


def load_sample(path: Path) -> Sample:
    """Read what `Sample.save` wrote.

    Raises:
        BundleError: the file is not such a sample.
    """
    groups = read_groups(path)
    if unknown := groups.keys() - {"", "inputs", "float64", "float32"}:
        raise BundleError(f"{path} is not a golden sample: it holds {sorted(unknown)[0]!r}.")
    if "name" not in groups.get("", {}):
        raise BundleError(f"{path} is not a golden sample: it has no 'name'.")
    return Sample(str(groups[""]["name"]), *(groups.get(name, {}) for name in ("inputs", "float64", "float32")))


def read_groups(path: Path) -> dict[str, Arrays]:
    """The arrays of an .npz file by what is before and behind the first dot of their names.

    Raises:
        BundleError: the file holds something else.
    """
    groups: dict[str, Arrays] = {}
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            for key in file.files:
                group, dot, name = key.partition(".")
                groups.setdefault(group if dot else "", {})[name or group] = file[key]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{path} is not a golden sample: {error}.") from error
    return groups
