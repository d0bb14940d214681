"""Optical flow."""

from __future__ import annotations

from torch import Tensor, nn

from perceiver_deploy.bundle.manifest import Axis, Signature, Stage, StageName, TensorSpec
from perceiver_deploy.model.config import DecoderConfig, PerceiverConfig
from perceiver_deploy.model.inputs.flow import FLOW_PATCH_CHANNELS, FlowInput, FlowInputAdapter
from perceiver_deploy.model.perceiver import PerceiverDecoder, PerceiverEncoder
from perceiver_deploy.model.stages import split_signature
from perceiver_deploy.model.tasks.signatures import BATCH

_OPT_QUERIES = 8192
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

    @property
    def stages(self) -> dict[StageName, Signature]:
        """The decoder takes the points to answer, flat indices of pixels, and the patches that their queries are."""
        full = self.signature
        points = TensorSpec(name="points", dtype="int64", shape=("queries",), minimum=0, maximum="height*width-1")
        height, width = full.axes["height"].opt, full.axes["width"].opt
        return split_signature(
            full,
            self.config,
            data=["patches"],
            queries=(*full.stage.inputs, points),
            outputs=(TensorSpec(name="flow", dtype="float32", shape=("batch", "queries", 2)),),
            axes={"queries": Axis(opt=min(_OPT_QUERIES, height * width))},
        )

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        """`patches` [batch, 2, 27, height, width] to `flow` [batch, height, width, 2]."""
        tokens = self.input_adapter(patches)
        flow = self.decoder(self.encoder(tokens), tokens) / _RESCALE
        return {"flow": flow.unflatten(1, (patches.shape[3], patches.shape[4]))}

    def encode(self, patches: Tensor) -> dict[str, Tensor]:
        """`patches` to `latents`."""
        return {"latents": self.encoder(self.input_adapter(patches))}

    def decode(self, latents: Tensor, patches: Tensor, points: Tensor) -> dict[str, Tensor]:
        """`latents` to `flow` [batch, queries, 2] at the `points` [queries] of the `patches` they are of."""
        return {"flow": self.decoder(latents, self.input_adapter(patches, points)) / _RESCALE}
