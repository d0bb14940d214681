"""What the modules of an eager model give on some inputs."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Axis, Stage
from perceiver_deploy.runtimes.eager import EagerSession

_WRAPPED = "wrapped."

Activations = Mapping[str, list[NDArray[Any]]]
"""Results of each module by name, one per call, for modules that give one tensor."""


def record_activations(
    model: nn.Module, stage: Stage, axes: Mapping[str, Axis], inputs: Arrays, *, double: bool
) -> tuple[Activations, Arrays]:
    """Run the model, converted to float64 (`double`) or float32, and keep what every module gives, and its outputs."""
    found: defaultdict[str, list[NDArray[Any]]] = defaultdict(list)

    def keep(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            found[name].append(output.detach().cpu().numpy().copy())

    session = EagerSession(model, stage, axes, double=double)
    with contextlib.ExitStack() as hooks:
        for name, module in model.named_modules(remove_duplicate=False):
            handle = module.register_forward_hook(partial(keep, name.removeprefix(_WRAPPED)))
            hooks.callback(handle.remove)
        return found, session.run(inputs)
