"""What does embedding cost: our C++ layer over bare onnxruntime, and C++ beside Python?

The layer is measured on the shipped digits model, the smallest, and on two larger ones, the rest on digits alone. Batch
1, one thread a run. Calls of the layer and of bare onnxruntime, into the same memory, take turns in one process, over
several pairs of sessions; starts of C++ and Python take turns as processes of their own, from their beginning to the
first output. Medians. Python is an environment that has the wheel with its extra `cpu` and nothing else, made from the
package index. Needs `make cpp`, 2 cores and four minutes. Writes results/embed.json.

    python benchmarks/embed.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build/cpp/release"
RESULTS = Path(__file__).parent / "results" / "embed.json"
ROUNDS = 9
MODELS = ("digits", "sentiment", "flow")
PYTHON_START = """
import re, sys, json
import numpy as np
from perceiver_deploy import load
session = load(sys.argv[1], runtime="onnxruntime", threads=1)
session.run({"pixel_values": np.full((1, 3, 8, 8), 0.5, np.float32)})
peak_kib = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(json.dumps({"peak_mb": int(peak_kib) * 1024 / 1e6}))
"""
PYTHON_IMPORT = """
import sys, time, json
start = time.perf_counter()
from perceiver_deploy import load
seconds = time.perf_counter() - start
assert not {"torch", "onnxruntime", "openvino"} & set(sys.modules)
print(json.dumps({"import_s": seconds}))
"""
PYTHON_THROUGHPUT = """
import sys, threading, time, json
import numpy as np
from perceiver_deploy import load
session, counts, end = load(sys.argv[1], runtime="onnxruntime", threads=1), [0, 0], time.monotonic() + 3
def work(index):
    pixels = np.full((1, 3, 8, 8), 0.5, np.float32)
    while time.monotonic() < end:
        session.run({"pixel_values": pixels})
        counts[index] += 1
threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
start = time.monotonic()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({"runs_per_second": sum(counts) / (time.monotonic() - start)}))
"""


def main() -> None:
    """Measure, and write the results."""
    from perceiver_deploy import export_model
    from perceiver_deploy.machine import describe_environment
    from perceiver_deploy.runtimes.native_files import onnxruntime_library

    os.environ["PERCEIVER_DEPLOY_ONNXRUNTIME"] = str(onnxruntime_library())
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            export_model(name, Path(folder) / name, validate=False)
        bundle = Path(folder) / "digits"
        stripped = Path(folder) / "stripped.so"
        subprocess.run(["strip", BUILD / "libperceiver_deploy.so", "-o", stripped], check=True)  # noqa: S603, S607
        wheel, interpreter = empty_environment(Path(folder))
        cpp, python = BUILD / "tests/measure", [interpreter, "-I", "-c"]
        overheads: dict[str, list[dict[str, float]]] = {name: [] for name in MODELS}
        for _ in range(ROUNDS):
            for name, runs in overheads.items():
                runs.append(run(cpp, "overhead", Path(folder) / name))
        starts: dict[str, list[dict[str, float]]] = {"cpp": [], "python": []}
        speeds: dict[str, list[dict[str, float]]] = {"cpp": [], "python": []}
        imports = []
        for _ in range(ROUNDS):
            starts["cpp"].append(run(cpp, "start", bundle))
            starts["python"].append(run(*python, PYTHON_START, bundle))
            imports.append(run(*python, PYTHON_IMPORT))
            speeds["cpp"].append(run(cpp, "throughput", bundle))
            speeds["python"].append(run(*python, PYTHON_THROUGHPUT, bundle))
        document = {
            "environment": describe_environment(),
            "load_average": os.getloadavg(),
            "overhead": {name: {**summary(runs), **added(runs)} for name, runs in overheads.items()},
            "start": {name: summary(runs) for name, runs in starts.items()},
            "two_threads": {name: summary(runs) for name, runs in speeds.items()},
            "stripped_library_bytes": stripped.stat().st_size,
            "wheel": {
                "bytes": wheel.stat().st_size,
                "installed_bytes": installed_bytes(interpreter),
                "packages": packages(interpreter),
                **summary(imports),
            },
        }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))


def empty_environment(folder: Path) -> tuple[Path, Path]:
    """Our wheel, and the Python of an environment with it and its extra `cpu`."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)  # noqa: S603
    wheel = next(folder.glob("*.whl"))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)  # noqa: S603
    python = folder / "venv/bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[cpu]"]
    subprocess.run(install, check=True, capture_output=True)  # noqa: S603
    return wheel, python


def packages(python: Path) -> list[str]:
    """Names and versions of what is installed beside pip."""
    command = [python, "-m", "pip", "list", "--format=json"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603
    return [f"{item['name']} {item['version']}" for item in listed if item["name"] not in ("pip", "setuptools")]


def installed_bytes(python: Path) -> int:
    """Bytes of everything in the environment but pip, setuptools and compiled modules of Python."""
    site = next((python.parents[1] / "lib").glob("python*/site-packages"))
    return sum(
        path.stat().st_size
        for folder in site.iterdir()
        if not folder.name.startswith(("pip", "setuptools", "pkg_resources", "_distutils_hack"))
        for path in ([folder] if folder.is_file() else folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    )


def run(*command: str | Path) -> dict[str, float]:
    """What a program prints, and the seconds from its start to its end."""
    start = time.monotonic()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    return {**json.loads(output), "process_s": time.monotonic() - start}


def added(runs: list[dict[str, float]]) -> dict[str, float]:
    """Microseconds that our layer adds to a call, and their share of one in bare onnxruntime: medians of the runs."""
    return {
        "per_call_us": statistics.median(figures["ours_us"] - figures["bare_us"] for figures in runs),
        "share": statistics.median(figures["ours_us"] / figures["bare_us"] - 1 for figures in runs),
    }


def summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Median of each figure."""
    return {name: statistics.median(figures[name] for figures in runs) for name in runs[0]}


if __name__ == "__main__":
    main()
