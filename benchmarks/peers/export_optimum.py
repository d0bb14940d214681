"""Export with optimum-onnx. Runs in an environment of its own, without perceiver-deploy.

    python export_optimum.py CHECKPOINT FOLDER TASK

Writes `FOLDER/model.onnx` and prints JSON: seconds of its export, loading of the checkpoint included, its own
comparison with the model left out.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from importlib.metadata import version

from optimum.exporters.onnx import main_export


def main() -> None:
    """Export, and print what it took."""
    checkpoint, folder, task = sys.argv[1:]
    started = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        main_export(checkpoint, output=folder, task=task, do_validation=False, local_files_only=True)
    versions = {name: version(name) for name in ("optimum", "optimum-onnx", "transformers")}
    print(json.dumps({"load_seconds": None, "export_seconds": time.perf_counter() - started, "versions": versions}))


if __name__ == "__main__":
    main()
