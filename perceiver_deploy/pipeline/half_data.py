"""What fp16 and bf16 are calibrated on where no data are given, and what is reported of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle import Bundle
from perceiver_deploy.errors import BundleError
from perceiver_deploy.evaluate.grid import Case, make_inputs
from perceiver_deploy.manifest import Manifest, StageName, opt_sizes
from perceiver_deploy.pipeline.calibration_data import stage_batches
from perceiver_deploy.pipeline.inspection import summarize_reasons
from perceiver_deploy.pipeline.sample_check import arrays_digest
from perceiver_deploy.samples import load_sample

GOLDEN = "golden samples"
"""What is calibrated on where no data are given."""


@dataclass(frozen=True)
class GoldenData:
    """The inputs of a bundle's golden samples, the largest first: what ranges are seen on where no data are given."""

    samples: tuple[Arrays, ...]
    sha256: str
    manifest: Manifest
    graphs: Mapping[StageName, Path]

    def batches(self, stage: StageName, rows: int) -> Iterator[Arrays]:
        """What a stage takes, one sample at a time: they differ in shape, so `rows` has no use."""
        return stage_batches(stage, lambda: iter(self.samples), self.manifest, self.graphs)


def golden_data(bundle: Bundle, graphs: Mapping[StageName, Path]) -> GoldenData:
    """The golden samples of a bundle.

    Raises:
        BundleError: it has none.
    """
    names = bundle.samples()
    if not names:
        raise BundleError(f"{bundle.path} has no golden samples to see ranges on. Give data with --calibration.")
    samples = [load_sample(bundle.file(name)).inputs for name in names]
    samples.sort(key=lambda inputs: sum(array.size for array in inputs.values()), reverse=True)
    digests = "".join(bundle.manifest.files[name].sha256 for name in names)
    return GoldenData(tuple(samples), hashlib.sha256(digests.encode()).hexdigest(), bundle.manifest, graphs)


def made_data(bundle: Bundle, graphs: Mapping[StageName, Path]) -> GoldenData:
    """Random inputs of the usual sizes, for a bundle without golden samples whose ranges do not matter."""
    manifest = bundle.manifest
    inputs = make_inputs(manifest.signature, Case("made", opt_sizes(manifest.axes)), manifest.preprocessing)
    return GoldenData((inputs,), arrays_digest(inputs), manifest, graphs)


@dataclass(frozen=True)
class HalfReport:
    """The nodes that stay in float32, each with the reason, and the share of the FLOPs that are in half precision.

    FLOPs are counted with the axes at their `opt` sizes. A reason is `KIND` or `KIND: DETAIL`.
    """

    kept: dict[str, str]
    flops_share: float

    def lines(self) -> list[str]:
        """For people: what is in half precision, and how many nodes are not."""
        share = f"{self.flops_share:.1%} of the operations in half precision, none in INT8: no sum can saturate"
        return [share, f"nodes in float32: {summarize_reasons(self.kept)}"]
