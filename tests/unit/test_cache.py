from pathlib import Path

import pytest

from perceiver_deploy.cache import cache_directory


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PERCEIVER_DEPLOY_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"PERCEIVER_DEPLOY_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/perceiver-deploy"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/perceiver-deploy"),
        ({}, "/home/me/.cache/perceiver-deploy"),
    ],
)
def test_cache_is_the_users_choice_then_the_desktops_then_the_default(variables, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("PERCEIVER_DEPLOY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(expected)


def test_relative_cache_is_taken_from_where_the_program_was_started(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEIVER_DEPLOY_CACHE", "here")
    assert cache_directory() == tmp_path / "here"
