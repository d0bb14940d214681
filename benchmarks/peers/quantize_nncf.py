"""NNCF's post-training quantisation of an exported graph to OpenVINO's format, with its preset for transformers.

Run by an interpreter that has nncf and openvino: python quantize_nncf.py SOURCE TARGET CALIBRATION
"""

from __future__ import annotations

import sys
from pathlib import Path

import nncf
import numpy as np
import openvino


def main() -> None:
    """Calibrate on the rows of CALIBRATION, one at a time."""
    source, target, calibration = (Path(argument) for argument in sys.argv[1:4])
    target.parent.mkdir(exist_ok=True)
    with np.load(calibration) as file:
        arrays = {name: file[name] for name in file.files}
    count = max(len(array) for array in arrays.values())
    rows = [{name: array[index : index + 1] for name, array in arrays.items()} for index in range(count)]
    model = openvino.Core().read_model(source)
    quantized = nncf.quantize(model, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=count)
    openvino.save_model(quantized, target, compress_to_fp16=False)


if __name__ == "__main__":
    main()
