"""How models of furniture are labelled and split."""

from __future__ import annotations

import io
import zipfile
from collections import Counter

import numpy as np
import pytest

from perceiver_deploy.data.sets.furniture import LABELS, FurnitureModel, held_out_groups, read_models

CATALOGUE = """
name#1=Office chair with arms 2
model#1=/studio/officeChair.obj
creator#1=Ann
name#2=Apple on table
model#2=/studio/apple.obj
creator#2=Ann
name#3=Round table
model#3=/studio/roundTable.obj
modelRotation#3=1 0 0 0 0 -1 0 1 0
creator#3=Ann
"""


@pytest.fixture
def archive(tmp_path):
    """A package of one catalogue."""
    catalogue = io.BytesIO()
    with zipfile.ZipFile(catalogue, "w") as file:
        file.writestr("PluginFurnitureCatalog.properties", CATALOGUE)
        for name in ("officeChair", "apple", "roundTable"):
            file.writestr(f"studio/{name}.obj", name)
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as file:
        file.writestr("catalogues/one.sh3f", catalogue.getvalue())
    return tmp_path / "package.zip"


def test_a_model_is_what_the_last_noun_of_its_name_says_and_others_are_left_out(archive):
    models = list(read_models(archive))
    assert [(model.path, model.label, model.obj) for model in models] == [
        ("studio/officeChair.obj", "chair", b"officeChair"),
        ("studio/roundTable.obj", "table", b"roundTable"),
    ]
    assert np.array_equal(models[0].rotation, np.eye(3))
    assert models[1].rotation @ [0, 0, 1] == pytest.approx([0, -1, 0])


def made(label, creator, stem, count):
    return [FurnitureModel(f"x/{stem}{index}.obj", label, creator, np.eye(3), b"") for index in range(count)]


def test_variants_stay_together_and_at_most_a_third_of_each_class_is_held_out():
    models = [model for label in LABELS for name in "abcdefgh" for model in made(label, f"maker {name}", "variant", 3)]
    models += [model for stem in ("sofa", "stool", "office") for model in made("chair", "Scopia", stem, 2)]
    held_out = held_out_groups(models)
    assert held_out == held_out_groups(models)
    assert {model.group for model in made("chair", "Scopia", "sofa", 3)} == {"chair/Scopia/sofa"}
    sizes, tested = (
        Counter(model.label for model in part) for part in (models, [m for m in models if m.group in held_out])
    )
    assert all(0.2 * sizes[label] < tested[label] <= sizes[label] / 3 for label in LABELS)
