"""The side-car of an engine, `engines/NAME.json`: read, and compared with this machine before the engine is loaded."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import StageName
from perceiver_deploy.errors import BundleError, InputError
from perceiver_deploy.runtimes.nvidia.families import Family, FamilyName
from perceiver_deploy.runtimes.nvidia.gpu import Gpu, driver_version, require_gpu


class _Facts(BaseModel):
    """What loading depends on has a type; more facts, for people, are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Platform(_Facts):
    """The operating system that an engine was built on."""

    system: str
    machine: str


class SourceGraph(_Facts):
    """The ONNX file that an engine was built from."""

    file: str
    sha256: str


class AxisSizes(_Facts):
    """Sizes of one axis in one profile."""

    min: int
    opt: int
    max: int


class InputSizes(_Facts):
    """Shapes of one input in one profile."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether every size lies between min and max."""
        return len(shape) == len(self.min) and all(
            least <= size <= most for least, size, most in zip(self.min, shape, self.max, strict=True)
        )


class SideCar(_Facts):
    """Facts of an engine, as `build` writes them."""

    engine: FamilyName
    variant: str
    stage: StageName
    onnx: SourceGraph
    compute_capabilities: tuple[str, ...]
    os: Platform
    driver: str | None
    tensorrt_version: str
    weights_stripped: bool
    hardware_compatible: bool
    version_compatible: bool
    axes: tuple[dict[str, AxisSizes], ...] = Field(min_length=1)
    shape_profiles: tuple[dict[str, InputSizes], ...] = Field(min_length=1)

    def to_json(self) -> str:
        """Text of the file, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    def profile_for(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Number of the tightest profile that takes these shapes: the one whose largest shapes are the least.

        Raises:
            InputError: none does; the message has the profiles.
        """
        fitting = [
            number
            for number, profile in enumerate(self.shape_profiles)
            if all(profile[name].takes(shape) for name, shape in shapes.items())
        ]
        if not fitting:
            given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise InputError(
                f"The engine has no profile for {given}; its profiles are {self._profiles()}. "
                "Change the input's size, or build an engine with --shapes for it."
            )
        return min(fitting, key=lambda number: [shapes.max for shapes in self.shape_profiles[number].values()])

    def _profiles(self) -> str:
        return "; ".join(
            ", ".join(f"{axis}={sizes.min}:{sizes.opt}:{sizes.max}" for axis, sizes in profile.items())
            for profile in self.axes
        )

    def rebuild_command(self, bundle: str, name: str, gpu: Gpu) -> str:
        """The command that builds this engine again for a GPU of this machine."""
        shapes = [
            f"--shapes {axis}={sizes.min}:{sizes.opt}:{sizes.max}"
            for profile in self.axes
            for axis, sizes in profile.items()
        ]
        capability = [f"--compute-capability {gpu.compute_capability}"] if self.engine == "tensorrt-rtx" else []
        stage = [] if self.stage == "full" else [f"--stage {self.stage}"]
        return " ".join(
            [
                f"perceiver-deploy build {bundle} --engine {self.engine} --variant {self.variant}",
                *stage,
                *capability,
                *shapes,
                f"--name {name} --force",
            ]
        )


@dataclass(frozen=True)
class Machine:
    """What an engine is to run on. `driver` is the kernel driver's version, None where it cannot be known."""

    gpu: Gpu
    tensorrt_version: str
    system: str
    machine: str
    driver: str | None

    @classmethod
    def here(cls, tensorrt_version: str, purpose: str, device: int = 0) -> Machine:
        """This one.

        Raises:
            MissingError: it has no such GPU.
        """
        gpu = require_gpu(purpose, device)
        return cls(gpu, tensorrt_version, platform.system(), platform.machine(), driver_version())


def read_side_car(bundle: Bundle, name: str) -> SideCar:
    """The side-car of the bundle's engine of that name.

    Raises:
        BundleError: it is missing, was changed, or is not one.
    """
    file = bundle.manifest.engines[name].file.removesuffix(".engine") + ".json"
    path = bundle.file(file)
    try:
        return SideCar.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise BundleError(
            f"{path} is not the side-car of an engine ({_one_line(error)}). Build the engine again, with --force."
        ) from None


def find_engine(bundle: Bundle, runtime: str, variant: str, stage: str) -> str | None:
    """Name of the bundle's engine for a runtime, variant and stage, the last that was built, or None."""
    for name, engine in reversed(bundle.manifest.engines.items()):
        if (engine.variant, engine.stage) == (variant, stage) and read_side_car(bundle, name).engine == runtime:
            return name
    return None


def engine_of(bundle: Bundle, runtime: str, variant: str, stage: str) -> str:
    """As `find_engine`.

    Raises:
        BundleError: there is none; says how to build it.
    """
    if (name := find_engine(bundle, runtime, variant, stage)) is not None:
        return name
    raise BundleError(
        f"{bundle.path} has no {runtime} engine of variant {variant!r}, stage {stage!r}. "
        f"Build one with: perceiver-deploy build {bundle.path} --engine {runtime} --variant {variant}"
        f"{'' if stage == 'full' else f' --stage {stage}'}"
    )


def require_loadable(side_car: SideCar, family: Family, machine: Machine, bundle: str, name: str) -> None:
    """Refuse an engine that was built for something else, with the command that builds it for this machine.

    Raises:
        BundleError: library version, compute capability, operating system or driver do not fit.
    """
    if problems := _mismatches(side_car, family, machine):
        raise BundleError(
            f"Engine {name!r} of {bundle} cannot run here: {'; '.join(problems)}. "
            f"Build it again with: {side_car.rebuild_command(bundle, name, machine.gpu)}"
        )


def _mismatches(side_car: SideCar, family: Family, machine: Machine) -> list[str]:
    problems = []
    built, here = side_car.tensorrt_version, machine.tensorrt_version
    if not (built == here or (side_car.version_compatible and _is_later(here, built))):
        problems.append(f"it was built by {family.title} {built}, and {here} is installed")
    capability = machine.gpu.compute_capability
    compatible = side_car.hardware_compatible and _numbers(capability) >= (8, 0)
    if capability not in side_car.compute_capabilities and not compatible:
        problems.append(
            f"it is for compute capability {', '.join(side_car.compute_capabilities)}, and {machine.gpu.name} has "
            f"{capability}"
        )
    if (side_car.os.system, side_car.os.machine) != (machine.system, machine.machine):
        problems.append(
            f"it was built on {side_car.os.system} {side_car.os.machine}, and this is {machine.system} "
            f"{machine.machine}"
        )
    if side_car.driver and machine.driver and _numbers(machine.driver) < _numbers(side_car.driver):
        problems.append(f"it was built with the driver {side_car.driver}, and this is the older {machine.driver}")
    return problems


def _is_later(here: str, built: str) -> bool:
    return _numbers(here)[0] == _numbers(built)[0] and _numbers(here) >= _numbers(built)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())
