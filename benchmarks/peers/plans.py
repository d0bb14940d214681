"""What is measured of each model: its sizes, how often it runs, and what it should reach.

A small plan has the same questions for a model that takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Sizes = Mapping[str, int]

EAGER = "huggingface-eager"
OURS = "perceiver-deploy"
OURS_FUSED = "perceiver-deploy --attention onnxruntime"
"""With onnxruntime's own attention, which no other runtime reads."""
OURS_ROWS = "perceiver-deploy --attention rows"
"""With a Loop over the rows of a large grid where it has the keys; timed in OpenVINO."""
OURS_ALL_ROWS = "perceiver-deploy --attention all-rows"
"""And where it has the queries; timed in onnxruntime."""
ONLY_IN = {OURS_FUSED: "onnxruntime", OURS_ROWS: "openvino", OURS_ALL_ROWS: "onnxruntime"}
"""Forms that are for one runtime."""
PEERS = ("torchscript-static", "torchscript-dynamic", "dynamo-static", "dynamo-dynamic", "optimum")
EXPORTERS = (*PEERS, OURS, *ONLY_IN)


@dataclass(frozen=True)
class Target:
    """A figure to reach: `figure` is one of those that `verdicts.py` computes."""

    figure: str
    bound: float
    at_least: bool = True


@dataclass(frozen=True)
class Plan:
    """A model and its measurements.

    `usual` are the sizes that are exported and timed, `others` three more at which outputs must be right. `timed` are
    families of exporters: of `dynamo-static` and `dynamo-dynamic` one is timed, the static one where it is right. With
    `fresh`, each run is the second of a process of its own, because all of them together do not fit in memory.
    `check_runtime` is the runtime that judges whether a graph is right.
    """

    class_name: str
    usual: Sizes
    others: tuple[Sizes, Sizes, Sizes]
    optimum_task: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 5
    fresh: bool = False
    timed: tuple[str, ...] = ("torchscript", "dynamo", "optimum", OURS, OURS_FUSED)
    check_runtime: str = "onnxruntime"
    targets: tuple[Target, ...] = ()

    def cases(self) -> dict[str, Sizes]:
        """Sizes by name: `usual`, `other-1`, `other-2`, `other-3`."""
        return {"usual": self.usual, **{f"other-{index}": sizes for index, sizes in enumerate(self.others, 1)}}


def _text(class_name: str, task: str, length: int = 2048) -> Plan:
    others = ({"batch": 2, "length": 2048}, {"batch": 1, "length": 999}, {"batch": 3, "length": 77})
    return Plan(class_name, {"batch": 1, "length": length}, others, task)


def _image(kind: str, **changes: Any) -> Plan:
    return Plan(
        f"PerceiverForImageClassification{kind}",
        {"batch": 1, "height": 224, "width": 224},
        (
            {"batch": 2, "height": 224, "width": 224},
            {"batch": 1, "height": 160, "width": 256},
            {"batch": 3, "height": 97, "width": 131},
        ),
        "image-classification",
        # The published configurations leave it at 56, and optimum would export the fourier model for that size only.
        {"image_size": 224},
        **changes,
    )


_CHUNK = {"batch": 1, "frames": 16, "height": 224, "width": 224, "samples": 30720}

FULL: dict[str, Plan] = {
    "fourier": _image(
        "Fourier",
        timed=("torchscript", "dynamo", "optimum", OURS, *ONLY_IN),
        targets=(
            Target("onnxruntime speed-up", 1.4),
            Target("openvino speed-up", 1.6),
            Target("export seconds over dynamo-static's", 2.5, at_least=False),
        ),
    ),
    "flow": Plan(
        "PerceiverForOpticalFlow",
        {"batch": 1, "height": 368, "width": 496},
        (
            {"batch": 2, "height": 120, "width": 160},
            {"batch": 1, "height": 184, "width": 248},
            {"batch": 1, "height": 97, "width": 131},
        ),
        rounds=3,
        fresh=True,
        timed=("dynamo", OURS, *ONLY_IN),
        check_runtime="openvino",
        targets=(
            Target("best speed-up", 4.0),
            Target("onnxruntime speed-up", 2.0),
            Target("onnxruntime peak memory over eager's", 0.5, at_least=False),
            Target("openvino peak memory over eager's", 0.5, at_least=False),
        ),
    ),
    "language": _text("PerceiverForMaskedLM", "fill-mask"),
    "language-256": _text("PerceiverForMaskedLM", "fill-mask", length=256),
    "multimodal": Plan(
        "PerceiverForMultimodalAutoencoding",
        {**_CHUNK, "queries_image": 16 * 224 * 224 // 128, "queries_audio": 15},
        (
            {**_CHUNK, "batch": 2, "queries_image": 16 * 224 * 224 // 128, "queries_audio": 15},
            {**_CHUNK, "queries_image": 1000, "queries_audio": 40},
            {**_CHUNK, "batch": 2, "queries_image": 77, "queries_audio": 3},
        ),
    ),
    "learned": replace(
        _image("Learned"),
        others=tuple({"batch": batch, "height": 224, "width": 224} for batch in (2, 3, 4)),
    ),
    "conv": _image("ConvProcessing"),
    "sequence": _text("PerceiverForSequenceClassification", "text-classification"),
}

_LITTLE = {
    "num_latents": 16,
    "d_latents": 32,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
}
_LITTLE_TEXT = {**_LITTLE, "d_model": 24, "max_position_embeddings": 64, "qk_channels": 16, "v_channels": 32}
_LITTLE_CHUNK = {"batch": 1, "frames": 4, "height": 16, "width": 16, "samples": 128}
_LITTLE_MULTIMODAL = {
    **_LITTLE,
    "num_frames": 4,
    "audio_samples_per_frame": 32,
    "samples_per_patch": 16,
    "image_size": 4,
    "output_shape": [1, 4, 16, 16],
    "num_labels": 7,
    "output_num_channels": 24,
}


def _little(plan: Plan, config: Mapping[str, Any], usual: Sizes, *others: Sizes) -> Plan:
    first, second, third = others
    return replace(plan, config=config, usual=usual, others=(first, second, third), fresh=False)


def _little_image(plan: Plan) -> Plan:
    usual = {"batch": 1, "height": 32, "width": 48}
    others = ({**usual, "batch": 2}, {**usual, "height": 20}, {"batch": 3, "height": 33, "width": 37})
    return _little(plan, _LITTLE, usual, *others)


def _little_text(plan: Plan) -> Plan:
    usual = {"batch": 1, "length": 64}
    return _little(plan, _LITTLE_TEXT, usual, {**usual, "batch": 2}, {**usual, "length": 41}, {"batch": 3, "length": 9})


SMALL: dict[str, Plan] = {
    "fourier": _little_image(FULL["fourier"]),
    "flow": _little(
        FULL["flow"],
        {**_LITTLE, "train_size": [12, 16]},
        {"batch": 1, "height": 12, "width": 16},
        {"batch": 2, "height": 12, "width": 16},
        {"batch": 1, "height": 9, "width": 16},
        {"batch": 2, "height": 10, "width": 21},
    ),
    "language": _little_text(FULL["language"]),
    "multimodal": _little(
        FULL["multimodal"],
        _LITTLE_MULTIMODAL,
        {**_LITTLE_CHUNK, "queries_image": 128, "queries_audio": 4},
        {**_LITTLE_CHUNK, "batch": 2, "queries_image": 128, "queries_audio": 4},
        {**_LITTLE_CHUNK, "queries_image": 50, "queries_audio": 7},
        {**_LITTLE_CHUNK, "batch": 2, "queries_image": 11, "queries_audio": 2},
    ),
    "learned": _little(
        FULL["learned"],
        {**_LITTLE, "image_size": 12},
        *({"batch": batch, "height": 12, "width": 12} for batch in (1, 2, 3, 4)),
    ),
    "conv": _little_image(FULL["conv"]),
    "sequence": _little_text(FULL["sequence"]),
}
