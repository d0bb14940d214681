import json
import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
from onnx import helper

from perceiver_deploy.bundle.bundle import Bundle, changed_bundle
from perceiver_deploy.bundle.manifest import Axis, TensorSpec
from perceiver_deploy.errors import BundleError, InputError, MissingError, PerceiverDeployError, UsageError
from perceiver_deploy.runtimes import opening
from perceiver_deploy.runtimes.catalogue import installed_runtimes
from perceiver_deploy.runtimes.checks.inputs import InputCheck, check_inputs
from perceiver_deploy.runtimes.opening import load
from tests.helpers.factories import CLASSES, MAX_LENGTH, VOCABULARY, image_inputs, relative_l2, text_inputs

RUNTIMES = ("onnxruntime", "openvino", "torch")
GRAPH_RUNTIMES = ("onnxruntime", "openvino")

SPECS = (
    TensorSpec(name="input_ids", dtype="int64", shape=("batch", "length"), minimum=0, maximum=9),
    TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "length"), minimum=0, maximum=1),
    TensorSpec(name="pixels", dtype="float32", shape=("batch", 3, "height")),
)
AXES = {
    "batch": Axis(opt=1),
    "length": Axis(min=2, opt=4, max=8),
    "height": Axis(min=4, opt=8, multiple_of=4),
}


def good_inputs():
    return {
        "input_ids": np.zeros((2, 4), np.int64),
        "attention_mask": np.ones((2, 4), np.int64),
        "pixels": np.zeros((2, 3, 8), np.float32),
    }


def replaced(**changes):
    return {name: value for name, value in {**good_inputs(), **changes}.items() if value is not None}


def test_inputs_that_fit_are_accepted():
    check_inputs(good_inputs(), SPECS, AXES)
    check_inputs(replaced(pixels=np.full((2, 3, 400), np.inf, np.float32)), SPECS, AXES)


REFUSALS = {
    "unknown name": (
        {"inputs_ids": np.zeros(1)},
        r"There is no input 'inputs_ids'\. The inputs are: input_ids, attention_mask, pixels",
    ),
    "missing": ({"attention_mask": None}, "Input 'attention_mask' is missing"),
    "list instead of an array": ({"input_ids": [[0, 0, 0, 0]] * 2}, "'input_ids' is a list; expected a NumPy array"),
    "int32": ({"input_ids": np.zeros((2, 4), np.int32)}, r"has dtype int32; expected int64\. .*astype\('int64'\)"),
    "float64": ({"pixels": np.zeros((2, 3, 8))}, "has dtype float64; expected float32"),
    "other byte order": ({"pixels": np.zeros((2, 3, 8), ">f4")}, "has dtype >f4; expected float32"),
    "one dimension less": (
        {"pixels": np.zeros((3, 8), np.float32)},
        r"has 2 dimensions \[3, 8\]; expected 3: \[batch, 3, height\]",
    ),
    "fixed size": (
        {"pixels": np.zeros((2, 4, 8), np.float32)},
        r"'pixels' has shape \[2, 4, 8\]; expected \[batch, 3, height\]",
    ),
    "beyond the maximum": ({"input_ids": np.zeros((2, 9), np.int64)}, "has length 9 .*; expected at most 8"),
    "below the minimum": ({"input_ids": np.zeros((2, 1), np.int64)}, "has length 1 .*; expected at least 2"),
    "empty batch": ({"input_ids": np.zeros((0, 4), np.int64)}, "has batch 0 .*; expected at least 1"),
    "not a multiple": ({"pixels": np.zeros((2, 3, 6), np.float32)}, "has height 6 .*; expected a multiple of 4"),
    "value too large": ({"input_ids": np.full((2, 4), 10)}, "holds the value 10; expected at most 9"),
    "value too small": ({"input_ids": np.full((2, 4), -1)}, "holds the value -1; expected at least 0"),
    "mask of other values": ({"attention_mask": np.full((2, 4), 2)}, "'attention_mask' holds the value 2"),
    "lengths that differ": (
        {"attention_mask": np.ones((2, 5), np.int64)},
        "'input_ids' and 'attention_mask' must have the same length, got 4 and 5",
    ),
    "batches that differ": (
        {"pixels": np.zeros((3, 3, 8), np.float32)},
        "'input_ids' and 'pixels' must have the same batch, got 2 and 3",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSALS.values(), ids=REFUSALS)
def test_inputs_that_do_not_fit_are_refused_with_what_was_expected(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        check_inputs(replaced(**changes), SPECS, AXES)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("changes", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_session_refuses_them_after_inputs_that_fit_too(changes, message):
    check = InputCheck(SPECS, AXES)
    for _ in range(2):
        check(good_inputs())
        with pytest.raises(InputError, match=message):
            check(replaced(**changes))


def test_a_size_that_a_value_bounds_follows_the_value_of_each_call():
    specs = (
        TensorSpec(name="clip_size", dtype="int64", shape=(1,), minimum=1),
        TensorSpec(name="points", dtype="int64", shape=("batch",), minimum=0, maximum="clip_size[0]-1"),
    )
    check, points = InputCheck(specs, {"batch": Axis(opt=1)}), np.array([3])
    check({"clip_size": np.array([4]), "points": points})
    with pytest.raises(InputError, match="holds the value 3; expected at most 2"):
        check({"clip_size": np.array([3]), "points": points})


def test_the_callers_arrays_are_not_changed_by_a_run(shared_bundle):
    inputs = text_inputs(2, 5)
    before = {name: array.copy() for name, array in inputs.items()}
    for runtime in RUNTIMES:
        with load(shared_bundle("masked_lm"), runtime) as session:
            session.run(inputs)
    assert all(np.array_equal(inputs[name], before[name]) for name in before)


# Sessions on bundles


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_session_says_what_it_takes_gives_and_runs_on(shared_bundle, runtime):
    with load(shared_bundle("text_classification"), runtime) as session:
        assert (session.runtime, session.device) == (runtime, "cpu")
        assert [spec.name for spec in session.inputs] == ["input_ids", "attention_mask"]
        assert [(spec.name, spec.shape) for spec in session.outputs] == [("logits", ("batch", CLASSES))]
        assert session.axes["length"].max == MAX_LENGTH
        assert session.run(text_inputs(3, 7))["logits"].shape == (3, CLASSES)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_session_refuses_tokens_beyond_the_position_table_before_running(shared_bundle, runtime):
    with load(shared_bundle("masked_lm"), runtime) as session:
        with pytest.raises(InputError, match=f"length {MAX_LENGTH + 1} .*at most {MAX_LENGTH}"):
            session.run(text_inputs(1, MAX_LENGTH + 1))
        inputs = text_inputs(1, 4)
        inputs["input_ids"][0, 0] = VOCABULARY
        with pytest.raises(InputError, match=f"value {VOCABULARY}; expected at most {VOCABULARY - 1}"):
            session.run(inputs)
        assert session.run(text_inputs(1, 4))["logits"].shape == (1, 4, VOCABULARY)  # still of use


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_session_refuses_images_beyond_the_position_table_before_running(shared_bundle, runtime):
    with (
        load(shared_bundle("learned"), runtime) as session,
        pytest.raises(InputError, match=r"'pixel_values' has width 10 .*; expected at most 9"),
    ):
        session.run(image_inputs(1, 8, 10))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_session_takes_arrays_that_are_not_contiguous_or_not_writable(shared_bundle, runtime):
    with load(shared_bundle("fourier"), runtime) as session:
        wide = image_inputs(2, 8, 12)["pixel_values"]
        expected = session.run({"pixel_values": np.ascontiguousarray(wide[..., ::2])})["logits"]
        strided = wide[..., ::2]
        strided.flags.writeable = False
        assert np.array_equal(session.run({"pixel_values": strided})["logits"], expected)
        frozen = np.ascontiguousarray(strided)
        frozen.flags.writeable = False
        assert np.array_equal(session.run({"pixel_values": frozen})["logits"], expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_of_an_earlier_run_are_not_overwritten_by_a_later_one(shared_bundle, runtime):
    with load(shared_bundle("fourier"), runtime) as session:
        first = session.run(image_inputs(1, 5, 5))["logits"]
        kept = first.copy()
        session.run(image_inputs(1, 5, 5, seed=1))
        assert np.array_equal(first, kept)
        assert first.flags.writeable


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_closed_session_refuses_to_run_and_may_be_closed_again(shared_bundle, runtime):
    session = load(shared_bundle("fourier"), runtime)
    session.close()
    session.close()
    with pytest.raises(PerceiverDeployError, match=f"This {runtime} session is closed"):
        session.run(image_inputs(1, 5, 5))


@pytest.mark.parametrize("runtime", GRAPH_RUNTIMES)
def test_eight_threads_on_one_session_get_what_one_thread_gets(shared_bundle, runtime):
    """Bit-equal: the same kernels on the same sizes. Every thread has inputs of its own size and runs them often."""
    inputs = [text_inputs(1 + index % 3, 4 + 3 * index, seed=index) for index in range(8)]
    with load(shared_bundle("masked_lm"), runtime, threads=2) as session:
        expected = [session.run(each)["logits"] for each in inputs]
        wrong, start = [], threading.Barrier(8)

        def work(index):
            start.wait()
            for _ in range(10):
                if not np.array_equal(session.run(inputs[index])["logits"], expected[index]):
                    wrong.append(index)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_number_of_threads_does_not_change_the_result_beyond_rounding(shared_bundle, runtime):
    inputs = text_inputs(2, 9)
    with load(shared_bundle("masked_lm"), runtime, threads=1) as one, load(shared_bundle("masked_lm"), runtime) as free:
        # float32 sums in another order; the models of these tests are within 1e-6 of float64
        assert relative_l2(one.run(inputs)["logits"], free.run(inputs)["logits"]) < 2e-6


# Choosing


def test_auto_takes_the_first_installed_runtime_that_the_variant_is_for(shared_bundle):
    assert installed_runtimes() == ["onnxruntime", "openvino"]
    with load(shared_bundle("fourier")) as session:
        assert session.runtime == "onnxruntime"


def for_runtimes(path, *runtimes):
    with changed_bundle(path) as (staging, bundle):
        fp32 = bundle.manifest.variants["fp32"]
        variants = {
            "fp32": fp32,
            "special": fp32.model_copy(update={"runtimes": runtimes, "precision": "int8"}),
        }
        staging.finish(bundle.manifest.model_copy(update={"variants": variants}))
    return path


def test_auto_passes_over_runtimes_that_the_variant_is_not_for(copied_bundle):
    path = for_runtimes(copied_bundle("fourier"), "openvino")
    with load(path, variant="special") as session:
        assert session.runtime == "openvino"
    with pytest.raises(BundleError, match="'special' is for openvino, not for onnxruntime"):
        load(path, "onnxruntime", variant="special")


def test_auto_says_what_to_install_where_nothing_can_run_the_variant(copied_bundle, monkeypatch):
    path = for_runtimes(copied_bundle("fourier"), "tensorrt-rtx")
    with pytest.raises(MissingError, match=r"'special' is for tensorrt-rtx.*pip install") as caught:
        load(path, variant="special")
    assert caught.value.exit_code == 5
    monkeypatch.setattr(opening, "installed_runtimes", list)
    with pytest.raises(MissingError, match=r"perceiver-deploy\[cpu\]"):
        load(path)


def test_precision_is_a_shorthand_for_the_first_variant_that_has_it(copied_bundle):
    path = for_runtimes(copied_bundle("fourier"), "openvino")
    with load(path, precision="int8") as session:
        assert session.runtime == "openvino"
    with load(path, precision="fp32") as session:
        assert session.runtime == "onnxruntime"


def test_a_precision_that_no_variant_has_is_answered_with_how_to_add_it(shared_bundle):
    with pytest.raises(BundleError, match=r"no variant of precision 'fp16'; it has fp32\. .* --precision fp16"):
        load(shared_bundle("fourier"), precision="fp16")


def test_variant_and_precision_together_are_a_usage_error(shared_bundle):
    with pytest.raises(UsageError, match="not both") as caught:
        load(shared_bundle("fourier"), variant="fp32", precision="fp32")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("runtime", [*RUNTIMES, "auto"])
def test_an_unknown_variant_is_answered_with_those_there_are(shared_bundle, runtime):
    with pytest.raises(BundleError, match="no variant 'int8'; it has fp32"):
        load(shared_bundle("fourier"), runtime, variant="int8")


def test_an_unknown_runtime_is_a_usage_error(shared_bundle):
    with pytest.raises(UsageError, match=r"no runtime 'tflite'; expected auto, torch, onnxruntime, openvino"):
        load(shared_bundle("fourier"), "tflite")


@pytest.mark.parametrize("runtime", [*RUNTIMES, "auto"])
@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_a_usage_error(shared_bundle, runtime, threads):
    with pytest.raises(UsageError, match=f"threads is {threads}; expected at least 1"):
        load(shared_bundle("fourier"), runtime, threads=threads)


def test_a_bundle_that_was_opened_before_can_be_loaded(shared_bundle):
    with load(Bundle.open(shared_bundle("fourier"))) as session:
        assert session.run(image_inputs(1, 4, 4))["logits"].shape == (1, CLASSES)


# Damaged bundles


@pytest.mark.parametrize("runtime", GRAPH_RUNTIMES)
def test_a_graph_that_was_changed_is_not_loaded(copied_bundle, runtime):
    path = copied_bundle("fourier")
    file = path / "onnx/fp32.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match="was changed"):
        load(path, runtime)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_source_model_that_was_changed_is_not_loaded(copied_bundle, name):
    path = copied_bundle("fourier")
    (path / name).write_bytes((path / name).read_bytes() + b" ")
    with pytest.raises(BundleError, match="was changed"):
        load(path, "torch")


def relu_model(opset, ir_version):
    spec = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [spec("x", 1, [1])], [spec("y", 1, [1])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


REFUSED = {
    "no ONNX": ("onnxruntime", b"not a graph", "is not an ONNX file"),
    "no graph": ("onnxruntime", onnx.ModelProto(producer_name="x").SerializeToString(), "onnxruntime .* cannot load"),
    "no graph, openvino": ("openvino", onnx.ModelProto(ir_version=9).SerializeToString(), "openvino .* cannot load"),
    "opset of the future": (
        "onnxruntime",
        relu_model(opset=99, ir_version=9).SerializeToString(),
        r"has ONNX opset 99 and IR version 9: it reads opsets of ai\.onnx up to \d+\. Upgrade the runtime, .* --opset",
    ),
    "IR of the future": (
        "onnxruntime",
        relu_model(opset=20, ir_version=99).SerializeToString(),
        r"has ONNX opset 20 and IR version 99: it reads IR versions up to \d+\. Upgrade",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_listed_file_that_a_runtime_cannot_load_is_a_bundle_error_with_the_reason(copied_bundle, case):
    runtime, content, message = REFUSED[case]
    path = copied_bundle("fourier")
    with changed_bundle(path) as (staging, bundle):
        staging.path("onnx/fp32.onnx").write_bytes(content)
        staging.finish(bundle.manifest)
    with pytest.raises(BundleError, match=message):
        load(path, runtime)


def test_a_bundle_without_weights_has_no_eager_model(copied_bundle):
    path = copied_bundle("fourier")
    document = json.loads((path / "bundle.json").read_text())
    del document["files"]["model.safetensors"]
    (path / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="exported without its weights"):
        load(path, "torch")


def test_a_bundle_of_split_stages_is_answered_with_what_is_missing(copied_bundle):
    path = copied_bundle("fourier")
    document = json.loads((path / "bundle.json").read_text())
    document["stages"] = {"encoder": document["stages"]["full"]}
    document["variants"]["fp32"]["files"] = {"encoder": "onnx/fp32.onnx"}
    (path / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="full"):
        load(path)


RUN = """
import sys
import numpy as np
from perceiver_deploy import load
with load(sys.argv[1], sys.argv[2]) as session:
    session.run({"pixel_values": np.zeros((1, 3, 4, 4), np.float32)})
print([name for name in ("torch", "transformers", "onnx_ir", "onnxscript") if name in sys.modules])
"""


@pytest.mark.parametrize("runtime", GRAPH_RUNTIMES)
def test_running_a_bundle_imports_neither_torch_nor_the_export_packages(shared_bundle, runtime):
    command = [sys.executable, "-c", RUN, str(shared_bundle("fourier")), runtime]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"
