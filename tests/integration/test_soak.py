"""Sessions under load: bit-equal to use from one thread, and memory that does not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("PERCEIVER_DEPLOY_SOAK_SECONDS", "600"))
SHORT_SECONDS = 3.0
GROWTH, SHORT_GROWTH = 0.02, 0.25
"""Of memory, after the warm-up. In a few seconds on a busy machine, allocators are still filling up."""
WAYS = [(runtime, variant) for runtime in ("onnxruntime", "openvino") for variant in ("fp32", "int8")]


@pytest.fixture(scope="module")
def bundle(shared_bundle):
    return shared_bundle("digits", "int8")


def soak(bundle, runtime, variant, seconds):
    command = [sys.executable, "-m", "tests.helpers.soak", bundle, runtime, variant, seconds]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def check(result, growth):
    assert result["calls"] >= 16, result
    assert result["differing"] == 0, result
    assert result["growth"] <= growth, result


@pytest.mark.parametrize(
    ("runtime", "variant"), [WAYS[0], *(pytest.param(*way, marks=pytest.mark.slow) for way in WAYS[1:])]
)
def test_sixteen_threads_get_the_bits_of_one_thread(bundle, runtime, variant):
    check(soak(bundle, runtime, variant, SHORT_SECONDS), SHORT_GROWTH)


@pytest.mark.full
@pytest.mark.parametrize(("runtime", "variant"), WAYS)
def test_sixteen_threads_for_ten_minutes_get_the_bits_of_one_thread_and_memory_stays(bundle, runtime, variant):
    check(soak(bundle, runtime, variant, SECONDS), GROWTH)
