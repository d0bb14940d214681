"""How many operations do our graphs take, with and without Perceiver's algebra and row by row, against Hugging Face's?

For each published configuration, with weights of no meaning: two for each multiply-add, batch 1, Hugging Face's counted
by torch.utils.flop_counter on shapes alone, ours read off the exported graph. `wide values` is the Fourier model with
1024 value channels in the encoder's cross-attention, whose figures are those of that attention alone, without its MLP.
Writes results/graph_flops.json. Takes about 12 minutes and 5 GB.

    python benchmarks/graph_flops.py [NAME ...]
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import transformers
from full_size_parity import make_inputs
from peers.huggingface import CONFIGURATIONS, reference_outputs
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.perceiver import modeling_perceiver

from perceiver_deploy.export.graph.flops import count_flops
from perceiver_deploy.export.options import REWRITES, GraphOptions
from perceiver_deploy.export.trace import trace_model
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.model.checkpoints.huggingface.config import convert_config
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.tasks.catalogue import build_model

RESULTS = Path(__file__).parent / "results" / "graph_flops.json"
FORMS = {"plain_": GraphOptions(reassociate=False), "": GraphOptions(), "rows_": GraphOptions(attention="rows")}
WIDE_VALUES, WIDE_FROM = "wide values", "PerceiverForImageClassificationFourier"
ATTENTION = "encoder.cross_attention"
TARGETS = {
    "PerceiverForMaskedLM": 1.0,
    "PerceiverForImageClassificationFourier": 0.97,
    "PerceiverForImageClassificationLearned": 0.88,
    "PerceiverForOpticalFlow": 0.75,
    "PerceiverForMultimodalAutoencoding": 0.67,
    WIDE_VALUES: 0.3,
}
"""Most operations of our graph for one of Hugging Face's (of ours without the algebra, for `wide values`)."""


def main() -> None:
    """Measure the named configurations (default: all) and write the results, keeping those of the others."""
    document = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"configurations": {}}
    for name in sys.argv[1:] or [*CONFIGURATIONS, WIDE_VALUES]:
        document["configurations"][name] = measure(name)
        document["environment"] = describe_environment()
        RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(document["configurations"][name]), flush=True)


def measure(name: str) -> dict[str, Any]:
    """GFLOP of Hugging Face's forward and of our graphs, the ratio, and how often each rewrite fired."""
    wide = name == WIDE_VALUES
    class_name = WIDE_FROM if wide else name
    inputs = {key: value[:1] if value.ndim > 1 else value for key, value in make_inputs(class_name).items()}
    config = convert_config({**CONFIGURATIONS[class_name], "architectures": [class_name]}, Path())
    figures: dict[str, Any] = {}
    if wide:
        config = with_wide_values(config)
    else:
        figures["huggingface_gflop"] = huggingface_flops(name, inputs) / 1e9
    for form, options in FORMS.items():
        graph = export(config, options)
        figures[f"{form}gflop"] = count(graph, inputs, ATTENTION if wide else "") / 1e9
        figures[f"{form}bytes"] = sum(
            value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value is not None
        )
    figures["ratio"] = figures["gflop"] / figures["plain_gflop" if wide else "huggingface_gflop"]
    figures["target"] = TARGETS.get(name)
    figures["rewrites"] = json.loads(graph.metadata_props[REWRITES])
    return figures


def with_wide_values(config: PerceiverConfig) -> PerceiverConfig:
    """The configuration with 1024 value channels in the encoder's cross-attention."""
    attention = dataclasses.replace(config.encoder.cross_attention, v_channels=1024)
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, cross_attention=attention))


def huggingface_flops(name: str, inputs: dict[str, torch.Tensor]) -> int:
    """Operations of Hugging Face's forward; nothing is computed but shapes."""
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        model = getattr(modeling_perceiver, name)(transformers.PerceiverConfig(**CONFIGURATIONS[name])).eval()
        reference_outputs(name, model.requires_grad_(False), inputs)
    return counter.get_total_flops()


def export(config: PerceiverConfig, options: GraphOptions) -> ir.Model:
    """Our graph of a configuration."""
    torch.manual_seed(0)
    model = build_model(config).eval()
    return trace_model(model, model.signature, options)


def count(graph: ir.Model, inputs: dict[str, torch.Tensor], module: str) -> int:
    """Operations at the sizes of the inputs: of the whole graph, or of one attention without its MLP."""
    sizes: dict[str, int] = {}
    for value in graph.graph.inputs:
        sizes |= {
            str(axis.value): size
            for axis, size in zip(value.shape or (), inputs[str(value.name)].shape, strict=True)
            if isinstance(axis, ir.SymbolicDim)
        }
    flops = count_flops(graph, sizes)
    return sum(flops[name] for name in flops if name.startswith(module) and not (module and ".mlp." in name))


if __name__ == "__main__":
    main()
