"""The report of a benchmark, as `benchmark.json` holds it and as its published schema describes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from perceiver_deploy.errors import InputError
from perceiver_deploy.evaluate.accuracy.figures import AccuracyFigures
from perceiver_deploy.evaluate.speed.scenarios import Scenario
from perceiver_deploy.strict import Strict, first_problem

_NUMBERS = re.compile(r"\[\n\s*([^\[\]{}\"]*?)\n\s*\]")  # no string holds a line break: JSON escapes it

_Report = TypeVar("_Report", bound=Strict)
Trend = Literal["worse", "same", "better", "too noisy"]


class Latency(Strict):
    """One candidate at one batch size and one size of each axis.

    Times are in seconds, `throughput` in examples a second at the median. `speed_up` is eager's time over the
    candidate's: the median of the rounds' ratios, with its 95 % interval. `warm_up` is how many runs came before the
    `samples`, and `stable` whether they had stopped getting faster. `peak_bytes` is the most memory of the host that
    the process has held until then, `device_bytes` what it holds of NVIDIA GPUs after the runs. `relative_l2` compares
    the first output with eager's; None where it is not finite.
    """

    batch: int
    sizes: dict[str, int]
    p50: float
    p90: float
    p99: float
    throughput: float
    speed_up: float
    speed_up_interval: tuple[float, float]
    warm_up: int
    stable: bool
    peak_bytes: int
    device_bytes: int | None = None
    relative_l2: float | None
    samples: tuple[float, ...]

    def sizes_text(self) -> str:
        """`height 8, width 8`."""
        return sizes_text(self.sizes)


class Measurement(Strict):
    """Everything measured on one candidate.

    `load_seconds` is opening it in a new process, imports included; `first_seconds` its first run; `file_bytes` what
    it reads from the bundle.
    """

    bundle: str
    name: str
    runtime: str
    variant: str
    file_bytes: int
    load_seconds: float
    first_seconds: float
    accuracy: AccuracyFigures | None
    latencies: tuple[Latency, ...]
    scenarios: tuple[Scenario, ...] = ()


class CaseRanking(Strict):
    """Who is fastest at one batch size and one size of each axis.

    `tied` are those not measurably slower than the fastest; with `noisy` the machine was too noisy to tell, and they
    should not be ranked.
    """

    bundle: str
    batch: int
    sizes: dict[str, int]
    fastest: str
    tied: tuple[str, ...]
    noisy: bool

    def text(self) -> str:
        """A sentence that says who is fastest, or that this cannot be told."""
        where = f"{Path(self.bundle).name}, batch {self.batch}" + (f", {sizes_text(self.sizes)}" if self.sizes else "")
        if self.noisy:
            return (
                f"{where}: not ranked, the machine is too noisy. {' and '.join(self.tied)} are statistically tied; "
                "leave the machine alone, or measure for longer with --seconds."
            )
        if len(self.tied) > 1:
            return f"{where}: fastest are {' and '.join(self.tied)}, statistically tied."
        return f"{where}: {self.fastest} is fastest."


class Difference(Strict):
    """A figure of a candidate, named with its bundle, before and now.

    "too noisy" says that the runs were not steady enough to tell.
    """

    candidate: str
    figure: str
    before: str
    now: str
    verdict: Trend


class Comparison(Strict):
    """A report beside an earlier one; `remarks` say where the environments differ."""

    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Difference, ...]:
        """What is worse beyond chance."""
        return tuple(difference for difference in self.differences if difference.verdict == "worse")

    def text(self) -> str:
        """A sentence that sums it up."""
        speeds = [d.verdict for d in self.differences if d.figure.startswith("speed-up")]
        if speeds and set(speeds) == {"too noisy"}:
            return (
                "The machine is too noisy to compare speed: no difference is significant. Use a quieter machine, or "
                f"more --seconds. {len(self.regressions)} of {len(self.differences)} figures are worse than before."
            )
        noisy = f"; {speeds.count('too noisy')} speed-ups were too noisy to compare" if "too noisy" in speeds else ""
        return f"{len(self.regressions)} of {len(self.differences)} figures are worse than before{noisy}."


OTHER = "(other)"
"""What an engine runs that has no name of the graph, such as copies."""


class CandidateTimes(Strict):
    """Seconds of one run: the mean of each layer under a profiler, and the median of the whole without one."""

    candidate: str
    layers: dict[str, float]
    whole: float


class LayerTimes(Strict):
    """Where the time of every candidate goes, eager first, with the axes at `sizes`."""

    bundle: str
    sizes: dict[str, int]
    candidates: tuple[CandidateTimes, ...]

    def names(self) -> list[str]:
        """All layers that a candidate has, in the order of the first graph, what has no name last."""
        eager, *others = self.candidates
        names = dict.fromkeys(layer for times in (*others, eager) for layer in times.layers)
        return sorted(names, key=lambda name: name == OTHER)


class LayerErrors(Strict):
    """The lowest SQNR in dB, against eager float64, of the results of each layer of a variant."""

    bundle: str
    variant: str
    sqnr_db: dict[str, float]


class LeftOut(Strict):
    """A candidate that was not measured, and why: it does not give its graph's numbers here."""

    bundle: str
    candidate: str
    reason: str

    def text(self) -> str:
        """`openvino int8 of digits.bundle is left out. ...`."""
        return f"{self.candidate} of {Path(self.bundle).name} is left out. {self.reason}"


class Settings(Strict):
    """What was asked for."""

    data: str | None
    batches: tuple[int, ...]
    sizes: tuple[dict[str, int], ...]
    seconds: float
    threads: int | None


class BenchmarkReport(Strict):
    """A benchmark: measurements by bundle, eager first."""

    schema_version: Literal[1] = 1
    environment: dict[str, Any]
    command: str
    settings: Settings
    measurements: tuple[Measurement, ...] = Field(min_length=1)
    rankings: tuple[CaseRanking, ...]
    comparison: Comparison | None = None
    layer_times: tuple[LayerTimes, ...] = ()
    layer_errors: tuple[LayerErrors, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def read(cls, path: Path) -> BenchmarkReport:
        """The report that a file holds.

        Raises:
            InputError: there is no such file, or it is no report.
        """
        return read_report(cls, path, "report of `perceiver-deploy benchmark`")

    def text(self) -> str:
        """The content of `benchmark.json`."""
        return compact_json(self.model_dump(mode="json"))


def read_report(kind: type[_Report], path: Path, what: str) -> _Report:
    """The report of this kind that a file holds.

    Raises:
        InputError: there is no such file, or it is no such report.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValidationError as error:
        raise InputError(
            f"{path} is not a {what}: {first_problem(error, 'the document')}. Give what a benchmark of this version "
            "wrote."
        ) from error


def sizes_text(sizes: Mapping[str, int]) -> str:
    """`height 8, width 8`."""
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def compact_json(document: Any) -> str:
    """Indented JSON with each list of numbers on a line of its own."""
    text = json.dumps(document, indent=1, allow_nan=False)
    return _NUMBERS.sub(lambda match: "[" + re.sub(r"\s+", " ", match[1]) + "]", text) + "\n"


def report_schema() -> str:
    """Text of the published `benchmark.schema.json`."""
    return json.dumps(BenchmarkReport.model_json_schema(), indent=2) + "\n"
