"""Encoder and decoder as graphs of their own: every task gives the eager numbers of the whole model, in any chunks."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from perceiver_deploy import export_model, load, run_in_chunks
from perceiver_deploy.evaluate.parity.grid import Case, make_inputs
from perceiver_deploy.evaluate.parity.reference import Reference
from perceiver_deploy.evaluate.parity.verdicts import Candidate, compare, judge
from perceiver_deploy.model.config import Semantics
from perceiver_deploy.model.stages import stage_module
from perceiver_deploy.runtimes.eager import EagerSession
from perceiver_deploy.runtimes.stages.queries import all_queries
from perceiver_deploy.runtimes.stages.staged import StagedSession
from tests.helpers.factories import KINDS, perturbed_model, relative_l2, small_config
from tests.helpers.task_factories import TASK_CONFIGS

TOKENS_AS_QUERIES = dataclasses.replace(small_config("masked_lm").decoder, num_queries=None)
CONFIGS = {
    **{kind: small_config(kind) for kind in KINDS},
    **TASK_CONFIGS,
    "masked_lm, queries of masked tokens": small_config("masked_lm", decoder=TOKENS_AS_QUERIES),
    "masked_lm, queries of all tokens": small_config(
        "masked_lm", decoder=TOKENS_AS_QUERIES, semantics=Semantics(masked_queries="attend")
    ),
}
# one of each kind of decoder; the others are traced by `make test-full`, and run eagerly below
ALWAYS = {"optical_flow", "entities", "multitask_text", "masked_lm, queries of all tokens"}
SLOW = {"multimodal_autoencoding", "point_cloud_classification"}
ROUNDING = 2e-6  # float32 sums in another order: a few units in the last place
SIZES = [
    {"batch": 2, "frames": 3, "samples": 28, "points": 7, "entities": 5, "queries": 2, "queries_image": 13}
    | {"queries_audio": 4, "length": 9, "height": 6, "width": 8},
    {"batch": 3, "frames": 5, "samples": 40, "points": 12, "entities": 9, "queries": 3, "queries_image": 4}
    | {"queries_audio": 10, "length": 17, "height": 8, "width": 6},
]


def marked(names):
    marks = {**dict.fromkeys(ALWAYS, ()), **dict.fromkeys(SLOW, pytest.mark.slow)}
    return [pytest.param(name, marks=marks.get(name, pytest.mark.full)) for name in names]


@pytest.fixture(scope="module")
def exported(request, tmp_path_factory):
    """A model and its bundle of encoder and decoder, not judged yet."""
    model = perturbed_model(CONFIGS[request.param])
    path = tmp_path_factory.mktemp("stages") / "bundle"
    export_model(model, path, split="only", validate=False, weights=False)
    return model, path


def samples_of(model):
    reference = Reference(model, model.signature)
    for index, sizes in enumerate(SIZES):
        case = Case(f"sizes {index}", {name: sizes[name] for name in model.signature.axes}, "padded")
        yield reference.sample(case.name, make_inputs(model.signature, case, None, seed=index))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_encodes_and_decodes_to_what_its_forward_gives(name):
    model = perturbed_model(CONFIGS[name])
    stages = {**model.stages, "full": model.signature}

    def open_stage(stage):
        return EagerSession(stage_module(model, stage), stages[stage].stage, stages[stage].axes)

    specs = {stage: signature.stage for stage, signature in model.stages.items()}
    whole, split = open_stage("full"), StagedSession(model.signature.stage, model.signature.axes, specs, open_stage)
    for sample in samples_of(model):
        for answered in (split.run(sample.inputs), run_in_chunks(split, sample.inputs, chunk=3)):
            for output, array in whole.run(sample.inputs).items():
                assert relative_l2(answered[output], array) <= ROUNDING


@pytest.mark.parametrize("exported", marked(CONFIGS), indirect=True)
def test_encoding_then_decoding_gives_eagers_numbers_at_two_shapes_in_any_chunks(exported):
    model, path = exported
    for runtime in ("onnxruntime", "openvino"):
        with load(path, runtime=runtime) as session:
            for sample in samples_of(model):
                ways = [Candidate(session, "fp32", "fp32", stages) for stages in ("full", "encoder + decoder")]
                assert [verdict for verdict in judge(ways, sample) if not verdict.passed] == []
                whole = session.run(sample.inputs)
                for name, array in run_in_chunks(session, sample.inputs, chunk=3).items():
                    assert relative_l2(array, whole[name]) <= ROUNDING


@pytest.mark.parametrize("exported", marked(name for name in CONFIGS if "masked_lm" in name), indirect=True)
def test_any_positions_of_a_text_in_any_order_are_answered_as_among_all(exported):
    check_some_queries(*exported, {"positions": 0, "attention_mask": 1, "input_ids": 1})


@pytest.mark.parametrize("exported", ["optical_flow"], indirect=True)
def test_any_points_of_a_flow_in_any_order_are_answered_as_among_all(exported):
    check_some_queries(*exported, {"points": 0})


def check_some_queries(model, path, dimensions):
    """`dimensions` says along which dimension of an input its queries lie."""
    sample = list(samples_of(model))[1]
    order = np.array([2, 0, 2])
    with load(path) as session:
        latents = session.encode({spec.name: sample.inputs[spec.name] for spec in session.stages["encoder"].inputs})
        asked = all_queries(session.stages["decoder"], model.signature.stage, sample.inputs)
        some = {name: asked[name].take(order, dimensions[name]) for name in asked if name in dimensions}
        found = session.decode({**latents, **asked, **some})
    for name, reference in sample.float64.items():
        rows = reference.reshape(len(reference), -1, reference.shape[-1])[:, order]
        single = sample.float32[name].reshape(rows.shape[0], -1, rows.shape[-1])[:, order]
        bound = max(1e-6, 10 * compare(single, rows).relative_l2)  # the bound that fp32 is held to
        assert relative_l2(found[name], rows) <= bound


@pytest.mark.parametrize("exported", ["multitask_text"], indirect=True)
def test_nodes_are_named_after_the_models_modules(exported):
    model, path = exported
    modules = {name for name, _ in model.named_children()}
    for stage in ("encoder", "decoder"):
        names = {node.name.split("/")[0].split(".")[0] for node in ir.load(path / f"onnx/fp32.{stage}.onnx").graph}
        assert stage in names
        assert names <= modules | {"graph"}
