"""Four steps of the digits recipe in each process that torchrun starts: losses to DIR/PROCESS.json."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from perceiver_deploy.data.datasets import load_dataset
from perceiver_deploy.model.tasks.catalogue import build_model
from perceiver_deploy.train.catalogue import find_recipe
from perceiver_deploy.train.loop import fit

if __name__ == "__main__":
    recipe = dataclasses.replace(find_recipe("digits"), steps=4, warmup_steps=10)
    torch.manual_seed(0)
    losses = fit(build_model(recipe.config), recipe, load_dataset("digits").train, seed=3).values
    state = PartialState()
    assert state.num_processes == 2
    (Path(sys.argv[1]) / f"{state.process_index}.json").write_text(json.dumps(losses))
    state.wait_for_everyone()
    # Threads of torch's process group sometimes abort a process that ends in order; how it ends is not what is tested.
    os._exit(0)
