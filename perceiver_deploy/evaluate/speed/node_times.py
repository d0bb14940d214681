"""Where the time of a run goes: by node in onnxruntime and OpenVINO, by module in eager."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import requires
from perceiver_deploy.runtimes.settings import RuntimeSettings

if TYPE_CHECKING:
    from torch import nn

WARM_UP = 2
_LEAST, _MOST = 3, 200
_SECONDS = 1.0
ROOT = ""
"""Name of the model itself."""

Times = dict[str, float]
"""Mean seconds of one run by name."""


def repeated(run: Callable[[], Any]) -> list[float]:
    """Run for a second, some runs at least, after two that do not count; seconds of each."""
    for _ in range(WARM_UP):
        run()
    took: list[float] = []
    while len(took) < _LEAST or (len(took) < _MOST and sum(took) < _SECONDS):
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return took


def onnxruntime_times(file: Path, inputs: Arrays, threads: int | None) -> Times:
    """Seconds of each kernel of onnxruntime's CPU provider, by the name of the node, which fusions add to."""
    with requires("cpu", "Timing in onnxruntime"):
        import onnxruntime

        from perceiver_deploy.runtimes.cpu.onnxruntime import session_options
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(RuntimeSettings(threads=threads))
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        runs = len(repeated(lambda: session.run(None, inputs)))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    totals: dict[str, float] = defaultdict(float)
    for event in kernels[len(kernels) * WARM_UP // (runs + WARM_UP) :]:  # each run has as many, in order
        totals[event["name"].removesuffix("_kernel_time")] += event["dur"]
    return {name: total / runs / 1e6 for name, total in totals.items()}


def openvino_times(file: Path, inputs: Arrays, threads: int | None) -> Times:
    """Seconds of each layer that OpenVINO's CPU plugin executes, by the name of the node that it stands for."""
    with requires("cpu", "Timing in openvino"):
        import openvino

        from perceiver_deploy.runtimes.cpu.openvino import compile_options
    options = {**compile_options(RuntimeSettings(threads=threads)), "PERF_COUNT": True}
    request = openvino.Core().compile_model(str(file), "CPU", options).create_infer_request()
    totals: dict[str, float] = defaultdict(float)

    def run() -> None:
        request.infer(inputs, share_inputs=True)
        for info in request.profiling_info:
            totals[info.node_name] += info.real_time.total_seconds()

    runs = len(repeated(run)) + WARM_UP
    return {name: total / runs for name, total in totals.items() if total}


def eager_times(model: nn.Module, run: Callable[[], Any], layers: Collection[str]) -> Times:
    """Seconds of some modules of an eager model, by name, without those of other such modules inside them.

    What is in none of them is that of `ROOT`. `run` runs the model.
    """
    totals: dict[str, float] = defaultdict(float)
    inside: list[float] = []
    starts: list[float] = []

    def enter(*_: Any) -> None:
        inside.append(0.0)
        starts.append(time.perf_counter())

    def leave(name: str) -> None:
        took = time.perf_counter() - starts.pop()
        totals[name] += took - inside.pop()
        if inside:
            inside[-1] += took

    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if name in layers or name == ROOT:
                stack.enter_context(_hooked(module, enter, lambda *_, name=name: leave(name)))
        runs = len(repeated(run)) + WARM_UP
    return {name: total / runs for name, total in totals.items()}


@contextlib.contextmanager
def _hooked(module: nn.Module, enter: Callable[..., None], leave: Callable[..., None]) -> Iterator[None]:
    handles = module.register_forward_pre_hook(enter), module.register_forward_hook(leave)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
