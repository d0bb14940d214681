"""The manifest of a bundle: what `bundle.json` may hold, checked on reading and on writing.

The JSON schema generated from these classes is published as `bundle.schema.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from perceiver_deploy.bundle.preprocessing import Preprocessing
from perceiver_deploy.bundle.recipe import VariantRecipe
from perceiver_deploy.strict import Strict

SCHEMA_VERSION = 1
MANIFEST_NAME = "bundle.json"

Task = Literal[
    "masked_lm",
    "text_classification",
    "multitask_text",
    "image_classification",
    "optical_flow",
    "multimodal_autoencoding",
    "audio_classification",
    "video_classification",
    "audiovisual_classification",
    "point_cloud_classification",
    "entities",
    "tokens",
    "custom",
]
StageName = Literal["full", "encoder", "decoder"]
Precision = Literal["fp32", "fp16", "bf16", "int8-weights", "int8"]
RuntimeName = Literal[
    "torch",
    "onnxruntime",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
]


RAW_DTYPES = ("uint8", "int16")


def _inside_bundle(path: str) -> str:
    parts = PurePosixPath(path)
    if not parts.parts or "\\" in path or "\0" in path or parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"path {path!r} leaves the bundle; expected a relative path without '..'")
    return path


BundlePath = Annotated[str, AfterValidator(_inside_bundle)]


class Axis(Strict):
    """Sizes that a symbolic axis may take. `max` is None where nothing bounds it."""

    min: int = Field(default=1, ge=1)
    opt: int = Field(ge=1)
    max: int | None = None
    multiple_of: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Axis:
        if not self.min <= self.opt or (self.max is not None and self.opt > self.max):
            raise ValueError(f"axis needs min <= opt <= max, got {self.min}, {self.opt}, {self.max}")
        if self.opt % self.multiple_of:
            raise ValueError(f"opt must be a multiple of {self.multiple_of}, got {self.opt}")
        return self

    def problem(self, size: int) -> str | None:
        """Say why `size` does not fit this axis, or None when it does."""
        if size < self.min:
            return f"at least {self.min}"
        if self.max is not None and size > self.max:
            return f"at most {self.max}"
        if size % self.multiple_of:
            return f"a multiple of {self.multiple_of}"
        return None


def opt_sizes(axes: Mapping[str, Axis]) -> dict[str, int]:
    """Every axis at its `opt` size."""
    return {name: axis.opt for name, axis in axes.items()}


class TensorSpec(Strict):
    """One input or output: name, NumPy dtype, shape, and the values it may take.

    A size is a number, the name of an axis, or an expression of axes (`16*queries_audio`, `samples/16`); `maximum` may
    be an expression too (`frames*height*width-1`), also of values of an input (`clip_size[3]-1`). See `evaluate_size`.
    """

    name: str
    dtype: Literal["float32", "float16", "int64", "uint8", "int16"]
    shape: tuple[int | str, ...]
    minimum: int | None = None
    maximum: int | str | None = None


def shape_text(spec: TensorSpec) -> str:
    """`[batch, 3, height, width]`."""
    return "[" + ", ".join(str(size) for size in spec.shape) + "]"


class Stage(Strict):
    """Inputs and outputs of one ONNX graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def evaluate_size(size: int | str, sizes: Mapping[str, int]) -> int:
    """The number that a size of a shape stands for, given the sizes of the axes.

    An expression is a product of numbers and axes, with whole divisions, and a number subtracted at the end.

    Raises:
        KeyError: an axis that `sizes` does not have.
    """
    if isinstance(size, int):
        return size
    if size in sizes:
        return sizes[size]
    product, _, subtracted = size.partition("-")
    value = 1
    for operator, factor in re.findall(r"(^|[*/])(\w+(?:\[\d+\])?)", product):
        number = int(factor) if factor.isdigit() else sizes[factor]
        value = value // number if operator == "/" else value * number
    return value - int(subtracted or 0)


def axes_of(size: int | str) -> list[str]:
    """Names of the axes that a size of a shape names."""
    return [] if isinstance(size, int) else re.findall(r"[a-z]\w*", size)


class Signature(Strict):
    """What a model takes and gives: the stage it is exported as and the axes its shapes name."""

    task: Task
    axes: dict[str, Axis]
    stage: Stage


class Variant(Strict):
    """A named set of ONNX files, one per stage, with a precision and the runtimes it is for.

    It has the stage `full`, or `encoder` and `decoder`, or all three.
    """

    precision: Precision
    runtimes: tuple[RuntimeName, ...] = Field(alias="for")
    source: str | None = Field(default=None, alias="from")
    files: dict[StageName, BundlePath]
    recipe: VariantRecipe = Field(default_factory=VariantRecipe)

    @model_validator(mode="after")
    def _can_be_run(self) -> Variant:
        if ("encoder" in self.files) != ("decoder" in self.files) or not self.files:
            raise ValueError(
                f"a variant has the stage full, or encoder and decoder, or all three; this has {list(self.files)}"
            )
        return self


DATA_SUFFIX = ".data"
"""What the file of a graph's external data is called after the graph's name."""


def graph_file(variant: str, stage: StageName) -> str:
    """Where a bundle has the graph of a stage: `onnx/VARIANT.onnx` for `full`, else `onnx/VARIANT.STAGE.onnx`."""
    return f"onnx/{variant}.onnx" if stage == "full" else f"onnx/{variant}.{stage}.onnx"


def exact_file(variant: str, sample: str) -> str:
    """Where a bundle has what a variant's graph gives exactly for the inputs of a golden sample, `samples/NAME.npz`."""
    return f"exact/{variant}/{PurePosixPath(sample).name}"


class Engine(Strict):
    """A compiled TensorRT file. All facts about it are in its side-car, `engines/NAME.json`."""

    variant: str
    stage: StageName
    file: BundlePath


class FileEntry(Strict):
    """Digest and size of one file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Manifest(Strict):
    """All of `bundle.json`. `stages` describes `full` even where variants have `encoder` and `decoder` instead."""

    schema_version: Literal[1] = 1
    task: Task
    axes: dict[str, Axis]
    stages: dict[StageName, Stage]
    variants: dict[str, Variant]
    engines: dict[str, Engine] = Field(default_factory=dict)
    files: dict[BundlePath, FileEntry] = Field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    task_labels: dict[str, tuple[str, ...]] | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _references_exist(self) -> Manifest:
        named = {path for variant in self.variants.values() for path in variant.files.values()}
        named |= {engine.file for engine in self.engines.values()}
        if self.files and (absent := sorted(named - self.files.keys())):
            raise ValueError(f"files has no digest for {', '.join(absent)}")
        if "full" not in self.stages:
            raise ValueError(f"stages has no 'full'; it has {', '.join(self.stages)}")
        for name, variant in self.variants.items():
            if unknown_stages := sorted(variant.files.keys() - self.stages.keys()):
                raise ValueError(
                    f"variant {name!r} has the stage {unknown_stages[0]!r}, which stages does not describe"
                )
        for stage in self.stages.values():
            for spec in stage.inputs:
                if unknown := [name for size in spec.shape for name in axes_of(size) if name not in self.axes]:
                    raise ValueError(f"input {spec.name!r} has the axis {unknown[0]!r}, which axes does not describe")
        for name, engine in self.engines.items():
            if engine.variant not in self.variants:
                raise ValueError(f"engine {name!r} is of variant {engine.variant!r}, which the bundle does not have")
        return self

    @property
    def raw_inputs(self) -> bool:
        """Whether the graph takes raw data: bytes or 16-bit samples, which no model takes as they are."""
        return any(spec.dtype in RAW_DTYPES for stage in self.stages.values() for spec in stage.inputs)

    @property
    def signature(self) -> Signature:
        """Signature of the stage `full`."""
        return Signature(task=self.task, axes=self.axes, stage=self.stages["full"])

    def stored_bytes(self, file: str) -> int:
        """Size of a file, with the external data beside it where it is a graph that has some."""
        return sum(self.files[part].bytes for part in (file, file + DATA_SUFFIX) if part in self.files)

    def to_json(self) -> str:
        """Text of `bundle.json`, ending in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def manifest_schema() -> str:
    """Text of the published `bundle.schema.json`."""
    return json.dumps(Manifest.model_json_schema(by_alias=True), indent=2) + "\n"
