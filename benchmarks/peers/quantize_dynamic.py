"""Onnxruntime's dynamic INT8 of an exported graph, prepared as its documentation says: otherwise it skips the linears.

python -m peers.quantize_dynamic SOURCE TARGET
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process


def main() -> None:
    """Fold constants, then quantise."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.parent.mkdir(exist_ok=True)
    inlined, prepared = target.with_name("inlined.onnx"), target.with_name("prepared.onnx")
    onnx.save(onnx.load(source), inlined)  # quant_pre_process does not find weights beside the model
    quant_pre_process(inlined, prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, target, weight_type=QuantType.QInt8, per_channel=True)
    inlined.unlink()
    prepared.unlink()


if __name__ == "__main__":
    main()
