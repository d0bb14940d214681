"""Make the checkpoint of a model, its signature, inputs at every size, and what transformers gives for them.

python -m peers.prepare small|full MODEL FOLDER [CALIBRATION_SAMPLES]

With a number of samples: the usual size alone, and `calibration.npz` with that many other samples of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from peers.huggingface import HuggingFaceSession, random_model
from peers.plans import FULL, SMALL
from perceiver_deploy.bundle.samples import Sample
from perceiver_deploy.evaluate.parity import grid
from perceiver_deploy.model.checkpoints.load import load_checkpoint


def main() -> None:
    """Write `checkpoint/`, `signature.json` and a sample for each of the sizes; texts are padded but for `usual`."""
    plan, folder = (SMALL if sys.argv[1] == "small" else FULL)[sys.argv[2]], Path(sys.argv[3])
    random_model(plan.class_name, **plan.config).save_pretrained(folder / "checkpoint")
    ours = load_checkpoint(folder / "checkpoint")
    (folder / "signature.json").write_text(ours.signature.model_dump_json(by_alias=True), encoding="utf-8")
    cases = plan.cases()
    if len(sys.argv) > 4:
        case = grid.Case("calibration", {**plan.usual, "batch": int(sys.argv[4])})
        calibration = grid.make_inputs(ours.signature, case, ours.config.preprocessing, seed=1)
        np.savez(folder / "calibration.npz", **calibration)  # type: ignore[arg-type]
        cases = {"usual": plan.usual}
    theirs = HuggingFaceSession(plan.class_name, folder / "checkpoint", None)
    for name, sizes in cases.items():
        case = grid.Case(name, dict(sizes), "none" if name == "usual" else "padded")
        inputs = grid.make_inputs(ours.signature, case, ours.config.preprocessing)
        Sample(name, inputs, {}, theirs.run(inputs)).save(folder / f"{name}.npz")


if __name__ == "__main__":
    main()
