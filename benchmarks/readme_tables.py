"""Write the tables and plots of README and docs from the figures in results/ and beside the shipped checkpoints.

With --check, only verify that they agree.

python benchmarks/readme_tables.py [--check]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from tables import from_results
from tables.calibration import calibration_methods, equalisation
from tables.deployment import embed, engines
from tables.full_size import cpu_peers, export_peers, full_size_parity, graph_flops, static_shapes
from tables.plot import speed_accuracy, speed_accuracy_digest
from tables.processors import conformance, saturation, speed, weights_only
from tables.shipped import accuracy, digits, modalities, modalities_in_short, trained

ROOT = Path(__file__).parents[1]

PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "cpu_peers": from_results("cpu_peers.json", cpu_peers),
        "modalities": from_results("modalities.json", modalities_in_short),
    },
    "docs/benchmark.md": {"digits": from_results("digits/benchmark.json", digits)},
    "docs/figures.md": {
        "modalities": from_results("modalities.json", modalities),
        "cpu_peers": from_results("cpu_peers.json", cpu_peers),
        "trained": trained,
        "accuracy": from_results("accuracy.json", accuracy),
        "graph_flops": from_results("graph_flops.json", graph_flops),
        "export_peers": from_results("export_peers.json", export_peers),
        "full_size_parity": from_results("full_size_parity.json", full_size_parity),
        "conformance": from_results("conformance.json", conformance),
        "processors": from_results("processors.json", speed),
    },
    "docs/precision.md": {
        "calibration_methods": from_results("calibration_methods.json", calibration_methods),
        "equalisation": from_results("equalisation.json", equalisation),
        "saturation": from_results("saturation.json", saturation),
        "weights_only": from_results("processors.json", weights_only),
    },
    "docs/tuning.md": {"static_shapes": from_results("cpu_peers.json", static_shapes)},
    "docs/embedding.md": {"embed": from_results("embed.json", embed)},
    "docs/tensorrt.md": {"engines": from_results("engines.json", engines)},
}

PLOT = ROOT / "docs/images/speed_accuracy.svg"


def render(page: str, text: str) -> str:
    """The page with every table generated again."""
    for name, make in PAGES[page].items():
        content = make()
        pattern = rf"(<!-- table:{name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda match, c=content: f"{match[1]}{c}\n{match[2]}", text, flags=re.DOTALL)
        if count != 1:
            sys.exit(f"{page} has {count} places for table {name!r}, expected 1")
    return text


def main() -> None:
    """Write tables and plot, or check them."""
    if "--check" not in sys.argv:
        PLOT.write_text(speed_accuracy(), encoding="utf-8")
    elif speed_accuracy_digest() not in PLOT.read_text(encoding="utf-8"):
        sys.exit(f"{PLOT.relative_to(ROOT)} does not agree with benchmarks/results/; run: make tables")
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        made = render(page, text)
        if "--check" not in sys.argv:
            (ROOT / page).write_text(made, encoding="utf-8")
        elif made != text:
            sys.exit(f"{page} does not agree with benchmarks/results/; run: make tables")


if __name__ == "__main__":
    main()
