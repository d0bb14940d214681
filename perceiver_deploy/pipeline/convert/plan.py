"""What conversions to any precision have in common: converters of stages, and how their graphs are opened here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from perceiver_deploy.bundle.manifest import Axis, Precision, RuntimeName, Stage, StageName
from perceiver_deploy.export.calibration.ranges import Ranges
from perceiver_deploy.export.description import GraphDescription
from perceiver_deploy.export.int8.report import QuantizationReport
from perceiver_deploy.export.int8.weights_only import WeightsReport
from perceiver_deploy.pipeline.convert.half_report import HalfReport
from perceiver_deploy.pipeline.samples.calibration import CalibrationData
from perceiver_deploy.pipeline.samples.golden import GoldenData
from perceiver_deploy.runtimes.cpu.onnxruntime import open_graphs
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.stages.staged import StagedSession

Report = QuantizationReport | HalfReport | WeightsReport
OpenGraphs = Callable[[Mapping[StageName, Path], Mapping[StageName, Stage], Mapping[str, Axis]], Session]


@dataclass(frozen=True)
class ConvertedStage:
    """What was converted, the nodes that stay in float32, and the graph."""

    report: Report
    in_float32: Collection[str]
    graph: GraphDescription


class StageConverter(Protocol):
    """A stage's float32 graph and all that its conversion needs, so that it can be converted again and again."""

    @property
    def products(self) -> Mapping[str, str]:
        """The module of each node whose precision may be chosen."""

    def convert(self, target: Path, keep: Collection[str] = ()) -> ConvertedStage:
        """Write the graph, with the nodes `keep` in float32 beside those that rules leave there.

        Raises:
            ExportError: as `quantize_int8` and `convert_to_half`.
        """


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A conversion that is ready to be made.

    Attributes:
        variant: its name.
        precision: its precision.
        runtimes: what it is for.
        data: what was calibrated on.
        rows: how many samples to run at a time.
        stages: the converter of each stage.
        ranges: what `calibration/` is to hold of a stage.
        recipe: what the manifest is to say of it.
    """

    variant: str
    precision: Precision
    runtimes: tuple[RuntimeName, ...]
    data: CalibrationData | GoldenData
    rows: int = 1
    stages: Mapping[StageName, StageConverter]
    ranges: Mapping[StageName, Ranges] = field(default_factory=dict)
    recipe: dict[str, Any]


def open_in_openvino(
    files: Mapping[StageName, Path], stages: Mapping[StageName, Stage], axes: Mapping[str, Axis]
) -> Session:
    """The graphs of some stages as one session in OpenVINO."""
    from perceiver_deploy.runtimes.cpu.openvino import OpenVinoSession

    return StagedSession(
        stages["full"],
        axes,
        {name: stages[name] for name in files},
        lambda name: OpenVinoSession(files[name], stages[name], axes),
    )


OPENERS: Mapping[RuntimeName, OpenGraphs] = {"onnxruntime": open_graphs, "openvino": open_in_openvino}
"""How graphs that are in no bundle are opened in the runtimes that may be here."""


def opener(precision: Precision) -> OpenGraphs:
    """How to open graphs of a precision here: onnxruntime reads no bf16 on a CPU, OpenVINO does."""
    return OPENERS["openvino" if precision == "bf16" else "onnxruntime"]
