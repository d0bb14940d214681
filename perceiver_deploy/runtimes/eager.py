"""Eager PyTorch: the reference that every other runtime is compared with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.manifest import Axis, Stage, StageName
from perceiver_deploy.errors import BundleError, requires
from perceiver_deploy.runtimes.checks.outputs import OutputCheck
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.settings import DEFAULTS, RuntimeSettings

if TYPE_CHECKING:
    from torch import nn

    from perceiver_deploy.model.raw.wrapping import RawModel
    from perceiver_deploy.model.tasks.catalogue import PerceiverModel


class EagerSession(Session):
    """A PyTorch model on the CPU, in float32 or float64 (`double`). Inputs and outputs are as in the graph."""

    runtime = "torch"
    device = "cpu"

    def __init__(
        self,
        model: nn.Module,
        stage: Stage,
        axes: Mapping[str, Axis],
        *,
        double: bool = False,
        settings: RuntimeSettings = DEFAULTS,
    ) -> None:
        super().__init__(stage, axes, settings)
        self._check_outputs = OutputCheck(stage.outputs, double=double)
        settings.require_taken_by(self.runtime)
        with requires("export", "Running eager"):
            import torch
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._torch = torch
        self._dtype = torch.float64 if double else torch.float32
        self._model = model.eval().to(self._dtype)

    def _execute(self, inputs: Arrays) -> Arrays:
        tensors = {name: self._torch.tensor(array) for name, array in inputs.items()}
        tensors = {
            name: tensor.to(self._dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
        }
        with self._torch.inference_mode():
            outputs = self._model(**tensors)
        return {spec.name: np.asarray(outputs[spec.name].numpy()) for spec in self.outputs}

    def _release(self) -> None:
        del self._model


def open_stages(
    runtime: str, bundle: Bundle, variant: str, settings: RuntimeSettings
) -> Callable[[StageName], EagerSession]:
    """Opens the stages of the model that the bundle was exported from, whatever the variant."""
    model = load_source_model(bundle)
    from perceiver_deploy.model.stages import stage_module

    return lambda name: EagerSession(
        stage_module(model, name), bundle.manifest.stages[name], bundle.manifest.axes, settings=settings
    )


def load_source_model(bundle: Bundle) -> PerceiverModel | RawModel:
    """The model that the bundle was exported from, with its preprocessing where the bundle takes raw data.

    Raises:
        BundleError: the bundle was exported with `--no-weights`.
        MissingError: torch is not installed.
    """
    if "model.safetensors" not in bundle.manifest.files:
        raise BundleError(f"{bundle.path} was exported without its weights, so there is no eager model to run.")
    with requires("export", "Running eager"):
        from perceiver_deploy.model.checkpoints.own import load_native
        from perceiver_deploy.model.raw.building import raw_model
    document = json.loads(bundle.file("config.json").read_text(encoding="utf-8"))
    bundle.file("model.safetensors")
    model = load_native(bundle.path, document)
    return raw_model(model) if bundle.manifest.raw_inputs else model
