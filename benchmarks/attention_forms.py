"""What do the forms of an attention cost at the largest published size: optical flow, 2,048 latents, 182,528 pixels?

A randomly initialised Hugging Face model is exported in each form; every run is a process of its own (one thread, one
sample), and Hugging Face's eager model and the forms take turns. Seconds are medians, bytes are peaks of the whole
process; outputs are compared with Hugging Face's. Writes results/attention_forms.json. Takes about 8 minutes and 6 GB.

    python benchmarks/attention_forms.py
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "attention_forms.json"
ROUNDS = 3
FORMS: dict[str, dict[str, Any]] = {
    "portable": {},
    "onnxruntime": {"attention": "onnxruntime"},
    "opset23": {"attention": "opset23", "opset": 23},
}
CANDIDATES = [
    ("torch", "Hugging Face"),
    ("onnxruntime", "portable"),
    ("onnxruntime", "onnxruntime"),
    ("onnxruntime", "opset23"),
    ("openvino", "portable"),
]


def main() -> None:
    """Export, let the candidates take turns, and write the results."""
    from perceiver_deploy.evaluate.parity.verdicts import compare
    from perceiver_deploy.machine import describe_environment

    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "export", folder], check=True)  # noqa: S603
        for _ in range(ROUNDS):
            for runtime, form in CANDIDATES:
                command = [sys.executable, __file__, "run", folder, runtime, form]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
                runs.setdefault(f"{runtime}, {form}", []).append(json.loads(output))
                print(runtime, form, output.strip(), flush=True)
        outputs = {name: np.load(Path(folder) / f"{name.replace(', ', '-')}.npy") for name in runs}
    reference = outputs["torch, Hugging Face"]
    document = {
        "environment": describe_environment(),
        "candidates": {
            name: {
                "seconds": statistics.median(run["seconds"] for run in found),
                "peak_bytes": max(run["peak_bytes"] for run in found),
                "relative_l2": compare(outputs[name], reference).relative_l2,
                "runs": found,
            }
            for name, found in runs.items()
        },
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def export(folder: Path) -> None:
    """Write the model in every form."""
    import onnx_ir as ir
    from peers.huggingface import random_model

    from perceiver_deploy.export.options import GraphOptions
    from perceiver_deploy.export.trace import trace_model
    from perceiver_deploy.model.checkpoints.load import load_checkpoint

    random_model("PerceiverForOpticalFlow").save_pretrained(folder / "checkpoint")
    model = load_checkpoint(folder / "checkpoint").eval()
    for form, options in FORMS.items():
        ir.save(trace_model(model, model.signature, GraphOptions(**options)), folder / f"{form}.onnx")
    (folder / "signature.json").write_text(model.signature.model_dump_json(by_alias=True), encoding="utf-8")


def run(folder: Path, runtime: str, form: str) -> None:
    """Run one candidate once, with one thread, and print seconds and the peak of this process."""
    patches = np.random.default_rng(0).standard_normal((1, 2, 27, 368, 496), dtype=np.float32)
    predict = hugging_face(folder) if runtime == "torch" else deployed(folder, runtime, form)
    started = time.perf_counter()
    flow = predict(patches)
    seconds = time.perf_counter() - started
    np.save(folder / f"{runtime}-{form}.npy", flow)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


def hugging_face(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Hugging Face's model in eager mode."""
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.PerceiverForOpticalFlow.from_pretrained(folder / "checkpoint").eval()

    def predict(patches: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(inputs=torch.from_numpy(patches)).logits.numpy()

    return predict


def deployed(folder: Path, runtime: str, form: str) -> Callable[[np.ndarray], np.ndarray]:
    """One of our graphs in one of our runtimes."""
    from perceiver_deploy.bundle.manifest import Signature
    from perceiver_deploy.runtimes.settings import RuntimeSettings

    if runtime == "onnxruntime":
        from perceiver_deploy.runtimes.cpu.onnxruntime import OnnxRuntimeSession as Session
    else:
        from perceiver_deploy.runtimes.cpu.openvino import OpenVinoSession as Session  # type: ignore[assignment]
    signature = Signature.model_validate_json((folder / "signature.json").read_text(encoding="utf-8"))
    session = Session(folder / f"{form}.onnx", signature.stage, signature.axes, RuntimeSettings(threads=1))
    return lambda patches: session.run({"patches": patches})["flow"]


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["export", folder]:
            export(Path(folder))
        case ["run", folder, runtime, form]:
            run(Path(folder), runtime, form)
        case arguments:
            sys.exit(f"unexpected arguments {arguments}")
