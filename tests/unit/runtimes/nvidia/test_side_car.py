"""What is compared between an engine and a machine before the engine is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from perceiver_deploy.errors import BundleError, InputError
from perceiver_deploy.runtimes.nvidia.families import FAMILIES, FamilyName
from perceiver_deploy.runtimes.nvidia.gpu import Gpu
from perceiver_deploy.runtimes.nvidia.side_car import Machine, SideCar, require_loadable

L4 = Machine(Gpu("NVIDIA L4", "8.9", 24 << 30), "1.7.1.116", "Linux", "x86_64", "580.65.06")
SHAPES = {"min": [1, 16], "opt": [2, 32], "max": [4, 48]}
FACTS: dict[str, Any] = {
    "engine": "tensorrt-rtx",
    "variant": "int8",
    "stage": "full",
    "precision": "int8",
    "onnx": {"file": "onnx/int8.onnx", "sha256": "0" * 64, "data": {}},
    "compute_capabilities": ["8.6", "8.9"],
    "os": {"system": "Linux", "machine": "x86_64"},
    "driver": None,
    "tensorrt_version": "1.7.1.116",
    "weights_stripped": False,
    "hardware_compatible": False,
    "version_compatible": False,
    "axes": [{"length": {"min": 16, "opt": 32, "max": 48}}],
    "shape_profiles": [{"input_ids": SHAPES}],
}


def side_car(**changes: Any) -> SideCar:
    return SideCar.model_validate(json.loads(json.dumps({**FACTS, **changes})))


def refusal(found: SideCar, machine: Machine, family: FamilyName = "tensorrt-rtx") -> str:
    with pytest.raises(BundleError) as caught:
        require_loadable(found, FAMILIES[family], machine, "text.bundle", "int8-rtx")
    return str(caught.value)


def test_engine_for_this_machine_is_accepted() -> None:
    require_loadable(side_car(), FAMILIES["tensorrt-rtx"], L4, "text.bundle", "int8-rtx")


def test_other_version_is_refused_with_the_command_that_builds_it_again() -> None:
    text = refusal(side_car(), replace(L4, tensorrt_version="1.8.0.1"))
    assert "built by TensorRT-RTX 1.7.1.116, and 1.8.0.1 is installed" in text
    assert text.endswith(
        "perceiver-deploy build text.bundle --engine tensorrt-rtx --variant int8 --compute-capability 8.9 "
        "--shapes length=16:32:48 --name int8-rtx --force"
    )


def test_other_compute_capability_is_refused_with_the_name_of_the_gpu() -> None:
    text = refusal(side_car(), replace(L4, gpu=Gpu("NVIDIA H100", "9.0", 80 << 30)))
    assert "for compute capability 8.6, 8.9, and NVIDIA H100 has 9.0" in text


def test_other_operating_system_is_refused() -> None:
    assert "Linux x86_64, and this is Windows AMD64" in refusal(
        side_car(), replace(L4, system="Windows", machine="AMD64")
    )


def test_driver_older_than_at_the_build_is_refused_and_a_newer_or_unknown_one_is_not() -> None:
    built = side_car(driver="580.65.06")
    assert "the older 575.1" in refusal(built, replace(L4, driver="575.1"))
    for driver in ("581.0", "580.65.06", None):
        require_loadable(built, FAMILIES["tensorrt-rtx"], replace(L4, driver=driver), "b", "n")


def test_all_that_differs_is_named_at_once() -> None:
    text = refusal(side_car(), replace(L4, tensorrt_version="1.8.0.1", gpu=Gpu("NVIDIA H100", "9.0", 1)))
    assert "is installed; it is for" in text


def test_version_compatible_engine_runs_with_later_versions_of_its_major_one() -> None:
    found = side_car(engine="tensorrt", tensorrt_version="10.13.0", version_compatible=True)
    require_loadable(found, FAMILIES["tensorrt"], replace(L4, tensorrt_version="10.16.1"), "b", "n")
    for version in ("10.12.0", "11.4.0"):
        assert version in refusal(found, replace(L4, tensorrt_version=version), "tensorrt")


def test_hardware_compatible_engine_runs_on_ampere_and_later() -> None:
    found = side_car(hardware_compatible=True, compute_capabilities=["8.0"])
    require_loadable(found, FAMILIES["tensorrt"], L4, "b", "n")
    assert "has 7.5" in refusal(found, replace(L4, gpu=Gpu("Tesla T4", "7.5", 1)))


def test_command_of_several_profiles_names_each() -> None:
    axes = [{"length": {"min": 1, "opt": 8, "max": 16}}, {"length": {"min": 17, "opt": 32, "max": 64}}]
    command = side_car(axes=axes).rebuild_command("b", "n", L4.gpu)
    assert "--shapes length=1:8:16 --shapes length=17:32:64" in command


def test_tightest_profile_that_takes_the_shapes_is_chosen() -> None:
    wide = {"min": [1, 1], "opt": [1, 256], "max": [8, 512]}
    found = side_car(shape_profiles=[{"input_ids": wide}, {"input_ids": SHAPES}], axes=FACTS["axes"] * 2)
    assert found.profile_for({"input_ids": (2, 48)}) == 1
    assert found.profile_for({"input_ids": (2, 49)}) == 0
    assert found.profile_for({"input_ids": (8, 32)}) == 0
    with pytest.raises(InputError, match=r"no profile for input_ids \[9, 32\]"):
        found.profile_for({"input_ids": (9, 32)})
