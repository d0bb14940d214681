"""A bundle's golden samples as calibration data, where none are given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Manifest, StageName, opt_sizes
from perceiver_deploy.bundle.samples import load_sample
from perceiver_deploy.errors import BundleError
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.pipeline.samples.calibration import stage_batches
from perceiver_deploy.pipeline.samples.checks import arrays_digest

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
