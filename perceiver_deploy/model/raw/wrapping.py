"""What all raw models share: the model inside, and the specifications of raw inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.tasks.catalogue import PerceiverModel


class RawModel(nn.Module):
    """Base: `wrapped` is the model, which is fed by `forward`. Nodes of a graph are named without `wrapped`."""

    def __init__(self, model: PerceiverModel) -> None:
        super().__init__()
        self.wrapped = model

    @property
    def config(self) -> PerceiverConfig:
        """Of the model inside."""
        return self.wrapped.config

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes of the raw form."""
        raise NotImplementedError

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.wrapped.parameters()).dtype

    def _raw_signature(self, raw: Mapping[str, TensorSpec | None], axes: Mapping[str, Axis]) -> Signature:
        """The model's signature with some inputs replaced (by nothing: None), and some axes."""
        plain = self.wrapped.signature
        inputs = [raw.get(spec.name, spec) for spec in plain.stage.inputs]
        stage = Stage(inputs=tuple(spec for spec in inputs if spec), outputs=plain.stage.outputs)
        return Signature(task=plain.task, axes={**plain.axes, **axes}, stage=stage)


def pixels_spec(name: str, *shape: int | str) -> TensorSpec:
    """Pictures of this shape, with a last axis of red, green and blue."""
    return TensorSpec(name=name, dtype="uint8", shape=(*shape, "height", "width", 3), minimum=0, maximum=255)


def pcm_spec() -> TensorSpec:
    """Mono sound as WAV files have it: 16-bit samples."""
    return TensorSpec(name="pcm", dtype="int16", shape=("batch", "samples"), minimum=-(1 << 15), maximum=(1 << 15) - 1)


def sound_of(pcm: Tensor, dtype: torch.dtype) -> Tensor:
    """16-bit samples as numbers in [-1, 1)."""
    return pcm.to(dtype) / (1 << 15)
