"""Optical flow."""

from __future__ import annotations

from torch import Tensor, nn

from perceiver_deploy.manifest import Axis, Signature, Stage, TensorSpec
from perceiver_deploy.model.config import DecoderConfig, PerceiverConfig
from perceiver_deploy.model.decoder import PerceiverDecoder
from perceiver_deploy.model.encoder import PerceiverEncoder
from perceiver_deploy.model.input_config import FlowInput
from perceiver_deploy.model.media_adapters import FLOW_PATCH_CHANNELS, FlowInputAdapter
from perceiver_deploy.model.tasks.classification import BATCH

_RESCALE = 100.0
"""The published model divides its output by this; multiplied by 20, it is in pixels."""


class OpticalFlowModel(nn.Module):
    """Two frames to the flow from the first to the second; the query of a pixel is its input token.

    Source: Perceiver IO, section 4.2 and appendix H.
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        assert isinstance(config.input, FlowInput)
        assert isinstance(config.decoder, DecoderConfig)
        self.config = config
        self.input_adapter = FlowInputAdapter(config.input)
        self.encoder = PerceiverEncoder(config, self.input_adapter.channels)
        self.decoder = PerceiverDecoder(config, config.decoder)

    @property
    def signature(self) -> Signature:
        """Inputs, outputs and axes."""
        assert isinstance(self.config.input, FlowInput)
        height, width = self.config.input.image_size
        patches = TensorSpec(
            name="patches", dtype="float32", shape=("batch", 2, FLOW_PATCH_CHANNELS, "height", "width")
        )
        flow = TensorSpec(name="flow", dtype="float32", shape=("batch", "height", "width", 2))
        return Signature(
            task=self.config.task,
            axes={"batch": BATCH, "height": Axis(opt=height), "width": Axis(opt=width)},
            stage=Stage(inputs=(patches,), outputs=(flow,)),
        )

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        """`patches` [batch, 2, 27, height, width] to `flow` [batch, height, width, 2]."""
        tokens = self.input_adapter(patches)
        flow = self.decoder(self.encoder(tokens), tokens) / _RESCALE
        return {"flow": flow.unflatten(1, (patches.shape[3], patches.shape[4]))}
