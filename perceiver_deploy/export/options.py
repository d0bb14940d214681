"""Choices about the exported graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OPSET = 20
"""Opset by default: its plain operators are what every runtime reads and can fuse."""
EXTERNAL_ABOVE = 1_500_000_000
"""Bytes of weights beyond which they are kept in a file of their own: one ONNX file holds at most 2 GB."""
REWRITES = "perceiver_deploy.rewrites"
"""Metadata of an exported model: how many times each rewrite fired, as JSON."""
AXES = "perceiver_deploy.axes"
"""Metadata of an exported model: min, opt, max and multiple_of of each axis by name, as JSON."""

FUSED = "fused"
"""What is said of an attention that an engine computes as one kernel; anything else is why not."""

AttentionForm = Literal["auto", "portable", "onnxruntime", "opset23", "rows", "all-rows"]
"""How an attention is written: in plain operators, as onnxruntime's own operator, as `Attention` of opset 23, or where
it is over a large grid with the features of rows and columns apart: as a Loop over rows where the grid has the keys
(`rows`), and where it has the queries too (`all-rows`). `auto` is one of these that suits all runtimes."""
BY_ROW: tuple[AttentionForm, ...] = ("rows", "all-rows")
BY_ROW_OPSET = 18
"""The first whose ReduceMax takes its axes as a Loop over rows gives them."""


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is written.

    `reassociate`: let each attention project its small side, where that takes fewer multiply-adds.
    `opset`: version of ONNX's operators, 17 to 23.
    `attention`: how attentions are written; where no runtimes are named, `auto` is `portable`.
    `pad_heads`: fill heads up to a multiple of 8 channels, which fused kernels of TensorRT take.
    `external_above`: bytes of weights beyond which they are kept in a file of their own.
    """

    reassociate: bool = True
    opset: int = OPSET
    attention: AttentionForm = "auto"
    pad_heads: bool = False
    external_above: int = EXTERNAL_ABOVE
