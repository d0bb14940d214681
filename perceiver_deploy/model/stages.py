"""The stages of a model: `encoder` makes latents of the data, `decoder` answers queries from them.

A model has the methods `encode` and `decode`, which take the inputs of the stage by name and return its outputs by
name; its `forward` gives what one after the other gives. Its property `stages` has the signature of both.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import nn

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, StageName, TensorSpec, axes_of
from perceiver_deploy.model.config import PerceiverConfig


def split_signature(
    full: Signature,
    config: PerceiverConfig,
    *,
    data: Sequence[str],
    queries: tuple[TensorSpec, ...] = (),
    outputs: tuple[TensorSpec, ...] = (),
    axes: Mapping[str, Axis] | None = None,
) -> dict[StageName, Signature]:
    """Signatures of `encoder` and `decoder`.

    Args:
        full: signature of the whole model.
        config: says how many latents there are.
        data: names of the inputs that the encoder takes.
        queries: what the decoder takes beside the latents; a query axis is called `queries`, or begins with it.
        outputs: what the decoder gives; by default what the whole model gives.
        axes: axes of `queries` that the whole model has not.
    """
    encoder = config.encoder
    latents = TensorSpec(name="latents", dtype="float32", shape=("batch", encoder.num_latents, encoder.d_latents))
    stages: dict[StageName, Stage] = {
        "encoder": Stage(inputs=tuple(spec for spec in full.stage.inputs if spec.name in data), outputs=(latents,)),
        "decoder": Stage(inputs=(latents, *queries), outputs=outputs or full.stage.outputs),
    }
    known = {**full.axes, **(axes or {})}
    return {name: Signature(task=full.task, axes=_used(known, stage), stage=stage) for name, stage in stages.items()}


def _used(axes: Mapping[str, Axis], stage: Stage) -> dict[str, Axis]:
    used = {name for spec in stage.inputs for size in spec.shape for name in axes_of(size)}
    return {name: axis for name, axis in axes.items() if name in used}


def stage_module(model: nn.Module, name: StageName) -> nn.Module:
    """A module whose `forward` is that of a stage of the model; it shares the model's parameters and their names."""
    if name == "full":
        return model
    stage = copy.copy(model)
    stage.forward = getattr(stage, "encode" if name == "encoder" else "decode")  # bound to the copy
    return stage
