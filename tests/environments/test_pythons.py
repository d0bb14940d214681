"""Newer Pythons than the one that the project is developed with, each as its Debian has it, in a tree of its own.

Trees are kept in build/chroots. What a user's pip would choose there is installed anew each time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.environments.checks import ROOT, Environment, RuntimeChecks, put_inputs, run
from tests.environments.registry import missing

pytestmark = pytest.mark.full

HERE = Path(__file__).parent
SUITES = ["trixie", "forky"]
MISSING = 5
"""Exit code of debian_tree.sh where something is missing."""
VARIABLES = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
    "ORT_DISABLE_TELEMETRY": "1",
}
CARRIED = ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""Of this machine's variables, what a pip elsewhere needs to reach the same registry."""


@pytest.fixture(scope="class", params=SUITES)
def environment(request, wheel, exported, no_registry) -> Environment:
    suite = request.param
    tree = ROOT / "build/chroots" / suite
    made = subprocess.run(["sh", HERE / "debian_tree.sh", suite, tree], capture_output=True, text=True)
    if made.returncode == MISSING:
        missing(made.stderr.strip())
    assert made.returncode == 0, made.stderr[-4000:]
    if no_registry:
        missing(no_registry)

    inputs, installer = tree / "root/inputs", tree / "root" / wheel.name
    shutil.rmtree(inputs, ignore_errors=True)
    put_inputs(exported, inputs)
    shutil.copy(wheel, installer)
    variables = VARIABLES | {name: os.environ[name] for name in CARRIED if name in os.environ}
    prefix = ["sh", HERE / "in_tree.sh", tree]
    run(*prefix, "python3", "-m", "venv", "--clear", "/opt/venv", env=variables)
    run(*prefix, "/opt/venv/bin/pip", "install", "--quiet", f"/root/{wheel.name}[cpu]", env=variables)
    found = Environment([*prefix, "env", "--chdir=/root/inputs"], Path("/opt/venv/bin"), inputs, variables)
    found.print_versions()
    return found


class TestPythons(RuntimeChecks):
    def test_an_image_without_pillow_exits_5_and_names_the_extra(self, environment):
        result = environment.call("perceiver-deploy", "run", "digits.bundle", "seven.png")
        assert result.returncode == 5, result.stderr
        assert "pip install 'perceiver-deploy[media]'" in result.stderr
