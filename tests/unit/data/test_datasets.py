import subprocess
import sys

import pytest

from perceiver_deploy.data.datasets import DATA_SETS, load_dataset
from perceiver_deploy.data.fetch.sources import SOURCES
from perceiver_deploy.errors import MissingError

SLOW = ("languages", "films-autoencoding", "films-video", "films-audiovisual")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in DATA_SETS]
)
def test_a_loaded_data_set_is_what_the_registry_says_without_loading_it(name):
    entry = DATA_SETS[name]
    try:
        data = load_dataset(name)
    except MissingError as error:
        pytest.skip(str(error))
    assert (data.name, data.task, data.license, data.source) == (name, entry.task, entry.license, entry.source)


def test_data_sets_are_described_without_loading_one():
    program = (
        "import sys; from perceiver_deploy.pipeline.fetch import describe_data_sets; "
        "print([row['here'] for row in describe_data_sets()], {'sklearn', 'torch'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    here, _, loaded = result.stdout.strip().rpartition(" ")
    assert here.startswith("[True")
    assert loaded == "set()"


def test_names_of_data_sets_and_files_differ():
    """`data fetch` takes both."""
    assert not DATA_SETS.keys() & SOURCES.keys()
