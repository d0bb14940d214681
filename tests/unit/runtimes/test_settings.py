import asyncio
import subprocess
import sys
import threading

import numpy as np
import pytest

from perceiver_deploy import RuntimeSettings, load
from perceiver_deploy.bundle.manifest import Stage, TensorSpec
from perceiver_deploy.errors import MissingError, PerceiverDeployError, UsageError
from perceiver_deploy.runtimes.cpu import openvino
from perceiver_deploy.runtimes.cpu.openvino import native_hints
from perceiver_deploy.runtimes.session import Session
from tests.helpers.factories import image_inputs, relative_l2, text_inputs

RUNTIMES = ("onnxruntime", "openvino", "torch")


def test_a_session_says_which_variant_and_settings_it_runs(shared_bundle):
    settings = RuntimeSettings(threads=1)
    for runtime in RUNTIMES:
        with load(shared_bundle("fourier"), runtime, settings=settings) as session:
            assert (session.variant, session.settings) == ("fp32", settings)


@pytest.mark.parametrize(("value", "message"), [("f64", "hint is 'f64'; expected f32, bf16, f16"), (16, "hint is 16")])
def test_an_unknown_hint_is_a_usage_error(value, message):
    with pytest.raises(UsageError, match=message):
        RuntimeSettings(hint=value)


def test_threads_and_settings_together_are_a_usage_error(shared_bundle):
    with pytest.raises(UsageError, match="Give threads or settings, not both"):
        load(shared_bundle("fourier"), threads=1, settings=RuntimeSettings())


@pytest.mark.parametrize(
    ("runtime", "settings", "message"),
    [
        (
            "onnxruntime",
            {"hint": "bf16"},
            r"hint is 'bf16', and onnxruntime does not take it\. Name the runtime openvino",
        ),
        ("torch", {"hint": "bf16"}, "hint is 'bf16', and torch does not take it"),
        ("auto", {"hint": "f16"}, "hint is 'f16', and onnxruntime does not take it"),
        ("openvino", {"memory_arena": False}, "memory_arena is False, and openvino does not take it"),
        ("onnxruntime", {"static_shapes": True}, "static_shapes is True, and onnxruntime does not take it"),
        ("torch", {"memory_arena": False}, r"memory_arena is False, .* Name the runtime onnxruntime"),
    ],
)
def test_a_runtime_that_would_ignore_a_setting_refuses_it(shared_bundle, runtime, settings, message):
    with pytest.raises(UsageError, match=message):
        load(shared_bundle("fourier"), runtime, settings=RuntimeSettings(**settings))


MEMORY = """
import sys
import numpy as np
from pathlib import Path
from perceiver_deploy import RuntimeSettings, load
session = load(sys.argv[1], "onnxruntime", settings=RuntimeSettings(threads=1, memory_arena=sys.argv[2] == "True"))
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
before = resident()
session.run({"pixel_values": np.zeros((64, 3, 48, 48), np.float32)})
print(resident() - before)
"""


def test_memory_of_a_run_is_given_back_without_the_arena(shared_bundle):
    """The largest activation is that of the positions and pixels: 64 x 48 x 48 x 21 numbers, 12 MB."""
    held = {
        arena: int(subprocess.check_output([sys.executable, "-c", MEMORY, shared_bundle("fourier"), str(arena)]))
        for arena in (True, False)
    }
    assert held[True] > 12e6
    assert held[False] < held[True] / 2


def test_a_hint_that_the_processor_does_not_compute_in_is_refused(shared_bundle, monkeypatch):
    monkeypatch.setattr(openvino, "native_hints", lambda: ["f32"])
    with pytest.raises(MissingError, match=r"hint is 'f16', which this processor does not compute in.* Expected f32"):
        load(shared_bundle("fourier"), "openvino", settings=RuntimeSettings(hint="f16"))


@pytest.mark.parametrize(("hint", "least", "most"), [("bf16", 2e-4, 5e-2), ("f16", 2e-5, 1e-2)])
def test_a_hint_changes_the_numbers_by_the_rounding_of_its_precision(shared_bundle, hint, least, most):
    """The upper bounds are those of parity for variants of that precision; half a unit in the last place of bf16 is
    2e-3, of f16 2e-4, and a tenth of it says that float32 was not used."""
    if hint not in native_hints():
        pytest.skip(f"this processor does not compute in {hint}")
    inputs = text_inputs(2, 16)
    with (
        load(shared_bundle("masked_lm"), "openvino") as full,
        load(shared_bundle("masked_lm"), "openvino", settings=RuntimeSettings(hint=hint)) as hinted,
    ):
        assert least < relative_l2(hinted.run(inputs)["logits"], full.run(inputs)["logits"]) < most


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_coroutines_on_one_session_get_what_one_thread_gets(shared_bundle, runtime):
    inputs = [image_inputs(1 + index % 3, 5 + index, 6) for index in range(12)]

    async def gather(session):
        return await asyncio.gather(*(asyncio.to_thread(session.run, each) for each in inputs))

    with load(shared_bundle("fourier"), runtime) as session:
        expected = [session.run(each)["logits"] for each in inputs]
        for outputs, wanted in zip(asyncio.run(gather(session)), expected, strict=True):
            np.testing.assert_array_equal(outputs["logits"], wanted)


class SlowSession(Session):
    """Runs until it is told to end."""

    runtime, device = "slow", "cpu"

    def __init__(self):
        spec = TensorSpec(name="x", dtype="float32", shape=(1,))
        super().__init__(Stage(inputs=(spec,), outputs=(spec,)), {})
        self.begun, self.may_end, self.released = threading.Event(), threading.Event(), threading.Event()

    def _execute(self, inputs):
        self.begun.set()
        assert self.may_end.wait(10)
        assert not self.released.is_set()
        return inputs

    def _release(self):
        self.released.set()


def test_closing_waits_for_the_runs_under_way_and_refuses_new_ones():
    session, inputs, outputs = SlowSession(), {"x": np.ones(1, np.float32)}, []
    running = threading.Thread(target=lambda: outputs.append(session.run(inputs)))
    running.start()
    assert session.begun.wait(10)
    closing = threading.Thread(target=session.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    with pytest.raises(PerceiverDeployError, match="This slow session is closed"):
        session.run(inputs)
    session.may_end.set()
    running.join(10)
    closing.join(10)
    assert session.released.is_set()
    assert len(outputs) == 1
