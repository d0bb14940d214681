"""Why a runtime does not load an ONNX file, in words that its user can act on."""

from __future__ import annotations

import re
from pathlib import Path

from perceiver_deploy.bundle.onnx_header import read_header
from perceiver_deploy.errors import BundleError

# As onnxruntime says it (core/graph/model_load_utils.h and core/graph/model.cc).
_LATEST_OPSET = re.compile(r"support for domain (?P<domain>\S+) is till opset (?P<latest>\d+)")
_LATEST_IR = re.compile(r"max supported IR version: (?P<latest>\d+)")


def refusal(runtime: str, file: Path, error: Exception) -> BundleError:
    """The error of a runtime (its name and version) that cannot load a file: too new an opset, or its own words."""
    header, text = read_header(file), " ".join(str(error).split())
    versions = f"{runtime} cannot load {file}, which has ONNX opset {header.opset} and IR version {header.ir_version}"
    remedy = "Upgrade the runtime, or export the checkpoint again with an older one: --opset"
    if match := _LATEST_OPSET.search(text):
        return BundleError(f"{versions}: it reads opsets of {match['domain']} up to {match['latest']}. {remedy}.")
    if match := _LATEST_IR.search(text):
        return BundleError(f"{versions}: it reads IR versions up to {match['latest']}. {remedy}.")
    return BundleError(f"{versions}: {text}")
