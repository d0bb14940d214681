"""INT8: one explicit Q/DQ graph, placed by onnxruntime's static quantiser."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import ExportError, requires
from perceiver_deploy.export.graph_files import copy_model, model_files

with requires("cpu", "Quantising"):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

_GEMMS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class QuantizationReport:
    """Weight GEMMs are MatMul and Gemm nodes with a stored operand; `left` names those not quantised.

    It is the second operand of a projection, the first one where a query is stored.
    """

    weight_gemms: int
    quantized: int
    left: tuple[str, ...]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Iterable[Arrays]) -> None:
        self._batches: Iterator[Arrays] = iter(batches)

    def get_next(self) -> Arrays | None:
        return next(self._batches, None)


def quantize_int8(source: Path, target: Path, batches: Iterable[Arrays]) -> QuantizationReport:
    """Write an INT8 graph: symmetric int8 activations (min-max over `batches`), int8 weights a channel.

    Both inputs of every MatMul and Gemm get Q/DQ pairs, as TensorRT, OpenVINO and onnxruntime read them. Weights are
    kept in a file of their own where the source's are.

    Raises:
        ExportError: no weight GEMM was quantised.
    """
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # the quantiser advises a pre-processing that the export has already done
    try:
        # A copy, because the quantiser writes beside its source and reads no external data that has a second hard link.
        with tempfile.TemporaryDirectory() as folder:
            quantize_static(
                str(copy_model(source, Path(folder))),
                str(target),
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_GEMMS),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                use_external_data_format=len(model_files(source)) > 1,
                # TensorRT reads no quantised bias
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
            )
    finally:
        logger.setLevel(level)
    report = count_quantized(ir.load(target))
    if report.quantized == 0:
        raise ExportError(
            f"None of the {report.weight_gemms} weight GEMMs of {source.name} was quantised, so there is no INT8 model "
            "to write. Check that the graph holds MatMul or Gemm nodes with constant weights."
        )
    return report


def count_quantized(model: ir.Model) -> QuantizationReport:
    """Count the weight GEMMs of a Q/DQ graph that read their weight through DequantizeLinear."""
    quantized, left = 0, []
    for node in model.graph.all_nodes():
        if node.op_type not in _GEMMS:
            continue
        operands = node.inputs[:2]
        if any(_is_quantized_weight(operand) for operand in operands):
            quantized += 1
        elif any(operand is not None and operand.is_initializer() for operand in operands):
            left.append(node.name or "unnamed")
    return QuantizationReport(quantized + len(left), quantized, tuple(left))


def _is_quantized_weight(operand: ir.Value | None) -> bool:
    producer = None if operand is None else operand.producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return False
    return producer.inputs[0].is_initializer()
