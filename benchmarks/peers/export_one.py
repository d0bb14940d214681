"""One export in a process of its own.

    python -m peers.export_one EXPORTER CLASS FOLDER [--gate]

FOLDER holds `checkpoint/`, `signature.json` and `usual.npz`; writes `EXPORTER/model.onnx` and prints JSON: seconds to
load the checkpoint and to export it (from the model in memory to the file), of ours also where they go and, with
--gate, what all of `export_model` takes; or the error.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from peers.plans import OURS, OURS_ALL_ROWS, OURS_FUSED, OURS_ROWS
from perceiver_deploy.bundle.manifest import Signature
from perceiver_deploy.bundle.samples import load_sample
from perceiver_deploy.export.options import GraphOptions

OUR_OPTIONS = {
    OURS: GraphOptions(),
    OURS_FUSED: GraphOptions(attention="onnxruntime"),
    OURS_ROWS: GraphOptions(attention="rows"),
    OURS_ALL_ROWS: GraphOptions(attention="all-rows"),
}


def main() -> None:
    """Export, and print what it took."""
    exporter, class_name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    file = folder / exporter / "model.onnx"
    file.parent.mkdir(exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):  # exporters print their progress
        try:
            if exporter in OUR_OPTIONS:
                took = export_ours(folder / "checkpoint", file, OUR_OPTIONS[exporter])
                if "--gate" in sys.argv:
                    took["gated_seconds"] = export_behind_the_gate(folder / "checkpoint", folder / "bundle")
            else:
                took = export_theirs(exporter, class_name, folder, file)
        except Exception as error:  # whatever a peer raises is its row's text
            traceback.print_exc()
            took = {"error": root_cause(error)}
    print(json.dumps(took))


def root_cause(error: BaseException) -> str:
    """Type and text of the error that all others came from."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return f"{type(error).__name__}: {error}"


def export_theirs(exporter: str, class_name: str, folder: Path, file: Path) -> dict[str, Any]:
    """Transformers' model through `torch.onnx.export`, with the options that a user gives for these axes."""
    import torch

    from peers.huggingface import TupleModel, load

    signature = Signature.model_validate_json((folder / "signature.json").read_text(encoding="utf-8"))
    inputs, outputs = signature.stage.inputs, signature.stage.outputs
    names = [spec.name for spec in inputs]
    started = time.perf_counter()
    model = TupleModel(class_name, load(class_name, folder / "checkpoint"), names)
    loaded = time.perf_counter()
    sample = load_sample(folder / "usual.npz")
    example = [torch.from_numpy(sample.inputs[name]) for name in names]
    form: dict[str, Any] = {"dynamo": exporter.startswith("dynamo")}
    axes = [{index: size for index, size in enumerate(spec.shape) if isinstance(size, str)} for spec in inputs]
    if exporter == "torchscript-dynamic":
        form["dynamic_axes"] = dict(zip(names, axes, strict=True)) | {spec.name: {0: "batch"} for spec in outputs}
    elif exporter == "dynamo-dynamic":
        # A size of 1 would be fixed: the axis that is 1 in use is given 2.
        example = [
            torch.cat([tensor] * 2) if "batch" in spec.shape else tensor
            for tensor, spec in zip(example, inputs, strict=True)
        ]
        form["dynamic_shapes"] = (tuple(dict.fromkeys(found, torch.export.Dim.DYNAMIC) for found in axes),)
    with torch.no_grad():
        torch.onnx.export(
            model,
            tuple(example),
            file,
            input_names=names,
            output_names=[spec.name for spec in outputs],
            verbose=False,
            **form,
        )
    return {"load_seconds": loaded - started, "export_seconds": time.perf_counter() - loaded}


def export_ours(checkpoint: Path, file: Path, options: GraphOptions) -> dict[str, Any]:
    """Our model through the steps of `export_model` up to its gate, which runs the model instead of exporting it."""
    import onnx_ir as ir
    import torch

    from perceiver_deploy.export import trace
    from perceiver_deploy.model.checkpoints.load import load_checkpoint

    seconds: dict[str, float] = {}
    model = timed(seconds, "load", load_checkpoint)(checkpoint)
    started = time.perf_counter()
    with (
        mock.patch.object(torch.export, "export", timed(seconds, "torch.export", torch.export.export)),
        mock.patch.object(trace, "run_passes", timed(seconds, "passes", trace.run_passes)),
    ):
        graph = timed(seconds, "trace_model", trace.trace_model)(model, model.signature, options)
    timed(seconds, "save", ir.save)(graph, file)
    total = time.perf_counter() - started
    seconds["translation"] = seconds.pop("trace_model") - seconds["torch.export"] - seconds["passes"]
    return {"load_seconds": seconds.pop("load"), "export_seconds": total, "stages": seconds}


def export_behind_the_gate(checkpoint: Path, bundle: Path) -> float:
    """Seconds of `export_model`: the export above, and the gate, which runs the model in float64 at every size."""
    from perceiver_deploy import export_model

    started = time.perf_counter()
    export_model(checkpoint, bundle)
    return time.perf_counter() - started


def timed(seconds: dict[str, float], stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, adding the time of its calls to `seconds[stage]`."""

    def call(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started

    return call


if __name__ == "__main__":
    main()
