"""How far is the shipped flow model off on a real scene: the stereo pair of a motorcycle (Middlebury 2014)?

The disparity of the pair was measured with structured light; a pixel at x in the left view is at x - disparity in the
right one. Disparities go from 7 to 60 pixels: the right view is cut so that 34 of them are gone, then both views are
scaled down by 12, so that motion is within about 2 pixels, as in training. Writes results/flow_motorcycle.json.

    python benchmarks/flow_motorcycle.py
"""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from perceiver_deploy import estimate_flow, export_model, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.data.fetch.archives import read_members
from perceiver_deploy.data.fetch.fetching import cached
from perceiver_deploy.data.fetch.sources import SOURCES
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.model.checkpoints.load import load_checkpoint

RESULTS = Path(__file__).parent / "results" / "flow_motorcycle.json"
SHIFT, SCALE = 34, 12


def read_scene() -> tuple[np.ndarray, np.ndarray]:
    """Frames [2, height, width, 3], and the horizontal flow [height, width], NaN where it was not measured."""
    source = SOURCES["scikit-image"]
    files = {Path(name).name: content for name, content in read_members(cached(source), "skimage/data/motorcycle_*")}
    left, right = (Image.open(io.BytesIO(files[f"motorcycle_{side}.png"])).convert("RGB") for side in ("left", "right"))
    width, height = (size // SCALE * SCALE for size in (left.width - SHIFT, left.height))
    frames = [image.crop((x, 0, x + width, height)).reduce(SCALE) for image, x in ((left, SHIFT), (right, 0))]
    with np.load(io.BytesIO(files["motorcycle_disp.npz"])) as file:
        disparity = file["arr_0"][:height, SHIFT : SHIFT + width].astype(np.float64)
    disparity[~np.isfinite(disparity)] = np.nan
    blocks = disparity.reshape(height // SCALE, SCALE, width // SCALE, SCALE)
    return np.stack([np.asarray(frame) for frame in frames]), (SHIFT - blocks.mean((1, 3))) / SCALE


def main() -> None:
    """Run the scene through the exported model and write the end-point errors."""
    frames, horizontal = read_scene()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.bundle"
        export_model(load_checkpoint("flow"), path)
        bundle = Bundle.open(path)
        with load(bundle) as session:
            flow = estimate_flow(session.run, frames, bundle.manifest.preprocessing)
    measured = np.isfinite(horizontal)
    truth = np.stack([horizontal, np.zeros_like(horizontal)], axis=-1)[measured]

    def end_point_error(estimate: np.ndarray | float) -> float:
        return float(np.linalg.norm(estimate - truth, axis=-1).mean())

    document = {
        "scene": f"motorcycle, cut by {SHIFT} pixels, scaled down by {SCALE}",
        "size": list(frames.shape[1:3]),
        "measured_pixels": int(measured.sum()),
        "longest_motion": float(np.abs(truth).max()),
        "end_point_error": end_point_error(flow[measured]),
        "zero_flow": end_point_error(0.0),
        "mean_flow": end_point_error(truth.mean(0)),
        "correlation": float(np.corrcoef(flow[measured][:, 0], truth[:, 0])[0, 1]),
        "environment": describe_environment(),
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
