"""What the processor can do with INT8."""

from __future__ import annotations

import pytest

from perceiver_deploy.evaluate import environment
from perceiver_deploy.evaluate.environment import int8_problem
from perceiver_deploy.pipeline.diagnosis import diagnose


@pytest.mark.parametrize(
    ("cpuinfo", "slow"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512_vnni avx512f\n", False),
        ("flags\t\t: fpu avx2 fma\n", True),
        ("Features\t: fp asimd asimddp\n", False),
        ("Features\t: fp asimd\n", True),
        ("model name : something\n", False),  # it does not say
    ],
)
def test_a_processor_without_int8_instructions_is_a_problem_that_doctor_tells(tmp_path, monkeypatch, cpuinfo, slow):
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo, encoding="utf-8")
    monkeypatch.setattr(environment, "_CPUINFO", path)
    assert (int8_problem() is not None) == slow
    assert any("INT8 dot product" in problem for problem in diagnose().problems) == slow


def test_a_system_without_cpuinfo_has_no_known_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_CPUINFO", tmp_path / "absent")
    assert int8_problem() is None
