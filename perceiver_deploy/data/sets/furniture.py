"""Furniture as point clouds: models of Sweet Home 3D's catalogues, from Debian's package of them."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import PointsPreprocessing
from perceiver_deploy.cache import Store, write_whole
from perceiver_deploy.data.datasets import DATA_SETS, DataSet
from perceiver_deploy.data.fetch.archives import read_members
from perceiver_deploy.data.fetch.fetching import cached
from perceiver_deploy.data.fetch.sources import SOURCES
from perceiver_deploy.data.media import points
from perceiver_deploy.data.media.files import read_arrays
from perceiver_deploy.data.media.points import draw_points, normalize_points, read_mesh
from perceiver_deploy.data.split import Split
from perceiver_deploy.progress import log, track

PREPROCESSING = PointsPreprocessing(points=1024, seed=0)
TRAINING_POINTS = 2048

_NOUNS = {
    "chair": ("chair", "armchair"),
    "table": ("table", "desk"),
    "sofa": ("sofa", "couch"),
    "bed": ("bed", "crib"),
    "lamp": ("lamp", "light", "lights", "lantern"),
    "cabinet": ("cabinet", "wardrobe", "bookcase", "cupboard"),
    "door": ("door",),
}
_CLASS_OF = {noun: label for label, nouns in _NOUNS.items() for noun in nouns}
PREPARED = Store("prepared", ".npz")
LABELS = tuple(_NOUNS)
"""Classes, each with at least 15 models. The 15 windows are variants of three, too few to hold some out."""

_CATALOGUE = "PluginFurnitureCatalog.properties"
_STUDIOS = ("Scopia", "Kator Legaz")
_TEST_SHARE = 1 / 3
_SPLIT_SEED = 0


@dataclass(frozen=True)
class FurnitureModel:
    """One model of a catalogue: its class, its maker and its mesh as the text of an OBJ file.

    `rotation` [3, 3] puts it upright. Models of one `group` may be variants of each other.
    """

    path: str
    label: str
    creator: str
    rotation: NDArray[np.float64]
    obj: bytes

    @property
    def group(self) -> str:
        """The class and the maker; of the studios, who made half of all, also the first word of the file's name."""
        word = re.split(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]", Path(self.path).stem)[0].lower()
        return f"{self.label}/{self.creator}/{word if self.creator in _STUDIOS else ''}"


def read_models(archive: Path) -> Iterator[FurnitureModel]:
    """The models of the package whose name in the catalogue says that they are of one of the classes."""
    for _, catalogue in read_members(archive, "*.sh3f"):
        files = dict(read_members(catalogue))
        for entry in _entries(files[_CATALOGUE].decode("latin-1")):
            label = _CLASS_OF.get(_head_noun(entry["name"]))
            if label is not None:
                path = entry["model"].removeprefix("/")
                rotation = np.array(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), np.float64).reshape(3, 3)
                yield FurnitureModel(path, label, entry["creator"], rotation, files[path])


def _entries(properties: str) -> list[dict[str, str]]:
    """Entries of a catalogue: `key#3=value` is of the third one."""
    entries: dict[str, dict[str, str]] = defaultdict(dict)
    for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\s*$", properties, re.MULTILINE):
        entries[number][key] = value
    return list(entries.values())


def _head_noun(name: str) -> str:
    """The word that says what a thing is: the last before `with`, `on` or a number."""
    return re.split(r" with | on |\d", name.lower())[0].split()[-1]


def load_furniture() -> DataSet:
    """The data set: classes of furniture, split by model so that variants of one are on the same side.

    Drawing the points takes some 15 seconds the first time; they are kept in the cache.

    Raises:
        MissingError: the package is not fetched, or trimesh is not installed.
    """
    arrays = _prepared(cached(SOURCES["sweethome3d"]))
    entry = DATA_SETS["furniture"]
    return DataSet(
        name="furniture",
        task=entry.task,
        source=entry.source,
        license=entry.license,
        labels=LABELS,
        preprocessing=PREPROCESSING,
        train=_split(arrays["train_points"], arrays["train_targets"]),
        test=_split(arrays["test_points"], arrays["test_targets"]),
    )


def _split(clouds: NDArray[Any], targets: NDArray[Any]) -> Split:
    return Split({"points": clouds, "attention_mask": np.ones(clouds.shape[:2], np.int64)}, targets)


def _prepared(archive: Path) -> Arrays:
    """Points and targets of both splits, from the cache where this code has put them there."""
    code = b"".join(Path(file).read_bytes() for file in (__file__, points.__file__))
    digest = hashlib.sha256(SOURCES["sweethome3d"].sha256.encode() + code).hexdigest()
    path = PREPARED.path(f"furniture-{digest[:16]}")
    if not path.exists():
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **_prepare(archive))
        write_whole(path, content.getvalue())
    return read_arrays(path)


def _prepare(archive: Path) -> Arrays:
    log.info("Drawing points from the models of %s", archive)
    models = list(read_models(archive))
    held_out = held_out_groups(models)
    parts: dict[str, list[FurnitureModel]] = {"train": [], "test": []}
    for model in models:
        parts["test" if model.group in held_out else "train"].append(model)
    counts = {"train": TRAINING_POINTS, "test": PREPROCESSING.points}
    arrays: Arrays = {}
    for name, part in parts.items():
        clouds = [_points(model, counts[name]) for model in track(part, f"Drawing points: {name}", len(part))]
        arrays[f"{name}_points"] = normalize_points(np.stack(clouds))
        arrays[f"{name}_targets"] = np.array([LABELS.index(model.label) for model in part], np.int64)
    return arrays


def _points(model: FurnitureModel, count: int) -> NDArray[np.float64]:
    surface = draw_points(read_mesh(model.obj, model.path), count, PREPROCESSING.seed)
    return surface @ model.rotation.T


def held_out_groups(models: Iterable[FurnitureModel]) -> set[str]:
    """Groups of the test split: of each class, drawn as long as they hold at most a third of its models."""
    held_out = set()
    for label in LABELS:
        sizes = Counter(model.group for model in models if model.label == label)
        room = sum(sizes.values()) * _TEST_SHARE
        for group in np.random.default_rng(_SPLIT_SEED).permutation(sorted(sizes)):
            if sizes[group] <= room:
                held_out.add(str(group))
                room -= sizes[group]
    return held_out
