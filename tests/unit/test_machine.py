"""What the processor can do with INT8."""

from __future__ import annotations

import pytest

from perceiver_deploy import machine
from perceiver_deploy.machine import int8_problem
from perceiver_deploy.pipeline.doctor import diagnose


@pytest.fixture(autouse=True)
def features_afresh():
    yield
    machine.processor_features.cache_clear()


def see_processor(monkeypatch, cpuinfo, asked=()):
    """What /proc/cpuinfo says and what NumPy found."""
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(machine, "_asked_features", lambda: set(asked))
    machine.processor_features.cache_clear()


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
    see_processor(monkeypatch, path)
    assert (int8_problem() is not None) == slow
    assert any("INT8 dot product" in problem for problem in diagnose().problems) == slow


def test_a_system_without_cpuinfo_has_no_known_problem(tmp_path, monkeypatch):
    see_processor(monkeypatch, tmp_path / "absent")
    assert int8_problem() is None


def test_a_processor_that_an_emulator_shows_is_believed_and_not_the_file_of_the_host(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text("model name : Host\nflags : sse4_2 avx2 avx512f avx512_vnni avx_vnni\n", encoding="utf-8")
    see_processor(monkeypatch, path, ["sse42", "avx2"])
    assert machine.has_int8_products() is False
    assert machine.processor_kind() == "Host (AVX2, no INT8 dot products)"


def test_what_the_file_knows_and_numpy_does_not_counts(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text("model name : Client\nflags : sse4_2 avx2 avx_vnni\n", encoding="utf-8")
    see_processor(monkeypatch, path, ["sse42", "avx2"])
    assert machine.processor_kind() == "Client (AVX2, INT8 dot products)"


def test_a_processor_that_nobody_knows_has_a_name_alone(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text("model name : Unheard-of\n", encoding="utf-8")
    see_processor(monkeypatch, path)
    assert machine.has_int8_products() is None
    assert machine.processor_kind() == "Unheard-of"
